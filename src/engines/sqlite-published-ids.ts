import type { Position, PublishOnce } from "./engine.ts";
import { MAX_IDS, tooManyIds } from "./published-ids.ts";
import { rowsOf, type Sql } from "./sqlite-histories.ts";

/**
 * The ids of recent publications, in a table. A Durable Object commits the writes of one turn together, so that an id is stored if and only
 * if its publication is. Expired rows are deleted with the next id, because a deadline for them would wake the object.
 */
export class SqlitePublishedIds {
  readonly #sql: Sql;
  readonly #table: string;
  readonly #index: string;
  readonly #now: () => number;
  #size = 0;

  constructor(sql: Sql, table: (name: string) => string, now: () => number) {
    this.#sql = sql;
    this.#table = table("ids");
    this.#index = table("ids_until");
    this.#now = now;
  }

  start(): void {
    // `place`: the offset.
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${this.#table}
       (channel TEXT, id TEXT, epoch TEXT, place INTEGER, until INTEGER, PRIMARY KEY (channel, id)) WITHOUT ROWID`,
    );
    rowsOf(this.#sql, `CREATE INDEX IF NOT EXISTS ${this.#index} ON ${this.#table} (until)`);
    this.#size = rowsOf<{ size: number }>(this.#sql, `SELECT COUNT(*) AS size FROM ${this.#table}`)[0]?.size ?? 0;
  }

  /** Returns the position of the publication with this id; `undefined` if there is none. */
  find(channel: string, { id }: PublishOnce): Position | null | undefined {
    const [row] = rowsOf<{ epoch: string | null; place: number }>(
      this.#sql,
      `SELECT epoch, place FROM ${this.#table} WHERE channel = ? AND id = ? AND until > ?`,
      channel,
      id,
      this.#now(),
    );
    if (!row) return undefined;
    return row.epoch === null ? null : { epoch: row.epoch, offset: row.place };
  }

  /** @throws {WebSocketError} LIMIT_EXCEEDED if there is no room for another id. Dropping one could publish it twice. */
  checkRoom(): void {
    this.#size -= rowsOf(this.#sql, `DELETE FROM ${this.#table} WHERE until <= ? RETURNING id`, this.#now()).length;
    if (this.#size >= MAX_IDS) throw tooManyIds();
  }

  /** Call `checkRoom` first. */
  add(channel: string, { id, window }: PublishOnce, position: Position | null): void {
    rowsOf(
      this.#sql,
      `INSERT INTO ${this.#table} (channel, id, epoch, place, until) VALUES (?, ?, ?, ?, ?)`,
      channel,
      id,
      position && position.epoch,
      position && position.offset,
      this.#now() + window,
    );
    this.#size++;
  }
}
