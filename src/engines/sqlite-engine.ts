import type { Timed } from "../base/clock.ts";
import type {
  Engine,
  EngineHost,
  EngineStatus,
  HistoryOptions,
  HistoryPage,
  Member,
  Position,
  PublicationContent,
  PublishOnce,
  SubscriptionKeeper,
} from "./engine.ts";
import { guard } from "../base/guard.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { SqliteAnswerStore } from "./sqlite-answer-store.ts";
import { rowsOf, type Sql, SqliteHistories } from "./sqlite-histories.ts";
import { SqlitePublishedIds } from "./sqlite-published-ids.ts";

/** Options of {@link SqliteEngine}. */
export interface SqliteEngineOptions {
  /** Prefix of the table names. @default {"noroshi"} */
  prefix?: string;
  /**
   * Approximate maximum size of all histories, in bytes. Beyond it, the channels that expire first lose their publications, and are
   * deleted if they have no subscriber. Each subscribed channel adds 200 bytes to the limit.
   *
   * @default {67_108_864}
   */
  maxHistoryBytes?: number;
  /** Whether the host receives the events of all channels, not only of subscribed ones. @default {false} */
  receivesAll?: boolean;
}

/** Time in ms after which a member leaves that has not rejoined after a restart: longer than a client takes to reconnect. */
const ABSENCE = 10_000;

/** Minimum time between two sweeps, in ms, because each wakes a hibernating object. */
const SWEEP_PERIOD = 10_000;

/** Members and clients that have returned from hibernation. */
interface Returned {
  readonly members: Map<string, Member>;
  readonly clients: Set<string>;
}

/**
 * The engine of a single node whose storage outlives it, such as a Durable Object.
 *
 * After a restart of the node, a history keeps its epoch, a member that rejoins in time does not leave, and subscriptions of hibernating
 * clients are restored. Only one node may use the tables at a time.
 *
 * A deadline is set only while something can expire, because its alarm wakes the object.
 */
export class SqliteEngine implements Engine, Timed {
  status: EngineStatus = "ready";
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly isAlone = true;
  readonly keeper: SubscriptionKeeper;
  readonly answers: SqliteAnswerStore;

  readonly #sql: Sql;
  readonly #receivesAll: boolean;
  readonly #histories: SqliteHistories;
  readonly #ids: SqlitePublishedIds;
  readonly #members: string;
  readonly #subscriptions: string;
  readonly #runs: string;
  /** The current run (see {@link SqliteHistories}); absent until the first publication. */
  #run: string | undefined;
  /** Whether any client has returned from hibernation. */
  #hasReturned = false;
  /** Subscribed channels, with the ttl of their history in ms or `null` without a history. */
  readonly #subscribed = new Map<string, number | null>();
  #host: EngineHost | undefined;
  /** Number of histories created by this node so far. Each has its own epoch. */
  #epochs = 0;
  /** When the next row expires, in ms of the wall clock. */
  #next = Infinity;
  /** Whether this is the turn of the start, in which clients return from hibernation. */
  #isReturning = false;
  /** Absent once the members and subscriptions that have not returned were handled. */
  #returned: Returned | undefined;

  /** @throws {TypeError} for an invalid option. */
  constructor(sql: Sql, options: SqliteEngineOptions = {}) {
    const { prefix = "noroshi", maxHistoryBytes = 67_108_864, receivesAll = false } = options;
    if (!Number.isSafeInteger(maxHistoryBytes) || maxHistoryBytes < 1) {
      throw new TypeError("Cannot create the engine: maxHistoryBytes must be a whole number of bytes from 1, such as 67_108_864");
    }
    const table = (name: string) => `"${prefix.replaceAll('"', '""')}_${name}"`;
    this.#sql = sql;
    this.#receivesAll = receivesAll;
    this.#histories = new SqliteHistories(sql, table, maxHistoryBytes, {
      now: () => this.#now(),
      // Unique for each node and history, so that a deleted history never returns with the same epoch.
      epoch: () => `${this.#host?.node ?? ""}.${++this.#epochs}`,
      run: () => this.#run ??= this.#findRun(),
      subscribed: () => this.#subscribed.size,
      isSubscribed: (channel) => this.#subscribed.has(channel),
      expiresAt: (until) => this.#schedule(until),
    });
    this.#ids = new SqlitePublishedIds(sql, table, () => this.#now());
    this.answers = new SqliteAnswerStore(sql, table, () => this.#now());
    this.#members = table("members");
    this.#runs = table("runs");
    const subscriptions = this.#subscriptions = table("subscriptions");
    this.keeper = {
      save: (uid, name, text) => {
        this.#returned?.clients.add(uid);
        rowsOf(
          sql,
          `INSERT INTO ${subscriptions} SELECT ?1, ?2, IFNULL(MAX(place), 0) + 1, ?3 FROM ${subscriptions} WHERE uid = ?1
           ON CONFLICT (uid, name) DO UPDATE SET text = excluded.text`,
          uid,
          name,
          text,
        );
      },
      load: (uid) => {
        if (this.#isReturning) this.#hasReturned = true;
        this.#returned?.clients.add(uid);
        const rows = rowsOf<{ text: string }>(sql, `SELECT text FROM ${subscriptions} WHERE uid = ? ORDER BY place`, uid);
        return rows.map(({ text }) => text);
      },
      delete: (uid, name) => {
        if (name === undefined) rowsOf(sql, `DELETE FROM ${subscriptions} WHERE uid = ?`, uid);
        else rowsOf(sql, `DELETE FROM ${subscriptions} WHERE uid = ? AND name = ?`, uid, name);
      },
    };
  }

  /** Number of channels with a history, members or a subscription. */
  get channels(): number {
    const attended = rowsOf<{ channel: string }>(this.#sql, `SELECT DISTINCT channel FROM ${this.#members}`);
    return new Set([...this.#histories.names(), ...attended.map(({ channel }) => channel), ...this.#subscribed.keys()]).size;
  }

  /** Approximate size of the histories, in bytes. */
  get historyBytes(): number {
    return this.#histories.bytes;
  }

  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it belongs to another controller, make one for each");
    this.#host = host;
    this.#histories.start();
    this.#ids.start();
    this.answers.start();
    // `until`: when an absent member leaves, in ms of the wall clock; NULL for a present member.
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#members}
       (channel TEXT, user TEXT, data TEXT, until INTEGER, PRIMARY KEY (channel, user)) WITHOUT ROWID`,
    );
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#subscriptions}
       (uid TEXT, name TEXT, place INTEGER, text TEXT, PRIMARY KEY (uid, name)) WITHOUT ROWID`,
    );
    rowsOf(this.#sql, `CREATE TABLE IF NOT EXISTS ${this.#runs} (place INTEGER PRIMARY KEY, name TEXT)`);
    this.#returned = { members: new Map(), clients: new Set() };
    this.#isReturning = true;
    // Clients return from hibernation in the turn of the start, so no member counts as absent before its end.
    queueMicrotask(() => {
      this.#isReturning = false;
      guard(() => this.due(), (error) => host.report(error));
    });
  }

  send(): void {
    this.#check("send"); // No other node exists.
  }

  nodes(): string[] {
    this.#check("list the nodes");
    return this.#host ? [this.#host.node] : [];
  }

  subscribe(channel: string, history: HistoryOptions | null): Position | null {
    this.#check("subscribe");
    this.#subscribed.set(channel, history && history.ttl);
    return history && this.#histories.open(channel, history);
  }

  unsubscribe(channel: string): void {
    const ttl = this.#subscribed.get(channel);
    this.#subscribed.delete(channel);
    if (typeof ttl === "number") this.#histories.release(channel, ttl);
  }

  publish(channel: string, content: PublicationContent, history: HistoryOptions | null, once?: PublishOnce): Position | null {
    this.#check("publish");
    if (once) {
      const known = this.#ids.find(channel, once);
      if (known !== undefined) return known;
      this.#ids.checkRoom();
    }
    const position = history && this.#histories.append(channel, content, history);
    try {
      if (once) this.#ids.add(channel, once, position);
    } finally {
      // Delivered even if a full storage has no room for the id, because the publication is in the history.
      if (this.#receives(channel)) this.#host?.published(channel, { ...content, position });
    }
    if (history) this.#histories.trim(channel);
    return position;
  }

  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number = Infinity,
  ): HistoryPage {
    this.#check("read");
    return this.#histories.read(channel, history, after, limit, maxBytes);
  }

  /** Invalidates the positions of the channel's history. Returns whether there was one. */
  endHistory(channel: string): boolean {
    return this.#histories.end(channel);
  }

  join(channel: string, member: Member): void {
    this.#check("join");
    const { user, data } = member;
    this.#returned?.members.set(`${channel} ${user}`, member);
    const [row] = rowsOf<{ data: string | null; until: number | null }>(
      this.#sql,
      `SELECT data, until FROM ${this.#members} WHERE channel = ? AND user = ?`,
      channel,
      user,
    );
    // The connections of a member return in any order. Its newest data is known when all have returned.
    const isKnown = row !== undefined && (this.#isReturning || row.data === (data ?? null));
    if (isKnown && row.until === null) return;
    rowsOf(this.#sql, `INSERT OR REPLACE INTO ${this.#members} VALUES (?, ?, ?, NULL)`, channel, user, data ?? null);
    if (!isKnown) this.#present(channel, [data === undefined ? { user } : { user, data }], []);
  }

  leave(channel: string, user: string): void {
    if (this.status === "closed") return;
    const left = rowsOf(this.#sql, `DELETE FROM ${this.#members} WHERE channel = ? AND user = ? RETURNING user`, channel, user);
    if (left.length > 0) this.#present(channel, [], [user]);
  }

  members(channel: string): Member[] {
    this.#check("list the members");
    const rows = rowsOf<{ user: string; data: string | null }>(
      this.#sql,
      `SELECT user, data FROM ${this.#members} WHERE channel = ?`,
      channel,
    );
    return rows.map(({ user, data }) => data === null ? { user } : { user, data });
  }

  close(): void {
    if (this.status === "closed") return;
    this.status = "closed";
    if (!this.#host) return;
    for (const channel of [...this.#subscribed.keys()]) this.unsubscribe(channel);
    rowsOf(this.#sql, `DELETE FROM ${this.#members}`);
    this.#host.deadlines.delete(this);
  }

  /** Handles members and clients that have not returned, and removes expired members and publications. Runs again later if the storage fails. */
  due(): void {
    if (this.status === "closed") return;
    try {
      if (this.#returned && !this.#isReturning) this.#settle(this.#returned);
      else this.#sweep();
      this.#scheduleNext();
    } catch (error) {
      this.#next = this.#now() + SWEEP_PERIOD;
      this.#host?.deadlines.set(this, SWEEP_PERIOD);
      throw error;
    }
  }

  #sweep(): void {
    const gone = rowsOf<{ channel: string; user: string }>(
      this.#sql,
      `DELETE FROM ${this.#members} WHERE until <= ? RETURNING channel, user`,
      this.#now(),
    );
    for (const { channel, user } of gone) this.#present(channel, [], [user]);
    this.#histories.expire();
  }

  /** Runs once all clients have returned. Marks the other members absent, and deletes the subscriptions of lost clients. */
  #settle({ members, clients }: Returned): void {
    const now = this.#now();
    const here = rowsOf<{ channel: string; user: string }>(
      this.#sql,
      `SELECT channel, user FROM ${this.#members} WHERE until IS NULL`,
    );
    for (const { channel, user } of here) {
      const member = members.get(`${channel} ${user}`);
      if (member) this.join(channel, member);
      else {
        const absent = `UPDATE ${this.#members} SET until = ? WHERE channel = ? AND user = ?`;
        rowsOf(this.#sql, absent, now + ABSENCE, channel, user);
      }
    }
    for (const { uid } of rowsOf<{ uid: string }>(this.#sql, `SELECT DISTINCT uid FROM ${this.#subscriptions}`)) {
      if (!clients.has(uid)) this.keeper.delete(uid);
    }
    this.#histories.releaseAbandoned();
    this.#returned = undefined;
  }

  /** Sets the deadline to the next expiry. */
  #scheduleNext(): void {
    const [first] = rowsOf<{ until: number | null }>(this.#sql, `SELECT MIN(until) AS until FROM ${this.#members}`);
    this.#next = Infinity;
    this.#schedule(Math.min(first?.until ?? Infinity, this.#histories.next() ?? Infinity));
    if (this.#next === Infinity) this.#host?.deadlines.delete(this);
  }

  /** Sets the deadline, at least {@link SWEEP_PERIOD} from now. Expired publications may wait, because they are not read. */
  #schedule(until: number): void {
    if (until >= this.#next) return;
    this.#next = until;
    const delay = until - this.#now();
    // Rows that have expired while the node was down are swept at once.
    this.#host?.deadlines.set(this, delay <= 0 ? 0 : Math.min(Math.max(delay, SWEEP_PERIOD), 2 ** 31 - 1));
  }

  /** Returns the name of the current run. If clients have returned from hibernation, it continues the previous one: the storage is no older copy. */
  #findRun(): string {
    const [before] = rowsOf<{ name: string }>(this.#sql, `SELECT name FROM ${this.#runs} WHERE place = 0`);
    if (before && this.#hasReturned) return before.name;
    const name = this.#host?.node ?? "";
    rowsOf(this.#sql, `INSERT OR REPLACE INTO ${this.#runs} VALUES (0, ?)`, name);
    return name;
  }

  #present(channel: string, joined: readonly Member[], left: readonly string[]): void {
    if (this.#receives(channel)) this.#host?.present(channel, joined, left);
  }

  #receives(channel: string): boolean {
    return this.#receivesAll || this.#subscribed.has(channel);
  }

  #check(action: string): void {
    if (this.status !== "closed") return;
    throw new WebSocketError("engine", "ENGINE_UNAVAILABLE", `Cannot ${action}: the engine is closed`);
  }

  #now(): number {
    return this.#host?.now() ?? 0;
  }
}
