import type { CloseCode } from "./close.ts";
import type { ErrorCode } from "./errors.ts";

/** The codes that {@link ErrorCode} names. */
type NamedCode<Code> = Code extends string ? string extends Code ? never : Code : never;

/** Codes of errors that are not sent to clients: of the engine, and of questions to clients. */
type LocalCode = "DISCONNECTED" | "ENGINE_FAILED" | "ORDERS_LOST" | "TIMEOUT";

/** What each error code of a message means (PROTOCOL.md §5). */
export const ERROR_MEANINGS: Readonly<Record<Exclude<NamedCode<ErrorCode>, LocalCode>, string>> = {
  INVALID_PAYLOAD: "the message or its payload is not valid",
  UNSUPPORTED_TYPE: "nothing handles messages of this type",
  INTERNAL_ERROR: "the server failed; it sends no detail",
  AUTH_FAILED: "the credentials are not valid, or are missing where they are required",
  AUTH_TIMEOUT: "no `auth` arrived in time",
  SERVICE_UNAVAILABLE: "the server cannot do it now",
  INVALID_REQUEST: "(HTTP) the upgrade request is malformed",
  TOKEN_EXPIRED: "the credentials have expired: send `auth`",
  REQUESTS_EXCEEDED: "too many messages, or failed attempts; `retry_after` is the ms to wait",
  LIMIT_EXCEEDED: "too many of something, such as connections of one user",
  FORBIDDEN: "not allowed",
  MESSAGES_DROPPED: "the client read too slowly; `count` messages were not sent to it",
  ENGINE_UNAVAILABLE: "the broker that connects the servers is unavailable",
  OUTCOME_UNKNOWN: "the request may have been handled, and its answer is not known",
  NOT_ASKED: "no open question has the `uid` of this answer",
  CANCELLED: "the client has cancelled the request",
  SLOW_CONSUMER: "the client did not read the stream for too long",
  STREAM_LOST: "the stream has ended without its generator, is no longer stored, or is another client's",
};

/** What each close code means (PROTOCOL.md §6). */
export const CLOSE_MEANINGS: Readonly<Record<keyof typeof CloseCode, string>> = {
  NORMAL: "done",
  GOING_AWAY: "the server is going away",
  MESSAGE_TOO_BIG: "the message was too big",
  INTERNAL_ERROR: "the server failed",
  SERVICE_RESTART: "the server restarts",
  TRY_AGAIN_LATER: "the server is overloaded",
  PROTOCOL: "protocol error",
  AUTH_FAILED: "authentication failed",
  FORBIDDEN: "forbidden",
  AUTH_TIMEOUT: "authentication timed out",
  HEARTBEAT_TIMEOUT: "heartbeat timed out",
  SLOW_CONSUMER: "slow consumer",
  RATE_LIMITED: "too many messages",
};
