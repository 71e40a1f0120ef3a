/**
 * Correlates a request with its answer: chosen by the sender, echoed with its JSON type. A string of at most 64 characters, or a
 * number from -(2^53 - 1) to 2^53 - 1: JSON would not return a larger one unchanged.
 */
export type MessageUid = string | number;

/**
 * A stable error code. Codes shared with the Directus realtime protocol have its names; an application may use its own.
 */
export type ErrorCode =
  | "AUTH_FAILED"
  | "AUTH_TIMEOUT"
  | "CANCELLED"
  | "DISCONNECTED"
  | "ENGINE_FAILED"
  | "ENGINE_UNAVAILABLE"
  | "FORBIDDEN"
  | "INTERNAL_ERROR"
  | "INVALID_PAYLOAD"
  | "INVALID_REQUEST"
  | "LIMIT_EXCEEDED"
  | "MESSAGES_DROPPED"
  | "NOT_ASKED"
  | "ORDERS_LOST"
  | "OUTCOME_UNKNOWN"
  | "REQUESTS_EXCEEDED"
  | "SERVICE_UNAVAILABLE"
  | "SLOW_CONSUMER"
  | "STREAM_LOST"
  | "TIMEOUT"
  | "TOKEN_EXPIRED"
  | "UNSUPPORTED_TYPE"
  | (string & Record<never, never>);

/** The message that a client receives when one of its requests failed. The connection stays open. */
export interface ErrorMessage {
  /** The area: `auth`, `server`, `subscribe`, or the type of the failed request. */
  type: string;
  /** The request failed. */
  status: "error";
  /** The stable code and a human-readable text; some codes have further details. */
  error: { code: ErrorCode; message: string; [detail: string]: unknown };
  /** The request's `uid`, if it had one. */
  uid?: MessageUid;
}

/** Options of {@link WebSocketError}. */
export interface WebSocketErrorOptions {
  /** The request's `uid`, echoed in the answer. */
  uid?: MessageUid;
  /** The cause, for the log only: it is never sent to a client. */
  cause?: unknown;
  /** JSON fields sent beside `code` and `message`, such as `retry_after` in ms. */
  details?: Record<string, unknown>;
}

/** Marks our errors, including those of other copies of the package in the process. */
const BRAND = Symbol.for("noroshi.error");

/** Maximum characters of a `uid` (PROTOCOL.md). */
const MAX_UID_LENGTH = 64;

/**
 * An error that may be shown to a client. Thrown by a handler, a middleware or `authenticate`, it is sent as it is; the text of
 * any other error is never sent.
 *
 * @example
 * ```ts
 * controller.handle("join", v.object({ room: v.string() }), ({ message }) => {
 *   if (!rooms.has(message.room)) throw new WebSocketError("join", "NOT_FOUND", "No such room");
 * });
 * ```
 */
export class WebSocketError extends Error {
  /** Set explicitly, because a bundler may rename the class. */
  override readonly name = "WebSocketError";
  /** The area the error belongs to: `auth`, `server`, `subscribe`, or a message type. */
  readonly type: string;
  /** The stable error code. */
  readonly code: ErrorCode;
  /** The request's `uid`, if known. */
  readonly uid: MessageUid | undefined;
  /** JSON fields sent beside `code` and `message`. */
  readonly details: Record<string, unknown> | undefined;

  /** Creates an error from the area, the code and the text; the client receives all three. */
  constructor(type: string, code: ErrorCode, message: string, options: WebSocketErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.type = type;
    this.code = code;
    this.uid = options.uid;
    this.details = options.details;
  }

  static {
    Object.defineProperty(this.prototype, BRAND, { value: true });
  }

  /** `instanceof WebSocketError` accepts errors of other copies of the package; a subclass accepts only its own. Never throws. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    try {
      return super[Symbol.hasInstance](value) || (this === WebSocketError && isForeign(value));
    } catch {
      return false; // A trap of a Proxy throws.
    }
  }

  /**
   * Returns a `WebSocketError` itself; converts one of another copy or version of the package, with the original as its cause.
   * `undefined`: anything else, or an error whose `type`, `code` or `message` is not a string. Never throws.
   */
  static from(value: unknown): WebSocketError | undefined {
    try {
      if (!isForeign(value)) return value instanceof WebSocketError && isReadable(value) ? value : undefined;
      const { type, code, message, uid, details } = value;
      return new WebSocketError(type, code, message, {
        cause: value,
        ...(isUid(uid) && { uid }),
        ...(isRecord(details) && { details }),
      });
    } catch {
      return undefined; // A getter or a trap of a Proxy throws.
    }
  }

  /** The message a client receives, without the stack and the cause. */
  toJSON(): ErrorMessage {
    return {
      type: this.type,
      status: "error",
      error: { ...this.details, code: this.code, message: this.message },
      ...(this.uid === undefined ? {} : { uid: this.uid }),
    };
  }

  /** {@link toJSON} as the text of a frame. Details that JSON cannot represent, and an invalid `uid`, are left out. */
  toMessage(): string {
    // Without details rather than not at all: the client waits for an answer.
    return textOf(this) ?? textOf(answerOf(this)) ??
      '{"type":"server","status":"error","error":{"code":"INTERNAL_ERROR","message":"Something went wrong"}}';
  }

  /** The same error, with this `uid` unless it has a valid one already. */
  withUid(uid: MessageUid | undefined): WebSocketError {
    if (uid === undefined || isUid(this.uid)) return this;
    return new WebSocketError(this.type, this.code, this.message, {
      uid,
      cause: this.cause,
      ...(this.details && { details: this.details }),
    });
  }
}

/** The verified fields of an error of another copy. Its version may differ, so the unknown ones are checked when read. */
interface ForeignError {
  readonly type: string;
  readonly code: string;
  readonly message: string;
  readonly uid?: unknown;
  readonly details?: unknown;
}

/** The JSON text; `undefined` if JSON cannot represent the value, or a getter or `toJSON` of the application throws. */
function textOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined; // The caller falls back to a simpler answer.
  }
}

/** The answer without details. */
const answerOf = ({ type, code, message, uid }: WebSocketError): ErrorMessage => ({
  type,
  status: "error",
  error: { code, message },
  ...(isUid(uid) && { uid }),
});

const isReadable = ({ type, code, message }: { type?: unknown; code?: unknown; message?: unknown }): boolean =>
  typeof type === "string" && typeof code === "string" && typeof message === "string";

function isForeign(value: unknown): value is ForeignError {
  if (!isRecord(value) || !(BRAND in value) || Object.prototype.isPrototypeOf.call(WebSocketError.prototype, value)) return false;
  return isReadable(value as { type?: unknown; code?: unknown; message?: unknown }); // An object; any field may be absent.
}

/** Whether the value is a valid `uid`. JSON rounds numbers beyond 2^53 and writes -0 as 0: the answer would not match. */
export function isUid(value: unknown): value is MessageUid {
  if (typeof value === "string") return value.length <= MAX_UID_LENGTH;
  return typeof value === "number" && Math.abs(value) <= Number.MAX_SAFE_INTEGER && !Object.is(value, -0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
