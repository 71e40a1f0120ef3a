import type { HistoryOptions, HistoryPage, Position, Publication, PublicationContent } from "./engine.ts";

/** A synchronous SQLite database: a Durable Object's `storage.sql`, or an adapter for `bun:sqlite` or `node:sqlite`. */
export interface Sql {
  /** Runs one statement to completion. */
  exec(query: string, ...bindings: (string | number | null)[]): Iterable<unknown>;
}

/** The rows that a statement returns. */
export function rowsOf<Row>(sql: Sql, query: string, ...bindings: (string | number | null)[]): Row[] {
  return [...sql.exec(query, ...bindings)] as Row[]; // The query names the columns of `Row`.
}

/** Estimated overhead of a channel and of a publication, in bytes. */
const ROW_BYTES = 200;

/** Maximum number of channels swept in one turn. */
const SWEEP_CHANNELS = 2_000;

/** Maximum number of rows that one call reads to free space. */
const TRIM_ROWS = 100;

/** Maximum step of the offset at the first publication of a run. */
const MAX_STEP = 2 ** 20;

interface ChannelRow {
  epoch: string;
  /** Number of publications so far. */
  top: number;
  /** Offset of the latest publication. Existing databases have this column name. */
  place: number;
  bytes: number;
  /** Run of the latest publication. */
  run: string | null;
}

interface PublicationRow extends PublicationContent {
  top: number;
  /** Offset of the previous publication. */
  previous: number;
}

/** What {@link SqliteHistories} needs from its engine. */
export interface HistoriesOwner {
  now(): number;
  /** Returns the epoch of a new history. */
  epoch(): string;
  /** Returns the name of the current run. */
  run(): string;
  /** Returns the number of subscribed channels. */
  subscribed(): number;
  isSubscribed(channel: string): boolean;
  /** Called with a time at which rows expire, in ms of the wall clock. */
  expiresAt(until: number): void;
}

/**
 * The latest publications of all channels, in two tables. The column `until` of a channel is its expiry. It is NULL while the channel has
 * subscribers and no publications, so that an idle channel needs no deadline.
 *
 * Each start of the node begins a run; a return from hibernation continues it. Offsets grow by 1 within a run and by a random step
 * between runs, so that no publication gets the position of a lost one after the file was replaced by an older copy.
 */
export class SqliteHistories {
  /** Approximate size, in bytes. */
  bytes = 0;
  readonly #sql: Sql;
  readonly #channels: string;
  readonly #publications: string;
  readonly #index: string;
  readonly #maxBytes: number;
  readonly #owner: HistoriesOwner;

  constructor(sql: Sql, table: (name: string) => string, maxBytes: number, owner: HistoriesOwner) {
    this.#sql = sql;
    this.#channels = table("channels");
    this.#publications = table("publications");
    this.#index = table("until");
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
    // Migrates tables of earlier versions, whose offsets grew by 1. `run` is added last, when the other columns have their values.
    if (!this.#hasColumn(this.#channels, "run TEXT")) {
      this.#addColumn(this.#channels, "place INTEGER", "place = top");
      this.#addColumn(this.#publications, "previous INTEGER", "previous = top - 1");
      rowsOf(this.#sql, `ALTER TABLE ${this.#channels} ADD COLUMN run TEXT`);
    }
    // The index finds the next expiry without a full scan.
    rowsOf(this.#sql, `CREATE INDEX IF NOT EXISTS ${this.#index} ON ${this.#channels} (until)`);
    const [sum] = rowsOf<{ bytes: number | null }>(this.#sql, `SELECT SUM(bytes) AS bytes FROM ${this.#channels}`);
    this.bytes = sum?.bytes ?? 0;
  }

  names(): string[] {
    return rowsOf<{ channel: string }>(this.#sql, `SELECT channel FROM ${this.#channels}`).map(({ channel }) => channel);
  }

  /** When the next channel expires, in ms of the wall clock. */
  next(): number | null {
    return rowsOf<{ until: number | null }>(this.#sql, `SELECT MIN(until) AS until FROM ${this.#channels}`)[0]?.until ?? null;
  }

  /** The current position of a channel. Creates its history if there is none. */
  open(channel: string, { ttl }: HistoryOptions): Position {
    return positionOf(this.#open(channel, ttl));
  }

  append(channel: string, { event, data }: PublicationContent, { size, ttl }: HistoryOptions): Position {
    const row = this.#open(channel, ttl);
    const until = this.#owner.now() + ttl;
    const run = this.#owner.run();
    const [top, offset] = [row.top + 1, row.place + (row.run === run ? 1 : 1 + Math.floor(Math.random() * MAX_STEP))];
    const bytes = ROW_BYTES + 2 * (event.length + data.length);
    // First, because it may fail: a row has at most 2 MB.
    rowsOf(
      this.#sql,
      `INSERT INTO ${this.#publications} (channel, top, event, data, bytes, until, previous) VALUES (?, ?, ?, ?, ?, ?, ?)`,
      channel,
      top,
      event,
      data,
      bytes,
      until,
      row.place,
    );
    try {
      // Expired publications are not read. They are deleted with the channel or when newer ones replace them.
      const change = bytes - this.#drop(channel, top - size);
      rowsOf(
        this.#sql,
        `UPDATE ${this.#channels} SET top = ?, place = ?, run = ?, bytes = ?, until = ?, ttl = ? WHERE channel = ?`,
        top,
        offset,
        run,
        row.bytes + change,
        until,
        ttl,
        channel,
      );
      this.bytes += change;
    } catch (error) {
      // The storage is full. Without the update of the channel, the next publication would have the same key as this one.
      rowsOf(this.#sql, `DELETE FROM ${this.#publications} WHERE channel = ? AND top = ?`, channel, top);
      throw error;
    }
    this.#owner.expiresAt(until);
    return { epoch: row.epoch, offset };
  }

  /** @param maxBytes maximum size of a page after a position, in bytes; it has at least one publication. */
  read(channel: string, history: HistoryOptions, after: Position | null, limit: number, maxBytes: number): HistoryPage {
    const row = this.#open(channel, history.ttl);
    const position = positionOf(row);
    const most = Math.min(limit, history.size);
    const now = this.#owner.now();
    if (!after) return { position, publications: this.#publicationsOf(row, this.#last(channel, most, now)), isComplete: true };
    const refused = { position, publications: [], isComplete: false };
    if (after.epoch !== row.epoch || !Number.isSafeInteger(after.offset) || after.offset > row.place) return refused;
    // Offsets grow by at least 1, which bounds the search.
    const [first] = rowsOf<Pick<PublicationRow, "top" | "previous"> & { until: number }>(
      this.#sql,
      `SELECT top, previous, until FROM ${this.#publications} WHERE channel = ? AND top > ? AND previous >= ? ORDER BY top LIMIT 1`,
      channel,
      row.top - (row.place - after.offset),
      after.offset,
    );
    // Publications are deleted from the oldest on, so nothing is missing if the first row follows the position.
    const isComplete = first
      ? first.previous === after.offset && first.until > now && row.top - first.top < most
      : after.offset === row.place;
    if (!isComplete) return refused;
    const { rows, next } = first ? this.#page(channel, first.top, row.top, maxBytes) : { rows: [] };
    const publications = this.#publicationsOf({ ...row, place: next?.previous ?? row.place }, rows);
    return { position, publications, isComplete, ...(next && { hasMore: true }) };
  }

  /** Returns the publications of a page, and the next one that does not fit. It reads a few rows at a time, more if they are small. */
  #page(channel: string, first: number, last: number, maxBytes: number): { rows: PublicationRow[]; next?: PublicationRow } {
    const rows: PublicationRow[] = [];
    let bytes = 0;
    for (let count = 2; first + rows.length <= last; count *= 2) {
      const read = rowsOf<PublicationRow & { bytes: number }>(
        this.#sql,
        `SELECT top, previous, event, data, bytes FROM ${this.#publications} WHERE channel = ? AND top >= ? ORDER BY top LIMIT ?`,
        channel,
        first + rows.length,
        count,
      );
      for (const row of read) {
        bytes += row.bytes;
        if (bytes > maxBytes && rows.length > 0) return { rows, next: row };
        rows.push(row);
      }
      if (read.length === 0) break;
    }
    return { rows };
  }

  /** Deletes the history of a channel: the next one has another epoch. Returns whether there was one. */
  end(channel: string): boolean {
    const [row] = rowsOf<{ bytes: number }>(
      this.#sql,
      `DELETE FROM ${this.#channels} WHERE channel = ? RETURNING bytes`,
      channel,
    );
    if (!row) return false;
    rowsOf(this.#sql, `DELETE FROM ${this.#publications} WHERE channel = ?`, channel);
    this.bytes -= row.bytes;
    return true;
  }

  /** Keeps the channel for its `ttl` after the last unsubscribe, so that subscribers can recover. */
  release(channel: string, ttl: number): void {
    const until = this.#owner.now() + ttl;
    rowsOf(this.#sql, `UPDATE ${this.#channels} SET until = MAX(IFNULL(until, 0), ?) WHERE channel = ?`, until, channel);
    this.#owner.expiresAt(until);
  }

  /** Releases channels whose subscribers were lost with the node. */
  releaseAbandoned(): void {
    const rows = rowsOf<{ channel: string; ttl: number }>(
      this.#sql,
      `SELECT channel, ttl FROM ${this.#channels} WHERE until IS NULL`,
    );
    for (const { channel, ttl } of rows) if (!this.#owner.isSubscribed(channel)) this.release(channel, ttl);
  }

  /** Deletes expired publications and channels. */
  expire(): void {
    const rows = rowsOf<{ channel: string; bytes: number }>(
      this.#sql,
      `SELECT channel, bytes FROM ${this.#channels} WHERE until <= ? LIMIT ${SWEEP_CHANNELS}`,
      this.#owner.now(),
    );
    for (const { channel, bytes } of rows) this.#empty(channel, bytes);
  }

  /** Adds a column if it is missing, and sets its values. */
  #addColumn(table: string, column: string, value: string): void {
    if (!this.#hasColumn(table, column)) rowsOf(this.#sql, `ALTER TABLE ${table} ADD COLUMN ${column}`);
    rowsOf(this.#sql, `UPDATE ${table} SET ${value}`);
  }

  #hasColumn(table: string, column: string): boolean {
    const [made] = rowsOf<{ sql: string }>(
      this.#sql,
      "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?",
      table.slice(1, -1).replaceAll('""', '"'),
    );
    return new RegExp(`\\b${column}\\b`).test(made?.sql ?? "");
  }

  /** The latest publications, oldest first, from the first that has not expired on. A later one may have a shorter `ttl`. */
  #last(channel: string, count: number, now: number): PublicationRow[] {
    const rows = rowsOf<PublicationRow>(
      this.#sql,
      `SELECT top, previous, event, data FROM ${this.#publications} WHERE channel = ? AND top >=
         (SELECT top FROM ${this.#publications} WHERE channel = ? AND until > ? ORDER BY top LIMIT 1) ORDER BY top DESC LIMIT ?`,
      channel,
      channel,
      now,
      count,
    );
    return rows.reverse();
  }

  /** Converts the last rows of a channel. The offset of a row is the `previous` of the next one. */
  #publicationsOf({ epoch, place }: Pick<ChannelRow, "epoch" | "place">, rows: readonly PublicationRow[]): Publication[] {
    return rows.map(({ event, data }, number) => ({
      event,
      data,
      position: { epoch, offset: rows[number + 1]?.previous ?? place },
    }));
  }

  #open(channel: string, ttl: number): ChannelRow {
    const [row] = rowsOf<ChannelRow>(
      this.#sql,
      `SELECT epoch, top, place, bytes, run FROM ${this.#channels} WHERE channel = ?`,
      channel,
    );
    if (row) return row;
    const made = { epoch: this.#owner.epoch(), top: 0, place: 0, bytes: ROW_BYTES, run: this.#owner.run() };
    const until = this.#owner.now() + ttl;
    rowsOf(
      this.#sql,
      `INSERT INTO ${this.#channels} (channel, epoch, top, place, bytes, run, until, ttl) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      channel,
      made.epoch,
      made.top,
      made.place,
      made.bytes,
      made.run,
      until,
      ttl,
    );
    this.bytes += made.bytes;
    this.#owner.expiresAt(until);
    this.trim(channel);
    return made;
  }

  /** Deletes the publications up to number `top`. Returns their bytes. */
  #drop(channel: string, top: number): number {
    const dropped = rowsOf<{ bytes: number }>(
      this.#sql,
      `DELETE FROM ${this.#publications} WHERE channel = ? AND top <= ? RETURNING bytes`,
      channel,
      top,
    );
    return dropped.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Deletes all publications, and the channel itself if it has no subscriber. */
  #empty(channel: string, bytes: number): void {
    rowsOf(this.#sql, `DELETE FROM ${this.#publications} WHERE channel = ?`, channel);
    if (this.#owner.isSubscribed(channel)) {
      rowsOf(this.#sql, `UPDATE ${this.#channels} SET bytes = ${ROW_BYTES}, until = NULL WHERE channel = ?`, channel);
      this.bytes -= bytes - ROW_BYTES;
    } else {
      rowsOf(this.#sql, `DELETE FROM ${this.#channels} WHERE channel = ?`, channel);
      this.bytes -= bytes;
    }
  }

  /**
   * Frees space: empties the channels that expire first, then deletes the oldest publications of the channel in use. One call
   * reads at most {@link TRIM_ROWS} rows of each; the next calls continue.
   */
  trim(used: string): void {
    const limit = this.#maxBytes + ROW_BYTES * this.#owner.subscribed();
    if (this.bytes <= limit) return;
    const rows = rowsOf<{ channel: string; bytes: number }>(
      this.#sql,
      `SELECT channel, bytes FROM ${this.#channels} WHERE until IS NOT NULL AND channel <> ? ORDER BY until LIMIT ${TRIM_ROWS}`,
      used,
    );
    for (const { channel, bytes } of rows) {
      if (this.bytes <= limit) return;
      this.#empty(channel, bytes);
    }
    if (this.bytes <= limit || rows.length === TRIM_ROWS) return;
    const kept = rowsOf<{ top: number; bytes: number }>(
      this.#sql,
      `SELECT top, bytes FROM ${this.#publications} WHERE channel = ? ORDER BY top LIMIT ${TRIM_ROWS}`,
      used,
    );
    let excess = this.bytes - limit;
    const last = kept.find(({ bytes }) => (excess -= bytes) <= 0) ?? kept.at(-1);
    if (!last) return;
    const bytes = this.#drop(used, last.top);
    rowsOf(this.#sql, `UPDATE ${this.#channels} SET bytes = bytes - ? WHERE channel = ?`, bytes, used);
    this.bytes -= bytes;
  }
}

const positionOf = ({ epoch, place }: ChannelRow): Position => ({ epoch, offset: place });
