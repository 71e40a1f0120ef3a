import { isPositive } from "../application/option-checks.ts";
import { isMs, MS } from "../base/clock.ts";
import { byteLength } from "../protocol/bytes.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { JsonFault } from "../protocol/json-of.ts";
import { MAX_ALARM } from "./alarm-clock.ts";

/** Options of `Schedules.schedule`. */
export interface ScheduleOptions {
  /** The id, of 1 to 64 characters. A schedule with the same id is replaced. @default a random one */
  id?: string;
}

/** When a call is due: a date, a delay in ms, or a cron expression of five fields in UTC. */
export type When = Date | number | string;

/** Arguments of `schedule`. If a payload's type is not JSON, its parameter has the error message as its type. */
export type ScheduleArguments<Payloads> = {
  [Name in keyof Payloads & string]: [JsonFault<Exclude<Payloads[Name], undefined>, "payload">] extends [never]
    ? undefined extends Payloads[Name] ? [when: When, name: Name, payload?: Payloads[Name], options?: ScheduleOptions]
    : [when: When, name: Name, payload: Payloads[Name], options?: ScheduleOptions]
    : [when: When, name: Name, payload: `Cannot schedule "${Name}": ${JsonFault<Exclude<Payloads[Name], undefined>, "payload">}`];
}[keyof Payloads & string];

/** Maximum bytes of a payload as JSON. */
const MAX_PAYLOAD = 131_072;

/**
 * Maximum bytes of the payloads of all schedules together, and of all dead letters: an object has 128 MB of memory to list them.
 */
export const MAX_PAYLOADS = 16_777_216;

export function dueOf(when: unknown, now: number): number {
  const due = when instanceof Date ? when.getTime() : now + Math.ceil(Number(typeof when === "number" && when >= 0 ? when : NaN));
  if (due < MAX_ALARM) return due;
  throw new TypeError("Cannot schedule: pass a Date before 2189, a delay in ms from 0, or a cron expression");
}

export function idOf(options: unknown): string | undefined {
  const { id, ...others } = typeof options === "object" && options !== null ? options as { id?: unknown } : { id: null };
  for (const name of Object.keys(others)) throw new TypeError(`Cannot schedule: unknown option "${name}", use id`);
  // SQLite replaces lone surrogates, so that two ids could become one.
  if (id === undefined || typeof id === "string" && id !== "" && id.length <= 64 && id.isWellFormed()) return id;
  throw new TypeError(
    "Cannot schedule: the options must be an object whose id is a string of 1 to 64 characters without lone surrogates, or absent",
  );
}

export function payloadOf(name: string, payload: unknown): string | null {
  if (payload === undefined) return null;
  const json = JSON.stringify(payload) as string | undefined; // `undefined` for a function.
  if (json !== undefined && byteLength(json) <= MAX_PAYLOAD) return json;
  throw new TypeError(`Cannot schedule "${name}": pass a payload of at most ${MAX_PAYLOAD} bytes of JSON`);
}

export const exceeded = (name: string, remedy: string): WebSocketError =>
  new WebSocketError("schedule", "LIMIT_EXCEEDED", `Cannot schedule "${name}": ${remedy}`);

/** Returns the options that are not `undefined`. @throws {TypeError} for an unknown one, or a value out of range. */
export function checkOptions<Options extends object>(options: Options, defaults: Required<Options>): Partial<Options> {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(defaults, name)) {
      throw new TypeError(
        `Cannot create the schedules: unknown option "${name}", use one of ${Object.keys(defaults).join(", ")}`,
      );
    }
    const isTime = name === "backoff" || name === "timeout";
    if (isTime ? isMs(value) : isPositive(value)) continue;
    throw new TypeError(`Cannot create the schedules: option "${name}" must be ${isTime ? MS : "a whole number from 1"}`);
  }
  return Object.fromEntries(given) as Partial<Options>; // Fields of the options.
}
