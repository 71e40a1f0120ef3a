import type { Checker } from "../support/checker.ts";
import type { Order } from "./faults.ts";
import type { AnyClient } from "./simulated-client.ts";
import type { Site } from "./site.ts";

/** Compares what nodes and clients know with what is so, when nothing has happened for some time. */
export class Inspection {
  readonly #site: Site;
  readonly #clients: readonly AnyClient[];
  readonly #checker: Checker;

  constructor(site: Site, clients: readonly AnyClient[], checker: Checker) {
    this.#site = site;
    this.#clients = clients;
    this.#checker = checker;
  }

  /** Every subscription is where the history of its channel ends, and everything that was sent long ago is answered. */
  positions(before: number): void {
    for (const client of this.#clients) {
      const unanswered = client.unanswered(before);
      if (unanswered.length > 0) this.#problem(`${client.name} has no answer for ${[...new Set(unanswered)].join(", ")}`);
      for (const channel of client.subscribed) {
        const own = client.followers.get(channel)?.position;
        const end = this.#site.end(channel);
        if (own && own.epoch === end?.epoch && own.offset === end.offset) continue;
        const [is, should] = [own, end].map((at) => at && `${at.offset} in ${at.epoch}`);
        this.#problem(`${client.name} is at ${is} of ${channel}, which ends at ${should}`);
      }
    }
  }

  /** Every node and every list of a client has exactly the members that are connected, all with the same data. */
  async members(): Promise<void> {
    const clients = this.#clients;
    for (const room of new Set(clients.map(({ room }) => room))) {
      const inRoom = clients.filter((client) => client.room === room);
      const there = inRoom.filter(({ isMember }) => isMember);
      const names = new Set(there.map(nameOf));
      const data = new Set(there.map(({ member }) => member));
      let first: ReadonlyMap<string, string> | undefined;
      const compare = (source: string, members: Iterable<readonly [user: string, data: string]>) => {
        const known = new Map(
          Array.from(members, ([user, data]) => [user.startsWith("uid:") ? data.split("/")[0]! : user, data]),
        ); // There is a first part.
        this.#checker.members(`${source}, in ${room},`, known.keys(), names);
        for (const [name, each] of known) {
          if (names.has(name) && !data.has(each)) {
            this.#problem(`${source}, in ${room}, has data of ${name} that is gone: ${each}`);
          } else if (first?.has(name) && first.get(name) !== each) {
            this.#problem(`${source}, in ${room}, has other data of ${name}: ${each}`);
          }
        }
        first ??= known;
      };
      for (const [source, list] of this.#site.memberLists(room)) {
        try {
          const members = await list();
          compare(source, members.map(({ user, data }) => [user, String(data)]));
        } catch (error) {
          this.#problem(`${source} cannot name the members of ${room}: ${String(error)}`);
        }
      }
      for (const { name, members } of inRoom) if (members) compare(name, members);
    }
  }

  /** Nobody is still connected whom an order has disconnected, or whose rights were taken. */
  orders(orders: readonly Order[]): void {
    for (const { kind, user, at, clients, isLost } of orders) {
      if (isLost) continue;
      if (kind === "refresh") {
        for (const client of this.#clients) {
          if (client.user !== user || !client.isConnected) continue;
          this.#problem(`${client.name} is connected, though the rights of ${user} were taken at ${Math.floor(at / 1_000)} s`);
        }
        continue;
      }
      for (const [client, openedAt] of clients) {
        if (client.isConnected && client.openedAt === openedAt) {
          this.#problem(`${client.name} is still connected, though ${user} was disconnected at ${Math.floor(at / 1_000)} s`);
        }
      }
    }
  }

  /** Nobody is subscribed whose permission was taken. */
  permissions(isWithdrawn: (client: AnyClient, channel: string) => boolean): void {
    for (const client of this.#clients) {
      for (const channel of client.subscribed) {
        if (isWithdrawn(client, channel)) {
          this.#problem(`${client.name} is subscribed to ${channel}, though that is no longer allowed`);
        }
      }
    }
  }

  #problem(text: string): void {
    this.#checker.problem(text);
  }
}

const nameOf = ({ name, user }: AnyClient): string => user ?? name;
