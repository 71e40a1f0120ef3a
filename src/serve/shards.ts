/**
 * Spreads the clients of an app over many Durable Objects: a home object stores everything, and relays hold the connections.
 *
 * @module
 */
import type { AnySchemas } from "../channels/channels.ts";
import type { ClusterQuestion, ClusterStats } from "../controller/cluster.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import type { Contract } from "../protocol/contract-types.ts";
import { createWebSocketObject, type WebSocketObject, type WebSocketObjectApp } from "./cloudflare.ts";
import { withEngine } from "./object-engine.ts";
import type { AnyPayloads } from "./schedules.ts";
import type { ShardedClients, ShardedClientsQuery } from "./shard-clients.ts";
import { type Rebalance, type RebalanceOptions, windowOf } from "./shard-moves.ts";
import { LAST_TRY, type ShardedObjectState, type ShardNamespace, ShardPart } from "./shard-part.ts";

export type { ShardedClients, ShardedClientsQuery } from "./shard-clients.ts";
export type { Rebalance, RebalanceOptions } from "./shard-moves.ts";
export type { ShardedObjectState, ShardNamespace } from "./shard-part.ts";

/** Options of {@link createShardedObject}. */
export interface ShardedObjectOptions<Env> {
  /** The binding of the class itself, by which its objects call each other. */
  namespace(env: Env): ShardNamespace;
}

/** A Durable Object that is a home object or a relay, depending on its name. */
export interface ShardedObject<
  Env = unknown,
  C = Contract,
  Schemas = AnySchemas,
  Payloads = AnyPayloads,
  State = ShardedObjectState,
> extends WebSocketObject<Env, C, Schemas, Payloads, State> {
  /** Lists the clients of all relays, page by page. Relays that do not answer within the `timeout` are in `missing`. */
  clients(filter?: BroadcastFilter, query?: ShardedClientsQuery): Promise<ShardedClients>;
  /** Counts the connections and clients of each object. `stats` counts those of this object only. */
  allStats(options?: ClusterQuestion): Promise<ClusterStats>;
  /** See {@link Shards.rebalance}, which calls it. */
  rebalance(shards: number, options?: RebalanceOptions): Promise<Rebalance>;
  /** Called by the other objects only. */
  callShard(controller: string, call: unknown): Promise<unknown>;
}

/**
 * Creates the class of a home object and its relays. The name of an object, which {@link shard} gives it, decides which of them
 * it is.
 *
 * The home object stores histories, members and ids, and has no connections: its methods, such as `publish`, reach the clients of
 * all relays. A relay holds connections, their subscriptions and the positions of its channels in its own storage.
 *
 * @param build creates the controller and the app with its route, once per object and again after each eviction.
 * @throws {TypeError} when the object starts: as `createWebSocketObject`, without SQLite storage, without a name, or for a
 * controller with an engine.
 *
 * @example
 * ```ts
 * export class Newsroom extends createShardedObject((env: Env) => createNewsroom(env), { namespace: (env) => env.NEWSROOM }) {}
 * export default forward((env: Env) => shard(env.NEWSROOM, { name: "main", shards: 16 }));
 * ```
 */
export function createShardedObject<
  Env,
  C = Contract,
  Schemas = AnySchemas,
  Payloads = AnyPayloads,
  State extends ShardedObjectState = ShardedObjectState,
>(
  build: (env: Env, state: State) => WebSocketObjectApp<C, Schemas, Payloads>,
  { namespace }: ShardedObjectOptions<Env>,
): new (state: State, env: Env) => ShardedObject<Env, C, Schemas, Payloads, State> {
  /** The parts of objects under construction: `super` makes a part before the constructor can store it. */
  const parts = new WeakMap<State, ShardPart<C>>();
  const Base = createWebSocketObject<Env, C, Schemas, Payloads, State>((env, state) => {
    const app = build(env, state);
    const part = new ShardPart<C>(state, namespace(env), [app.controller].flat());
    parts.set(state, part);
    return withEngine(app, (sql, controller) => part.engine(sql, controller));
  });

  class Sharded extends Base {
    readonly #part: ShardPart<C>;

    constructor(state: State, env: Env) {
      super(state, env);
      this.#part = parts.get(state)!; // Set by `build`, which `super` has called.
      this.#part.start();
    }

    override async fetch(request: Request): Promise<Response> {
      return await this.#part.admit(request, () => super.fetch(request));
    }

    async clients(filter: BroadcastFilter = {}, query: ShardedClientsQuery = {}): Promise<ShardedClients> {
      const home = this.#part.home as Pick<ShardedObject, "clients"> | undefined; // Of the class itself.
      return await (home ? home.clients(filter, query) : this.#part.clients(filter, query));
    }

    async allStats(options?: ClusterQuestion): Promise<ClusterStats> {
      return await this.#part.controller.cluster.stats(options);
    }

    async rebalance(shards: number, options?: RebalanceOptions): Promise<Rebalance> {
      checkShards(shards);
      const window = windowOf(options);
      const home = this.#part.home as Pick<ShardedObject, "rebalance"> | undefined; // Of the class itself.
      return await (home ? home.rebalance(shards, { window }) : this.#part.rebalance(shards, window));
    }

    async callShard(controller: string, call: unknown): Promise<unknown> {
      return await this.#part.receive(controller, call);
    }
  }
  return Sharded;
}

/** Options of {@link shard}. */
export interface ShardOptions {
  /** Name of the home object. Without `#`. */
  name: string;
  /** Number of relays, from 1 to 1,000. After a change, clients move when they reconnect, or by {@link Shards.rebalance}. */
  shards: number;
  /**
   * Returns a key, such as a session id. Requests with the same key go to the same relay unless it is full.
   * @default the `Sec-WebSocket-Key` of an upgrade, which spreads clients evenly; the client's address for other requests
   */
  key?: (request: Request) => string;
}

/** A home object and its relays, as a Worker calls them. */
export interface Shards<Stub> {
  /** Forwards a request to a relay. An upgrade that the relay answers with 503 is tried on up to three others. */
  fetch(request: Request): Promise<Response>;
  /**
   * Moves clients from relays with more than an even share to the others. Call it after `shards` has changed, or when many
   * clients have the same key. A relay closes surplus clients that are idle with 1013 and `retry=0`, and refuses new clients
   * until a minute after the window. Clients that reconnect recover their channels. Resolves once all relays have begun.
   *
   * @throws {TypeError} for an invalid option.
   */
  rebalance(options?: RebalanceOptions): Promise<Rebalance>;
  /** The stub of the home object. Its methods, such as `publish`, `presence` and `broadcast`, cover all relays. */
  readonly home: Stub;
}

/** Maximum number of relays tried for one upgrade. */
const MAX_TRIES = 4;

/**
 * Returns the home object and the relays of this name. A relay is full when its controller has as many connections as
 * `maxConnections`.
 *
 * @throws {TypeError} for an invalid option.
 */
export function shard<Stub extends { fetch(request: Request): Promise<Response> }>(
  namespace: ShardNamespace<Stub>,
  { name, shards, key = keyOf, ...rest }: ShardOptions,
): Shards<Stub> {
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new TypeError(`Cannot shard: unknown option "${unknown}", use name, shards or key`);
  if (typeof key !== "function") throw new TypeError("Cannot shard: key must be a function of the request");
  if (typeof name !== "string" || name === "" || name.includes("#")) {
    throw new TypeError('Cannot shard: name must be a string without "#", such as "main"');
  }
  checkShards(shards);
  return {
    get home() {
      return namespace.getByName(name);
    },
    async rebalance(options) {
      const home = namespace.getByName(name) as unknown as Pick<ShardedObject, "rebalance">; // Its class is made by `createShardedObject`.
      return await home.rebalance(shards, { window: windowOf(options) });
    },
    async fetch(request) {
      const isUpgrade = request.headers.has("upgrade");
      const tries = isUpgrade ? Math.min(MAX_TRIES, shards) : 1;
      const [text, tried] = [key(request), new Set<number>()];
      for (let number = 0;; number++) {
        // Each further try has a different hash, so that the clients of a full relay are spread over all others.
        let index = hash(`${number} ${text}`) % shards;
        while (tried.has(index)) index = (index + 1) % shards;
        tried.add(index);
        const relay = namespace.getByName(`${name}#${index}`);
        const isLast = number + 1 >= tries;
        try {
          const response = await relay.fetch(isLast && isUpgrade ? lastTry(request) : request);
          if (isLast || response.status !== 503) return response;
          await response.body?.cancel();
        } catch (error) {
          if (isLast) throw error;
        }
      }
    },
  };
}

function checkShards(shards: number): void {
  if (Number.isSafeInteger(shards) && shards >= 1 && shards <= 1_000) return;
  throw new TypeError("Cannot shard: shards must be a whole number from 1 to 1,000");
}

/** The request for the last relay to be tried, which accepts it even while it moves clients away. */
function lastTry(request: Request): Request {
  const copy = new Request(request);
  copy.headers.set(LAST_TRY, "1");
  return copy;
}

function keyOf({ headers }: Request): string {
  return headers.get("sec-websocket-key") ?? headers.get("cf-connecting-ip") ?? "";
}

/** FNV-1a, with a final step that spreads the bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return (value ^ (value >>> 12)) >>> 0;
}
