/**
 * One room over many Durable Objects: a home object that stores everything, and relay objects that hold the connections.
 *
 * @module
 */
import type { AnySchemas } from "../channels/channels.ts";
import type { ClusterClients, ClusterQuestion, ClusterStats } from "../controller/cluster.ts";
import type { WebSocketController } from "../controller/controller.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import { HomeEngine } from "../engines/shards/home-engine.ts";
import { RelayEngine } from "../engines/shards/relay-engine.ts";
import { type CallHome, type CallRelay, type HomeCall, inTime, RELAY_TIMEOUT, type RelayCall } from "../engines/shards/shards.ts";
import type { Sql } from "../engines/sqlite-histories.ts";
import type { Contract } from "../protocol/contract-types.ts";
import { createWebSocketObject, type WebSocketObject, type WebSocketObjectApp, type WebSocketObjectState } from "./cloudflare.ts";
import { checkFilterObject } from "./object-calls.ts";
import { prefixOf, withEngine } from "./object-engine.ts";
import type { AnyPayloads } from "./schedules.ts";

/** The part of a Durable Object's state that `createShardedObject` uses. */
export interface ShardedObjectState extends WebSocketObjectState {
  /** The object's id, with the name that it was made from. */
  readonly id: { readonly name?: string | undefined };
}

/** A namespace of Durable Objects. */
export interface ShardNamespace<Stub = unknown> {
  /** Returns the stub of the object with this name. */
  getByName(name: string): Stub;
}

/** Options of {@link createShardedObject}. */
export interface ShardedObjectOptions<Env> {
  /** The binding of the class itself, by which its objects call each other. */
  namespace(env: Env): ShardNamespace;
}

/** A Durable Object that is a home object or a relay, by its name. */
export interface ShardedObject<
  Env = unknown,
  C = Contract,
  Schemas = AnySchemas,
  Payloads = AnyPayloads,
  State = ShardedObjectState,
> extends WebSocketObject<Env, C, Schemas, Payloads, State> {
  /** Lists the clients of all relays. Those that do not answer within the `timeout` are in `missing`. */
  clients(filter?: BroadcastFilter, options?: ClusterQuestion): Promise<ClusterClients>;
  /** Counts the connections and clients of each object. `stats` counts those of this object alone. */
  allStats(options?: ClusterQuestion): Promise<ClusterStats>;
  /** Called by the other objects only. */
  callShard(controller: string, call: unknown): Promise<unknown>;
}

/** The name of a relay: that of its home object, and its number. */
const RELAY = /^([^]*)#(\d+)$/;

/**
 * Creates the class of a home object and its relays. Each object of the class is one of them by its name, as {@link shard} calls it.
 *
 * The home object stores histories, members and ids, and has no connections: its methods, such as `publish`, reach the clients of all
 * relays. A relay holds connections, their subscriptions and the positions of its channels in its own storage.
 *
 * @param build creates the controller and the app with its route, once per object and again after each eviction.
 * @throws {TypeError} when the object starts: as `createWebSocketObject`, without SQLite storage or a name, or for a controller that has an
 * engine.
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
  /** Of an object that is being constructed: its part here, which the constructor takes over. */
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
      this.#part.check();
    }

    override async fetch(request: Request): Promise<Response> {
      return await this.#part.admit(() => super.fetch(request));
    }

    async clients(filter: BroadcastFilter = {}, options?: ClusterQuestion): Promise<ClusterClients> {
      checkFilterObject("list the clients", filter);
      return await this.#part.controller.cluster.clients(filter, options);
    }

    async allStats(options?: ClusterQuestion): Promise<ClusterStats> {
      return await this.#part.controller.cluster.stats(options);
    }

    async callShard(controller: string, call: unknown): Promise<unknown> {
      return await this.#part.receive(controller, call);
    }
  }
  return Sharded;
}

/** What an object is among the shards: its engines, one for each controller. */
class ShardPart<C> {
  readonly #state: ShardedObjectState;
  readonly #namespace: ShardNamespace;
  readonly #controllers: WebSocketController<C>[];
  readonly #engines = new Map<string, HomeEngine | RelayEngine>();
  /** Requests in progress, which may become connections. */
  #fetching = 0;

  constructor(state: ShardedObjectState, namespace: ShardNamespace, controllers: WebSocketController<C>[]) {
    this.#state = state;
    this.#namespace = namespace;
    this.#controllers = controllers;
  }

  get controller(): WebSocketController<C> {
    return this.#controllers[0]!; // The object throws without one.
  }

  engine(sql: Sql | undefined, controller: string): HomeEngine | RelayEngine {
    const { name } = this.#state.id;
    if (!sql) {
      throw new TypeError("Cannot build the object: shards need SQLite storage, write new_sqlite_classes instead of new_classes");
    }
    if (name === undefined) {
      throw new TypeError("Cannot build the object: shards need a name, call it with getByName() or shard()");
    }
    const callRelay: CallRelay = (relay, call) => this.#call(relay, controller, call) as ReturnType<CallRelay>; // As `receive` answers.
    const [, home] = RELAY.exec(name) ?? [];
    const options = { sql, prefix: prefixOf(controller), callRelay, hasConnections: () => this.#hasConnections() };
    const engine = home === undefined ? new HomeEngine(options) : new RelayEngine({
      ...options,
      relay: name,
      callHome: (call) => this.#call(home, controller, call) as ReturnType<CallHome>, // As above.
    });
    this.#engines.set(controller, engine);
    return engine;
  }

  /** @throws {TypeError} for a controller that uses another engine. */
  check(): void {
    for (const { name, engine } of this.#controllers) {
      if (engine === this.#engines.get(name)) continue;
      throw new TypeError(`Cannot build the object: the controller "${name}" has an engine, leave out its option engine`);
    }
  }

  /**
   * Lets a request in that may become a connection, once the home object lists this relay: it would get no broadcast and no order otherwise.
   */
  async admit(fetch: () => Promise<Response>): Promise<Response> {
    this.#fetching++;
    try {
      const relays = [...this.#engines.values()].filter((engine) => engine instanceof RelayEngine);
      await inTime(Promise.all(relays.map((relay) => relay.register())), RELAY_TIMEOUT);
    } catch {
      this.#fetching--;
      return new Response("The home object is away, try again later", { status: 503 });
    }
    try {
      return await fetch();
    } finally {
      this.#fetching--;
    }
  }

  async receive(controller: string, call: unknown): Promise<unknown> {
    const engine = this.#engines.get(controller);
    if (!engine) throw new TypeError(`Cannot answer another object: there is no controller "${controller}" here`);
    // Written by an object of the class: no other code calls it.
    return engine instanceof HomeEngine ? await engine.receive(call as HomeCall) : await engine.receive(call as RelayCall);
  }

  /** With the event streams of clients without WebSockets, and upgrades in progress. */
  #hasConnections(): boolean {
    return this.#fetching > 0 || this.#controllers.some((controller) => controller.stats().reserved > 0);
  }

  /** A stub that has failed stays broken: each call has its own. */
  async #call(name: string, controller: string, call: unknown): Promise<unknown> {
    const stub = this.#namespace.getByName(name) as Pick<ShardedObject, "callShard">; // Of the class itself.
    return await stub.callShard(controller, call);
  }
}

/** Options of {@link shard}. */
export interface ShardOptions {
  /** Name of the home object. Without `#`. */
  name: string;
  /** Number of relays, from 1 to 1,000. It may change: relays beyond it keep their clients until these reconnect. */
  shards: number;
  /**
   * What the relay of a request depends on, such as the id of the session. Requests with the same key go to the same relay unless that is
   * full. @default the `Sec-WebSocket-Key` of an upgrade, so that clients are spread evenly; the address for other requests
   */
  key?: (request: Request) => string;
}

/** A home object and its relays, as a Worker calls them. */
export interface Shards<Stub> {
  /** Forwards a request to a relay. If that is full, overloaded or leaving, an upgrade goes to the next one. */
  fetch(request: Request): Promise<Response>;
  /** The stub of the home object: its `publish`, `presence`, `history`, `clients`, `broadcast`, `disconnect` and schedules are of all relays. */
  readonly home: Stub;
}

/** Relays that are tried for one upgrade. */
const MAX_TRIES = 4;

/**
 * Returns the home object and the relays of this name. A relay is full when its controller has as many connections as `maxConnections`.
 *
 * @throws {TypeError} for an invalid option.
 */
export function shard<Stub extends { fetch(request: Request): Promise<Response> }>(
  namespace: ShardNamespace<Stub>,
  { name, shards, key = keyOf }: ShardOptions,
): Shards<Stub> {
  if (typeof name !== "string" || name === "" || name.includes("#")) {
    throw new TypeError('Cannot shard: name must be a string without "#", such as "main"');
  }
  if (!Number.isSafeInteger(shards) || shards < 1 || shards > 1_000) {
    throw new TypeError("Cannot shard: shards must be a whole number from 1 to 1,000");
  }
  return {
    get home() {
      return namespace.getByName(name);
    },
    async fetch(request) {
      const isUpgrade = request.headers.has("upgrade");
      const tries = isUpgrade ? Math.min(MAX_TRIES, shards) : 1;
      const [text, tried] = [key(request), new Set<number>()];
      for (let number = 0;; number++) {
        // Each further try has a hash of its own: the clients of a full relay are spread over all others.
        let place = hash(`${number} ${text}`) % shards;
        while (tried.has(place)) place = (place + 1) % shards;
        tried.add(place);
        const relay = namespace.getByName(`${name}#${place}`);
        const isLast = number + 1 >= tries;
        try {
          const response = await relay.fetch(request);
          if (isLast || response.status !== 503) return response;
          await response.body?.cancel();
        } catch (error) {
          if (isLast) throw error;
        }
      }
    },
  };
}

function keyOf({ headers }: Request): string {
  return headers.get("sec-websocket-key") ?? headers.get("cf-connecting-ip") ?? "";
}

/** FNV-1a, with a last step that spreads the bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return (value ^ (value >>> 12)) >>> 0;
}
