import { isStreamable } from "../application/call.ts";
import { ERROR_MEANINGS } from "../protocol/code-meanings.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** The `error.type` of faults: errors that are no `WebSocketError`, and errors of engines without a code of the protocol. */
const OTHER_ERROR = "_OTHER";

/** The `error.type` of a `WebSocketError` with a code of the application, which may use any number of codes. */
const APPLICATION_ERROR = "_APPLICATION";

/** Whether the error is a fault of the server. A `WebSocketError` that a handler throws is its reply to the client. */
export function isFault(error: unknown): boolean {
  const shown = WebSocketError.from(error);
  return !shown || shown.type === "engine";
}

/** The code of an error of the protocol. Other errors share a label: one for the application's, one for faults. */
export function errorTypeOf(error: unknown): string {
  const code = WebSocketError.from(error)?.code;
  if (code !== undefined && (Object.hasOwn(ERROR_MEANINGS, code) || code === "DISCONNECTED")) return code;
  return isFault(error) ? OTHER_ERROR : APPLICATION_ERROR;
}

/** Whether the result of a handler is sent as a stream. */
export function isStream(result: unknown): boolean {
  try {
    return isStreamable(result);
  } catch {
    return false; // A trap of a Proxy threw. The reply is an error.
  }
}
