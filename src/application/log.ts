import { guard } from "../base/guard.ts";
import type { Logger } from "./options.ts";
import type { WebSocketClient } from "./websocket-client.ts";

// C0 and C1 controls, DEL, and U+2028 and U+2029, which some log readers treat as line ends.
// deno-lint-ignore no-control-regex -- matching control characters is the purpose.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

/** Escapes control characters and line ends, so that input cannot forge log lines. */
export const escapeControls = (text: string): string =>
  text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Maximum length of a message, in characters. */
const MAX_MESSAGE = 1_024;

/** Maximum number of lines of a stack. V8 records 10 by default. */
const MAX_FRAMES = 20;

/** Maximum length of a line of a stack, in characters. */
const MAX_FRAME = 256;

/** Maximum number of causes. */
const MAX_CAUSES = 2;

/**
 * Formats an unhandled error: the client's `uid` and the message on one line, the stack and the causes on indented lines; or all
 * of it on one line of JSON.
 *
 * @param suppressed number of similar errors that were not logged.
 */
export function logRecord(error: unknown, client?: WebSocketClient, format: Logger["format"] = "text", suppressed = 0): string {
  const description = describe(error);
  if (format === "json") {
    const more = suppressed > 0 && { suppressed };
    return json({ level: "error", ...(client && { client: client.uid }), ...asJson(description), ...more });
  }
  const lines = asLines(description);
  return `[noroshi]${client ? ` client=${client.uid}` : ""} ${lines.join("\n    ")}${leftOut(suppressed)}`;
}

/** Formats a warning as one line. */
export function logWarning(text: string, format: Logger["format"], suppressed = 0): string {
  if (format === "json") return json({ level: "warn", message: cut(text, MAX_WARNING), ...(suppressed > 0 && { suppressed }) });
  return `[noroshi] ${cut(escapeControls(cut(text, MAX_WARNING)), MAX_WARNING)}${leftOut(suppressed)}`;
}

/** Maximum length of a warning, in characters. */
const MAX_WARNING = 512;

const leftOut = (count: number) => count === 0 ? "" : ` (${count} more like it were left out)`;

const cut = (text: string, length: number) => text.slice(0, length);

// JSON escapes C0 controls only.
const json = (record: object) => escapeControls(JSON.stringify(record));

/** An error as the log shows it. */
interface Description {
  message: string;
  frames: string[];
  cause?: Description;
}

function describe(error: unknown, depth = 0): Description {
  try {
    if (!(error instanceof Error)) return { message: cut(`Thrown: ${String(error)}`, MAX_MESSAGE), frames: [] };
    const { cause } = error;
    return {
      message: cut(String(error), MAX_MESSAGE),
      frames: framesOf(error),
      ...(cause !== undefined && depth < MAX_CAUSES && { cause: describe(cause, depth + 1) }),
    };
  } catch {
    return { message: "Thrown: a value that cannot be shown", frames: [] }; // Its own `toString` or `stack` throws.
  }
}

/** The lines of the stack, without the name and the message at its start, which may contain lines that look like frames. */
function framesOf({ message, stack = "" }: Error, max = MAX_FRAMES): string[] {
  const start = stack.indexOf(message) + message.length;
  const frames = stack.slice(start < message.length ? 0 : start).matchAll(/^ +(at .*)$/gm);
  return Array.from({ length: max }, () => frames.next().value?.[1])
    .flatMap((frame) => frame === undefined ? [] : [cut(frame, MAX_FRAME)]);
}

function asLines({ message, frames, cause }: Description): string[] {
  const lines = [cut(escapeControls(message), MAX_MESSAGE), ...frames.map(escapeControls)];
  if (!cause) return lines;
  const [first, ...rest] = asLines(cause);
  return [...lines, `caused by ${first}`, ...rest];
}

function asJson({ message, frames, cause }: Description): object {
  return { message, ...(frames.length > 0 && { stack: frames.join("\n") }), ...(cause && { cause: asJson(cause) }) };
}

/** Minimum time between two lines of one kind, in ms. */
const PERIOD = 1_000;

/** Kinds counted separately; the rest share {@link OTHERS}: clients can influence the kinds, and memory must stay bounded. */
const MAX_KINDS = 64;

const OTHERS = "others";

/** Allows one line of each kind a second and counts the suppressed ones, so that a flood of errors cannot fill the disk. */
export class LogThrottle {
  readonly #now: () => number;
  readonly #kinds = new Map<string, { at: number; left: number }>();

  /** @param now the monotonic clock, in ms. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Returns how many lines of the kind were suppressed since the last one; `undefined`: suppress this one too. */
  take(kind: string): number | undefined {
    const now = this.#now();
    const isKnown = this.#kinds.has(kind) || this.#kinds.size < MAX_KINDS || this.#forget(now);
    const name = isKnown ? kind : OTHERS;
    const last = this.#kinds.get(name);
    if (last && now - last.at < PERIOD) {
      last.left++;
      return undefined;
    }
    this.#kinds.set(name, { at: now, left: 0 });
    return last?.left ?? 0;
  }

  /** Forgets idle kinds, adds their suppressed lines to {@link OTHERS}, and returns whether there is room for another kind. */
  #forget(now: number): boolean {
    const others = this.#kinds.get(OTHERS) ?? { at: -Infinity, left: 0 };
    for (const [kind, { at, left }] of this.#kinds) {
      if (now - at < PERIOD || kind === OTHERS) continue;
      others.left += left;
      this.#kinds.delete(kind);
    }
    this.#kinds.set(OTHERS, others);
    return this.#kinds.size < MAX_KINDS;
  }
}

/** Returns a function that logs unhandled errors, at most one a second from the same place in the code. */
export function errorLogger(
  logger: Logger | false,
  monotonic: () => number,
): (error: unknown, client?: WebSocketClient) => void {
  const throttle = new LogThrottle(monotonic);
  return (error, client) => {
    if (!logger) return;
    const left = throttle.take(placeOf(error));
    if (left === undefined) return;
    // An error of the logger itself cannot be reported anywhere.
    guard(() => logger.error(logRecord(error, client, logger.format, left)), () => {});
  };
}

/** The place where the error was created. Its message would not do: it may contain input, and differ each time. */
function placeOf(error: unknown): string {
  try {
    if (!(error instanceof Error)) return typeof error;
    return cut(`${error.name} ${framesOf(error, 1)[0] ?? ""}`, MAX_FRAME);
  } catch {
    return "hidden"; // A getter of the error throws.
  }
}
