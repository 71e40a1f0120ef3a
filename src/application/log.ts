import { guard } from "../base/guard.ts";
import type { WebSocketEvents } from "./events.ts";
import type { Observed } from "./observer.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { RefusalReason } from "./refusals.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/**
 * What a record is about.
 *
 * - `noroshi.upgrade.refused`: an upgrade was answered with an HTTP error (`warn`)
 * - `noroshi.auth.refused`: an `auth` message was refused, or did not come in time (`warn`)
 * - `noroshi.history.unsaved`: a Durable Object has no storage for channels (`warn`)
 * - `noroshi.socket.unhandled`: Bun opened a socket of another library without its handler (`warn`)
 * - `noroshi.error`: an error without an `error` listener (`error`)
 */
export type LogEvent =
  | "noroshi.upgrade.refused"
  | "noroshi.auth.refused"
  | "noroshi.history.unsaved"
  | "noroshi.socket.unhandled"
  | "noroshi.error";

/** The severity of a record, and the method of the {@link Logger} that receives it. */
export type LogLevel = "warn" | "error";

/** An error as plain data: bounded, and without control characters. */
export interface LoggedError {
  /** Name and message. */
  message: string;
  /** The lines of the stack. */
  stack?: string;
  /** The cause of the error, and its cause: at most two. */
  cause?: LoggedError;
}

/** The fields of a record. Text of clients in them is cut, and its control characters are escaped. */
export interface LogRecord {
  /** What the record is about. */
  event: LogEvent;
  /** Why it was refused, as in `controller.stats().refused`. */
  reason?: RefusalReason;
  /** The code that was sent to the client, or the code of the error. */
  code?: string;
  /** The client's address. */
  ip?: string;
  /** The origin that was refused. */
  origin?: string;
  /** The host that the request named, which the origin does not match. */
  host?: string;
  /** The option whose limit is reached. */
  option?: string;
  /** The value of that option. */
  limit?: number;
  /** The `uid` of the client. */
  client?: string;
  /** The error that is logged. */
  error?: LoggedError;
  /** Number of records of this kind that were suppressed since the last one. */
  suppressed?: number;
}

/** Receives the records: `console`, a logger of pino, or any object with these methods. */
export interface Logger {
  /** Logs a refusal, or a problem of the setup. */
  warn(record: LogRecord, message: string): void;
  /** Logs an error. */
  error(record: LogRecord, message: string): void;
}

/** The option `logger`. */
export type LoggerOption = Logger | "text" | "json" | false;

// C0 and C1 controls, DEL, and U+2028 and U+2029, which some log readers treat as line ends.
// deno-lint-ignore no-control-regex -- matching control characters is the purpose.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

/** Escapes control characters and line ends, so that input cannot forge log lines. */
export const escapeControls = (text: string): string =>
  text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Maximum length of a message and of a text field, in characters. */
const MAX_TEXT = 512;

/** Maximum length of the message of an error, in characters. */
const MAX_MESSAGE = 1_024;

/** Maximum number of lines of a stack. V8 records 10 by default. */
const MAX_FRAMES = 20;

/** Maximum length of a line of a stack, in characters. */
const MAX_FRAME = 256;

/** Maximum number of causes. */
const MAX_CAUSES = 2;

const cut = (text: string, length: number) => text.slice(0, length);

/** Cuts before the escape, to bound its time, and after it, because it makes the text longer. */
const clean = (text: string, length: number = MAX_TEXT) => cut(escapeControls(cut(text, length)), length);

/** Formats a record as readable text: one line, and the stack of an error on indented lines below. */
export function asText({ client, error, suppressed = 0 }: LogRecord, message: string): string {
  const more = suppressed > 0 ? ` (${suppressed} more like it were left out)` : "";
  const lines = [message, ...stackLines(error)];
  return `[noroshi]${client === undefined ? "" : ` client=${client}`} ${lines.join("\n    ")}${more}`;
}

const stackLines = ({ stack, cause }: Partial<LoggedError> = {}): string[] => [
  ...stack?.split("\n") ?? [],
  ...cause ? [`caused by ${cause.message}`, ...stackLines(cause)] : [],
];

/** Formats a record as one line of JSON. */
export const asJson = (level: LogLevel, record: LogRecord, message: string): string =>
  JSON.stringify({ time: new Date().toISOString(), level, ...record, message });

/** Writes to the console. @param format @default text on a terminal, JSON otherwise */
export function consoleLogger(format?: "text" | "json"): Logger {
  const write = (level: LogLevel) => (record: LogRecord, message: string) =>
    console[level](
      (format ?? (isTerminal() ? "text" : "json")) === "text" ? asText(record, message) : asJson(level, record, message),
    );
  return { warn: write("warn"), error: write("error") };
}

/** Whether stderr, to which the console writes warnings and errors, is a terminal. */
function isTerminal(): boolean {
  const { Deno, process } = globalThis as { Deno?: Terminals<"isTerminal">; process?: Terminals<"isTTY"> }; // Of the runtime.
  return Deno ? Deno.stderr?.isTerminal?.() === true : process?.stderr?.isTTY === true;
}

interface Terminals<Name extends string> {
  readonly stderr?: { readonly [name in Name]?: name extends "isTTY" ? boolean : () => boolean };
}

const loggerOf = (option: LoggerOption): Logger | undefined =>
  option === false
    ? undefined
    : typeof option === "string"
    ? consoleLogger(option)
    : option === console
    ? consoleLogger()
    : option;

/** The record of an error. */
export function errorRecord(error: unknown, client?: WebSocketClient): readonly [LogRecord, message: string] {
  const described = describe(error);
  const code = WebSocketError.from(error)?.code;
  const record: LogRecord = {
    event: "noroshi.error",
    ...(client && { client: client.uid }),
    ...(code !== undefined && { code: clean(code) }),
    error: described,
  };
  return [record, described.message];
}

function describe(error: unknown, depth = 0): LoggedError {
  try {
    if (!(error instanceof Error)) return { message: clean(`Thrown: ${String(error)}`, MAX_MESSAGE) };
    const { cause } = error;
    const frames = framesOf(error).map(escapeControls);
    return {
      message: clean(String(error), MAX_MESSAGE),
      ...(frames.length > 0 && { stack: frames.join("\n") }),
      ...(cause !== undefined && depth < MAX_CAUSES && { cause: describe(cause, depth + 1) }),
    };
  } catch {
    return { message: "Thrown: a value that cannot be shown" }; // Its own `toString` or `stack` throws.
  }
}

/** The lines of the stack, without the name and the message at its start, which may contain lines that look like frames. */
function framesOf({ message, stack = "" }: Error, max = MAX_FRAMES): string[] {
  const start = stack.indexOf(message) + message.length;
  const frames = stack.slice(start < message.length ? 0 : start).matchAll(/^ +(at .*)$/gm);
  return Array.from({ length: max }, () => frames.next().value?.[1])
    .flatMap((frame) => frame === undefined ? [] : [cut(frame, MAX_FRAME)]);
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

/** Writes records: at most one of each kind a second, whatever clients do. Passes them to the observer too. */
export class Log {
  readonly #logger: Logger | undefined;
  readonly #observed: Pick<Observed, "observer">;
  readonly #throttles: Readonly<Record<LogLevel, LogThrottle>>;

  /** @param monotonic the monotonic clock, in ms. */
  constructor(option: LoggerOption, monotonic: () => number, observed: Pick<Observed, "observer"> = { observer: undefined }) {
    this.#logger = loggerOf(option);
    this.#observed = observed;
    this.#throttles = { warn: new LogThrottle(monotonic), error: new LogThrottle(monotonic) };
  }

  /**
   * @param kind at most one record of a kind is written in a second.
   *
   * @param describe returns the record; called only if it is written.
   */
  warn(kind: string, describe: () => readonly [LogRecord, message: string]): void {
    this.#write("warn", kind, () => {
      const [record, message] = describe();
      const fields = Object.entries(record).map(([name, value]) => [name, typeof value === "string" ? clean(value) : value]);
      return [Object.fromEntries(fields) as LogRecord, clean(message)]; // The same fields, of the same types.
    });
  }

  /** Writes an error without a listener: at most one a second from each place in the code. */
  readonly error = (error: unknown, client?: WebSocketClient): void => {
    this.#write("error", stackFrameOf(error), () => errorRecord(error, client));
  };

  #write(level: LogLevel, kind: string, describe: () => readonly [LogRecord, message: string]): void {
    const { observer } = this.#observed;
    if (!this.#logger && !observer) return;
    const suppressed = this.#throttles[level].take(kind);
    if (suppressed === undefined) return;
    // Errors of the logger are ignored: reporting one would log it again.
    guard(() => {
      const [fields, message] = describe();
      const record = suppressed > 0 ? { ...fields, suppressed } : fields;
      guard(() => observer?.logged?.(level, record, message), () => {});
      return this.#logger?.[level](record, message);
    }, () => {});
  }
}

/** Passes errors to the observer and to the listeners of `error`. Without a listener they are logged. */
export const reporter = (
  observed: Pick<Observed, "observer">,
  log: Pick<Log, "error">,
  emit: (failure: WebSocketEvents["error"]) => boolean,
): (error: unknown, client?: WebSocketClient) => void =>
(error, client) => {
  observed.observer?.reported?.(error, client);
  if (!emit(client ? { client, error } : { error })) log.error(error, client);
};

/** The stack frame in which the error was created. Its message may contain input, and differ each time. */
export function stackFrameOf(error: unknown): string {
  try {
    if (!(error instanceof Error)) return typeof error;
    return cut(`${error.name} ${framesOf(error, 1)[0] ?? ""}`, MAX_FRAME);
  } catch {
    return "hidden"; // A getter of the error throws.
  }
}
