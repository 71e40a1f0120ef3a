import type { Connection } from "./connection.ts";
import type { Connections } from "./connections.ts";
import type { BroadcastFilter } from "./broadcast.ts";
import type { DisconnectFilter, Revocation, Revocations } from "./revocations.ts";

/** What the rights of a node's clients depend on. */
export interface RightsHost {
  readonly connections: Connections;
  readonly revocations: Revocations;
  /** The longest that an authentication takes, in ms. */
  readonly timeout: number;
  /** Whether clients can be asked about anew. */
  readonly canRefresh: boolean;
  /** The monotonic clock, in ms. */
  monotonic(): number;
}

/** Takes the rights of clients of this node, or asks for them anew. Orders of other nodes may come late: so many ms ago is their age. */
export class Rights {
  readonly #host: RightsHost;

  constructor(host: RightsHost) {
    this.#host = host;
  }

  disconnect(filter: DisconnectFilter, code: number, reason: string, age?: number): void {
    const { uid, ...rest } = filter;
    if (uid === undefined) this.#revoke("disconnected", rest, age);
    for (const connection of this.#concerned(filter, age)) connection.close(code, reason);
  }

  /** Resolves when all have been asked. */
  async refresh(filter: BroadcastFilter, age?: number): Promise<void> {
    if (!this.#host.canRefresh) return;
    this.#revoke("refreshed", filter, age);
    await Promise.all(this.#concerned(filter, age).map((connection) => connection.revalidate()));
  }

  /** An authentication that began before an old order has ended. */
  #revoke(kind: Revocation, filter: BroadcastFilter, age = 0): void {
    const { monotonic, revocations } = this.#host;
    if (age < revocations.keep) revocations.add(kind, filter, monotonic());
  }

  /** Whoever proved later who they are may have begun to before the order, for as long as that takes. */
  #concerned(filter: DisconnectFilter, age?: number): Connection[] {
    const { connections, monotonic, timeout } = this.#host;
    const matching = connections.matching(filter);
    if (age === undefined) return matching;
    const until = monotonic() - age + timeout;
    return matching.filter(({ identity }) => identity.provedAt <= until);
  }
}
