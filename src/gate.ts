import { type LimitsHost, limitsOf } from "./announced-limits.ts";
import { byteLength, exceedsBytes, textOf } from "./bytes.ts";
import { CloseCode } from "./close.ts";
import type { ConnectionState } from "./connection-state.ts";
import type { Extension } from "./extension.ts";
import type { Handlers } from "./handlers.ts";
import type { Identity } from "./identity.ts";
import type { Pipeline } from "./pipeline.ts";
import { decode, encode } from "./protocol.ts";
import type { RateGateOwner } from "./rate-gate.ts";
import type { Transport } from "./transport.ts";

/** Why a client is closed whose messages wait in too great a number. */
export const FLOOD = "Too many messages waiting";

/** The connection whose messages pass the gate. */
export interface GateOwner extends RateGateOwner {
  readonly host: LimitsHost & {
    readonly options: { readonly maxPayload: number };
    readonly extension: Extension | undefined;
    readonly handlers: Handlers;
  };
  readonly identity: Identity;
  readonly pipeline: Pipeline | undefined;
  readonly transport: Transport;
  readonly state: ConnectionState;
  /** Lets later messages wait for the promise, which does not reject. */
  hold(settled: Promise<void>): void;
}

/**
 * The gate: a frame that arrives is checked for size and rate, waits where an earlier message is not done, and goes on by {@link pass}. Only a
 * view's own bytes count.
 *
 * @param now in ms of the monotonic clock.
 */
export function receive(owner: GateOwner, data: string | ArrayBuffer | ArrayBufferView, now: number): void {
  const { options: { maxPayload }, rateGate } = owner.host;
  if (typeof data === "string" ? exceedsBytes(data, maxPayload) : data.byteLength > maxPayload) {
    return owner.close(CloseCode.MESSAGE_TOO_BIG, "Message too big", "payload");
  }
  if (rateGate && !rateGate.lets(owner, typeof data === "string" ? byteLength(data) : data.byteLength, now)) return;
  const text = typeof data === "string" ? data : textOf(data);
  if (!owner.pipeline?.isHeld) pass(owner, text);
  else if (!owner.pipeline.push(text)) owner.close(CloseCode.RATE_LIMITED, FLOOD, "rate");
}

/** The rest of the gate, also for a message that had to wait: it is decoded, the identity says what may be handled, and handlers follow. */
export function pass(owner: GateOwner, text: string | null): void {
  const settled = handle(owner, text);
  if (settled) owner.hold(settled);
}

/** The promise, if there is one, never rejects: later messages wait for it. */
function handle(owner: GateOwner, text: string | null): Promise<void> | undefined {
  const { client, host, identity } = owner;
  // The timer may be late, and the wall clock may have been set forward.
  if (owner.state === "admitted" && identity.remaining === 0) {
    identity.due();
    // It is asked for anew: this message goes on, first of all, once that is answered.
    if (owner.pipeline?.isHeld) return void owner.pipeline.unshift(text);
  }
  const decoded = decode(text);
  if (!decoded.ok) {
    if (owner.state === "pending") identity.refuseMessage(decoded.error.uid);
    else owner.transmit(decoded.error.toMessage());
    return undefined;
  }
  const { message } = decoded;
  const { type, uid } = message;
  if (type === "auth") return identity.authenticate(message);
  if (owner.state === "pending") return void identity.refuseMessage(uid);
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
  if (owner.state === "expired") return void identity.refuseMessage(uid);
  return host.handlers.dispatch(client, message);
}
