import type { Connection } from "../connection/connection.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { Admission } from "../base/limits.ts";
import type { RefusalReason } from "../application/refusals.ts";
import type { CloseCause } from "../protocol/close.ts";

/** The counters of one controller. */
export interface ControllerStats {
  /** Connections opened since the start, including those restored from hibernation. */
  opened: number;
  /** Connections closed since the start. */
  closed: number;
  /** Connections open now. */
  active: number;
  /** Clients admitted now. */
  clients: number;
  /** Upgrades in progress, and connections that are not admitted yet. */
  pending: number;
  /** Connections and upgrades in progress, which count against `maxConnections`. */
  reserved: number;
  /** Scheduled deadlines, such as timeouts and heartbeats. */
  deadlines: number;
  /** Addresses and users with a connection count; 0 without `maxConnectionsPerIp` and `maxConnectionsPerUser`. */
  keys: number;
  /** Upgrades and `auth` messages refused since the start, by reason. */
  refused: Record<RefusalReason, number>;
  /** Connections closed since the start, by cause; the sum is `closed`. `rate` are closed with 4529, `slow` with 4508. */
  closedBy: Record<CloseCause, number>;
  /** Messages dropped since the start because a client read too slowly. Those in the history of a channel are sent later. */
  dropped: number;
  /** Messages from clients that the rate limit refused since the start. */
  limited: number;
  /** Streams that have not ended. */
  streams: number;
}

/** Counts the connections of a controller since the start. */
export class ConnectionCounts {
  opened = 0;
  readonly closedBy: Record<CloseCause, number> = { ...NONE_CLOSED };
  /** The same counts of connections without a WebSocket. */
  readonly overHttp: { opened: number; closedBy: Record<CloseCause, number> } = { opened: 0, closedBy: { ...NONE_CLOSED } };

  /** A connection has opened. */
  add({ isOverHttp }: Connection): void {
    this.opened++;
    if (isOverHttp) this.overHttp.opened++;
  }

  /** A connection has closed. */
  delete({ isOverHttp }: Connection, cause: CloseCause): void {
    this.closedBy[cause]++;
    if (isOverHttp) this.overHttp.closedBy[cause]++;
  }
}

/** All counters at 0. Written out, so that the compiler reports a missing cause. */
const NONE_CLOSED: Readonly<Record<CloseCause, number>> = {
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

/** Reads the counters of a controller. */
export function statsOf(
  { deadlines, rateGate, refusals, sender }: Pick<ConnectionHost, "deadlines" | "rateGate" | "refusals" | "sender">,
  { pending, total: reserved, keys }: Admission,
  { closedBy, ...counts }: Pick<ControllerStats, "opened" | "active" | "clients" | "streams" | "closedBy">,
): ControllerStats {
  return {
    ...counts,
    closed: sumOf(closedBy),
    pending,
    reserved,
    deadlines: deadlines.size,
    keys,
    refused: { ...refusals.counts },
    closedBy: { ...closedBy },
    dropped: sender.dropped,
    limited: rateGate?.limited ?? 0,
  };
}

/** The sum of all counters. */
const sumOf = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((sum, count) => sum + count, 0);
