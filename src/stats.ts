import type { RefusalReason } from "./refusals.ts";
import type { CloseCause } from "./close.ts";

/** Counters of one controller. */
export interface ControllerStats {
  /** Connections opened since the start, those that came back from hibernation included. */
  opened: number;
  /** Connections closed since the start. */
  closed: number;
  /** Connections open now. */
  active: number;
  /** Clients admitted now. */
  clients: number;
  /** Upgrades under way and connections that have not been admitted. */
  pending: number;
  /** Places taken of `maxConnections`: connections and upgrades under way. */
  reserved: number;
  /** Things that wait for a time. */
  deadlines: number;
  /** Addresses and users that are counted, where their connections are limited. */
  keys: number;
  /** Upgrades and `auth` messages refused since the start, by reason. */
  refused: Record<RefusalReason, number>;
  /** Connections closed since the start, by why: they add up to `closed`. `rate` are those closed with 4529, `slow` those with 4508. */
  closedBy: Record<CloseCause, number>;
  /** Messages that could not be handed to a client since the start, for it reads too slowly. What a channel keeps is sent later. */
  dropped: number;
  /** Messages of clients that the rate limit has refused since the start. */
  limited: number;
}

/** No close yet, of any cause. */
export const NO_CLOSES: Readonly<Record<CloseCause, number>> = {
  client: 0,
  server: 0,
  auth: 0,
  expired: 0,
  rate: 0,
  payload: 0,
  slow: 0,
  heartbeat: 0,
  age: 0,
  drain: 0,
  error: 0,
};

/** All that was counted. */
export const sumOf = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0);
