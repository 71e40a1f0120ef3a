import { guard } from "../base/guard.ts";
import type { Logger } from "./options.ts";
import type { WebSocketClient } from "./websocket-client.ts";

// C0 and C1 controls, DEL, and U+2028 and U+2029, which some log readers treat as line ends.
// deno-lint-ignore no-control-regex -- matching control characters is the purpose.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

/** Escapes control characters and line ends, so that input cannot forge log lines. */
export const escapeControls = (text: string): string =>
  text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Formats an unhandled error as one line: the client's `uid`, the stack (or the message) and the cause. */
export function logRecord(error: unknown, client?: WebSocketClient): string {
  const who = client ? ` client=${client.uid}` : "";
  return `[noroshi]${who} ${escapeControls(describe(error)).slice(0, 2048)}`;
}

function describe(error: unknown): string {
  try {
    if (error instanceof Error) {
      const cause = error.cause === undefined ? "" : ` caused by ${String(error.cause)}`;
      return `${error.stack ?? String(error)}${cause}`;
    }
    return `Thrown: ${String(error)}`;
  } catch {
    return "Thrown: a value that cannot be shown"; // Its own `toString` or `stack` throws.
  }
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
    const left = logger && throttle.take(placeOf(error));
    if (!logger || left === undefined) return;
    const more = left === 0 ? "" : ` (${left} more like it were left out)`;
    // An error of the logger itself cannot be reported anywhere.
    guard(() => logger.error(logRecord(error, client) + more), () => {});
  };
}

/** The place where the error was created. Its message would not do: it may contain input, and differ each time. */
function placeOf(error: unknown): string {
  try {
    if (!(error instanceof Error)) return typeof error;
    const { message, name, stack = "" } = error;
    // The name and the message, at the start of the stack, may contain lines that look like frames: skip them.
    const start = stack.indexOf(message) + message.length;
    const [frame = ""] = stack.slice(start < message.length ? 0 : start).match(/^ +at .*$/m) ?? [];
    return `${name} ${frame}`.slice(0, 256);
  } catch {
    return "hidden"; // A getter of the error throws.
  }
}
