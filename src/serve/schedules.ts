/**
 * Schedules of a Durable Object: calls at a time, after a delay or by a cron expression, kept in its storage until they succeed.
 *
 * @example
 * ```ts
 * import { type ScheduledCall, Schedules } from "noroshi/schedules";
 *
 * export class Room extends createWebSocketObject(() => {
 *   const schedules = new Schedules({
 *     remind: ({ payload }: ScheduledCall<{ user: string }>) => remind(payload.user),
 *   });
 *   return { app, controller, schedules };
 * }) {}
 *
 * await env.ROOM.getByName("main").schedule(60_000, "remind", { user: "ann" });
 * ```
 *
 * @module
 */
import type { Clock } from "../base/clock.ts";
import { describeCause } from "../base/describe-cause.ts";
import { guard, type Report } from "../base/guard.ts";
import type { Sql } from "../engines/sqlite-histories.ts";
import type { JsonOf } from "../protocol/json-of.ts";
import { parseCron } from "./cron.ts";
import { checkOptions, dueOf, exceeded, idOf, MAX_PAYLOADS, payloadOf, type ScheduleArguments } from "./schedule-arguments.ts";
import { bytesOf, following, isAhead, type ScheduleRow, ScheduleTable } from "./schedule-table.ts";
import { storageDelay } from "./storage-delay.ts";

export type { JsonOf } from "../protocol/json-of.ts";
export type { ScheduleArguments, ScheduleOptions, When } from "./schedule-arguments.ts";

/** One call of a handler. `Payload` is the type that `schedule` takes. */
export interface ScheduledCall<Payload = unknown> {
  /** The id of the schedule. */
  readonly id: string;
  /** The name of the handler. */
  readonly name: string;
  /** The payload passed to `schedule`, after a round trip through JSON: a `Date` is a `string`. */
  readonly payload: JsonOf<Payload>;
  /** Number of the attempt, from 1. */
  readonly attempt: number;
  /** When the call was due, in ms since 1970. */
  readonly due: number;
  /** Aborted when the call takes too long, and when the schedule is cancelled or replaced. */
  readonly signal: AbortSignal;
}

/** Handlers by name. A call has succeeded when its handler returns or resolves. */
export type ScheduleHandlers<Payloads> = {
  readonly [Name in keyof Payloads]: (call: ScheduledCall<Payloads[Name]>) => unknown;
};

/** Payloads that are not known at compile time. */
export type AnyPayloads = { readonly [name: string]: unknown };

/** Options of {@link Schedules}. */
export interface SchedulesOptions {
  /** Attempts of one call. After the last one it is a dead letter. @default {5} */
  attempts?: number;
  /** Delay before the second attempt, in ms. It doubles with each further one, up to an hour. @default {1_000} */
  backoff?: number;
  /** Timeout of one attempt, in ms. After it the signal is aborted, and the attempt has failed. @default {60_000} */
  timeout?: number;
  /** Maximum number of schedules; further ones fail with `LIMIT_EXCEEDED`. @default {10_000} */
  maxSchedules?: number;
  /** Maximum number of dead letters; the oldest ones are deleted. @default {1_000} */
  maxDeadLetters?: number;
}

/** A schedule, as it is listed. */
export interface ScheduleRecord {
  /** Its id. */
  id: string;
  /** The name of its handler. */
  name: string;
  /** Its payload, decoded from JSON. Absent: none. */
  payload?: string | number | boolean | object | null;
  /** When its call is or was due, in ms since 1970. */
  due: number;
  /** Its cron expression. Absent: the handler is called once. */
  cron?: string;
  /** Number of attempts that have begun. */
  attempts: number;
  /** Error of the last failed attempt. Absent: none has failed. */
  error?: string;
}

/** @internal What the object passes to its schedules. */
export interface SchedulesHost {
  readonly sql: Sql | undefined;
  readonly clock: Clock;
  readonly report: Report;
}

/** Maximum number of calls at once. The others wait. */
const MAX_RUNNING = 100;

/** Maximum delay between two attempts, in ms. */
const MAX_BACKOFF = 3_600_000;

const DEFAULTS: Required<SchedulesOptions> = {
  attempts: 5,
  backoff: 1_000,
  timeout: 60_000,
  maxSchedules: 10_000,
  maxDeadLetters: 1_000,
};

interface Running {
  readonly row: ScheduleRow;
  readonly abort: AbortController;
  /** End of its timeout, in ms of the wall clock. */
  readonly until: number;
}

interface Failure {
  readonly error: unknown;
}

interface Started extends SchedulesHost {
  readonly table: ScheduleTable;
}

/** The schedules of one object. Return them from the function that `createWebSocketObject` calls. */
export class Schedules<Payloads = AnyPayloads> {
  readonly #handlers: ReadonlyMap<string, (call: ScheduledCall) => unknown>;
  readonly #options: Required<SchedulesOptions>;
  readonly #running = new Map<string, Running>();
  /** Outcomes of calls, by id, that the storage has not accepted yet; `undefined`: success. */
  readonly #unsaved = new Map<string, Failure | undefined>();
  #started: Started | undefined;
  #timer: unknown;
  /** Number of consecutive failures of the storage. */
  #failures = 0;

  /**
   * Declares the handlers by name.
   *
   * @throws {TypeError} for one that is no function, an unknown option, or a value out of range.
   */
  constructor(handlers: ScheduleHandlers<Payloads>, options: SchedulesOptions = {}) {
    this.#handlers = new Map(Object.entries(handlers) as [string, (call: ScheduledCall) => unknown][]); // Checked next.
    for (const [name, handler] of this.#handlers) {
      if (typeof handler !== "function") {
        throw new TypeError(`Cannot create the schedules: the handler "${name}" must be a function`);
      }
    }
    this.#options = { ...DEFAULTS, ...checkOptions(options, DEFAULTS) };
  }

  /**
   * Calls the handler `name` at a date, after a delay in ms, or by a cron expression, at least once, and returns the id. A failed
   * call is retried. Calls that come due while the object is down are made when it is back; for a cron expression, only one of
   * them.
   *
   * @throws {TypeError} as a rejection, for an invalid time, name, payload or id.
   * @throws {WebSocketError} LIMIT_EXCEEDED, as a rejection, beyond `maxSchedules` or 16 MiB of payloads in all.
   */
  // deno-lint-ignore require-await -- invalid arguments reject, as over RPC
  async schedule(...[when, name, payload, options = {}]: ScheduleArguments<Payloads>): Promise<string> {
    if (!this.#handlers.has(name)) {
      throw new TypeError(`Cannot schedule "${name}": no such handler, use one of ${[...this.#handlers.keys()].join(", ")}`);
    }
    const cron = typeof when === "string" ? parseCron(when) : undefined;
    const id = idOf(options) ?? crypto.randomUUID();
    const json = payloadOf(name, payload);
    const { table, clock } = this.#use("schedule");
    const due = cron ? cron(clock.now()) : dueOf(when as Date | number, clock.now()); // A string is a cron expression.
    const known = table.find(id);
    const isLive = known !== undefined && known.next !== null;
    if (isLive && cron && known.cron === when && known.name === name && known.payload === json && !isAhead(known, clock.now())) {
      return id; // Unchanged: its next call stays as it is.
    }
    if (!isLive && table.live.size >= this.#options.maxSchedules) {
      throw exceeded(name, "maxSchedules is reached: cancel some, or raise it");
    }
    const more = bytesOf(json) - (isLive ? bytesOf(known.payload) : 0);
    if (more > 0 && table.live.bytes + more > MAX_PAYLOADS) {
      throw exceeded(name, `all payloads together have at most ${MAX_PAYLOADS} bytes: cancel some schedules`);
    }
    table.put({ id, name, payload: json, due, next: due, cron: cron ? when as string : null, attempts: 0, error: null });
    this.#stop(id);
    this.#arm();
    return id;
  }

  /** Deletes a schedule or a dead letter, and aborts its call if it runs. Returns whether there was one. */
  // deno-lint-ignore require-await -- invalid arguments reject, as over RPC
  async cancel(id: string): Promise<boolean> {
    const { table } = this.#use("cancel");
    if (typeof id !== "string") throw new TypeError("Cannot cancel: pass the id of a schedule");
    const isDeleted = table.delete(id);
    this.#stop(id);
    this.#arm();
    return isDeleted;
  }

  /** Lists the schedules, the next one first. */
  // deno-lint-ignore require-await -- invalid arguments reject, as over RPC
  async list(): Promise<ScheduleRecord[]> {
    const { table } = this.#use("list the schedules");
    return table.list().map(recordOf);
  }

  /** Lists the calls that have failed `attempts` times, the latest first. Schedule one again by its id, or cancel it. */
  // deno-lint-ignore require-await -- invalid arguments reject, as over RPC
  async deadLetters(): Promise<ScheduleRecord[]> {
    const { table } = this.#use("list the dead letters");
    return table.deadLetters().map(recordOf);
  }

  /**
   * @internal Called by the object.
   * @throws {TypeError} without SQLite storage, or if they are started already.
   */
  start(host: SchedulesHost): void {
    if (this.#started) {
      throw new TypeError(
        "Cannot start the schedules: another object uses them, create them in the function passed to createWebSocketObject",
      );
    }
    if (!host.sql) {
      throw new TypeError(
        "Cannot start the schedules: the class has no SQLite storage, write new_sqlite_classes instead of new_classes",
      );
    }
    const table = new ScheduleTable(host.sql);
    table.correct(host.clock.now(), Math.max(MAX_BACKOFF, this.#options.timeout));
    this.#started = { ...host, table };
    this.#arm();
  }

  #use(action: string): Started {
    if (this.#started) return this.#started;
    throw new TypeError(
      `Cannot ${action}: the object has not started, return the schedules from the function passed to createWebSocketObject, and call this in the constructor of the class or later`,
    );
  }

  #arm(): void {
    const { clock } = this.#started!; // Set by `start`, before any call of this.
    clock.clearTimeout(this.#timer);
    const next = this.#next();
    if (next === null) return;
    const delay = Math.max(next - clock.now(), storageDelay(this.#failures));
    // A longer timer would fire after 1 ms, unless it is an alarm.
    this.#timer = clock.setTimeout(() => this.#due(), Math.min(delay, 2 ** 31 - 1));
  }

  /** Time of the next step of any schedule. */
  #next(): number | null {
    const { table, clock, report } = this.#started!; // As in `#arm`.
    if (this.#running.size >= MAX_RUNNING) return Math.min(...[...this.#running.values()].map(({ until }) => until));
    try {
      return table.next();
    } catch (error) {
      report(error);
      this.#failures ||= 1;
      return clock.now();
    }
  }

  #due(): void {
    const { table, clock, report } = this.#started!; // As in `#arm`.
    const now = clock.now();
    let isFailed = false;
    // Each step is guarded: a failure of the storage must not prevent the other calls.
    const attempt = (step: () => void) =>
      guard(step, (error) => {
        isFailed = true;
        report(error);
      });
    for (const [id, { row, abort, until }] of this.#running) {
      if (until > now) continue;
      this.#running.delete(id);
      const error = new DOMException(`The call took longer than ${this.#options.timeout} ms`, "TimeoutError");
      attempt(() => this.#end(row, { error }));
      abort.abort(error); // Last, as in `#stop`.
    }
    attempt(() => {
      for (const { id } of table.due(now, MAX_RUNNING)) {
        if (this.#running.size >= MAX_RUNNING) break;
        attempt(() => {
          const row = this.#running.has(id) ? undefined : table.find(id);
          // Read again: an earlier call may have cancelled or replaced it.
          if (row && row.next !== null && row.next <= now) this.#call(row, now);
        });
      }
    });
    this.#failures = isFailed ? this.#failures + 1 : 0;
    this.#arm();
  }

  #call(row: ScheduleRow, now: number): void {
    const until = now + this.#options.timeout;
    if (this.#unsaved.has(row.id)) return this.#end(row, this.#unsaved.get(row.id));
    // No attempt is left: an eviction has ended the last one, or a deployment has lowered `attempts`.
    if (row.attempts >= this.#options.attempts) {
      const text = row.error === null
        ? "The object was evicted during the call"
        : `No attempt is left. The last error: ${row.error}`;
      return this.#end(row, { error: new Error(text) });
    }
    const begun = { ...row, attempts: row.attempts + 1 };
    // Stored first, due again after its timeout, so that it is called at least once even if the object is evicted meanwhile.
    this.#started!.table.put({ ...begun, next: until }); // As in `#arm`.
    const running: Running = { row: begun, abort: new AbortController(), until };
    this.#running.set(row.id, running);
    void this.#run(running);
  }

  async #run(running: Running): Promise<void> {
    const { row, abort: { signal } } = running;
    const { id, name, payload, due, attempts: attempt } = row;
    let failure: Failure | undefined;
    try {
      const handler = this.#handlers.get(name);
      if (!handler) throw new Error(`There is no handler "${name}"`); // A deployment has removed it.
      await handler({ id, name, attempt, due, signal, payload: payload === null ? undefined : JSON.parse(payload) });
    } catch (error) {
      failure = { error };
    }
    if (this.#running.get(id) === running) {
      this.#running.delete(id);
      guard(() => this.#end(row, failure), this.#started!.report); // As in `#arm`.
      this.#arm();
    } else if (failure && !isAbort(failure.error, signal)) this.#report(row, failure.error); // It was cancelled or replaced.
  }

  /** Saves the outcome of a call. If the storage fails, the outcome is saved when the timeout of the call is over. */
  #end(row: ScheduleRow, failure: Failure | undefined): void {
    const isReported = this.#unsaved.has(row.id);
    this.#unsaved.set(row.id, failure);
    try {
      if (failure) this.#fail(row, failure);
      else this.#succeed(row);
      this.#unsaved.delete(row.id);
    } finally {
      // Last: an error listener may cancel or replace the schedule.
      if (failure && !isReported) this.#report(row, failure.error);
    }
  }

  #succeed(row: ScheduleRow): void {
    const { table, clock } = this.#started!; // As in `#arm`.
    if (row.cron === null) table.delete(row.id);
    else table.put(following(row, clock.now()));
  }

  #fail(row: ScheduleRow, { error: cause }: Failure): void {
    const { table, clock, report } = this.#started!; // As in `#arm`.
    const { attempts: all, backoff, maxDeadLetters } = this.#options;
    const { attempts } = row;
    const error = describeCause(cause, new Error("The call has failed")).slice(0, 1_000);
    if (attempts < all) {
      table.put({ ...row, error, next: clock.now() + Math.min(MAX_BACKOFF, backoff * 2 ** (attempts - 1)) });
      return;
    }
    // A cron expression goes on: only this call becomes a dead letter.
    if (row.cron === null) table.put({ ...row, error, next: null });
    else table.put({ ...row, id: crypto.randomUUID(), error, next: null }, following(row, clock.now()));
    guard(() => table.trimDead(maxDeadLetters, MAX_PAYLOADS), report); // If the storage fails, the next dead letter trims.
  }

  #report({ name, attempts }: ScheduleRow, cause: unknown): void {
    const { attempts: all } = this.#options;
    const message = `Cannot run the schedule "${name}": attempt ${Math.min(attempts, all)} of ${all} failed`;
    this.#started!.report(new Error(message, { cause })); // As in `#arm`.
  }

  /** Aborts a call, and ignores its result. Called last: an `abort` listener may cancel or replace the schedule. */
  #stop(id: string): void {
    const running = this.#running.get(id);
    this.#running.delete(id);
    this.#unsaved.delete(id);
    running?.abort.abort();
  }
}

const recordOf = ({ id, name, payload, due, cron, attempts, error }: ScheduleRow): ScheduleRecord => ({
  ...{ id, name, due, attempts },
  ...(payload !== null && { payload: JSON.parse(payload) }),
  ...(cron !== null && { cron }),
  ...(error !== null && { error }),
});

/** Whether a call failed because its signal was aborted. A timeout was reported already. */
function isAbort(error: unknown, { reason }: AbortSignal): boolean {
  const isTimeout = reason instanceof DOMException && reason.name === "TimeoutError";
  return isTimeout || error === reason || error instanceof DOMException && error.name === "AbortError";
}
