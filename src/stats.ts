import type { RefusalReason } from "./refusals.ts";

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
}
