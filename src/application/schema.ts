import * as v from "valibot";
import { guard, isThenable } from "../base/guard.ts";
import { FIRST_ISSUE, type Issue } from "../protocol/protocol.ts";

/**
 * A schema of any Standard Schema library (https://standardschema.dev), synchronous or asynchronous. Only the part in use is
 * declared here: the package of the standard need not be installed, whose types TypeScript cannot match if `import` and `require`
 * resolve to two files.
 */
export interface PayloadSchema<Input, Output> {
  /** The interface of the standard. */
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    /** Returns the output or the issues, or a promise of them. */
    readonly validate: (value: unknown) => unknown;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/**
 * The result of a validation, in valibot's form, whose results then need no copy. Issues quote the input: show only their path.
 */
export type Parsed =
  | { readonly success: true; readonly output: unknown }
  | { readonly success: false; readonly output?: unknown; readonly issues: readonly Issue[] };

/** A schema of the application that {@link checkSchema} accepted. */
export interface CheckedSchema {
  readonly schema: object;
  readonly run: (value: unknown) => Parsed | PromiseLike<Parsed>;
  /** Whether functions of the application make part of the output, which may then contain a promise. */
  readonly transforms: boolean;
}

/** A result of Standard Schema, or of Zod's `run`, whose issues are empty on success. */
interface Result {
  readonly value?: unknown;
  readonly issues?: readonly Issue[] | undefined;
}

interface Standard {
  readonly vendor: unknown;
  readonly validate: (value: unknown) => Result | PromiseLike<Result>;
}

/** The part of a schema of Zod 4 that is called instead of `validate`: see {@link runnerOf}. */
interface ZodInternals {
  readonly def: object;
  run(payload: { value: unknown; issues: Issue[] }, context: { async: true }): Result | PromiseLike<Result>;
}

/**
 * The part of a schema of Zod 3 that is called instead of `validate`, for the same reason. Its definition does not say whether a
 * part of it is asynchronous.
 */
interface OlderZod {
  safeParseAsync(value: unknown): Promise<{ readonly data?: unknown; readonly error?: { readonly issues: readonly Issue[] } }>;
}

/** What {@link checkSchema} accepts, for error messages. */
export const SCHEMA = "a schema of valibot, Zod or another Standard Schema library";

/**
 * Accepts any Standard Schema (https://standardschema.dev); `null` for anything else. Also `null` for a synchronous schema of
 * valibot with an asynchronous part or function: such a `check` always passes, and such a `transform` outputs a promise.
 */
export function checkSchema(value: unknown): CheckedSchema | null {
  const standard = standardOf(value);
  if (!standard) return null;
  const schema = value as object; // It has a property.
  if (standard.vendor === "valibot") {
    if (hasUnawaited(schema)) return null;
    const transforms = some(schema, isTransforming);
    if ("async" in schema && schema.async === true) {
      const asynchronous = schema as v.GenericSchemaAsync; // By `async`.
      return { schema, transforms, run: (input) => v.safeParseAsync(asynchronous, input, FIRST_ISSUE) };
    }
    const synchronous = schema as v.GenericSchema; // By `vendor`.
    return { schema, transforms, run: (input) => v.safeParse(synchronous, input, FIRST_ISSUE) };
  }
  const zod = "_zod" in schema ? schema._zod as ZodInternals : undefined; // By its name.
  const transforms = zod
    ? some(zod.def, callsApplication)
    : !("includesTransform" in schema && schema.includesTransform === false);
  if (standard.vendor === "zod" && !zod && "safeParseAsync" in schema) {
    const older = schema as unknown as OlderZod; // By its vendor and its method.
    return { schema, transforms, run: (input) => older.safeParseAsync(input).then(parsedByOlder) };
  }
  return { schema, transforms, run: runnerOf(standard, transforms ? zod : undefined) };
}

/**
 * Validates a value. Returns a promise only for an asynchronous schema.
 *
 * @throws {TypeError} if the output contains a promise, and whatever functions of the schema throw.
 */
export function parse(checked: CheckedSchema, value: unknown): Parsed | Promise<Parsed> {
  const parsed = checked.run(value);
  return isThenable(parsed)
    ? Promise.resolve(parsed).then((settled) => withoutPromise(checked, settled))
    : withoutPromise(checked, parsed);
}

function withoutPromise({ transforms }: CheckedSchema, parsed: Parsed): Parsed {
  // Searched for in invalid values too: a promise in one field may reject while another field is invalid.
  if (transforms && hasPromise(parsed.output) && parsed.success) {
    throw new TypeError("Cannot use the output of the schema: it contains a promise, await it in the handler");
  }
  return parsed;
}

function standardOf(value: unknown): Standard | undefined {
  // A schema of ArkType is a function.
  if (typeof value !== "object" && typeof value !== "function" || value === null || !("~standard" in value)) return undefined;
  const standard = value["~standard"];
  if (typeof standard !== "object" || standard === null || !("version" in standard) || standard.version !== 1) return undefined;
  return standard as unknown as Standard; // By its version.
}

/**
 * Zod's own `validate` runs an asynchronous schema twice, first without awaiting it. A rejection of that run is unhandled and
 * ends a Node or Deno process. `run` awaits, but without compiled code it takes 3 to 5 times as long, so it is used only for
 * schemas that call functions of the application.
 */
function runnerOf(standard: Standard, zod: ZodInternals | undefined): CheckedSchema["run"] {
  const run = zod
    ? (value: unknown) => zod.run({ value, issues: [] }, { async: true })
    : (value: unknown) => standard.validate(value);
  return (value) => {
    const result = run(value);
    return isThenable(result) ? Promise.resolve(result).then(parsedOf) : parsedOf(result);
  };
}

function parsedOf({ value, issues }: Result): Parsed {
  return issues && issues.length > 0 ? { success: false, output: value, issues } : { success: true, output: value };
}

const parsedByOlder = ({ data, error }: Awaited<ReturnType<OlderZod["safeParseAsync"]>>): Parsed =>
  parsedOf({ value: data, issues: error?.issues });

/** Whether the predicate is true for any part of a schema. */
export function some(part: unknown, isTrue: (part: object) => boolean, seen: Set<object> = new Set()): boolean {
  if (typeof part !== "object" || part === null || seen.has(part)) return false;
  seen.add(part);
  // The fields of a Zod schema are lazy, its definition has them all.
  const { def } = "_zod" in part ? part._zod as ZodInternals : { def: part };
  return isTrue(def) || Object.values(def).some((each) => some(each, isTrue, seen));
}

/** Whether the schema has an asynchronous part or function within a synchronous one, which valibot does not await. */
function hasUnawaited(part: unknown, isAwaited = true, seen: Set<object> = new Set()): boolean {
  if (typeof part !== "object" || part === null || seen.has(part)) return false;
  seen.add(part);
  // Lists of parts have no `async` of their own.
  const isAsync = "async" in part && typeof part.async === "boolean" ? part.async : isAwaited;
  if (isAsync && !isAwaited) return true;
  return Object.values(part).some((each) => !isAsync && isAsyncFunction(each) || hasUnawaited(each, isAsync, seen));
}

function isAsyncFunction(value: unknown): boolean {
  return typeof value === "function" && Object.prototype.toString.call(value) === "[object AsyncFunction]";
}

/** Whether a function of the application may make the output of this part of a valibot schema. */
function isTransforming(part: object): boolean {
  if ("kind" in part && part.kind === "transformation") {
    return "operation" in part || "type" in part && part.type === "raw_transform";
  }
  // A default, a fallback or a lazy schema is known only when its function is called.
  return ["default", "fallback", "getter"].some((name) => typeof (part as Record<string, unknown>)[name] === "function");
}

/** Whether a definition of Zod calls the application: a refinement, a transformation, a codec, or a default or lazy part. */
function callsApplication(def: object): boolean {
  return "check" in def && def.check === "custom" ||
    ["fn", "transform", "getter", "catchValue"].some((name) => typeof (def as Record<string, unknown>)[name] === "function");
}

/** Whether the value contains a promise. Rejections are caught: nothing else would handle them. */
function hasPromise(value: unknown, seen: Set<object> = new Set()): boolean {
  if (typeof value !== "object" || value === null || seen.has(value)) return false;
  if (isThenable(value)) {
    guard(() => value, () => {}); // The error is the promise, not its rejection.
    return true;
  }
  seen.add(value);
  // Visits all values, because each promise may reject.
  return Object.values(value).filter((each) => hasPromise(each, seen)).length > 0;
}
