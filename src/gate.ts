import { type LimitsHost, limitsOf } from "./announced-limits.ts";
import type { Extension } from "./extension.ts";
import type { Handlers } from "./handlers.ts";
import type { Identity } from "./identity.ts";
import type { Pipeline } from "./pipeline.ts";
import { decode, encode } from "./protocol.ts";
import type { Transport } from "./transport.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** The connection whose messages pass the gate. */
export interface GateOwner {
  readonly client: WebSocketClient;
  readonly host: LimitsHost & { readonly extension: Extension | undefined; readonly handlers: Handlers };
  readonly identity: Identity;
  readonly pipeline: Pipeline | undefined;
  readonly transport: Transport;
  /** Sends a frame, whether or not the client is admitted. */
  transmit(text: string): void;
}

/**
 * Takes a message that is within size and rate to its handler: it is decoded, and the identity says what may be handled. The promise, if
 * there is one, never rejects: later messages wait for it.
 */
export function pass(owner: GateOwner, text: string | null): Promise<void> | undefined {
  const { client, host, identity } = owner;
  // The timer may be late, and the wall clock may have been set forward.
  if (identity.phase === "admitted" && identity.remaining === 0) {
    identity.due();
    // It is asked for anew: this message goes on, first of all, once that is answered.
    if (owner.pipeline?.isHeld) return void owner.pipeline.unshift(text);
  }
  const decoded = decode(text);
  if (!decoded.ok) {
    if (identity.phase === "pending") identity.refuseMessage(decoded.error.uid);
    else owner.transmit(decoded.error.toMessage());
    return undefined;
  }
  const { message } = decoded;
  const { type, uid } = message;
  if (type === "auth") return identity.authenticate(message);
  if (identity.phase === "pending") return void identity.refuseMessage(uid);
  // A pong needs no answer: that it came in is what it is for.
  if (type === "pong") return void owner.transport.answered?.(uid);
  if (type === "ping") {
    const channels = host.extension?.positions(client);
    return void owner.transmit(encode({
      type: "pong",
      ...(uid === undefined ? {} : { uid }),
      ...(channels && { channels }),
      ...(message["limits"] === true && { limits: limitsOf(host, client) }),
    }));
  }
  if (identity.phase === "expired") return void identity.refuseMessage(uid);
  return host.handlers.dispatch(client, message);
}
