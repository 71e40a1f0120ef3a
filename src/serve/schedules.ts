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
import { type Clock, isMs, MS } from "../base/clock.ts";
import { guard, type Report } from "../base/guard.ts";
import { isPositive } from "../application/option-checks.ts";
import type { Sql } from "../engines/sqlite-histories.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { parseCron } from "./cron.ts";
import { dueOf, idOf, MAX_PAYLOADS, payloadOf } from "./schedule-arguments.ts";
import { bytesOf, type ScheduleRow, ScheduleTable } from "./schedule-table.ts";
import { storageDelay } from "./storage-delay.ts";

/** One call of a handler. */
export interface ScheduledCall<Payload = unknown> {
  /** The id of the schedule. */
  readonly id: string;
  /** The name that it was scheduled by. */
  readonly name: string;
  /** The payload that it was scheduled with. */
  readonly payload: Payload;
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
  /** Time of one attempt, in ms. After it the signal is aborted, and the attempt has failed. @default {60_000} */
  timeout?: number;
  /** Maximum number of schedules; further ones fail with `LIMIT_EXCEEDED`. @default {10_000} */
  maxSchedules?: number;
  /** Maximum number of dead letters; the oldest ones are deleted. @default {1_000} */
  maxDeadLetters?: number;
}

/** Options of {@link Schedules.schedule}. */
export interface ScheduleOptions {
  /** The id, of 1 to 64 characters. A schedule with the same id is replaced. @default a random one */
  id?: string;
}

/** When a call is due: a date, a delay in ms, or a cron expression of five fields in UTC. */
export type When = Date | number | string;

/** Arguments of `schedule`. */
export type ScheduleArguments<Payloads> = {
  [Name in keyof Payloads & string]: undefined extends Payloads[Name]
    ? [when: When, name: Name, payload?: Payloads[Name], options?: ScheduleOptions]
    : [when: When, name: Name, payload: Payloads[Name], options?: ScheduleOptions];
}[keyof Payloads & string];

/** A schedule, as it is listed. */
export interface ScheduleRecord {
  /** Its id. */
  id: string;
  /** The name of its handler. */
  name: string;
  /** Its payload, which is JSON. Absent: none. */
  payload?: string | number | boolean | object | null;
  /** When its call is or was due, in ms since 1970. */
  due: number;
  /** Its cron expression. Absent: it is called once. */
  cron?: string;
  /** Number of attempts that have begun. */
  attempts: number;
  /** Why the last attempt has failed. Absent: none has. */
  error?: string;
}

/** @internal What the object gives its schedules. */
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
  readonly abort: AbortController;
  /** When it has taken too long, in ms of the wall clock. */
  readonly until: number;
}

interface Started extends SchedulesHost {
  readonly table: ScheduleTable;
}

/** The schedules of one object. Return them from the function that `createWebSocketObject` calls. */
export class Schedules<Payloads = AnyPayloads> {
  readonly #handlers: ReadonlyMap<string, (call: ScheduledCall) => unknown>;
  readonly #options: Required<SchedulesOptions>;
  readonly #running = new Map<string, Running>();
  #started: Started | undefined;
  #timer: unknown;
  /** How often in a row the storage has failed. */
  #failures = 0;

  /** Declares the handlers by name. @throws {TypeError} for one that is no function, an unknown option, or a value out of range. */
  constructor(handlers: ScheduleHandlers<Payloads>, options: SchedulesOptions = {}) {
    this.#handlers = new Map(Object.entries(handlers) as [string, (call: ScheduledCall) => unknown][]); // Checked next.
    for (const [name, handler] of this.#handlers) {
      if (typeof handler !== "function") {
        throw new TypeError(`Cannot create the schedules: the handler "${name}" must be a function`);
      }
    }
    this.#options = { ...DEFAULTS, ...checkOptions(options) };
  }

  /**
   * Calls the handler `name` at a date, after a delay in ms, or by a cron expression, at least once, and returns the id. A call that fails is
   * repeated. While the object is away nothing is called; what was due is called when it is back, a cron expression once.
   *
   * @throws {TypeError} as a rejection, for a time, a name, a payload or an id that is not valid.
   * @throws {WebSocketError} LIMIT_EXCEEDED, as a rejection: there are `maxSchedules`, or their payloads have more than 16 MiB together.
   */
  // deno-lint-ignore require-await -- what is wrong rejects, as over RPC
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
    if (isLive && cron && known.cron === when && known.name === name && known.payload === json) return id; // It goes on.
    if (!isLive && table.live.size >= this.#options.maxSchedules) {
      throw exceeded(name, "maxSchedules is reached: cancel some, or raise it");
    }
    const more = bytesOf(json) - (isLive ? bytesOf(known.payload) : 0);
    if (more > 0 && table.live.bytes + more > MAX_PAYLOADS) {
      throw exceeded(name, `all payloads together have at most ${MAX_PAYLOADS} bytes: cancel some schedules`);
    }
    this.#stop(id);
    table.put({ id, name, payload: json, due, next: due, cron: cron ? when as string : null, attempts: 0, error: null });
    this.#arm();
    return id;
  }

  /** Deletes a schedule or a dead letter, and aborts its call if it runs. Returns whether there was one. */
  // deno-lint-ignore require-await -- what is wrong rejects, as over RPC
  async cancel(id: string): Promise<boolean> {
    const { table } = this.#use("cancel");
    if (typeof id !== "string") throw new TypeError("Cannot cancel: pass the id of a schedule");
    this.#stop(id);
    const isDeleted = table.delete(id);
    this.#arm();
    return isDeleted;
  }

  /** Lists the schedules, the next one first. */
  // deno-lint-ignore require-await -- what is wrong rejects, as over RPC
  async list(): Promise<ScheduleRecord[]> {
    const { table } = this.#use("list the schedules");
    return table.list().map(recordOf);
  }

  /** Lists the calls that have failed `attempts` times, the latest first. Schedule one again by its id, or cancel it. */
  // deno-lint-ignore require-await -- what is wrong rejects, as over RPC
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
    this.#started = { ...host, table: new ScheduleTable(host.sql) };
    this.#arm();
  }

  #use(action: string): Started {
    if (this.#started) return this.#started;
    throw new TypeError(
      `Cannot ${action}: the object has not started, return the schedules from the function passed to createWebSocketObject, and call this in the constructor of the class or later`,
    );
  }

  #arm(): void {
    const { clock } = this.#started!; // Called once it is there.
    clock.clearTimeout(this.#timer);
    const next = this.#next();
    if (next === null) return;
    const delay = Math.max(next - clock.now(), storageDelay(this.#failures));
    // A longer delay fires after 1 ms, except that of an alarm.
    this.#timer = clock.setTimeout(() => this.#due(), Math.min(delay, 2 ** 31 - 1));
  }

  /** When something is to happen next. */
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
    // One by one: a failure of the storage must not keep the others from being called.
    const attempt = (step: () => void) =>
      guard(step, (error) => {
        isFailed = true;
        report(error);
      });
    for (const [id, { until }] of this.#running) {
      if (until > now) continue;
      this.#stop(id);
      attempt(() => this.#fail(table.find(id), new Error(`The call took longer than ${this.#options.timeout} ms`)));
    }
    attempt(() => {
      for (const row of table.due(now, MAX_RUNNING)) {
        if (this.#running.size >= MAX_RUNNING) break;
        if (!this.#running.has(row.id)) attempt(() => this.#call(row, now));
      }
    });
    this.#failures = isFailed ? this.#failures + 1 : 0;
    this.#arm();
  }

  #call(row: ScheduleRow, now: number): void {
    const { table } = this.#started!; // As in `#arm`.
    const attempt = row.attempts + 1;
    const until = now + this.#options.timeout;
    // More attempts than there are to be: evictions have ended the last one.
    if (attempt > this.#options.attempts) return this.#fail(row, new Error("The object was evicted during the call"));
    // Written first, with the time of a call that is lost: at least once, also when the object is evicted meanwhile.
    table.put({ ...row, attempts: attempt, next: until });
    const running: Running = { abort: new AbortController(), until };
    this.#running.set(row.id, running);
    void this.#run({ ...row, attempts: attempt }, running);
  }

  async #run(row: ScheduleRow, running: Running): Promise<void> {
    const { id, name, payload, due, attempts: attempt } = row;
    let failure: { error: unknown } | undefined;
    try {
      const handler = this.#handlers.get(name);
      if (!handler) throw new Error(`There is no handler "${name}"`); // A deployment has removed it.
      await handler({
        ...{ id, name, attempt, due, signal: running.abort.signal },
        payload: payload === null ? undefined : JSON.parse(payload),
      });
    } catch (error) {
      failure = { error };
    }
    // It was cancelled or replaced, or has taken too long.
    if (this.#running.get(id) !== running) return;
    this.#running.delete(id);
    // If the storage fails it is called again when its time is over.
    guard(() => failure ? this.#fail(row, failure.error) : this.#succeed(row), this.#started!.report); // As in `#arm`.
    this.#arm();
  }

  #succeed(row: ScheduleRow): void {
    const { table } = this.#started!; // As in `#arm`.
    if (row.cron === null) table.delete(row.id);
    else table.put(this.#following(row));
  }

  #fail(row: ScheduleRow | undefined, cause: unknown): void {
    if (!row) return;
    const { table, clock, report } = this.#started!; // As in `#arm`.
    const { attempts: all, backoff, maxDeadLetters } = this.#options;
    const { id, name, attempts } = row;
    const error = String(cause instanceof Error ? cause.message : cause).slice(0, 1_000);
    report(new Error(`Cannot run the schedule "${name}": attempt ${Math.min(attempts, all)} of ${all} failed`, { cause }));
    if (attempts < all) {
      table.put({ ...row, error, next: clock.now() + Math.min(MAX_BACKOFF, backoff * 2 ** (attempts - 1)) });
      return;
    }
    // The following calls of a cron expression are not lost with this one.
    if (row.cron !== null) table.put(this.#following(row));
    table.put({ ...row, id: row.cron === null ? id : crypto.randomUUID(), error, next: null });
    table.trimDead(maxDeadLetters, MAX_PAYLOADS);
  }

  /** The next call of a cron expression: not of a minute that has been, if the clock was set back. */
  #following(row: ScheduleRow): ScheduleRow {
    const due = parseCron(row.cron!)(Math.max(row.due, this.#started!.clock.now())); // Its callers have looked, and as in `#arm`.
    return { ...row, due, next: due, attempts: 0, error: null };
  }

  /** Aborts a call, whose result counts no more. */
  #stop(id: string): void {
    this.#running.get(id)?.abort.abort();
    this.#running.delete(id);
  }
}

function checkOptions(options: SchedulesOptions): SchedulesOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new TypeError(
        `Cannot create the schedules: unknown option "${name}", use one of ${Object.keys(DEFAULTS).join(", ")}`,
      );
    }
    const isTime = name === "backoff" || name === "timeout";
    if (isTime ? isMs(value) : isPositive(value)) continue;
    throw new TypeError(`Cannot create the schedules: option "${name}" must be ${isTime ? MS : "a whole number from 1"}`);
  }
  return Object.fromEntries(given);
}

const exceeded = (name: string, remedy: string) =>
  new WebSocketError("schedule", "LIMIT_EXCEEDED", `Cannot schedule "${name}": ${remedy}`);

const recordOf = ({ id, name, payload, due, cron, attempts, error }: ScheduleRow): ScheduleRecord => ({
  ...{ id, name, due, attempts },
  ...(payload !== null && { payload: JSON.parse(payload) }),
  ...(cron !== null && { cron }),
  ...(error !== null && { error }),
});
