import type { HistoryOptions } from "../engine.ts";
import { rowsOf, type Sql } from "../sqlite-histories.ts";
import type { MessageItem, RelayInterest } from "./shards.ts";

/** An order that some relays may not have received. */
export interface StoredOrder {
  readonly text: string;
  /** When it was sent, in ms of the wall clock. */
  readonly at: number;
  /** The relay that has sent it; `""` for the home object. */
  readonly sender: string;
}

/** Maximum number of stored orders. Beyond it the oldest are dropped, and {@link HomeStore.orders} returns `lost` first. */
const MAX_ORDERS = 1_000;

/** What the home object stores beside histories and members: its relays, their subscriptions, and orders that they may not have received. */
export class HomeStore {
  /** Identifies this storage. */
  id = "";
  readonly #sql: Sql;
  readonly #state: string;
  readonly #relays: string;
  readonly #interests: string;
  readonly #orders: string;
  /** By relay: its generation. */
  readonly #known = new Map<string, number>();
  /** By relay: the number of calls that have changed its stored data. */
  readonly #revisions = new Map<string, number>();
  /** By channel: the subscribed relays, with the history that each declares. */
  readonly #subscribed = new Map<string, Map<string, HistoryOptions | null>>();
  #hasPending = false;

  constructor(sql: Sql, prefix: string) {
    const table = (name: string) => `"${prefix.replaceAll('"', '""')}_${name}"`;
    this.#sql = sql;
    this.#state = table("home");
    this.#relays = table("relays");
    this.#interests = table("interests");
    this.#orders = table("orders");
  }

  start(): void {
    const sql = this.#sql;
    rowsOf(sql, `CREATE TABLE IF NOT EXISTS ${this.#state} (place INTEGER PRIMARY KEY, id TEXT, pending INTEGER)`);
    rowsOf(
      sql,
      `CREATE TABLE IF NOT EXISTS ${this.#relays} (relay TEXT PRIMARY KEY, generation INTEGER, revision INTEGER) WITHOUT ROWID`,
    );
    // `size`: NULL for a channel without a history.
    rowsOf(
      sql,
      `CREATE TABLE IF NOT EXISTS ${this.#interests}
       (channel TEXT, relay TEXT, size INTEGER, ttl INTEGER, PRIMARY KEY (channel, relay)) WITHOUT ROWID`,
    );
    rowsOf(sql, `CREATE TABLE IF NOT EXISTS ${this.#orders} (place INTEGER PRIMARY KEY, text TEXT, at INTEGER, sender TEXT)`);
    const [state] = rowsOf<{ id: string; pending: number }>(sql, `SELECT id, pending FROM ${this.#state}`);
    this.id = state?.id ?? crypto.randomUUID();
    this.#hasPending = state?.pending === 1;
    if (!state) this.#write();
    const relays = rowsOf<{ relay: string; generation: number; revision: number }>(sql, `SELECT * FROM ${this.#relays}`);
    for (const { relay, generation, revision } of relays) {
      this.#known.set(relay, generation);
      this.#revisions.set(relay, revision);
    }
    const interests = rowsOf<{ channel: string; relay: string; size: number | null; ttl: number }>(
      sql,
      `SELECT * FROM ${this.#interests}`,
    );
    for (const { channel, relay, size, ttl } of interests) this.#remember(relay, channel, size === null ? null : { size, ttl });
  }

  /** By name of each relay: its generation. */
  get relays(): ReadonlyMap<string, number> {
    return this.#known;
  }

  /** By channel: the subscribed relays, with the history that each declares. */
  get channels(): ReadonlyMap<string, ReadonlyMap<string, HistoryOptions | null>> {
    return this.#subscribed;
  }

  /** Whether relays may lack something. Stored, so that it survives an eviction. */
  get hasPending(): boolean {
    return this.#hasPending;
  }

  set hasPending(hasPending: boolean) {
    if (hasPending === this.#hasPending) return;
    this.#hasPending = hasPending;
    this.#write();
    if (!hasPending) rowsOf(this.#sql, `DELETE FROM ${this.#orders}`);
  }

  /** Adds or updates a relay. Returns its revision. @param isChanged whether the call has an operation that changes its stored data. */
  add(relay: string, generation: number, isChanged: boolean): number {
    const before = this.#revisions.get(relay) ?? 0;
    const revision = before + (isChanged ? 1 : 0);
    if (revision === before && this.#known.get(relay) === generation) return revision;
    this.#known.set(relay, generation);
    this.#revisions.set(relay, revision);
    rowsOf(this.#sql, `INSERT OR REPLACE INTO ${this.#relays} VALUES (?, ?, ?)`, relay, generation, revision);
    return revision;
  }

  /** Deletes a relay. Returns the channels that it was subscribed to. */
  delete(relay: string): string[] {
    this.#known.delete(relay);
    this.#revisions.delete(relay);
    rowsOf(this.#sql, `DELETE FROM ${this.#relays} WHERE relay = ?`, relay);
    return this.replace(relay, []);
  }

  subscribe(relay: string, { channel, history }: RelayInterest): void {
    this.#remember(relay, channel, history);
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${this.#interests} VALUES (?, ?, ?, ?)`,
      channel,
      relay,
      history && history.size,
      history && history.ttl,
    );
  }

  unsubscribe(relay: string, channel: string): void {
    const relays = this.#subscribed.get(channel);
    if (!relays?.delete(relay)) return;
    if (relays.size === 0) this.#subscribed.delete(channel);
    rowsOf(this.#sql, `DELETE FROM ${this.#interests} WHERE channel = ? AND relay = ?`, channel, relay);
  }

  /** Replaces the subscriptions of a relay. Returns the channels that it is no longer subscribed to. */
  replace(relay: string, interests: readonly RelayInterest[]): string[] {
    const now = new Set(interests.map(({ channel }) => channel));
    const gone = [...this.#subscribed].filter(([channel, relays]) => relays.has(relay) && !now.has(channel));
    for (const [channel] of gone) this.unsubscribe(relay, channel);
    for (const each of interests) this.subscribe(relay, each);
    return gone.map(([channel]) => channel);
  }

  /** Orders that some relays may not have received, each with its sender. @param now the wall clock, in ms. */
  orders(now: number): { readonly item: MessageItem; readonly sender: string }[] {
    const orders = rowsOf<StoredOrder & { place: number }>(this.#sql, `SELECT * FROM ${this.#orders} ORDER BY place`);
    const items = orders.map(({ text, at, sender }) => {
      return { item: { type: "message", text, isOrder: true, age: Math.max(0, now - at) } as const, sender };
    });
    // The table is emptied when all relays have everything, and numbers its rows from 1 then. If row 1 is missing, orders were dropped.
    return (orders[0]?.place ?? 1) > 1 ? [{ item: { type: "lost" }, sender: "" }, ...items] : items;
  }

  storeOrder({ text, at, sender }: StoredOrder): void {
    rowsOf(this.#sql, `INSERT INTO ${this.#orders} (text, at, sender) VALUES (?, ?, ?)`, text, at, sender);
    rowsOf(
      this.#sql,
      `DELETE FROM ${this.#orders} WHERE place <= (SELECT MAX(place) FROM ${this.#orders}) - ${MAX_ORDERS}`,
    );
  }

  #remember(relay: string, channel: string, history: HistoryOptions | null): void {
    const relays = this.#subscribed.get(channel);
    if (relays) relays.set(relay, history);
    else this.#subscribed.set(channel, new Map([[relay, history]]));
  }

  #write(): void {
    rowsOf(this.#sql, `INSERT OR REPLACE INTO ${this.#state} VALUES (0, ?, ?)`, this.id, this.#hasPending ? 1 : 0);
  }
}
