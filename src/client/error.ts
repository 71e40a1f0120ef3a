/** Marks the errors of every copy of the package in a page or process. */
const BRAND = Symbol.for("noroshi.client-error");

/**
 * Why something that was asked of a client did not come about. `code` is the server's own where it answered, else one of
 * the client's: `NOT_CONNECTED` (it never left; `details` has `attempts`, `url` and the last `close`), `DISCONNECTED` (it may have been
 * handled), `TIMEOUT`, `ABORTED` (by a signal that has no reason), `CLOSED`, `OUTBOX_FULL`, `OUTBOX_EXPIRED`, `MESSAGE_TOO_BIG` (for the server), `TOKEN_FAILED` (`token` or
 * `renew` did), `INVALID_MESSAGE` (of the server). `AUTH_FAILED`, `FORBIDDEN` and `AUTH_TIMEOUT` are also what 4401, 4403 and 4408, and
 * HTTP 401 and 403 stand for.
 */
export class ClientError extends Error {
  /** As the class is called, also where a bundler has renamed it. */
  override readonly name = "ClientError";
  /** What went wrong, as a stable name. */
  readonly code: string;
  /** What the server said beside `code` and `message`, such as `retry_after` in ms. */
  readonly details: Record<string, unknown>;

  static {
    Object.defineProperty(this.prototype, BRAND, { value: true });
  }

  /** `instanceof` holds for errors of other copies of the package too; for a subclass, only for its own. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    try {
      return this === ClientError ? BRAND in Object(value) : super[Symbol.hasInstance](value);
    } catch {
      return false; // A Proxy whose traps throw.
    }
  }

  /** The stable name, a text for a person, and what else is known. */
  constructor(code: string, message: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause ? { cause } : undefined);
    this.code = code;
    this.details = details;
  }
}

/** It is larger than what the server takes. */
export const tooBig = (): ClientError =>
  new ClientError("MESSAGE_TOO_BIG", "Cannot send: the server takes no message of this size");

/** No server makes a client wait longer than this, in ms. */
const MAX_RETRY_AFTER = 300_000;

/** How long a server asks to wait, in ms. */
export function retryAfter({ details: { retry_after } }: ClientError): number {
  return typeof retry_after === "number" && retry_after > 0 ? Math.min(retry_after, MAX_RETRY_AFTER) : 0;
}

/** The error of a message, whatever the server sent in its place. */
export function errorOf({ error }: Record<string, unknown>): ClientError {
  const { code, message, ...details } = Object(error) as Record<string, unknown>;
  return new ClientError(typeof code === "string" ? code : "UNKNOWN", typeof message === "string" ? message : "", details);
}
