import type { Clock } from "../base/clock.ts";
import type { Report } from "../base/guard.ts";
import { rowsOf, type Sql } from "../engines/sqlite-histories.ts";
import { MAX_ALARM } from "./alarm-clock.ts";
import { storageDelay } from "./storage-delay.ts";

/** What workerd passes to an `alarm()`. */
export interface AlarmInfo {
  /** Number of failed attempts so far. */
  readonly retryCount: number;
  /** Whether an earlier attempt has failed. */
  readonly isRetry: boolean;
  /** Time that the alarm was set to, in ms since 1970. */
  readonly scheduledTime: number;
}

/** What {@link ApplicationAlarm} needs from its object. */
export interface ApplicationAlarmHost {
  readonly sql: Sql;
  readonly clock: Clock;
  readonly report: Report;
  /** The `alarm()` of the subclass. Absent: the subclass has none, and `setAlarm` rejects, as workerd's does. */
  run?(info: AlarmInfo): unknown;
}

/** Delay before the first retry of a failed alarm, in ms. It doubles with each further retry, as in workerd. */
const FIRST_DELAY = 2_000;

/** Maximum number of retries of a failed alarm, as in workerd. */
const MAX_RETRIES = 6;

interface AlarmRow {
  /** Time that the alarm was set to, in ms since 1970. */
  due: number;
  /** Time of the next attempt, in ms since 1970. */
  next: number;
  retries: number;
}

const TABLE = '"noroshi_alarm"';

/**
 * The alarm of a subclass. An object has a single alarm, which the controller's timers use. So this class replaces `setAlarm`,
 * `getAlarm` and `deleteAlarm` of the storage: it stores the subclass's alarm in a table, and runs it by one of those timers.
 */
export class ApplicationAlarm {
  readonly #host: ApplicationAlarmHost;
  #timer: unknown;
  /** Number of consecutive failures of the storage. */
  #failures = 0;
  /** Set while `alarm()` runs. `isReplaced`: the alarm was set or deleted meanwhile. */
  #running: { isReplaced: boolean } | undefined;
  /** Whether `alarm()` has ended for good, but its row is not deleted yet. */
  #isOver = false;

  constructor(host: ApplicationAlarmHost) {
    this.#host = host;
    rowsOf(
      host.sql,
      `CREATE TABLE IF NOT EXISTS ${TABLE} (place INTEGER PRIMARY KEY, due INTEGER, next INTEGER, retries INTEGER)`,
    );
    this.#arm();
  }

  /** Replaces the alarm methods of the storage. */
  attach(storage: object): void {
    const methods = {
      setAlarm: (time: Date | number) => this.#set(time),
      getAlarm: () => {
        const isOver = this.#isOver || this.#running && !this.#running.isReplaced;
        return Promise.resolve(isOver ? null : this.#read()?.due ?? null);
      },
      deleteAlarm: () => this.#delete(),
    };
    for (const [name, value] of Object.entries(methods)) Object.defineProperty(storage, name, { value, configurable: true });
  }

  // deno-lint-ignore require-await -- an invalid time rejects, as in workerd
  async #set(time: Date | number): Promise<void> {
    const due = Number(time);
    if (!this.#host.run) throw new TypeError("Cannot set the alarm: the class has no alarm(), add one");
    if (!(due >= 0 && due < MAX_ALARM)) {
      throw new TypeError("Cannot set the alarm: pass a Date before 2189, or its ms since 1970");
    }
    this.#write(Math.floor(due), Math.floor(due), 0);
    this.#markReplaced();
  }

  #delete(): Promise<void> {
    rowsOf(this.#host.sql, `DELETE FROM ${TABLE}`);
    this.#markReplaced();
    this.#arm();
    return Promise.resolve();
  }

  /** Keeps the end of the run in progress from deleting an alarm that was stored meanwhile. Call it after storing. */
  #markReplaced(): void {
    this.#isOver = false;
    if (this.#running) this.#running.isReplaced = true;
  }

  #write(due: number, next: number, retries: number): void {
    rowsOf(this.#host.sql, `INSERT OR REPLACE INTO ${TABLE} VALUES (0, ?, ?, ?)`, due, next, retries);
    this.#arm();
  }

  #read(): AlarmRow | undefined {
    return rowsOf<AlarmRow>(this.#host.sql, `SELECT due, next, retries FROM ${TABLE}`)[0];
  }

  #arm(): void {
    const { clock } = this.#host;
    clock.clearTimeout(this.#timer);
    this.#try(() => {
      const row = this.#read();
      if (row) this.#timer = clock.setTimeout(() => this.#ring(row), Math.max(0, row.next - clock.now()));
    });
  }

  /** Uses the storage. If that fails, reports the error, schedules another `#arm`, and returns false. */
  #try(step: () => void): boolean {
    const { clock, report } = this.#host;
    try {
      step();
      return true;
    } catch (error) {
      report(error);
      clock.clearTimeout(this.#timer);
      this.#timer = clock.setTimeout(() => this.#arm(), storageDelay(++this.#failures));
      return false;
    }
  }

  #ring(row: AlarmRow): void {
    // Only one run at a time: its end arms the next one. Meanwhile this timer wakes the object again after an eviction.
    if (this.#running) this.#timer = this.#host.clock.setTimeout(() => this.#ring(row), FIRST_DELAY);
    else void this.#run(row);
  }

  async #run({ due, retries }: AlarmRow): Promise<void> {
    if (this.#isOver) return this.#end();
    if (retries > MAX_RETRIES) {
      this.#end();
      return this.#report(retries, new Error("The object was evicted during alarm()"));
    }
    const delay = FIRST_DELAY * 2 ** retries;
    // Stored before the call, so that the alarm runs again after an eviction.
    if (!this.#try(() => this.#write(due, this.#host.clock.now() + delay, retries + 1))) return;
    this.#failures = 0;
    const running = this.#running = { isReplaced: false };
    let isRepeated = false;
    try {
      await this.#host.run?.({ retryCount: retries, isRetry: retries > 0, scheduledTime: due });
    } catch (cause) {
      isRepeated = retries < MAX_RETRIES;
      this.#report(retries + 1, cause); // Before `#running` is reset: an error listener may set a new alarm.
    }
    this.#running = undefined;
    if (running.isReplaced) this.#arm();
    else if (!isRepeated) this.#end();
    else this.#try(() => this.#write(due, this.#host.clock.now() + delay, retries + 1)); // The delay counts from the end of the attempt.
  }

  /** Deletes the alarm. If the storage fails, the alarm is deleted later and does not run again. */
  #end(): void {
    this.#isOver = true;
    if (!this.#try(() => rowsOf(this.#host.sql, `DELETE FROM ${TABLE}`))) return;
    this.#isOver = false;
    this.#arm();
  }

  #report(attempt: number, cause: unknown): void {
    this.#host.report(new Error(`Cannot run alarm(): attempt ${attempt} of ${MAX_RETRIES + 1} failed`, { cause }));
  }
}
