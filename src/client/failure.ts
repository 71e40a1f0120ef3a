import { ClientError } from "./error.ts";

/** How a connection ended. 1006: without a close frame, or it was given up (RFC 6455 §7.1.5). */
export interface CloseInfo {
  /** The close code. */
  code: number;
  /** What the other side said of it, or what the platform says of a connection that failed. Empty in browsers, which say nothing. */
  reason: string;
  /** Whether both sides have closed it. */
  wasClean: boolean;
  /** The HTTP status that refused the upgrade, where the platform says it: `ws`, Bun and Deno do. */
  status?: number;
}

/** What the `error` event of a WebSocket may have. In browsers and Node's own WebSocket it says nothing. */
interface PlatformFailure {
  message?: unknown;
  error?: { code?: unknown };
}

/** Why a connection failed, as far as the platform says so. */
export type Failure = Pick<CloseInfo, "reason" | "status">;

/**
 * Reads the `error` event of a WebSocket. `ws`, Bun and Deno end its message with the HTTP status that refused the upgrade, as React Native
 * does on iOS (`…: 401`); on Android it quotes the status line (`'401 Unauthorized'`).
 */
export function readFailure({ message, error }: PlatformFailure): Failure {
  const text = String(message ?? "");
  const status = Number(/(?:: |')([2-5]\d\d)(?:\.?$| )/.exec(text)?.[1]);
  if (status) return { reason: `HTTP ${status}`, status };
  // Bun quotes the whole URL before the last colon.
  return { reason: withoutSecrets(typeof error?.code === "string" ? error.code : text.split(": ").pop()!) };
}

/** What a constructor threw, as text. */
export function textOf(error: unknown): string {
  try {
    return String(error);
  } catch {
    return "Failed"; // Its toString throws.
  }
}

/** The text without users, queries, fragments and bearer tokens, and without this token. */
export function withoutSecrets(text: string, token?: string | null): string {
  return (token ? text.split(token).join("…") : text).replace(/\/\/\S*@/g, "//").replace(/([?#]|bearer\.)\S*/g, "$1…");
}

/** The codes of the closes and HTTP answers that say why. */
const CODES: Record<number, string> = {
  401: "AUTH_FAILED",
  403: "FORBIDDEN",
  4401: "AUTH_FAILED",
  4403: "FORBIDDEN",
  4408: "AUTH_TIMEOUT",
};

function codeOf({ code, status = code }: CloseInfo): string {
  return CODES[status] ?? (code >= 4400 && code < 4500 ? "CLOSED" : "NOT_CONNECTED");
}

/**
 * Why there is no connection.
 *
 * @param attempts how many began since the client was last let in.
 * @param close how the last one, or the connection before, ended.
 */
export function notConnected(url: string, attempts: number, close?: CloseInfo, code?: string, cause?: unknown): ClientError {
  const shown = withoutSecrets(url);
  const count = attempts ? `${attempts} attempt${attempts > 1 ? "s" : ""} to ` : "";
  const end = close ? `last close ${close.code}${close.reason && ` ${close.reason}`}` : "no answer yet";
  const text = `Not connected: ${count}${shown}, ${end}`;
  return new ClientError(code ?? (close ? codeOf(close) : "NOT_CONNECTED"), text, { attempts, url: shown, close }, cause);
}
