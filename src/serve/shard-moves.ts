import { isMs, type Timed } from "../base/clock.ts";
import { connectionOf } from "../application/websocket-client.ts";
import type { Connection } from "../connection/connection.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { isBusy, saysDrained } from "../controller/drain.ts";
import { FAN_OUT, RELAY_TIMEOUT, withTimeout } from "../engines/shards/shards.ts";
import { rowsOf, type Sql } from "../engines/sqlite-histories.ts";
import { CloseCode } from "../protocol/close.ts";
import { relayOf } from "./shard-names.ts";

/** Options of {@link Shards.rebalance}. */
export interface RebalanceOptions {
  /**
   * Time over which each relay closes its surplus clients evenly, in ms, up to 600_000; `0` closes them at once.
   *
   * @default {30_000}
   */
  window?: number;
}

/** Result of {@link Shards.rebalance}. */
export interface Rebalance {
  /**
   * Number of clients that each relay is to close, by the name of the relay. A client with a request in progress until the end of
   * the window is not closed. Absent: the relay has no surplus.
   */
  moving: Record<string, number>;
  /** Relays that did not answer, and keep their clients. */
  missing: string[];
}

/** A request to one relay. */
export type MoveQuestion =
  /** Asks for the number of its connections. */
  | { readonly type: "count" }
  /** Closes all connections but `keep`, over `window` ms. Answered with the number that it closes. */
  | { readonly type: "move"; readonly keep: number; readonly window: number };

/**
 * Relays up to so many times an even share are left alone: a hash is about as uneven, and each move costs a client a reconnect.
 */
const TOLERANCE = 1.1;

const [DEFAULT_WINDOW, MAX_WINDOW] = [30_000, 600_000];

/** Time between two rounds of closes, in ms. */
const TICK = 1_000;

/** For so many ms after a move, a relay with `keep` connections refuses more: the closed clients reconnect meanwhile. */
const HOLD = 60_000;

/**
 * Lets each relay that has more than an even share of the connections close its surplus.
 *
 * @param relays names of the relays that the home object lists. Others have no connections.
 * @param shards number of relays. Relays with a number from this one on close all clients.
 */
export async function rebalance(
  relays: readonly string[],
  shards: number,
  window: number,
  ask: (relay: string, question: MoveQuestion) => Promise<number>,
): Promise<Rebalance> {
  const [moving, missing]: [Record<string, number>, string[]] = [{}, []];
  const counts = new Map<string, number>();
  const askSome = async (names: readonly string[], question: (name: string) => MoveQuestion, answered: typeof count) => {
    const waiting = [...names];
    const askNext = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
        try {
          answered(name, await withTimeout(ask(name, question(name)), RELAY_TIMEOUT));
        } catch {
          missing.push(name);
        }
      }
    };
    await Promise.all(Array.from({ length: FAN_OUT }, askNext));
  };
  const count = (name: string, connections: number) => void counts.set(name, connections);
  await askSome(relays, () => ({ type: "count" }), count);
  const share = Math.ceil([...counts.values()].reduce((sum, each) => sum + each, 0) / shards);
  const kept = (name: string) => (relayOf(name)?.number ?? Infinity) < shards ? share : 0;
  const full = [...counts.keys()].filter((name) => counts.get(name)! > TOLERANCE * kept(name)); // One of its keys.
  await askSome(full, (name) => ({ type: "move", keep: kept(name), window }), (name, moved) => {
    if (moved > 0) moving[name] = moved;
  });
  return { moving, missing };
}

/** Returns the window. @throws {TypeError} if it is out of range. */
export function windowOf({ window = DEFAULT_WINDOW }: RebalanceOptions = {}): number {
  if (window === 0 || isMs(window) && window <= MAX_WINDOW) return window;
  throw new TypeError("Cannot rebalance: window must be 0 or a whole number of ms up to 600_000, such as 30_000");
}

interface Move {
  /** Number of connections that stay. */
  readonly keep: number;
  /** When the others are closed, in ms of the wall clock. */
  readonly ends: number;
}

/**
 * Moves surplus clients of a relay to others: closes idle ones over a window, and refuses new ones until the closed clients have
 * reconnected elsewhere. Stored, so that a move continues after an eviction.
 *
 * Connections over HTTP stay, because the address of the client decides which relay they have.
 */
export class ShardMoves<C> implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #controller: WebSocketController<C>;
  readonly #sql: Sql;
  readonly #table: string;
  #move: Move | undefined;

  /** @param prefix of the table name. */
  constructor(controller: WebSocketController<C>, sql: Sql, prefix: string) {
    this.#controller = controller;
    this.#sql = sql;
    this.#table = `"${prefix.replaceAll('"', '""')}_move"`;
  }

  /** Continues a move from before an eviction. Otherwise begins one if there are more clients than a lowered `maxConnections`. */
  start(): void {
    rowsOf(this.#sql, `CREATE TABLE IF NOT EXISTS ${this.#table} (place INTEGER PRIMARY KEY, keep INTEGER, ends INTEGER)`);
    [this.#move] = rowsOf<Move>(this.#sql, `SELECT keep, ends FROM ${this.#table}`);
    const live = this.#live();
    const [first] = live;
    if (!first) return;
    const { maxConnections } = first.host.options;
    if (this.#left() > 0) this.#wait(first, TICK);
    else if (live.length > maxConnections) this.begin(maxConnections, DEFAULT_WINDOW);
  }

  /** Number of connections, and of upgrades in progress. */
  get count(): number {
    return this.#controller.stats().reserved;
  }

  /** Whether new clients have to go to another relay. */
  get isFull(): boolean {
    return this.#left() > -HOLD && this.count >= this.#move!.keep; // `#left` is finite only with a move.
  }

  /** Begins to close the connections beyond `keep`. Returns how many these are. */
  begin(keep: number, window: number): number {
    const surplus = Math.max(0, Math.min(this.#live().length - keep, this.#live().filter(isMovable).length));
    this.#move = { keep, ends: Date.now() + window };
    rowsOf(this.#sql, `INSERT OR REPLACE INTO ${this.#table} VALUES (0, ?, ?)`, keep, this.#move.ends);
    this.due();
    return surplus;
  }

  /** Closes the part of the surplus that is due now. */
  due(): void {
    const [left, live] = [this.#left(), this.#live()];
    const surplus = live.length - (this.#move?.keep ?? Infinity);
    if (surplus <= 0) return;
    const count = left > TICK ? Math.ceil(surplus * TICK / left) : surplus;
    const idle = live.filter((connection) => isMovable(connection) && !isBusy(connection));
    idle.sort((one, other) => one.receivedAt - other.receivedAt); // The one that is silent for longest first.
    for (const connection of idle.slice(0, count)) {
      const reason = saysDrained(connection) ? "drained retry=0" : "retry=0";
      connection.close(CloseCode.TRY_AGAIN_LATER, reason, "drain");
    }
    if (left > 0) this.#wait(live[0]!, Math.min(TICK, left)); // There is a surplus.
  }

  /** Time until the end of the move, in ms; −Infinity without one, or when the clock was set back since. */
  #left(): number {
    const left = this.#move ? this.#move.ends - Date.now() : -Infinity;
    return left > MAX_WINDOW ? -Infinity : left;
  }

  #wait({ host: { deadlines } }: Connection, ms: number): void {
    deadlines.set(this, ms);
  }

  #live(): Connection[] {
    const connections = Array.from(this.#controller.clients(), (client) => connectionOf(client) as Connection); // The controller made it.
    return connections.filter(({ state }) => state !== "closing" && state !== "closed");
  }
}

const isMovable = ({ transport }: Connection): boolean => transport.save !== undefined;
