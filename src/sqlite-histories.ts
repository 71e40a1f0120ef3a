import type { HistoryOptions, HistoryPage, Position, Publication, PublicationContent } from "./engine.ts";

/** A SQLite database that answers at once: a Durable Object's `storage.sql`, or an adapter for `bun:sqlite` or `node:sqlite`. */
export interface Sql {
  /** Runs one statement, to its end. */
  exec(query: string, ...bindings: (string | number | null)[]): Iterable<unknown>;
}

/** The rows that a statement gives, or changes. */
export function rowsOf<Row>(sql: Sql, query: string, ...bindings: (string | number | null)[]): Row[] {
  return [...sql.exec(query, ...bindings)] as Row[]; // The columns are those of the query.
}

/** What a channel takes beside its publications, and a publication beside its text, in bytes. */
const ROW_BYTES = 200;

/** Channels that are forgotten in one turn, at most. */
const SWEEP_CHANNELS = 2_000;

/** When more was kept than may be, this much of it stays: to find what to give up all channels are read. */
const TRIM_TO = 0.9;

interface ChannelRow {
  epoch: string;
  /** The offset of the last publication. */
  top: number;
  bytes: number;
}

/** What the histories have to know of their engine. */
export interface HistoriesOwner {
  now(): number;
  /** Names a new history. */
  epoch(): string;
  isSubscribed(channel: string): boolean;
  /** Something will have run out by then, in ms. */
  runsOut(until: number): void;
}

/**
 * The last publications of all channels, in two tables. A channel has a time until which it is kept; none while somebody is subscribed and
 * nothing of it is left to run out, so that an idle channel needs no deadline.
 */
export class SqliteHistories {
  /** About what they take, in bytes. */
  bytes = 0;
  readonly #sql: Sql;
  readonly #channels: string;
  readonly #publications: string;
  readonly #maxBytes: number;
  readonly #owner: HistoriesOwner;

  constructor(sql: Sql, table: (name: string) => string, maxBytes: number, owner: HistoriesOwner) {
    this.#sql = sql;
    this.#channels = table("channels");
    this.#publications = table("publications");
    this.#maxBytes = maxBytes;
    this.#owner = owner;
  }

  start(): void {
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#channels}
       (channel TEXT PRIMARY KEY, epoch TEXT, top INTEGER, bytes INTEGER, until INTEGER, ttl INTEGER) WITHOUT ROWID`,
    );
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#publications}
       (channel TEXT, top INTEGER, event TEXT, data TEXT, bytes INTEGER, until INTEGER, PRIMARY KEY (channel, top)) WITHOUT ROWID`,
    );
    const [sum] = rowsOf<{ bytes: number | null }>(this.#sql, `SELECT SUM(bytes) AS bytes FROM ${this.#channels}`);
    this.bytes = sum?.bytes ?? 0;
  }

  names(): string[] {
    return rowsOf<{ channel: string }>(this.#sql, `SELECT channel FROM ${this.#channels}`).map(({ channel }) => channel);
  }

  /** When the first channel runs out, in ms. */
  next(): number | null {
    return rowsOf<{ until: number | null }>(this.#sql, `SELECT MIN(until) AS until FROM ${this.#channels}`)[0]?.until ?? null;
  }

  /** Where the channel stands; it is begun where it has no history. */
  open(channel: string, { ttl }: HistoryOptions): Position {
    return positionOf(this.#open(channel, ttl));
  }

  append(channel: string, { event, data }: PublicationContent, { size, ttl }: HistoryOptions): Position {
    const row = this.#open(channel, ttl);
    const until = this.#owner.now() + ttl;
    const position = { epoch: row.epoch, offset: row.top + 1 };
    const bytes = ROW_BYTES + 2 * (event.length + data.length);
    // First of all, for it is what can fail: a row holds 2 MB.
    rowsOf(
      this.#sql,
      `INSERT INTO ${this.#publications} VALUES (?, ?, ?, ?, ?, ?)`,
      channel,
      position.offset,
      event,
      data,
      bytes,
      until,
    );
    // What is too old is not read; it goes with the channel, or when it is pushed out.
    const change = bytes - this.#drop(channel, position.offset - size);
    rowsOf(
      this.#sql,
      `UPDATE ${this.#channels} SET top = ?, bytes = ?, until = ?, ttl = ? WHERE channel = ?`,
      position.offset,
      row.bytes + change,
      until,
      ttl,
      channel,
    );
    this.bytes += change;
    this.#owner.runsOut(until);
    this.#trim(channel);
    return position;
  }

  read(channel: string, history: HistoryOptions, after: Position | null, limit: number): HistoryPage {
    const row = this.#open(channel, history.ttl);
    const position = positionOf(row);
    const most = Math.min(limit, history.size);
    const missed = after ? row.top - after.offset : most;
    // A fraction of an offset would be given a part.
    const isPlace = !after || (after.epoch === row.epoch && Number.isSafeInteger(after.offset) && missed >= 0);
    if (!isPlace || missed > most) return { position, publications: [], isComplete: false };
    const publications = rowsOf<PublicationContent & { top: number }>(
      this.#sql,
      `SELECT top, event, data FROM ${this.#publications} WHERE channel = ? AND top > ? AND until > ? ORDER BY top`,
      channel,
      row.top - missed,
      this.#owner.now(),
    ).map(({ top, event, data }): Publication => ({ event, data, position: { epoch: row.epoch, offset: top } }));
    if (after && publications.length < missed) return { position, publications: [], isComplete: false };
    return { position, publications, isComplete: true };
  }

  /** Nobody is subscribed any more: who was may come back to where it was for so long. */
  release(channel: string, ttl: number): void {
    const until = this.#owner.now() + ttl;
    rowsOf(this.#sql, `UPDATE ${this.#channels} SET until = MAX(IFNULL(until, 0), ?) WHERE channel = ?`, until, channel);
    this.#owner.runsOut(until);
  }

  /** The same for those whose subscribers were lost with the node. */
  releaseAbandoned(): void {
    const rows = rowsOf<{ channel: string; ttl: number }>(
      this.#sql,
      `SELECT channel, ttl FROM ${this.#channels} WHERE until IS NULL`,
    );
    for (const { channel, ttl } of rows) if (!this.#owner.isSubscribed(channel)) this.release(channel, ttl);
  }

  /** Gives up what has run out. */
  expire(): void {
    const rows = rowsOf<{ channel: string; bytes: number }>(
      this.#sql,
      `SELECT channel, bytes FROM ${this.#channels} WHERE until <= ? LIMIT ${SWEEP_CHANNELS}`,
      this.#owner.now(),
    );
    for (const { channel, bytes } of rows) {
      this.#empty(channel, bytes);
      if (this.#owner.isSubscribed(channel)) {
        rowsOf(this.#sql, `UPDATE ${this.#channels} SET until = NULL WHERE channel = ?`, channel);
      }
    }
  }

  #open(channel: string, ttl: number): ChannelRow {
    const [row] = rowsOf<ChannelRow>(this.#sql, `SELECT epoch, top, bytes FROM ${this.#channels} WHERE channel = ?`, channel);
    if (row) return row;
    const made = { epoch: this.#owner.epoch(), top: 0, bytes: ROW_BYTES };
    const until = this.#owner.now() + ttl;
    rowsOf(
      this.#sql,
      `INSERT INTO ${this.#channels} VALUES (?, ?, ?, ?, ?, ?)`,
      channel,
      made.epoch,
      made.top,
      made.bytes,
      until,
      ttl,
    );
    this.bytes += made.bytes;
    this.#owner.runsOut(until);
    this.#trim(channel);
    return made;
  }

  /** Gives up the publications up to the offset. Returns their bytes. */
  #drop(channel: string, top: number): number {
    const dropped = rowsOf<{ bytes: number }>(
      this.#sql,
      `DELETE FROM ${this.#publications} WHERE channel = ? AND top <= ? RETURNING bytes`,
      channel,
      top,
    );
    return dropped.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Gives up all publications, and the channel itself where nobody is subscribed. */
  #empty(channel: string, bytes: number): void {
    rowsOf(this.#sql, `DELETE FROM ${this.#publications} WHERE channel = ?`, channel);
    if (this.#owner.isSubscribed(channel)) {
      rowsOf(this.#sql, `UPDATE ${this.#channels} SET bytes = ${ROW_BYTES} WHERE channel = ?`, channel);
      this.bytes -= bytes - ROW_BYTES;
    } else {
      rowsOf(this.#sql, `DELETE FROM ${this.#channels} WHERE channel = ?`, channel);
      this.bytes -= bytes;
    }
  }

  /** Makes room: the channels published to longest ago are emptied, and last of all the one in use gives up its oldest. */
  #trim(used: string): void {
    if (this.bytes <= this.#maxBytes) return;
    const rows = rowsOf<{ channel: string; bytes: number }>(
      this.#sql,
      `SELECT channel, bytes FROM ${this.#channels} WHERE channel <> ? ORDER BY IFNULL(until - ttl, 0)`,
      used,
    );
    for (const { channel, bytes } of rows) {
      if (this.bytes <= this.#maxBytes * TRIM_TO) return;
      if (bytes > ROW_BYTES || !this.#owner.isSubscribed(channel)) this.#empty(channel, bytes);
    }
    const kept = rowsOf<{ top: number; bytes: number }>(
      this.#sql,
      `SELECT top, bytes FROM ${this.#publications} WHERE channel = ? ORDER BY top`,
      used,
    );
    let excess = this.bytes - this.#maxBytes;
    const last = kept.find(({ bytes }) => (excess -= bytes) <= 0) ?? kept.at(-1);
    if (!last) return;
    const bytes = this.#drop(used, last.top);
    rowsOf(this.#sql, `UPDATE ${this.#channels} SET bytes = bytes - ? WHERE channel = ?`, bytes, used);
    this.bytes -= bytes;
  }
}

const positionOf = ({ epoch, top }: ChannelRow): Position => ({ epoch, offset: top });
