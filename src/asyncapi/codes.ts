import { CloseCode } from "../protocol/close.ts";
import { CLOSE_MEANINGS, ERROR_MEANINGS } from "../protocol/code-meanings.ts";
import type { AsyncApiCloseCode, AsyncApiError } from "./document.ts";

/** The error codes of the protocol. */
export const errors: readonly AsyncApiError[] = Object.entries(ERROR_MEANINGS).map(([code, meaning]) => ({ code, meaning }));

/** The close codes that a server sends. */
export const closeCodes: readonly AsyncApiCloseCode[] = Object.entries(CloseCode).map(([name, code]) => ({
  code,
  name,
  meaning: CLOSE_MEANINGS[name as keyof typeof CloseCode], // A key of it.
  // 44xx are the client's fault, and a message that was too big stays so.
  reconnect: !(code >= 4400 && code < 4500) && code !== CloseCode.MESSAGE_TOO_BIG,
}));
