/**
 * The close codes that Noroshi sends.
 *
 * 1000–1013 are defined by RFC 6455 §7.4.1 and the IANA registry. 44xx: the client must not reconnect unchanged. 45xx: the client
 * should reconnect with backoff.
 */
export const CloseCode = {
  NORMAL: 1000,
  GOING_AWAY: 1001,
  MESSAGE_TOO_BIG: 1009,
  INTERNAL_ERROR: 1011,
  SERVICE_RESTART: 1012,
  TRY_AGAIN_LATER: 1013,
  PROTOCOL: 4400,
  AUTH_FAILED: 4401,
  FORBIDDEN: 4403,
  AUTH_TIMEOUT: 4408,
  HEARTBEAT_TIMEOUT: 4504,
  SLOW_CONSUMER: 4508,
  RATE_LIMITED: 4529,
} as const;

/**
 * Why a connection ended.
 *
 * - `client`: the client sent a close frame
 * - `server`: the application closed it
 * - `auth`: the client failed to authenticate
 * - `expired`: the credentials expired
 * - `rate`: too many messages
 * - `payload`: a message larger than `maxPayload`
 * - `slow`: a slow consumer
 * - `heartbeat`: no answer to the heartbeat
 * - `age`: `maxAge` was reached
 * - `drain`: the server or controller is closing
 * - `error`: the connection ended without a close frame
 */
export type CloseCause =
  | "client"
  | "server"
  | "auth"
  | "expired"
  | "rate"
  | "payload"
  | "slow"
  | "heartbeat"
  | "age"
  | "drain"
  | "error";

/** The close frame had no status code (RFC 6455 §7.1.5). Reported, never sent. */
export const NO_STATUS = 1005;
/** The connection ended without a close frame (RFC 6455 §7.1.5). Reported, never sent. */
export const ABNORMAL = 1006;

// workerd throws on 999, 1005, 1006, 1015 and 5000; Deno sends 1005 and 1006, which RFC 6455 §7.4.1 forbids on the wire.
/** Whether every runtime can send the code. */
export const isCloseCode = (code: number): boolean =>
  Number.isInteger(code) &&
  ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999));

/** Returns the close code. @throws {TypeError} for a code that RFC 6455 §7.4 reserves or does not define. */
export function checkCloseCode(code: number): number {
  if (isCloseCode(code)) return code;
  throw new TypeError(
    `Cannot close with code ${String(code)}: use 1000–1003, 1007–1014 or 3000–4999 (4000–4999 for your own)`,
  );
}

/** The code that answers the peer's close frame: the same if it can be sent, else 1000. */
export const answerCloseCode = (code: number): number => isCloseCode(code) ? code : CloseCode.NORMAL;

/** Maximum bytes of a close reason: a control frame holds 125, of which the code takes two (RFC 6455 §5.5). */
const MAX_REASON_BYTES = 123;

const encoder = new TextEncoder();

/** Truncates the reason to 123 UTF-8 bytes, never within a character. Runtimes throw on longer ones, truncate or corrupt them. */
export function cutCloseReason(reason: string): string {
  // encodeInto never writes a partial character, and replaces a lone surrogate by U+FFFD.
  const { read } = encoder.encodeInto(reason, new Uint8Array(MAX_REASON_BYTES));
  return reason.slice(0, read).toWellFormed();
}

/** Time for a slow consumer, or a client that floods, to answer the close handshake, in ms. */
export const SHORT_CLOSE_TIMEOUT = 500;

/** Whether a client closed with the code does not reconnect (PROTOCOL.md 6): it left, or was refused. */
export function isFinal(code: number): boolean {
  return code === CloseCode.NORMAL || code === NO_STATUS || (code >= 4400 && code < 4500);
}
