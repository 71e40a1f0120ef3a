import { CloseCode } from "../protocol/close.ts";
import type { Answer } from "./request-transport.ts";

/** An error as an HTTP response. */
export interface Failure {
  readonly status: 400 | 401 | 403 | 404 | 408 | 413 | 429 | 500 | 503;
  readonly code: string;
  readonly message: string;
  /** Time after which the client may try again, in ms. */
  readonly retryAfter?: number;
  /** Other fields of the error, such as `path`. */
  readonly [detail: string]: unknown;
}

/** Statuses of the codes of PROTOCOL.md §5. Any other code, such as the application's, is answered 400. */
const STATUSES: Readonly<Record<string, Failure["status"]>> = {
  AUTH_FAILED: 401,
  AUTH_TIMEOUT: 401,
  TOKEN_EXPIRED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  REQUESTS_EXCEEDED: 429,
  LIMIT_EXCEEDED: 429,
  INTERNAL_ERROR: 500,
  SERVICE_UNAVAILABLE: 503,
  ENGINE_UNAVAILABLE: 503,
};

/** Codes of connections that were closed before the answer. */
const CLOSED: Readonly<Record<number, string>> = {
  [CloseCode.AUTH_FAILED]: "AUTH_FAILED",
  [CloseCode.FORBIDDEN]: "FORBIDDEN",
  [CloseCode.RATE_LIMITED]: "REQUESTS_EXCEEDED",
};

export const invalid = (message: string): Failure => ({ status: 400, code: "INVALID_REQUEST", message });

/** Converts an answer other than `ok`. */
export function failureOf(answer: Answer): Failure {
  if ("close" in answer) {
    const { code: closeCode, reason } = answer.close;
    const code = CLOSED[closeCode] ?? "SERVICE_UNAVAILABLE";
    return { status: STATUSES[code] ?? 503, code, message: reason };
  }
  const { code, message, retry_after, ...details } = answer.message["error"] as Record<string, unknown>; // As every error has it.
  return {
    ...details,
    status: STATUSES[String(code)] ?? 400,
    code: String(code),
    message: String(message ?? code),
    ...(typeof retry_after === "number" && { retryAfter: retry_after, retry_after }),
  };
}
