import type { ClusterClient, ClusterClients, ClusterQuestion } from "../controller/cluster.ts";
import type { WebSocketController } from "../controller/controller.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import { checkMs } from "../base/clock.ts";
import { FAN_OUT, withTimeout } from "../engines/shards/shards.ts";
import { checkFilterObject } from "./object-calls.ts";
import { relayOf } from "./shard-names.ts";

/** Options of `clients` of a sharded object. */
export interface ShardedClientsQuery extends ClusterQuestion {
  /** Maximum number of clients on the page, from 1 to 10,000. @default {10_000} */
  limit?: number;
  /** {@link ShardedClients.next} of the previous page. @default the first page */
  after?: string;
}

/** Clients of all objects, object by object. `node` and `missing` hold names of objects. */
export interface ShardedClients extends ClusterClients {
  /** The option `after` of the next page. Absent on the last page. */
  next?: string;
}

/** The request to one object. */
export interface ClientsQuestion {
  readonly type: "clients";
  readonly filter: BroadcastFilter;
  /** The last `uid` of the previous page. */
  readonly after: string | undefined;
  readonly limit: number;
}

/** Clients of one object, sorted by `uid`. */
export interface ClientsPage {
  readonly clients: readonly Omit<ClusterClient, "node">[];
  /** Whether there are more after the last one. */
  readonly hasMore: boolean;
}

const MAX_LIMIT = 10_000;

/** Default time for each object to answer, in ms, as of `Cluster.clients`. */
const ANSWER_TIMEOUT = 2_000;

/** The clients of this object that match the filter. */
export function clientsOf<C>(
  controller: WebSocketController<C>,
  { filter: { user, role }, after, limit }: ClientsQuestion,
): ClientsPage {
  const clients = Array.from(controller.clients(), ({ uid, accountability }) => ({
    uid,
    user: accountability.user,
    role: accountability.role,
  })).filter((client) =>
    (user === undefined || client.user === user) && (role === undefined || client.role === role) &&
    (after === undefined || client.uid > after)
  );
  clients.sort((one, other) => one.uid < other.uid ? -1 : 1);
  return { clients: clients.slice(0, limit), hasMore: clients.length > limit };
}

/**
 * Lists the clients of objects until the page is full. Asks up to {@link FAN_OUT} objects at once.
 *
 * @param names of the home object and its relays.
 * @throws {TypeError} for an invalid filter or option.
 */
export async function listClients(
  names: readonly string[],
  ask: (name: string, question: ClientsQuestion) => Promise<ClientsPage>,
  filter: BroadcastFilter,
  { timeout = ANSWER_TIMEOUT, limit = MAX_LIMIT, after }: ShardedClientsQuery,
): Promise<ShardedClients> {
  checkFilterObject("list the clients", filter);
  checkMs("Cannot list the clients: timeout", timeout);
  if (!Number.isSafeInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
    throw new TypeError("Cannot list the clients: limit must be a whole number from 1 to 10,000");
  }
  const from = readCursor(after);
  const objects = names.map((name) => ({ name, number: relayOf(name)?.number ?? HOME }))
    .filter(({ number }) => number >= from.number).sort((one, other) => one.number - other.number);
  const clients: ClusterClient[] = [];
  const missing: string[] = [];
  let next = after;
  while (objects.length > 0) {
    const some = objects.splice(0, FAN_OUT);
    const left = limit - clients.length;
    const pages = await Promise.all(some.map(({ name, number }) => {
      const last = number === from.number ? from.uid : undefined;
      return withTimeout(ask(name, { type: "clients", filter, after: last, limit: left }), timeout).catch(() => undefined);
    }));
    for (const [index, page] of pages.entries()) {
      const { name, number } = some[index]!; // Each has its page.
      if (!page) missing.push(name);
      for (const client of page?.clients ?? []) {
        if (clients.length === limit) return { clients, missing, next: next! }; // Set with the last client.
        clients.push({ node: name, ...client });
        next = `${number} ${client.uid}`;
      }
      if (page?.hasMore) return { clients, missing, next: next! }; // As above.
    }
    if (clients.length === limit && objects.length > 0) return { clients, missing, next: next! }; // As above.
  }
  return { clients, missing };
}

/** Number of the home object, which sorts before the relays. */
const HOME = -1;

/** @throws {TypeError} for text that is no {@link ShardedClients.next}. */
function readCursor(after: string | undefined): { number: number; uid: string | undefined } {
  if (after === undefined) return { number: HOME, uid: undefined };
  const [, number, uid] = /^(-1|\d{1,4}) ([^]+)$/.exec(String(after)) ?? [];
  if (uid === undefined) throw new TypeError("Cannot list the clients: after must be the `next` of the previous page");
  return { number: Number(number), uid };
}
