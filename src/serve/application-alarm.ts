import type { Clock } from "../base/clock.ts";
import type { Report } from "../base/guard.ts";
import { rowsOf, type Sql } from "../engines/sqlite-histories.ts";
import { MAX_ALARM } from "./alarm-clock.ts";
import { storageDelay } from "./storage-delay.ts";

/** What workerd passes to an `alarm()`. */
export interface AlarmInfo {
  /** How often it has failed before. */
  readonly retryCount: number;
  /** Whether it has failed before. */
  readonly isRetry: boolean;
  /** When it was due, in ms since 1970. */
  readonly scheduledTime: number;
}

/** What {@link ApplicationAlarm} needs of its object. */
export interface ApplicationAlarmHost {
  readonly sql: Sql;
  readonly clock: Clock;
  readonly report: Report;
  /** The `alarm()` of the subclass. Absent: it has none, and its `setAlarm` rejects, as workerd's does. */
  run?(info: AlarmInfo): unknown;
}

/** The first delay before a failed alarm is repeated, in ms; each further one is twice as long. As workerd's. */
const FIRST_DELAY = 2_000;

/** How often a failed alarm is repeated. As workerd's. */
const MAX_RETRIES = 6;

interface AlarmRow {
  /** When it is due, in ms since 1970. */
  due: number;
  /** When it runs next, in ms since 1970. */
  next: number;
  retries: number;
}

const TABLE = '"noroshi_alarm"';

/**
 * The alarm of a subclass. An object has one alarm, and its timers use it: `setAlarm`, `getAlarm` and `deleteAlarm` of the storage are
 * replaced by those of a row in a table, whose time is one more timer.
 */
export class ApplicationAlarm {
  readonly #host: ApplicationAlarmHost;
  #timer: unknown;
  /** How often in a row the storage has failed. */
  #failures = 0;
  /** Set while it runs. `isReplaced`: it has set or deleted its alarm meanwhile. */
  #running: { isReplaced: boolean } | undefined;
  /** Whether it has ended, and the storage has not deleted it yet. */
  #isOver = false;

  constructor(host: ApplicationAlarmHost) {
    this.#host = host;
    rowsOf(
      host.sql,
      `CREATE TABLE IF NOT EXISTS ${TABLE} (place INTEGER PRIMARY KEY, due INTEGER, next INTEGER, retries INTEGER)`,
    );
    this.#arm();
  }

  /** Replaces the methods of the storage. */
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

  // deno-lint-ignore require-await -- a wrong time rejects, as workerd's does
  async #set(time: Date | number): Promise<void> {
    const due = Number(time);
    if (!this.#host.run) throw new TypeError("Cannot set the alarm: the class has no alarm(), add one");
    if (!(due >= 0 && due < MAX_ALARM)) {
      throw new TypeError("Cannot set the alarm: pass a Date before 2189, or its ms since 1970");
    }
    this.#write(Math.floor(due), Math.floor(due), 0);
    this.#replace();
  }

  #delete(): Promise<void> {
    rowsOf(this.#host.sql, `DELETE FROM ${TABLE}`);
    this.#replace();
    this.#arm();
    return Promise.resolve();
  }

  /** Notes that the stored alarm is a new one, which the end of the earlier one must not delete. Call it once it is stored. */
  #replace(): void {
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

  /** Does something with the storage. If it fails, the alarm is armed again later. */
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
    // It runs once at a time, and is armed again when it has ended. Until then the alarm is for an eviction.
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
    // Written first: after an eviction it runs again.
    if (!this.#try(() => this.#write(due, this.#host.clock.now() + delay, retries + 1))) return;
    this.#failures = 0;
    const running = this.#running = { isReplaced: false };
    let isRepeated = false;
    try {
      await this.#host.run?.({ retryCount: retries, isRetry: retries > 0, scheduledTime: due });
    } catch (cause) {
      isRepeated = retries < MAX_RETRIES;
      this.#report(retries + 1, cause); // While it counts as running: a listener may replace it.
    }
    this.#running = undefined;
    if (running.isReplaced) this.#arm();
    else if (!isRepeated) this.#end();
    else this.#try(() => this.#write(due, this.#host.clock.now() + delay, retries + 1)); // The delay begins now.
  }

  /** Deletes it. If the storage fails, it is deleted later, and does not run again. */
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
