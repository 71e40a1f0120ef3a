import type { CloseCause } from "../protocol/close.ts";
import type { Contract, MessageReceived } from "../protocol/contract-types.ts";
import type { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** The events of a controller, with the payload of each. `C` is its contract. */
export type WebSocketEvents<C = Contract> = {
  /** A client was admitted. */
  connect: { client: WebSocketClient<C> };
  /**
   * A client sent a message other than `auth`, `ping` and `pong`, which the controller handles. It is emitted before a schema has
   * validated the message: with a contract its fields are `unknown`, and a client may also send what is not declared.
   */
  message: { client: WebSocketClient<C>; message: MessageReceived<C> };
  /** A listener, a handler, `authenticate`, the engine or a write to a socket failed. `client` is the affected client, if any. */
  error: { client?: WebSocketClient<C>; error: unknown };
  /**
   * An admitted client disconnected; emitted once. `code` and `reason` are those of the side that closed first: 1005 is a close
   * frame without a code, 1006 a connection that ended without a close frame (RFC 6455 §7.1.5).
   */
  close: { client: WebSocketClient<C>; code: number; reason: string; wasClean: boolean; cause: CloseCause };
  /** An `auth` message was accepted. */
  "auth.success": { client: WebSocketClient<C> };
  /**
   * Credentials were refused, or none arrived in time. `client` is absent at the upgrade. `error` was sent to the client;
   * `cause` is for the application only: a `TokenRefusal` of `jwtAuthenticator`, or what `authenticate` passed to `refuse`.
   */
  "auth.failure": { client?: WebSocketClient<C>; error: WebSocketError; cause?: unknown };
};

const EVENTS: ReadonlySet<string> = new Set<keyof WebSocketEvents>([
  "connect",
  "message",
  "error",
  "close",
  "auth.success",
  "auth.failure",
]);

/** @throws {TypeError} for an unknown event, or a listener that is not a function. */
export function checkListener(method: string, event: string, listener: unknown): void {
  if (!EVENTS.has(event)) {
    throw new TypeError(`Cannot call ${method}: unknown event "${String(event)}", use one of ${[...EVENTS].join(", ")}`);
  }
  if (typeof listener !== "function") throw new TypeError(`Cannot call ${method}("${event}"): pass the callback, a function`);
}
