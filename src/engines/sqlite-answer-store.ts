import type { AnswerStore } from "./engine.ts";
import { rowsOf, type Sql } from "./sqlite-histories.ts";

/** Stores answers in a table. Expired rows are deleted with the next claim, because a deadline for them would wake the object. */
export class SqliteAnswerStore implements AnswerStore {
  readonly #sql: Sql;
  readonly #table: string;
  readonly #now: () => number;

  constructor(sql: Sql, table: (name: string) => string, now: () => number) {
    this.#sql = sql;
    this.#table = table("answers");
    this.#now = now;
  }

  start(): void {
    rowsOf(this.#sql, `CREATE TABLE IF NOT EXISTS ${this.#table} (key TEXT PRIMARY KEY, text TEXT, until INTEGER) WITHOUT ROWID`);
    rowsOf(this.#sql, `CREATE INDEX IF NOT EXISTS ${this.#table.slice(0, -1)}_until" ON ${this.#table} (until)`);
  }

  claim(key: string, text: string, ttl: number): string | null {
    rowsOf(this.#sql, `DELETE FROM ${this.#table} WHERE until <= ?`, this.#now());
    const [row] = rowsOf<{ text: string }>(this.#sql, `SELECT text FROM ${this.#table} WHERE key = ?`, key);
    if (!row) this.settle(key, text, ttl);
    return row ? row.text : null;
  }

  settle(key: string, text: string, ttl: number): void {
    rowsOf(this.#sql, `INSERT OR REPLACE INTO ${this.#table} VALUES (?, ?, ?)`, key, text, this.#now() + ttl);
  }
}
