import type { Connection } from "./connection.ts";
import type { Connections } from "./connections.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import type { DisconnectFilter, Revocation, Revocations } from "./revocations.ts";

/** What {@link Rights} needs from the controller. */
export interface RightsHost {
  readonly connections: Connections;
  readonly revocations: Revocations;
  /** Maximum duration of an authentication, in ms. */
  readonly timeout: number;
  /** Whether the option `revalidate` is set. */
  readonly canRefresh: boolean;
  /** The monotonic clock, in ms. */
  monotonic(): number;
}

/**
 * Disconnects and refreshes the clients of this node. An order of another node may arrive late: `age` is the time since it was sent, in ms.
 */
export class Rights {
  readonly #host: RightsHost;

  constructor(host: RightsHost) {
    this.#host = host;
  }

  disconnect(filter: DisconnectFilter, code: number, reason: string, age?: number): void {
    const { uid, ...rest } = filter;
    if (uid === undefined) this.#revoke("disconnected", rest, age);
    for (const connection of this.#affected(filter, age)) connection.close(code, reason);
  }

  /** Calls `revalidate` for the matching clients. Resolves when it has settled for all of them. */
  async refresh(filter: BroadcastFilter, age?: number): Promise<void> {
    if (!this.#host.canRefresh) return;
    this.#revoke("refreshed", filter, age);
    await Promise.all(this.#affected(filter, age).map((connection) => connection.revalidate()));
  }

  /** Adds the revocation, unless it is older than `keep`, so that each authentication from before it has ended. */
  #revoke(kind: Revocation, filter: BroadcastFilter, age = 0): void {
    const { monotonic, revocations } = this.#host;
    if (age < revocations.keep) revocations.add(kind, filter, monotonic());
  }

  /** The matching clients, without those that authenticated later than `timeout` after the order. The others may have begun before it. */
  #affected(filter: DisconnectFilter, age?: number): Connection[] {
    const { connections, monotonic, timeout } = this.#host;
    const matching = connections.matching(filter);
    if (age === undefined) return matching;
    const until = monotonic() - age + timeout;
    return matching.filter(({ identity }) => identity.provedAt === undefined || identity.provedAt <= until);
  }
}
