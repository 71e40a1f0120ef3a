import * as v from "valibot";
import type { HistoryOptions, Position, PublishOnce } from "../engine.ts";
import type { BrokerListener, BrokerPage, BrokerSession, Seal, SessionOptions, StoredOrders } from "../broker/broker.ts";
import type { KnownPositions } from "../broker/known-positions.ts";
import { Appended, Fetched, Heartbeat, LatestPositions, Own, Page, Start, Strings } from "./replies.ts";
import { CallQueue } from "./call-queue.ts";
import { codeOf, isLost, type PostgresConnection } from "./client.ts";
import { prefixOf, VERSION } from "./migrations.ts";
import { type Named, Notifications, type Rows } from "./notifications.ts";

/** What a node keeps across sessions. A database that has less than this has lost data. */
export interface PostgresMemory {
  readonly positions: KnownPositions;
  /** The result of `noroshi_run` and the end of the write-ahead log, when last read. */
  run: string;
  lsn: string | null;
}

/** Error codes for a missing table, schema or function. */
const MISSING = ["42P01", "3F000", "42883"];

/** Maximum number of orders that `kept` returns (calls.ts). */
const MAX_ORDERS = 10_000;

/** Number of heartbeats between two sweeps of all parts. */
const SWEEP_PERIOD = 20;

/** The kinds of rows that expire, as `noroshi_sweep` names them. Each heartbeat sweeps the first. */
export const PARTS: readonly string[] = ["mail", "orders", "ids", "answers", "members", "channels", "histories", "publications"];

/** A session with PostgreSQL, over one connection for statements and one that listens. */
export class PostgresSession implements BrokerSession {
  readonly fullNamespace: string;
  readonly answers: BrokerSession["answers"];
  readonly #connection: PostgresConnection;
  readonly #prefix: string;
  readonly #statement: string;
  readonly #calls: CallQueue;
  readonly #listener: BrokerListener;
  readonly #options: SessionOptions;
  readonly #memory: PostgresMemory;
  readonly #notifications: Notifications;
  readonly #channels = new Set<string>();
  #isSweeping = false;
  #isClosed = false;
  #sentHeartbeats = 0;
  #receivedHeartbeats = 0;
  /** The database's clock when last read, in ms, and `performance.now()` at that time. */
  #serverTime = 0;
  #readAt = 0;

  constructor(
    connection: PostgresConnection,
    schema: string,
    listener: BrokerListener,
    options: SessionOptions,
    memory: PostgresMemory,
  ) {
    const { namespace, node } = options;
    this.fullNamespace = schema === "public" ? namespace : `${schema}.${namespace}`;
    this.#connection = connection;
    this.#listener = listener;
    this.#options = options;
    this.#memory = memory;
    this.#prefix = prefixOf(schema);
    this.#statement = `${this.#prefix}noroshi_call($1::text, $2::text) as answers`;
    this.#calls = new CallQueue(connection, `select ${this.#statement}`, namespace, (error) => {
      if (isLost(error)) listener.ended(error);
    });
    this.answers = {
      claim: (key, text, ttl) => this.#call(v.nullable(v.string()), "claim", key, text, ttl),
      settle: (key, text, ttl) => this.#run("settle", key, text, ttl),
    };
    this.#notifications = new Notifications({
      listener,
      follows: (channel) => this.#channels.has(channel),
      heartbeat: (from, count) => {
        if (from === node) this.#receivedHeartbeats = Math.max(this.#receivedHeartbeats, count);
      },
      fetch: (names) => this.#fetch(names),
    });
  }

  /**
   * @param subject the result of {@link subjectOf}.
   * @param migrate updates tables of an earlier version. Resolves with whether it has changed them.
   */
  async start(subject: string, migrate: (version: number) => Promise<boolean>): Promise<void> {
    const listening = this.#options.onlySends
      ? undefined
      : this.#connection.listen(subject, (payload) => this.#notifications.receive(payload));
    listening?.catch(() => {}); // Awaited below.
    const [version, now] = await this.#begin(MISSING);
    this.#setClock(await migrate(version) ? (await this.#begin([]))[1] : now);
    await listening;
  }

  now(): number {
    return this.#serverTime + performance.now() - this.#readAt;
  }

  listen(channels: readonly string[]): Promise<void> {
    // Notifications arrive for all channels; rows are read for these only.
    for (const channel of channels) this.#channels.add(channel);
    return Promise.resolve();
  }

  unlisten(channels: readonly string[]): Promise<void> {
    for (const channel of channels) this.#channels.delete(channel);
    this.#notifications.unfollowed();
    return Promise.resolve();
  }

  async publish(
    channel: string,
    seal: Seal,
    history: HistoryOptions | null,
    known?: Position,
    once?: PublishOnce,
  ): Promise<Position | null> {
    const sealed = seal();
    const envelope = typeof sealed === "string" ? sealed : await sealed;
    const id = [once?.id ?? null, once?.window ?? 0];
    if (!history) {
      await this.#run("event", channel, envelope, ...id);
      return null;
    }
    const { size, ttl } = history;
    const terms = [size, ttl, this.#options.slack, ...this.#known(channel, known)];
    const [epoch, offset, isKnown] = await this.#call(Appended, "append", channel, envelope, ...terms, ...id);
    // Without an epoch: the first publication with this id was made without a history.
    if (isKnown) return epoch === "" ? null : { epoch, offset };
    return this.#remember(channel, { epoch, offset });
  }

  async read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
    known?: Position,
  ): Promise<BrokerPage> {
    const { size, ttl } = history;
    const most = Math.min(limit, size);
    // A node that continues from its own position may read more than `size`, because rows are removed later.
    const isConfirmed = after !== null && after === known;
    const bytes = Math.min(maxBytes, Number.MAX_SAFE_INTEGER);
    const query = [after?.epoch ?? null, after?.offset ?? 0, most, bytes, ...this.#known(channel, known), isConfirmed];
    const [epoch, offset, isComplete, found, hasMore] = await this.#call(
      Page,
      "read",
      channel,
      size,
      ttl,
      this.#options.slack,
      ...query,
    );
    const position = this.#remember(channel, { epoch, offset });
    const entries = found.map(([offset, previous, time, envelope]) => ({
      position: { epoch, offset },
      envelope,
      time,
      previous,
    }));
    if (after) return { position, entries, isComplete, hasMore };
    // Only entries after the last gap.
    const broken = entries.findLastIndex(({ previous }, number) =>
      number > 0 && previous !== entries[number - 1]!.position.offset
    );
    return { position, entries: entries.slice(Math.max(0, broken)), isComplete: true };
  }

  async endHistory(channel: string, { epoch }: Position): Promise<void> {
    await this.#run("end", channel, epoch);
  }

  async latestPositions(
    channels: readonly string[],
    histories: readonly HistoryOptions[],
    known: readonly (Position | undefined)[],
  ): Promise<(Position | null)[]> {
    const { slack } = this.#options;
    // All three have the same length.
    const query = channels.map((channel, number) => [
      channel,
      histories[number]!.ttl + slack,
      slack,
      ...this.#known(channel, known[number]),
    ]);
    const latest = await this.#call(LatestPositions, "tops", query);
    // Publications that are still being read must not look lost to the caller.
    await this.#notifications.settled();
    return channels.map((channel, number) => {
      const found = latest[number];
      return found ? this.#remember(channel, { epoch: found[0], offset: found[1] }) : null;
    });
  }

  async send(envelope: string): Promise<void> {
    await this.#run("send", envelope);
  }

  async storeOrder(envelope: string): Promise<void> {
    await this.#run("keep", envelope);
  }

  async storedOrders(since: number): Promise<StoredOrders> {
    const envelopes = await this.#call(Strings, "kept", Math.max(0, Math.floor(since)));
    return { envelopes, isWhole: envelopes.length < MAX_ORDERS };
  }

  async heartbeat(): Promise<boolean> {
    if (this.#options.onlySends) return true;
    const { node, lease } = this.#options;
    const before = this.#sentHeartbeats;
    const [wasKnown, now, run, lsn] = await this.#call(Heartbeat, "beat", node, lease, ++this.#sentHeartbeats);
    // Each heartbeat notifies this node. If the one before did not arrive, the connection that listens is dead. This is checked after the
    // answer, because a process that was stopped for a while has not yet read what had arrived.
    if (this.#receivedHeartbeats < before) {
      const error = new Error(
        "Cannot receive notifications: none arrives on the connection that listens, pass the option listen a client without a pooler",
      );
      this.#listener.ended(error);
      throw error;
    }
    this.#setClock(now);
    this.#memory.run = run;
    this.#memory.lsn = lsn;
    const parts = this.#sentHeartbeats % SWEEP_PERIOD === 2 ? PARTS : PARTS.slice(0, 1); // Not at the first heartbeat, because calls wait for it.
    setTimeout(() => this.#isSweeping || void this.#sweep(parts));
    return wasKnown;
  }

  nodes(): Promise<string[]> {
    return this.#call(Strings, "nodes");
  }

  async join(channel: string, user: string, envelope: string): Promise<void> {
    await this.#change("join", channel, user, envelope);
  }

  async leave(channel: string, user: string, envelope: string): Promise<void> {
    await this.#change("leave", channel, user, envelope);
  }

  members(channel: string): Promise<string[]> {
    return this.#call(Strings, "members", channel);
  }

  async ownMembers(): Promise<{ channel: string; envelope: string }[]> {
    if (this.#options.onlySends) return [];
    return (await this.#call(Own, "own", this.#options.node)).map(([channel, envelope]) => ({ channel, envelope }));
  }

  async retire(): Promise<void> {
    if (!this.#options.onlySends) await this.#run("retire", this.#options.node);
  }

  close(): void {
    this.#calls.stop(new Error("Cannot use PostgreSQL: the session was closed"));
    this.#isClosed = true;
    this.#connection.close();
  }

  /** Changes a member. If this node is subscribed to the channel, it has received the change when this resolves. */
  async #change(change: "join" | "leave", channel: string, user: string, envelope: string): Promise<void> {
    const follows = this.#channels.has(channel);
    const id = await this.#call(v.number(), change, channel, this.#options.node, user, envelope);
    if (follows) await this.#notifications.delivered(channel, id);
  }

  /**
   * Reads the version of the tables and the time, in one round trip. The time is 0 if the tables have to be migrated first.
   *
   * @param allowed error codes that mean version 0, without tables.
   */
  async #begin(allowed: readonly string[]): Promise<[version: number, now: number]> {
    const { run, lsn } = this.#memory;
    const text = `select (select max(version) from ${this.#prefix}noroshi_migrations)::text as version, ${this.#statement}`;
    try {
      const [row] = await this.#connection.query(text, [this.#options.namespace, JSON.stringify([["start", run, lsn]])]);
      const version = Number(row?.["version"] ?? 0);
      return version < VERSION ? [version, 0] : [version, ...v.parse(Start, JSON.parse(`${row?.["answers"]}`))];
    } catch (error) {
      if (allowed.includes(codeOf(error) ?? "")) return [0, 0];
      throw error;
    }
  }

  /** Removes what has expired, in short steps, because other calls wait for each step. */
  async #sweep(parts: readonly string[]): Promise<void> {
    this.#isSweeping = true;
    try {
      // Only parts that may have more are swept again.
      for (let rest = parts; rest.length > 0 && !this.#isClosed;) rest = await this.#call(Strings, "sweep", rest);
    } catch (error) {
      if (!this.#isClosed) this.#listener.ended(error);
    }
    this.#isSweeping = false;
  }

  async #fetch(names: readonly Named[]): Promise<Rows> {
    const publications = names.flatMap((named) =>
      "position" in named ? [[named.channel, named.position.epoch, named.position.offset]] : []
    );
    const ids = names.flatMap((named) => "id" in named ? named.id : []);
    const [found, mail] = await this.#call(Fetched, "fetch", publications, ids);
    const rows = new Map(found.map(([channel, epoch, offset, previous, envelope]) => [
      `${channel} ${epoch} ${offset}`,
      { previous, envelope },
    ]));
    const texts = new Map(mail);
    return {
      publication: ({ channel, position: { epoch, offset } }) => rows.get(`${channel} ${epoch} ${offset}`),
      mail: ({ id }) => texts.get(id),
    };
  }

  #setClock(now: number): void {
    this.#serverTime = now;
    this.#readAt = performance.now();
  }

  /** The latest position that the channel is known to have had. */
  #known(channel: string, position: Position | undefined): [epoch: string | null, offset: number] {
    const known = this.#memory.positions.latest(channel, position);
    return known ? [known.epoch, known.offset] : [null, 0];
  }

  /** Keeps a position that PostgreSQL has reported. */
  #remember(channel: string, position: Position): Position {
    this.#memory.positions.remember(channel, position);
    return position;
  }

  async #run(...call: unknown[]): Promise<void> {
    await this.#calls.call(...call);
  }

  async #call<Answer>(schema: v.GenericSchema<unknown, Answer>, ...call: unknown[]): Promise<Answer> {
    return v.parse(schema, await this.#calls.call(...call));
  }
}

/** Computes the result of the SQL function `noroshi_subject`. */
export async function subjectOf(schema: string, namespace: string): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify([prefixOf(schema), namespace]));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return `noroshi_${Array.from(hash.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
