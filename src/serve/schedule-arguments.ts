import { byteLength } from "../protocol/bytes.ts";
import { MAX_ALARM } from "./alarm-clock.ts";

/** Maximum bytes of a payload as JSON. */
const MAX_PAYLOAD = 131_072;

/** Maximum bytes of the payloads of all schedules together, and of all dead letters: an object has 128 MB of memory to list them. */
export const MAX_PAYLOADS = 16_777_216;

export function dueOf(when: unknown, now: number): number {
  const due = when instanceof Date ? when.getTime() : now + Math.ceil(Number(typeof when === "number" && when >= 0 ? when : NaN));
  if (due < MAX_ALARM) return due;
  throw new TypeError("Cannot schedule: pass a Date before 2189, a delay in ms from 0, or a cron expression");
}

export function idOf(options: unknown): string | undefined {
  const { id } = typeof options === "object" && options !== null ? options as { id?: unknown } : { id: null };
  if (id === undefined || typeof id === "string" && id !== "" && id.length <= 64) return id;
  throw new TypeError("Cannot schedule: the options must be an object whose id is a string of 1 to 64 characters, or absent");
}

export function payloadOf(name: string, payload: unknown): string | null {
  if (payload === undefined) return null;
  const json = JSON.stringify(payload) as string | undefined; // Of a function it is not a string.
  if (json !== undefined && byteLength(json) <= MAX_PAYLOAD) return json;
  throw new TypeError(`Cannot schedule "${name}": pass a payload of at most ${MAX_PAYLOAD} bytes of JSON`);
}
