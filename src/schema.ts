import * as v from "valibot";
import { guard, isThenable } from "./guard.ts";
import { FIRST_ISSUE } from "./protocol.ts";

/** A schema of the application, and what has to be looked at in its output. */
export interface CheckedSchema {
  readonly schema: v.GenericSchema<unknown, unknown>;
  /** A function of the application makes some of the output: a promise may be in it. */
  readonly transforms: boolean;
}

/**
 * A schema that is read synchronously; `null` for anything else. valibot takes an async function where a synchronous one has to be: a `check` is
 * then always true, a `transform` puts a promise out, and what that rejects with ends the process.
 */
export function checkSchema(value: unknown): CheckedSchema | null {
  if (typeof value !== "object" || value === null || !("kind" in value) || value.kind !== "schema" || some(value, isAsync)) {
    return null;
  }
  return { schema: value as v.GenericSchema<unknown, unknown>, transforms: some(value, isTransforming) }; // Its kind says so.
}

/** Why {@link checkSchema} took it for none. */
export const SYNCHRONOUS = "a synchronous valibot schema, without an async schema or function in it";

/**
 * Reads a value.
 *
 * @throws {TypeError} for an output that holds a promise, and what functions of the schema throw.
 */
export function parse({ schema, transforms }: CheckedSchema, value: unknown): v.SafeParseResult<v.GenericSchema> {
  const parsed = v.safeParse(schema, value, FIRST_ISSUE);
  // Looked for in refused values too: a promise in one field may reject although another field is invalid.
  if (transforms && settles(parsed.output) && parsed.success) {
    throw new TypeError("Cannot use the output of the schema: it contains a promise, await it in the handler");
  }
  return parsed;
}

/** Whether it is true of a part of a schema. */
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
  // What a default or a lazy schema is, is known when it is called.
  return ["default", "fallback", "getter"].some((name) => typeof (part as Record<string, unknown>)[name] === "function");
}

/** Whether a promise is in it, whose rejection nobody else would take. */
function settles(value: unknown, seen: Set<object> = new Set()): boolean {
  if (typeof value !== "object" || value === null || seen.has(value)) return false;
  if (isThenable(value)) {
    guard(() => value, () => {}); // The promise itself is what is reported.
    return true;
  }
  seen.add(value);
  // All of them: each may reject.
  return Object.values(value).filter((each) => settles(each, seen)).length > 0;
}
