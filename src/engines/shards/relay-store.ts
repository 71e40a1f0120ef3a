import type { Position } from "../engine.ts";
import { rowsOf, type Sql } from "../sqlite-histories.ts";
import type { RelayMember } from "./shards.ts";

interface StateRow {
  home: string | null;
  generation: number;
  listed: number;
  behind: number;
}

/** What a relay stores: the position of each channel, and what the home object knows of it. */
export class RelayStore {
  readonly #sql: Sql;
  readonly #state: string;
  readonly #positions: string;
  readonly #members: string;
  #row: StateRow = { home: null, generation: 0, listed: 0, behind: 0 };

  /** @param prefix of the table names, as that of the engine that stores the members. */
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
       (place INTEGER PRIMARY KEY, home TEXT, generation INTEGER, listed INTEGER, behind INTEGER)`,
    );
    // `epoch`: NULL for a channel without a history.
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#positions} (channel TEXT PRIMARY KEY, epoch TEXT, at INTEGER) WITHOUT ROWID`,
    );
    const [row] = rowsOf<StateRow>(this.#sql, `SELECT home, generation, listed, behind FROM ${this.#state} WHERE place = 0`);
    if (row) this.#row = row;
  }

  /** The storage of the home object, as it was last heard of. */
  get home(): string | null {
    return this.#row.home;
  }

  get generation(): number {
    return this.#row.generation;
  }

  /** Whether the home object lists this relay. When it has to anew, the generation grows. */
  get isListed(): boolean {
    return this.#row.listed === 1;
  }

  set isListed(isListed: boolean) {
    if (isListed === this.isListed) return;
    this.#write({ ...this.#row, listed: isListed ? 1 : 0, generation: this.#row.generation + (isListed ? 0 : 1) });
  }

  /** Whether the home object has to be told everything. */
  get isBehind(): boolean {
    return this.#row.behind === 1;
  }

  set isBehind(isBehind: boolean) {
    if (isBehind !== this.isBehind) this.#write({ ...this.#row, behind: isBehind ? 1 : 0 });
  }

  /** The home object has answered a call of this generation, and so lists it. */
  list(home: string, generation: number): void {
    const listed = generation === this.generation ? 1 : this.#row.listed;
    if (this.#row.home !== home || this.#row.listed !== listed) this.#write({ ...this.#row, home, listed });
  }

  channels(): string[] {
    return rowsOf<{ channel: string }>(this.#sql, `SELECT channel FROM ${this.#positions}`).map(({ channel }) => channel);
  }

  /** The position up to which a channel was delivered; `null` without a history, `undefined` if it was not subscribed to. */
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

  /** The members here. */
  members(): RelayMember[] {
    const rows = rowsOf<{ channel: string; user: string; data: string | null }>(
      this.#sql,
      `SELECT channel, user, data FROM ${this.#members}`,
    );
    return rows.map(({ channel, user, data }) => data === null ? { channel, user } : { channel, user, data });
  }

  /** Forgets everything: the relay is closed. */
  clear(): void {
    rowsOf(this.#sql, `DELETE FROM ${this.#positions}`);
    this.#write({ ...this.#row, listed: 0, behind: 0, generation: this.#row.generation + 1 });
  }

  #write(row: StateRow): void {
    this.#row = row;
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${this.#state} VALUES (0, ?, ?, ?, ?)`,
      row.home,
      row.generation,
      row.listed,
      row.behind,
    );
  }
}
