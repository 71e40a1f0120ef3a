import { isStreamable } from "../application/call.ts";
import { ERROR_MEANINGS } from "../protocol/code-meanings.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** The `error.type` of faults: whatever is no `WebSocketError`, and errors of engines without a code of the protocol. */
const OTHER_ERROR = "_OTHER";

/** The `error.type` of a `WebSocketError` with a code of the application, which may make up any number of them. */
const APPLICATION_ERROR = "_APPLICATION";

/** Whether the error is a fault of the server. One that a handler shows to its client is its answer. */
export function isFault(error: unknown): boolean {
  const shown = WebSocketError.from(error);
  return !shown || shown.type === "engine";
}

/** The code of an error of the protocol, and a label for all others of the application, or of faults. */
export function errorTypeOf(error: unknown): string {
  const code = WebSocketError.from(error)?.code;
  if (code !== undefined && (Object.hasOwn(ERROR_MEANINGS, code) || code === "DISCONNECTED")) return code;
  return isFault(error) ? OTHER_ERROR : APPLICATION_ERROR;
}

/** Whether the result of a handler is sent in parts. */
export function isStream(result: unknown): boolean {
  try {
    return isStreamable(result);
  } catch {
    return false; // A trap of a Proxy throws. It is answered as an error.
  }
}
