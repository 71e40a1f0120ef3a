import type { Position } from "../engine.ts";
import { rowsOf, type Sql } from "../sqlite-histories.ts";
import type { HomeAnswer, HomeCall, RelayMember } from "./shards.ts";

interface StateRow {
  home: string | null;
  generation: number;
  revision: number;
  listed: number;
  /** 0: the home object knows everything. Otherwise 1 more than the number of failed attempts to send it everything. */
  behind: number;
}

/** What a relay stores: the position of each channel, and whether the home object knows its subscriptions and members. */
export class RelayStore {
  readonly #sql: Sql;
  readonly #state: string;
  readonly #positions: string;
  readonly #members: string;
  #row: StateRow = { home: null, generation: 0, revision: 0, listed: 0, behind: 0 };

  /** @param prefix of the table names: the same as that of the engine that stores the members. */
  constructor(sql: Sql, prefix: string) {
    const table = (name: string) => `"${prefix.replaceAll('"', '""')}_${name}"`;
    this.#sql = sql;
    this.#state = table("relay");
    this.#positions = table("positions");
    this.#members = table("members");
  }

  start(): void {
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#state}
       (place INTEGER PRIMARY KEY, home TEXT, generation INTEGER, revision INTEGER, listed INTEGER, behind INTEGER)`,
    );
    // `epoch`: NULL for a channel without a history.
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#positions} (channel TEXT PRIMARY KEY, epoch TEXT, at INTEGER) WITHOUT ROWID`,
    );
    const [row] = rowsOf<StateRow>(
      this.#sql,
      `SELECT home, generation, revision, listed, behind FROM ${this.#state} WHERE place = 0`,
    );
    if (row) this.#row = row;
  }

  /** The part of a {@link HomeCall} that is stored. */
  get state(): Pick<HomeCall, "generation" | "revision"> {
    const { generation, revision } = this.#row;
    return { generation, revision };
  }

  /** Whether the home object lists this relay. */
  get isListed(): boolean {
    return this.#row.listed === 1;
  }

  /** Records that the home object will remove this relay. The next call has a higher generation, so that it lists the relay again. */
  unlist(): void {
    const { generation } = this.#row;
    this.#write({ ...this.#row, listed: 0, generation: generation + 1, revision: 0 });
  }

  /** Whether the home object lacks changes, so that the relay has to send all subscriptions and members. */
  get isBehind(): boolean {
    return this.#row.behind > 0;
  }

  set isBehind(isBehind: boolean) {
    if (isBehind !== this.isBehind) this.#write({ ...this.#row, behind: isBehind ? 1 : 0 });
  }

  /** Number of consecutive failed attempts to send everything. */
  get failedResyncs(): number {
    return Math.max(0, this.#row.behind - 1);
  }

  /** Counts a failed attempt. Stored, so that the pauses keep growing when the relay hibernates in between. */
  resyncFailed(): void {
    this.#write({ ...this.#row, behind: Math.max(1, this.#row.behind) + 1 });
  }

  /**
   * Records from an answer that the home object lists this relay, unless the relay has a newer generation. Returns whether the home object
   * has lost something, because its storage is another one or an older copy.
   */
  applyAnswer({ home, revision }: HomeAnswer, call: Pick<HomeCall, "generation" | "revision">): boolean {
    const { generation, ...before } = this.#row;
    const isOther = before.home !== null && before.home !== home;
    if (call.generation !== generation) {
      if (before.home !== home) this.#write({ ...this.#row, home });
      return isOther;
    }
    // `before.revision`: a loss is reported once, not again by the answers to other calls that were under way.
    const hasLess = isOther || revision < Math.min(call.revision, before.revision);
    const now = hasLess ? revision : Math.max(revision, before.revision);
    if (before.home !== home || before.listed !== 1 || before.revision !== now) {
      this.#write({ ...this.#row, home, listed: 1, revision: now });
    }
    return hasLess;
  }

  channels(): string[] {
    return rowsOf<{ channel: string }>(this.#sql, `SELECT channel FROM ${this.#positions}`).map(({ channel }) => channel);
  }

  /** The position up to which a channel was delivered: `null` without a history, `undefined` without a subscription. */
  positionOf(channel: string): Position | null | undefined {
    const [row] = rowsOf<{ epoch: string | null; at: number }>(
      this.#sql,
      `SELECT epoch, at FROM ${this.#positions} WHERE channel = ?`,
      channel,
    );
    return row && (row.epoch === null ? null : { epoch: row.epoch, offset: row.at });
  }

  save(channel: string, position: Position | null): void {
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${this.#positions} VALUES (?, ?, ?)`,
      channel,
      position && position.epoch,
      position && position.offset,
    );
  }

  forget(channel: string): void {
    rowsOf(this.#sql, `DELETE FROM ${this.#positions} WHERE channel = ?`, channel);
  }

  get hasMembers(): boolean {
    return rowsOf(this.#sql, `SELECT 1 FROM ${this.#members} LIMIT 1`).length > 0;
  }

  /** All members of this relay. */
  members(): RelayMember[] {
    const rows = rowsOf<{ channel: string; user: string; data: string | null }>(
      this.#sql,
      `SELECT channel, user, data FROM ${this.#members}`,
    );
    return rows.map(({ channel, user, data }) => data === null ? { channel, user } : { channel, user, data });
  }

  /**
   * Forgets everything, because the relay is closed. Only the stored generation grows: the home object can tell the last call of this relay
   * from the calls after its next start.
   */
  clear(): void {
    const { generation } = this.#row;
    rowsOf(this.#sql, `DELETE FROM ${this.#positions}`);
    this.#write({ ...this.#row, listed: 0, behind: 0, generation: generation + 1, revision: 0 });
    this.#row = { ...this.#row, generation };
  }

  #write(row: StateRow): void {
    this.#row = row;
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${this.#state} VALUES (0, ?, ?, ?, ?, ?)`,
      row.home,
      row.generation,
      row.revision,
      row.listed,
      row.behind,
    );
  }
}
