import { ClientError } from "./error.ts";

/** How a connection ended. */
export interface CloseInfo {
  /** The close code; 1006 without a close frame (RFC 6455 §7.1.5), or if the client gave up the connection. */
  code: number;
  /** The reason that the peer sent, or for a failed connection that of the platform. Browsers give no reason for a failure. */
  reason: string;
  /** Whether both sides sent a close frame. */
  wasClean: boolean;
  /** HTTP status of a refused upgrade, if the platform reports it, as `ws`, Bun and Deno do. */
  status?: number;
}

/** The `error` event of a WebSocket. In browsers and in Node's own WebSocket it has no details. */
interface PlatformFailure {
  message?: unknown;
  error?: { code?: unknown };
}

/** Why a connection failed, as far as the platform reports it. */
export type Failure = Pick<CloseInfo, "reason" | "status">;

/**
 * Reads the `error` event of a WebSocket. The HTTP status of a refused upgrade stands at the end of the message in `ws`, Bun, Deno
 * and React Native on iOS (`…: 401`), and in a quoted status line on Android (`'401 Unauthorized'`).
 */
export function readFailure({ message, error }: PlatformFailure): Failure {
  const text = String(message ?? "");
  const status = Number(/(?:: |')([2-5]\d\d)(?:\.?$| )/.exec(text)?.[1]);
  if (status) return { reason: `HTTP ${status}`, status };
  // Bun quotes the whole URL before the last colon.
  return { reason: withoutSecrets(typeof error?.code === "string" ? error.code : text.split(": ").pop()!) };
}

/** Converts a thrown value to text. */
export function textOf(error: unknown): string {
  try {
    return String(error);
  } catch {
    return "Failed"; // Its `toString` throws.
  }
}

/** Removes user info, queries, fragments, bearer tokens and the given token from a text. */
export function withoutSecrets(text: string, token?: string | null): string {
  return (token ? text.split(token).join("…") : text).replace(/\/\/\S*@/g, "//").replace(/([?#]|bearer\.)\S*/g, "$1…");
}

/** Error codes by close code and HTTP status. */
const CODES: Record<number, string> = {
  401: "AUTH_FAILED",
  403: "FORBIDDEN",
  4401: "AUTH_FAILED",
  4403: "FORBIDDEN",
  4408: "AUTH_TIMEOUT",
};

const codeOf = ({ code, status = code }: CloseInfo): string =>
  CODES[status] ?? (code >= 4400 && code < 4500 ? "CLOSED" : "NOT_CONNECTED");

/**
 * Creates the error of a client that is not connected.
 *
 * @param attempts number of attempts since the client was last admitted.
 * @param close how the last attempt or connection has ended.
 */
export function notConnected(url: string, attempts: number, close?: CloseInfo, code?: string, cause?: unknown): ClientError {
  const shown = withoutSecrets(url);
  const count = attempts ? `${attempts} attempt${attempts > 1 ? "s" : ""} to ` : "";
  const end = close ? `last close ${close.code}${close.reason && ` ${close.reason}`}` : "no answer yet";
  const text = `Not connected: ${count}${shown}, ${end}`;
  return new ClientError(code ?? (close ? codeOf(close) : "NOT_CONNECTED"), text, { attempts, url: shown, close }, cause);
}
