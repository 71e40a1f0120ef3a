import { byteLength } from "../protocol/bytes.ts";
import { rowsOf, type Sql } from "../engines/sqlite-histories.ts";
import { parseCron } from "./cron.ts";

/** A schedule, as it is stored. Times are in ms since 1970. */
export interface ScheduleRow {
  readonly id: string;
  readonly name: string;
  /** JSON; `null`: none. */
  readonly payload: string | null;
  /** Time of the call. */
  readonly due: number;
  /** Time of the next step: the call, a retry, or the timeout of the attempt in progress. `null`: a dead letter. */
  readonly next: number | null;
  readonly cron: string | null;
  /** Number of attempts begun. */
  readonly attempts: number;
  readonly error: string | null;
}

/** Number of rows, and size of their payloads in bytes. */
interface Total {
  size: number;
  bytes: number;
}

interface CountedRow {
  readonly next: number | null;
  readonly bytes: number;
}

const TABLE = '"noroshi_schedules"';
const COLUMNS = "id, name, payload, due, next, cron, attempts, error";

/** The schedules of an object, in a table. */
export class ScheduleTable {
  /** Total of the schedules, without dead letters. */
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
    const before = rows.map(({ id }) => rowsOf<CountedRow>(this.#sql, `SELECT next, bytes FROM ${TABLE} WHERE id = ?`, id)[0]);
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

  /** Corrects times stored while the clock was ahead: retries, which are due within `maxDelay` ms, and cron expressions. */
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
    const [deleted] = rowsOf<CountedRow>(this.#sql, `DELETE FROM ${TABLE} WHERE id = ? RETURNING next, bytes`, id);
    this.#count(deleted, -1);
    return deleted !== undefined;
  }

  /** Time of the first next step of all schedules. */
  next(): number | null {
    return rowsOf<{ next: number | null }>(this.#sql, `SELECT MIN(next) AS next FROM ${TABLE}`)[0]?.next ?? null;
  }

  /** The first `limit` schedules whose next step is due. */
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
    return rowsOf<Total>(this.#sql, sum)[0]!; // An aggregate returns one row.
  }

  #count(row: CountedRow | undefined, sign: 1 | -1): void {
    if (!row) return;
    const total: Total = row.next === null ? this.#dead : this.live;
    total.size += sign;
    total.bytes += sign * row.bytes;
  }
}

/** Size of a payload, in bytes. */
export const bytesOf = (payload: string | null): number => payload === null ? 0 : byteLength(payload);

/** The row with the next call of its cron expression. If the clock was set back, no minute is called twice. */
export function following(row: ScheduleRow, now: number): ScheduleRow {
  const due = parseCron(row.cron!)(Math.max(row.due, now)); // Callers pass rows with a cron expression.
  return { ...row, due, next: due, attempts: 0, error: null };
}

/**
 * Whether the next call was set while the clock was ahead. One call is tolerated: else a clock a little behind would call twice.
 */
export function isAhead({ cron, due, attempts }: ScheduleRow, now: number): boolean {
  if (cron === null || attempts > 0) return false;
  const next = parseCron(cron);
  return due > next(next(now));
}
