import type { DatabaseSync, StatementSync } from "node:sqlite";
import { WebSocketError } from "../../mod.ts";
import { ALL, type ItemsQuery, quoted, type Sql, type SqlValue } from "./query.ts";

/** The key of a row. */
export type Key = number | string;

/** A row, by its columns. */
export type Row = Record<string, SqlValue>;

/** Rows that one message may read or write: all of them are in memory at once, and in one frame for each subscriber. */
const MAX_ROWS = 1_000;

const forbidden = (): WebSocketError =>
  new WebSocketError("items", "FORBIDDEN", "You may not access this item, or there is none");

/** What SQLite says of a broken constraint, and how Directus calls it. The text is the same in the drivers of all runtimes. */
const CONSTRAINTS = [
  [/^UNIQUE constraint failed: .*\.(\w+)$/, "RECORD_NOT_UNIQUE", "has to be unique"],
  [/^NOT NULL constraint failed: .*\.(\w+)$/, "NOT_NULL_VIOLATION", "cannot be null"],
  [/^FOREIGN KEY constraint failed()$/, "INVALID_FOREIGN_KEY", "names no item"],
  [/^CHECK constraint failed: (.*)$/, "FAILED_VALIDATION", "does not hold"],
] as const;

/** One table of a database, whose key is the column `id`. */
export class Table {
  readonly columns: readonly string[];
  readonly #database: DatabaseSync;
  readonly #name: string;

  /** @param name that of the table, and `columns` what there is beside `id`: yours, never a client's. */
  constructor(database: DatabaseSync, name: string, columns: readonly string[]) {
    this.#database = database;
    this.#name = quoted(name);
    this.columns = ["id", ...columns];
  }

  /** The rows that the query asks for, only those of the keys if there are any. */
  read(query: ItemsQuery, keys?: readonly Key[]): Row[] {
    const where = keys === undefined ? query.where : both(query.where, oneOf(keys));
    const columns = query.fields.map(quoted).join(", ");
    const limit = query.limit < 0 ? MAX_ROWS + 1 : query.limit;
    const rows = this.#prepare(
      `SELECT ${columns} FROM ${this.#name} WHERE ${where.text} ORDER BY ${query.order} LIMIT ? OFFSET ?`,
    )
      .all(...where.values, Math.min(limit, MAX_ROWS + 1), query.offset) as Row[]; // Columns hold what was put in.
    if (rows.length > MAX_ROWS) {
      throw new WebSocketError("items", "LIMIT_EXCEEDED", `More than ${MAX_ROWS} items: take some with limit and offset`);
    }
    return rows;
  }

  /** What of it the query has counted. */
  count({ meta, where }: ItemsQuery): Record<string, number> {
    return Object.fromEntries(meta.map((name) => {
      const { text, values } = name === "filter_count" ? where : ALL;
      const [row] = this.#prepare(`SELECT COUNT(*) AS count FROM ${this.#name} WHERE ${text}`).all(...values);
      return [name, row!["count"] as number]; // COUNT is one number.
    }));
  }

  /** @throws {WebSocketError} where a constraint does not let it. Inside {@link transaction} nothing of it has happened then. */
  insert(row: Row): Key {
    const columns = Object.keys(row);
    const [{ id } = { id: 0 }] = this.#constrained(() =>
      columns.length === 0 ? this.#prepare(`INSERT INTO ${this.#name} DEFAULT VALUES RETURNING id`).all() : this.#prepare(
        `INSERT INTO ${this.#name} (${columns.map(quoted).join(", ")}) VALUES (${
          columns.map(() => "?").join(", ")
        }) RETURNING id`,
      ).all(...Object.values(row))
    ) as { id: Key }[];
    return id;
  }

  /** @throws {WebSocketError} FORBIDDEN where one of the keys is none, and as {@link insert}. */
  update(keys: readonly Key[], row: Row): void {
    const columns = Object.keys(row);
    if (columns.length === 0 || keys.length === 0) return;
    const { text, values } = oneOf(keys);
    const set = columns.map((column) => `${quoted(column)} = ?`).join(", ");
    this.#constrained(() => this.#prepare(`UPDATE ${this.#name} SET ${set} WHERE ${text}`).run(...Object.values(row), ...values));
  }

  delete(keys: readonly Key[]): void {
    const { text, values } = oneOf(keys);
    this.#constrained(() => this.#prepare(`DELETE FROM ${this.#name} WHERE ${text}`).run(...values));
  }

  /**
   * The keys as the table has them: those asked for, or those of the query.
   *
   * @throws {WebSocketError} FORBIDDEN where one asked for is not there.
   */
  keys(query: ItemsQuery, asked?: readonly Key[]): Key[] {
    const keys = this.read({ ...query, fields: ["id"] }, asked).map(({ id }) => id as Key); // A key is never null.
    if (asked && new Set(asked.map(String)).size !== keys.length) throw forbidden();
    return keys;
  }

  /** The row of the key. */
  one(query: ItemsQuery, key: Key): Row {
    const [row] = this.read(query, [key]);
    if (!row) throw forbidden();
    return row;
  }

  /** Does all of it or nothing. */
  transaction<Result>(work: () => Result): Result {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  #prepare(text: string): StatementSync {
    return this.#database.prepare(text);
  }

  #constrained<Result>(work: () => Result): Result {
    try {
      return work();
    } catch (error) {
      const { message } = error as Error; // The driver throws nothing else.
      for (const [pattern, code, what] of CONSTRAINTS) {
        const found = message.match(pattern);
        if (found) throw new WebSocketError("items", code, `"${found[1]}" ${what}`, { cause: error });
      }
      throw error;
    }
  }
}

/** As one parameter: SQLite takes no more than 32,766. */
const oneOf = (keys: readonly Key[]): Sql => ({ text: "id IN (SELECT value FROM json_each(?))", values: [JSON.stringify(keys)] });

const both = (one: Sql, other: Sql): Sql => ({
  text: `${one.text} AND ${other.text}`,
  values: [...one.values, ...other.values],
});
