import type { WebSocketMessage } from "../protocol/protocol.ts";

/** Brands the errors of every copy of the package. */
const BRAND = Symbol.for("noroshi.client-error");

/**
 * Why an operation of the client failed. `code` is the server's, or one of the client's own:
 *
 * - `NOT_CONNECTED`: not sent; `details` has `attempts`, `url` and the last `close`.
 * - `DISCONNECTED`: the connection was lost; the server may have handled the request.
 * - `TIMEOUT`, `CLOSED`, `OUTBOX_FULL`, `OUTBOX_EXPIRED`.
 * - `ABORTED`: aborted by a signal without a reason.
 * - `MESSAGE_TOO_BIG`: larger than the server accepts.
 * - `TOKEN_FAILED`: `token` or `renew` threw.
 * - `INVALID_MESSAGE`: the server sent something unreadable.
 * - `AUTH_FAILED`, `FORBIDDEN`, `AUTH_TIMEOUT`: also for close codes 4401, 4403 and 4408, and for HTTP 401 and 403.
 */
export class ClientError extends Error {
  /** The class name, even after a bundler has renamed the class. */
  override readonly name = "ClientError";
  /** Stable code of the error. */
  readonly code: string;
  /** Other fields of the server's error, such as `retry_after` in ms. */
  readonly details: Record<string, unknown>;

  static {
    (this.prototype as { [BRAND]?: true })[BRAND] = true; // Not declared, because it is not part of the public type.
  }

  /** Recognizes errors of other copies of the package. A subclass recognizes only its own instances. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    try {
      return this === ClientError ? BRAND in (value as object) : super[Symbol.hasInstance](value);
    } catch {
      return false; // A primitive, or a Proxy whose traps throw.
    }
  }

  /** Creates an error with a stable code, a text for people, and details. */
  constructor(code: string, message: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause ? { cause } : undefined);
    this.code = code;
    this.details = details;
  }
}

/** Maximum `retry_after` in ms, so that a faulty server cannot stop a client for longer. */
const MAX_RETRY_AFTER = 300_000;

/** Time that the server asks to wait, in ms; `0` if it does not. */
export function retryAfter({ details: { retry_after } }: ClientError): number {
  return typeof retry_after === "number" && retry_after > 0 ? Math.min(retry_after, MAX_RETRY_AFTER) : 0;
}

/** Time to wait in a close reason such as `retry=1500` (PROTOCOL.md §6), in ms; `0` without it. */
export const retryIn = (reason: string): number => Math.min(Number(/\bretry=(\d+)/.exec(reason)?.[1] ?? 0), MAX_RETRY_AFTER);

/**
 * Whether this answer means that the server has not handled the message, which may be sent again: the credentials had expired, or a rate
 * limit discarded it (PROTOCOL.md §2.6, 3.3).
 */
export const isUnread = (message: WebSocketMessage): boolean =>
  message.type === "auth" && errorOf(message).code === "TOKEN_EXPIRED" ||
  message.type === "server" && retryAfter(errorOf(message)) > 0;

/** Reads the error of a message, which may have any form. */
export function errorOf({ error }: Record<string, unknown>): ClientError {
  const { code, message, ...details } = Object(error) as Record<string, unknown>;
  return new ClientError(typeof code === "string" ? code : "UNKNOWN", typeof message === "string" ? message : "", details);
}
