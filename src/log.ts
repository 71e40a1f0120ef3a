import { guard } from "./guard.ts";
import type { Logger } from "./options.ts";
import type { WebSocketClient } from "./websocket-client.ts";

// C0 and C1 controls, DEL, and the separators that end a line for some readers: they would forge records.
// deno-lint-ignore no-control-regex -- they are what is looked for.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

/** Escapes control characters and line ends, so that no text forges a line of the log. */
export const escapeControls = (text: string): string =>
  text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** One line about an error that nobody listened for: what it says, its stack and the client it happened to. */
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
    return "Thrown: a value that cannot be shown"; // Its own toString or stack throws.
  }
}

/** Why somebody was refused, in one sentence: the cause, or the answer where the application gave none. */
export function describeCause(cause: unknown, answer: Error): string {
  if (cause === undefined) return answer.message;
  try {
    return cause instanceof Error ? `${cause.message}` : String(cause);
  } catch {
    return `${answer.message} (a cause that cannot be shown)`; // Its own toString or message throws.
  }
}

/** Between two lines of one kind, in ms. */
const PERIOD = 1_000;

/** Kinds counted separately; all others count as one, since a client may have chosen their names. */
const MAX_KINDS = 64;

const OTHERS = "others";

/** Lets one line of a kind through a second, and counts those that were left out: what fills the disk must not be the log. */
export class LogThrottle {
  readonly #now: () => number;
  readonly #kinds = new Map<string, { at: number; left: number }>();

  /** @param now the monotonic clock, in ms. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** How many lines of the kind were left out before this one; `undefined` when this one is to be left out too. */
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

  /** Whether there is room again. What was left out of the kinds that are forgotten counts among the others. */
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

/** Logs errors that nobody listened for, at most one a second that was made in the same place. */
export function errorLogger(
  logger: Logger | false,
  monotonic: () => number,
): (error: unknown, client?: WebSocketClient) => void {
  const throttle = new LogThrottle(monotonic);
  return (error, client) => {
    const left = logger && throttle.take(placeOf(error));
    if (!logger || left === undefined) return;
    const more = left === 0 ? "" : ` (${left} more like it were left out)`;
    // A failure of the logger itself has nowhere to go.
    guard(() => logger.error(logRecord(error, client) + more), () => {});
  };
}

/** Where an error was made: what it says may come from a client, and differ from one to the next. */
function placeOf(error: unknown): string {
  try {
    if (!(error instanceof Error)) return typeof error;
    const { message, name, stack = "" } = error;
    // Before the frames stand the name and the message, whose lines may look like one.
    const start = stack.indexOf(message) + message.length;
    const [frame = ""] = stack.slice(start < message.length ? 0 : start).match(/^ +at .*$/m) ?? [];
    return `${name} ${frame}`.slice(0, 256);
  } catch {
    return "hidden"; // Its own getters throw.
  }
}
