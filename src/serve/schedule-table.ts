import { rowsOf, type Sql } from "../engines/sqlite-histories.ts";

/** A schedule, as it is stored. Times are in ms since 1970. */
export interface ScheduleRow {
  readonly id: string;
  readonly name: string;
  /** JSON; `null`: none. */
  readonly payload: string | null;
  /** When its call is due. */
  readonly due: number;
  /** When something is to happen: the call, the next attempt, or the end of the time of one that runs. `null`: it is a dead letter. */
  readonly next: number | null;
  readonly cron: string | null;
  /** Attempts that have begun. */
  readonly attempts: number;
  readonly error: string | null;
}

const TABLE = '"noroshi_schedules"';
const COLUMNS = "id, name, payload, due, next, cron, attempts, error";

/** The schedules of an object, in a table. */
export class ScheduleTable {
  /** Number of schedules. Dead letters are none. */
  size = 0;
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
    rowsOf(
      sql,
      `CREATE TABLE IF NOT EXISTS ${TABLE}
       (id TEXT PRIMARY KEY, name TEXT, payload TEXT, due INTEGER, next INTEGER, cron TEXT, attempts INTEGER, error TEXT) WITHOUT ROWID`,
    );
    rowsOf(sql, `CREATE INDEX IF NOT EXISTS "noroshi_schedules_next" ON ${TABLE} (next)`);
    this.size = rowsOf<{ size: number }>(sql, `SELECT COUNT(next) AS size FROM ${TABLE}`)[0]?.size ?? 0;
  }

  put({ id, name, payload, due, next, cron, attempts, error }: ScheduleRow): void {
    const before = this.find(id);
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${TABLE} (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      ...[id, name, payload, due, next, cron, attempts, error],
    );
    this.size += countOf({ next }) - countOf(before);
  }

  find(id: string): ScheduleRow | undefined {
    return rowsOf<ScheduleRow>(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE id = ?`, id)[0];
  }

  delete(id: string): boolean {
    const [deleted] = rowsOf<Pick<ScheduleRow, "next">>(this.#sql, `DELETE FROM ${TABLE} WHERE id = ? RETURNING next`, id);
    this.size -= countOf(deleted);
    return deleted !== undefined;
  }

  /** When something is to happen next. */
  next(): number | null {
    return rowsOf<{ next: number | null }>(this.#sql, `SELECT MIN(next) AS next FROM ${TABLE}`)[0]?.next ?? null;
  }

  /** The first schedules for which something is to happen. */
  due(now: number, limit: number): ScheduleRow[] {
    return rowsOf(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE next <= ? ORDER BY next LIMIT ?`, now, limit);
  }

  live(): ScheduleRow[] {
    return rowsOf(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE next IS NOT NULL ORDER BY next`);
  }

  dead(): ScheduleRow[] {
    return rowsOf(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE next IS NULL ORDER BY due DESC`);
  }

  /** Deletes the oldest dead letters. */
  trimDead(max: number): void {
    rowsOf(
      this.#sql,
      `DELETE FROM ${TABLE} WHERE id IN (SELECT id FROM ${TABLE} WHERE next IS NULL ORDER BY due DESC LIMIT -1 OFFSET ?)`,
      max,
    );
  }
}

const countOf = (row: Pick<ScheduleRow, "next"> | undefined): number => row && row.next !== null ? 1 : 0;
