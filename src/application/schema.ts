import * as v from "valibot";
import { guard, isThenable } from "../base/guard.ts";
import { FIRST_ISSUE } from "../protocol/protocol.ts";

/** A schema of the application that {@link checkSchema} accepted. */
export interface CheckedSchema {
  readonly schema: v.GenericSchema<unknown, unknown>;
  /** Whether functions of the application make part of the output, which may then contain a promise. */
  readonly transforms: boolean;
}

/**
 * Accepts a synchronous valibot schema; `null` for anything else. valibot itself accepts an async function in one: such a `check`
 * always passes, and such a `transform` outputs a promise, whose rejection ends the process.
 */
export function checkSchema(value: unknown): CheckedSchema | null {
  if (typeof value !== "object" || value === null || !("kind" in value) || value.kind !== "schema" || some(value, isAsync)) {
    return null;
  }
  return { schema: value as v.GenericSchema<unknown, unknown>, transforms: some(value, isTransforming) }; // By `kind`.
}

/** What {@link checkSchema} accepts, for error messages. */
export const SYNCHRONOUS = "a synchronous valibot schema, without an async schema or function in it";

/**
 * Validates a value.
 *
 * @throws {TypeError} if the output contains a promise, and whatever functions of the schema throw.
 */
export function parse({ schema, transforms }: CheckedSchema, value: unknown): v.SafeParseResult<v.GenericSchema> {
  const parsed = v.safeParse(schema, value, FIRST_ISSUE);
  // Looked for in refused values too: a promise in one field may reject although another field is invalid.
  if (transforms && hasPromise(parsed.output) && parsed.success) {
    throw new TypeError("Cannot use the output of the schema: it contains a promise, await it in the handler");
  }
  return parsed;
}

/** Whether the predicate is true for any part of a schema. */
function some(part: unknown, isTrue: (part: object) => boolean, seen: Set<object> = new Set()): boolean {
  if (typeof part !== "object" || part === null || seen.has(part)) return false;
  seen.add(part);
  return isTrue(part) || Object.values(part).some((each) => some(each, isTrue, seen));
}

function isAsync(part: object): boolean {
  return "async" in part && part.async === true ||
    Object.values(part).some((each) =>
      typeof each === "function" && Object.prototype.toString.call(each) === "[object AsyncFunction]"
    );
}

function isTransforming(part: object): boolean {
  if ("kind" in part && part.kind === "transformation") {
    return "operation" in part || "type" in part && part.type === "raw_transform";
  }
  // A default, a fallback or a lazy schema is known only when its function is called.
  return ["default", "fallback", "getter"].some((name) => typeof (part as Record<string, unknown>)[name] === "function");
}

/** Whether the value contains a promise. Rejections are caught: nothing else would handle them. */
function hasPromise(value: unknown, seen: Set<object> = new Set()): boolean {
  if (typeof value !== "object" || value === null || seen.has(value)) return false;
  if (isThenable(value)) {
    guard(() => value, () => {}); // The error is the promise, not its rejection.
    return true;
  }
  seen.add(value);
  // Visits all of them: each may reject.
  return Object.values(value).filter((each) => hasPromise(each, seen)).length > 0;
}
