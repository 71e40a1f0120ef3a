import { byteLength } from "../protocol/bytes.ts";
import { rowsOf, type Sql } from "../engines/sqlite-histories.ts";
import { parseCron } from "./cron.ts";

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

/** How many rows there are, and the bytes of their payloads. */
interface Total {
  size: number;
  bytes: number;
}

interface WeightRow {
  readonly next: number | null;
  readonly bytes: number;
}

const TABLE = '"noroshi_schedules"';
const COLUMNS = "id, name, payload, due, next, cron, attempts, error";

/** The schedules of an object, in a table. */
export class ScheduleTable {
  /** The schedules. */
  readonly live: Readonly<Total>;
  readonly #dead: Total;
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
    rowsOf(
      sql,
      `CREATE TABLE IF NOT EXISTS ${TABLE}
       (id TEXT PRIMARY KEY, name TEXT, bytes INTEGER, payload TEXT, due INTEGER, next INTEGER, cron TEXT, attempts INTEGER, error TEXT) WITHOUT ROWID`,
    );
    rowsOf(sql, `CREATE INDEX IF NOT EXISTS "noroshi_schedules_next" ON ${TABLE} (next)`);
    this.live = this.#total("IS NOT NULL");
    this.#dead = this.#total("IS NULL");
  }

  /** Writes all of the rows, or none. */
  put(...rows: ScheduleRow[]): void {
    const before = rows.map(({ id }) => rowsOf<WeightRow>(this.#sql, `SELECT next, bytes FROM ${TABLE} WHERE id = ?`, id)[0]);
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${TABLE} (${COLUMNS}, bytes) VALUES ${rows.map(() => "(?, ?, ?, ?, ?, ?, ?, ?, ?)").join(", ")}`,
      ...rows.flatMap(({ id, name, payload, due, next, cron, attempts, error }) => [
        ...[id, name, payload, due, next, cron, attempts, error, bytesOf(payload)],
      ]),
    );
    for (const row of before) this.#count(row, -1);
    for (const { next, payload } of rows) this.#count({ next, bytes: bytesOf(payload) }, 1);
  }

  /** Corrects times set while the clock was ahead: of repeated calls, due within `maxDelay`, and of cron expressions. */
  correct(now: number, maxDelay: number): void {
    const repeated = `UPDATE ${TABLE} SET next = MAX(due, ?) WHERE next > ? AND attempts > 0`;
    rowsOf(this.#sql, repeated, now, now + maxDelay);
    const rows = rowsOf<ScheduleRow>(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE cron IS NOT NULL AND next > ?`, now);
    for (const row of rows) if (isAhead(row, now)) this.put(following({ ...row, due: now }, now));
  }

  find(id: string): ScheduleRow | undefined {
    return rowsOf<ScheduleRow>(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE id = ?`, id)[0];
  }

  delete(id: string): boolean {
    const [deleted] = rowsOf<WeightRow>(this.#sql, `DELETE FROM ${TABLE} WHERE id = ? RETURNING next, bytes`, id);
    this.#count(deleted, -1);
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

  list(): ScheduleRow[] {
    return rowsOf(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE next IS NOT NULL ORDER BY next`);
  }

  deadLetters(): ScheduleRow[] {
    return rowsOf(this.#sql, `SELECT ${COLUMNS} FROM ${TABLE} WHERE next IS NULL ORDER BY due DESC`);
  }

  /** Deletes the oldest dead letters. */
  trimDead(max: number, maxBytes: number): void {
    while (this.#dead.size > max || this.#dead.bytes > maxBytes) {
      const [oldest] = rowsOf<{ id: string }>(this.#sql, `SELECT id FROM ${TABLE} WHERE next IS NULL ORDER BY due LIMIT 1`);
      if (!oldest) return;
      this.delete(oldest.id);
    }
  }

  #total(condition: string): Total {
    const sum = `SELECT COUNT(*) AS size, IFNULL(SUM(bytes), 0) AS bytes FROM ${TABLE} WHERE next ${condition}`;
    return rowsOf<Total>(this.#sql, sum)[0]!; // One row, as of each sum.
  }

  #count(row: WeightRow | undefined, sign: 1 | -1): void {
    if (!row) return;
    const total: Total = row.next === null ? this.#dead : this.live;
    total.size += sign;
    total.bytes += sign * row.bytes;
  }
}

/** Size of a payload. */
export const bytesOf = (payload: string | null): number => payload === null ? 0 : byteLength(payload);

/** The next call of a cron expression: not of a minute that has been, if the clock was set back. */
export function following(row: ScheduleRow, now: number): ScheduleRow {
  const due = parseCron(row.cron!)(Math.max(row.due, now)); // Its callers have looked.
  return { ...row, due, next: due, attempts: 0, error: null };
}

/** Whether a clock that was ahead has set the next call of a cron expression. A clock that is a little behind would call it twice. */
export function isAhead({ cron, due, attempts }: ScheduleRow, now: number): boolean {
  if (cron === null || attempts > 0) return false;
  const next = parseCron(cron);
  return due > next(next(now));
}
