/**
 * Correlates a request with its answer: chosen by the sender, echoed with its JSON type. A string of at most 64 characters, or a number from
 * -(2^53 - 1) to 2^53 - 1: others do not come back as they were sent.
 */
export type MessageUid = string | number;

/**
 * What went wrong, as a stable name. The names are those of the Directus realtime protocol where it has one.
 * An application may answer with codes of its own.
 */
export type ErrorCode =
  | "AUTH_FAILED"
  | "AUTH_TIMEOUT"
  | "ENGINE_FAILED"
  | "ENGINE_UNAVAILABLE"
  | "FORBIDDEN"
  | "INTERNAL_ERROR"
  | "INVALID_PAYLOAD"
  | "INVALID_REQUEST"
  | "LIMIT_EXCEEDED"
  | "MESSAGES_DROPPED"
  | "REQUESTS_EXCEEDED"
  | "SERVICE_UNAVAILABLE"
  | "TOKEN_EXPIRED"
  | "UNSUPPORTED_TYPE"
  | (string & Record<never, never>);

/** The message a client receives when its request failed and the connection lives on. */
export interface ErrorMessage {
  /** The area: `auth`, `server`, `subscribe`, or the type of the request that failed. */
  type: string;
  /** It failed. */
  status: "error";
  /** What went wrong, for the program and for a person; a code may bring details of its own. */
  error: { code: ErrorCode; message: string; [detail: string]: unknown };
  /** The request's own `uid`, where it had one. */
  uid?: MessageUid;
}

/** Options of {@link WebSocketError}. */
export interface WebSocketErrorOptions {
  /** The request's `uid`, echoed in the answer. */
  uid?: MessageUid;
  /** What caused it. It is for the log: it never reaches a client. */
  cause?: unknown;
  /** JSON fields that stand beside `code` and `message`, such as `retry_after` in ms. */
  details?: Record<string, unknown>;
}

/** Marks the errors of every copy of the package in a process. */
const BRAND = Symbol.for("noroshi.error");

/** As PROTOCOL.md bounds it. */
const MAX_UID_LENGTH = 64;

/**
 * An error that may be shown to a client: thrown from a handler, a middleware or `authenticate` it is answered as it is,
 * where any other error is answered as `INTERNAL_ERROR` without detail.
 *
 * @example
 * ```ts
 * controller.handle("join", v.object({ room: v.string() }), ({ message }) => {
 *   if (!rooms.has(message.room)) throw new WebSocketError("join", "NOT_FOUND", "No such room");
 * });
 * ```
 */
export class WebSocketError extends Error {
  /** As the class is called, also where a bundler has renamed it. */
  override readonly name = "WebSocketError";
  /** The area the error belongs to: `auth`, `server`, `subscribe`, or a message type. */
  readonly type: string;
  /** What went wrong, as a stable name. */
  readonly code: ErrorCode;
  /** The request's `uid`, where it is known. */
  readonly uid: MessageUid | undefined;
  /** JSON fields that stand beside `code` and `message`. */
  readonly details: Record<string, unknown> | undefined;

  /** What the client is shown: the area, the code and a text for a person. */
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

  /** `instanceof` holds for errors of other copies of the package too; for a subclass, only for its own. It never throws. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    try {
      return super[Symbol.hasInstance](value) || (this === WebSocketError && isForeign(value));
    } catch {
      return false; // A Proxy whose traps throw.
    }
  }

  /**
   * The error itself; for one of another copy or version of the package, the same error of this copy, with the original as its cause.
   * `undefined` for anything else, and for an error without a type, code and message that can be read: whatever was thrown, it never throws.
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
      return undefined; // Reading it throws.
    }
  }

  /** The message a client receives: never the stack, never the cause. */
  toJSON(): ErrorMessage {
    return {
      type: this.type,
      status: "error",
      error: { ...this.details, code: this.code, message: this.message },
      ...(this.uid === undefined ? {} : { uid: this.uid }),
    };
  }

  /** {@link toJSON} as the text of a frame. What JSON cannot hold is left out: the details, and a `uid` that is none. */
  toMessage(): string {
    // The answer matters more than its details: without one the client would wait.
    return textOf(this) ?? textOf(answerOf(this)) ??
      '{"type":"server","status":"error","error":{"code":"INTERNAL_ERROR","message":"Something went wrong"}}';
  }

  /** The same error as the answer to the request with this `uid`. */
  withUid(uid: MessageUid | undefined): WebSocketError {
    if (uid === undefined || isUid(this.uid)) return this;
    return new WebSocketError(this.type, this.code, this.message, {
      uid,
      cause: this.cause,
      ...(this.details && { details: this.details }),
    });
  }
}

/** What an error of another copy is known to have. Its version may differ, so the rest is checked where it is read. */
interface ForeignError {
  readonly type: string;
  readonly code: string;
  readonly message: string;
  readonly uid?: unknown;
  readonly details?: unknown;
}

/** The JSON text; `undefined` for what JSON cannot hold, and where a getter or `toJSON` of the application throws. */
function textOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined; // The caller has another answer.
  }
}

/** What a client has to be answered at the least. */
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
  return isReadable(value as { type?: unknown; code?: unknown; message?: unknown }); // An object: each may be absent.
}

/** Whether it may be the `uid` of a message. Beyond 2^53 a number that was read is another than the one that was sent; -0 is sent as 0. */
export function isUid(value: unknown): value is MessageUid {
  if (typeof value === "string") return value.length <= MAX_UID_LENGTH;
  return typeof value === "number" && Math.abs(value) <= Number.MAX_SAFE_INTEGER && !Object.is(value, -0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
