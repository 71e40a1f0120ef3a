import type { WebSocketController } from "../controller/controller.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import { HomeEngine } from "../engines/shards/home-engine.ts";
import { RelayEngine } from "../engines/shards/relay-engine.ts";
import {
  type CallHome,
  type CallRelay,
  type HomeCall,
  RELAY_TIMEOUT,
  type RelayCall,
  withTimeout,
} from "../engines/shards/shards.ts";
import type { Sql } from "../engines/sqlite-histories.ts";
import type { WebSocketObjectState } from "./durable-object.ts";
import { prefixOf } from "./object-engine.ts";
import {
  clientsOf,
  type ClientsPage,
  type ClientsQuestion,
  listClients,
  type ShardedClients,
  type ShardedClientsQuery,
} from "./shard-clients.ts";
import { type MoveQuestion, type Rebalance, rebalance, ShardMoves } from "./shard-moves.ts";
import { relayOf } from "./shard-names.ts";

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

/** Header of an upgrade that is not tried on another relay. */
export const LAST_TRY = "noroshi-last-try";

/** A request of the home object to itself or a relay, for the application. */
type ShardQuestion = ClientsQuestion | MoveQuestion;

/** The role of one object, home object or relay, with an engine for each controller. */
export class ShardPart<C> {
  readonly #state: ShardedObjectState;
  readonly #namespace: ShardNamespace;
  readonly #controllers: WebSocketController<C>[];
  readonly #engines = new Map<string, HomeEngine | RelayEngine>();
  /** By name of the controller. Empty on a home object. */
  readonly #moves = new Map<string, ShardMoves<C>>();
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

  /** The stub of the home object; `undefined` on the home object itself. */
  get home(): unknown {
    const relay = relayOf(this.#name);
    return relay && this.#namespace.getByName(relay.home);
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
    const home = relayOf(name)?.home;
    const options = { sql, prefix: prefixOf(controller), callRelay, hasConnections: () => this.#hasConnections() };
    const engine = home === undefined ? new HomeEngine(options) : new RelayEngine({
      ...options,
      relay: name,
      callHome: (call) => this.#call(home, controller, call) as ReturnType<CallHome>, // As above.
    });
    this.#engines.set(controller, engine);
    const served = this.#controllers.find((each) => each.name === controller)!; // The object makes the engine of each.
    if (home !== undefined) this.#moves.set(controller, new ShardMoves(served, sql, options.prefix));
    return engine;
  }

  /** Call it once hibernated connections are restored. @throws {TypeError} for a controller that uses another engine. */
  start(): void {
    for (const { name, engine } of this.#controllers) {
      if (engine === this.#engines.get(name)) continue;
      throw new TypeError(`Cannot build the object: the controller "${name}" has an engine, leave out its option engine`);
    }
    for (const moves of this.#moves.values()) moves.start();
  }

  /**
   * Handles a request that may become a connection, once the home object lists this relay: an unlisted relay misses broadcasts
   * and orders such as `disconnect`. While clients are moved away, refuses upgrades that another relay may accept.
   */
  async admit({ headers }: Request, fetch: () => Promise<Response>): Promise<Response> {
    if (headers.has("upgrade") && !headers.has(LAST_TRY) && [...this.#moves.values()].some(({ isFull }) => isFull)) {
      return new Response("This relay moves its clients to others", { status: 503, headers: { "retry-after": "1" } });
    }
    this.#fetching++;
    try {
      const relays = [...this.#engines.values()].filter((engine) => engine instanceof RelayEngine);
      await withTimeout(Promise.all(relays.map((relay) => relay.register())), RELAY_TIMEOUT);
    } catch {
      this.#fetching--;
      return new Response("The home object does not answer, try again later", { status: 503 });
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
    const made = call as HomeCall | RelayCall | ShardQuestion;
    if ("type" in made) return this.#answer(controller, made);
    return engine instanceof HomeEngine ? await engine.receive(made as HomeCall) : await engine.receive(made as RelayCall);
  }

  /** Lists clients of this home object and its relays. */
  async clients(filter: BroadcastFilter, query: ShardedClientsQuery): Promise<ShardedClients> {
    const { name } = this.controller;
    const ask = async (object: string, question: ClientsQuestion) =>
      (object === this.#name ? this.#answer(name, question) : await this.#call(object, name, question)) as ClientsPage; // As `#answer` makes it.
    return await listClients([this.#name, ...this.#relaysOf(name)], ask, filter, query);
  }

  /** Rebalances the relays of this home object. */
  async rebalance(shards: number, window: number): Promise<Rebalance> {
    const result: Rebalance = { moving: {}, missing: [] };
    for (const { name } of this.#controllers) {
      const ask = async (relay: string, question: MoveQuestion) => await this.#call(relay, name, question) as number; // As `#answer` makes it.
      const { moving, missing } = await rebalance(this.#relaysOf(name), shards, window, ask);
      for (const [relay, count] of Object.entries(moving)) result.moving[relay] = (result.moving[relay] ?? 0) + count;
      result.missing = [...new Set([...result.missing, ...missing])];
    }
    return result;
  }

  get #name(): string {
    return this.#state.id.name!; // `engine` has checked it.
  }

  /** The relays with connections of this controller, or of another one. */
  #relaysOf(controller: string): string[] {
    const engine = this.#engines.get(controller);
    return engine instanceof HomeEngine ? engine.relays : [];
  }

  #answer(name: string, question: ShardQuestion): ClientsPage | number {
    if (question.type === "clients") return clientsOf(this.#controllers.find((each) => each.name === name)!, question); // As `receive` found.
    const moves = this.#moves.get(name);
    if (!moves) throw new TypeError("Cannot move clients: this is a home object");
    return question.type === "count" ? moves.count : moves.begin(question.keep, question.window);
  }

  /** Whether there are connections, event streams of clients without WebSockets, or upgrades in progress. */
  #hasConnections(): boolean {
    return this.#fetching > 0 || this.#controllers.some((controller) => controller.stats().reserved > 0);
  }

  /** Gets a stub for each call, because one that has failed stays broken. */
  async #call(name: string, controller: string, call: unknown): Promise<unknown> {
    const stub = this.#namespace.getByName(name) as { callShard(controller: string, call: unknown): Promise<unknown> }; // Of the class itself.
    return await stub.callShard(controller, call);
  }
}
