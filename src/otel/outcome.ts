import { isStreamable } from "../application/call.ts";
import { ERROR_MEANINGS } from "../protocol/code-meanings.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** The `error.type` of errors without a code of the protocol. */
export const OTHER_ERROR = "_OTHER";

/** The code of an error of the protocol. An application may make up codes of its own, and any number of them. */
export function errorTypeOf(error: unknown): string {
  const code = WebSocketError.from(error)?.code;
  return code !== undefined && (Object.hasOwn(ERROR_MEANINGS, code) || code === "DISCONNECTED") ? code : OTHER_ERROR;
}

/** Whether the result of a handler is sent in parts. */
export function isStream(result: unknown): boolean {
  try {
    return isStreamable(result);
  } catch {
    return false; // A trap of a Proxy throws. It is answered as an error.
  }
}
