import type { CloseCause } from "./close.ts";
import type { WebSocketError } from "./errors.ts";
import type { WebSocketMessage } from "./protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** The events of a controller and what their listeners receive. */
export type WebSocketEvents = {
  /** A client was admitted. */
  connect: { client: WebSocketClient };
  /** A client sent a message. `auth`, `ping` and `pong` are the controller's own and not among them. */
  message: { client: WebSocketClient; message: WebSocketMessage };
  /** Something threw: a listener, a handler, `authenticate`, or a write to a socket. `client` is who it happened to, if anyone. */
  error: { client?: WebSocketClient; error: unknown };
  /**
   * A client that had been admitted is gone; told once. The code and reason are those of whoever closed first;
   * 1005 is a close without a code and 1006 an end without a close frame (RFC 6455 §7.1.5). `cause` says why.
   */
  close: { client: WebSocketClient; code: number; reason: string; wasClean: boolean; cause: CloseCause };
  /** An `auth` message was accepted. */
  "auth.success": { client: WebSocketClient };
  /**
   * Credentials were refused, or none came in time: then there is no client yet. `error` is what the client was answered; `cause`
   * says why, for the application only: a `TokenRefusal` of `jwtAuthenticator`, or what your `authenticate` passed to `refuse`.
   */
  "auth.failure": { client?: WebSocketClient; error: WebSocketError; cause?: unknown };
};

const EVENTS: ReadonlySet<string> = new Set<keyof WebSocketEvents>([
  "connect",
  "message",
  "error",
  "close",
  "auth.success",
  "auth.failure",
]);

/** @throws {TypeError} for an unknown event, and for a listener that is no function. */
export function checkListener(method: string, event: string, listener: unknown): void {
  if (!EVENTS.has(event)) {
    throw new TypeError(`Cannot call ${method}: unknown event "${String(event)}", use one of ${[...EVENTS].join(", ")}`);
  }
  if (typeof listener !== "function") throw new TypeError(`Cannot call ${method}("${event}"): pass the callback, a function`);
}
