import type { Extension } from "../application/extension.ts";
import type { ResolvedOptions } from "../application/options.ts";
import type { AnnouncedLimits } from "../protocol/protocol.ts";
import type { RateGate } from "./rate-gate.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** What {@link limitsOf} reads the limits from. */
export interface LimitsHost {
  readonly options: Pick<ResolvedOptions, "maxPayload" | "maxPipelined">;
  /** Absent: messages are not limited. */
  readonly rateGate: RateGate | undefined;
  readonly extension: Pick<Extension, "maxSubscriptions"> | undefined;
}

/** The limits that are announced to a client, which keeps within them (PROTOCOL.md §2.9). */
export function limitsOf({ options, rateGate, extension }: LimitsHost, client: WebSocketClient): AnnouncedLimits {
  const subscriptions = extension?.maxSubscriptions() ?? Infinity;
  return {
    payload: options.maxPayload,
    waiting: options.maxPipelined,
    ...(subscriptions < Infinity && { subscriptions }),
    ...rateGate?.left(client),
  };
}
