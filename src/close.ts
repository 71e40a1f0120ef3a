/**
 * The close codes Noroshi sends.
 *
 * 1000–1013 are those of RFC 6455 §7.4.1 and the IANA registry. 44xx is the client's fault: coming back unchanged is
 * pointless. 45xx asks the client to come back with backoff.
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
 * Why a connection ended. `client`: its close frame. `server`: the application closed it. `auth`: it did not prove who it is.
 * `expired`: its credentials ran out. `rate`: too many messages. `payload`: too large a message. `slow`: it did not read.
 * `heartbeat`: it was silent. `age`: it was open for as long as `maxAge`. `drain`: the server or controller stops. `error`: it ended
 * without a close frame.
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

/** No status code was in the close frame (RFC 6455 §7.1.5). Reported, never sent. */
export const NO_STATUS = 1005;
/** The connection ended without a close frame (RFC 6455 §7.1.5). Reported, never sent. */
export const ABNORMAL = 1006;

// The codes every runtime agrees to send. workerd throws on 999, 1005, 1006, 1015 and 5000; Deno puts 1005 and 1006 on
// the wire, where RFC 6455 §7.4.1 forbids them.
/** Whether the code may be sent. */
export const isCloseCode = (code: number): boolean =>
  Number.isInteger(code) &&
  ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999));

/** The close code, if it may be sent. @throws {TypeError} for a code that RFC 6455 §7.4 reserves or does not know. */
export function checkCloseCode(code: number): number {
  if (isCloseCode(code)) return code;
  throw new TypeError(
    `Cannot close with code ${String(code)}: use 1000–1003, 1007–1014 or 3000–4999 (4000–4999 for your own)`,
  );
}

/** What a close frame received from a peer is answered with: its own code where that may be sent, else 1000. */
export const answerCloseCode = (code: number): number => isCloseCode(code) ? code : CloseCode.NORMAL;

/** Bytes of a close reason: a control frame holds 125, two of them are the code (RFC 6455 §5.5). */
const MAX_REASON_BYTES = 123;

const encoder = new TextEncoder();

/** The reason, cut to 123 UTF-8 bytes at a character's border: longer ones throw, truncate or corrupt, by runtime. */
export function cutCloseReason(reason: string): string {
  // encodeInto never writes half a character, and turns a lone surrogate into U+FFFD.
  const { read } = encoder.encodeInto(reason, new Uint8Array(MAX_REASON_BYTES));
  return reason.slice(0, read).toWellFormed();
}

/** The time in which a client that does not read, or sends too much, has to answer the close handshake, in ms. */
export const SHORT_CLOSE_TIMEOUT = 500;

/** Whether a connection that was closed with the code is not expected back (PROTOCOL.md 6): its client has left, or is not wanted. */
export function isFinal(code: number): boolean {
  return code === CloseCode.NORMAL || code === NO_STATUS || (code >= 4400 && code < 4500);
}
