/** A JSON Schema of draft-07. */
export interface JsonSchema {
  /** Keywords. */
  readonly [keyword: string]: unknown;
}

/** Converts a schema to JSON Schema; `toJsonSchema` of `@valibot/to-json-schema` is one. */
export type ToJsonSchema = (schema: never, options: never) => object;

/** What a schema accepts, or what it returns. They differ where it transforms. */
export type Side = "input" | "output";

/** Keywords whose value is a schema or an array of schemas. */
const SCHEMAS = ["items", "additionalItems", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"];
const LISTS = ["anyOf", "oneOf", "allOf"];
/** Keywords whose value holds schemas by name. */
const MAPS = ["properties", "patternProperties", "definitions", "$defs"];

/** Keywords whose value is a number. */
const BOUNDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"].concat(
  ["Length", "Items", "Properties"].flatMap((what) => [`min${what}`, `max${what}`]),
);

/** valibot's actions after which a value has another type. */
const TYPE_CHANGES =
  "find_item parse_json raw_transform reduce_items stringify_json to_bigint to_boolean to_date to_number to_string transform";

/** Standard JSON Schema (https://standardschema.dev/json-schema). */
interface StandardJsonSchema {
  readonly jsonSchema: Record<Side, (options: { target: string; libraryOptions: Record<string, unknown> }) => unknown>;
}

/**
 * Describes a part that JSON Schema cannot express as any value, instead of failing. The first is an option of Zod, the second of
 * ArkType; each ignores that of the other.
 */
const LENIENT = { unrepresentable: "any", fallback: ({ base }: { base: unknown }): unknown => base };

/**
 * Converts a schema of an application.
 *
 * @throws {TypeError} for a value that is no schema, and a schema whose library has no JSON Schema.
 */
export function convert(schema: unknown, side: Side, name: string, toJsonSchema: ToJsonSchema | undefined): JsonSchema {
  const standard = standardOf(schema);
  if (!standard) throw new TypeError(`Cannot describe ${name}: it is no schema`);
  if (!("jsonSchema" in standard) && !toJsonSchema) {
    throw new TypeError(
      `Cannot describe ${name}: its library has no Standard JSON Schema, pass toJsonSchema (valibot: that of @valibot/to-json-schema)`,
    );
  }
  let converted: unknown;
  try {
    converted = "jsonSchema" in standard
      // As the standard defines it.
      ? (standard as StandardJsonSchema).jsonSchema[side]({ target: "draft-07", libraryOptions: LENIENT })
      // The application chose the converter for its own schemas.
      : toJsonSchema!(schema as never, optionsOfValibot(side) as never);
  } catch (cause) {
    throw new TypeError(`Cannot describe ${name}: its library cannot convert it to JSON Schema`, { cause });
  }
  if (typeof converted === "boolean") return converted ? {} : { not: {} };
  // A copy: it is changed below, and what JSON omits is no part of it.
  const { $schema: _, ...rest } = JSON.parse(JSON.stringify(converted)) as JsonSchema; // An object, unless the library is broken.
  return mapSchemas(rest, (part) => {
    // A bound that is not finite, which JSON writes as null, bounds nothing.
    for (const bound of BOUNDS) if (part[bound] === null) delete part[bound];
  });
}

const optionsOfValibot = (side: Side) => ({
  target: "draft-07",
  typeMode: side,
  errorMode: "ignore",
  // The converter would describe the output by the type before the transformation.
  overrideAction: ({ valibotAction: { type } }: { valibotAction: { type: string } }) =>
    side === "output" && TYPE_CHANGES.split(" ").includes(type) ? {} : undefined,
});

/** Whether the schema accepts `undefined`, so that JSON omits the field. JSON Schema cannot express it. */
export function acceptsUndefined(schema: unknown): boolean {
  const standard = standardOf(schema);
  if (!standard || !("validate" in standard) || typeof standard.validate !== "function") return true;
  try {
    const result: unknown = standard.validate(undefined);
    if (result instanceof Promise) {
      result.catch(() => {}); // Nothing is known of an asynchronous schema.
      return true;
    }
    return !(typeof result === "object" && result !== null && "issues" in result && result.issues);
  } catch {
    return true; // A function of the application expects a value.
  }
}

function standardOf(schema: unknown): object | undefined {
  // Schemas of ArkType are functions.
  if ((typeof schema !== "object" && typeof schema !== "function") || schema === null || !("~standard" in schema)) {
    return undefined;
  }
  const standard = schema["~standard"];
  return typeof standard === "object" && standard !== null ? standard : undefined;
}

/** A copy of the schema in which each reference is replaced. */
export const mapReferences = (schema: unknown, replace: (reference: string) => string): JsonSchema =>
  mapSchemas(schema, (part) => {
    if (typeof part["$ref"] === "string") part["$ref"] = replace(part["$ref"]);
  });

/** Copies the schema and all schemas in it, and calls `change` with each copy. */
function mapSchemas(schema: unknown, change: (part: Record<string, unknown>) => void): JsonSchema {
  const map = (part: unknown): unknown => Array.isArray(part) ? part.map(map) : isSchema(part) ? mapSchemas(part, change) : part;
  const copy: Record<string, unknown> = { ...schema as JsonSchema }; // Called with schemas only.
  for (const keyword of [...SCHEMAS, ...LISTS]) if (keyword in copy) copy[keyword] = map(copy[keyword]);
  for (const keyword of MAPS) {
    const parts = copy[keyword];
    if (isSchema(parts)) copy[keyword] = Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, map(part)]));
  }
  change(copy);
  return copy;
}

export function isSchema(value: unknown): value is JsonSchema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at a JSON pointer within a document. */
export function resolvePointer(root: unknown, reference: string): unknown {
  if (!reference.startsWith("#")) return undefined;
  const names = decodeURIComponent(reference.slice(1)).split("/").slice(1);
  return names.map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~")).reduce<unknown>(
    (value, name) => typeof value === "object" && value !== null && Object.hasOwn(value, name) ? value[name as never] : undefined,
    root,
  );
}

/** A reference to the value at a path of keys from the root of the document. */
export function pointerTo(...names: string[]): string {
  return ["#", ...names.map((name) => encodeURIComponent(name.replaceAll("~", "~0").replaceAll("/", "~1")))].join("/");
}

/**
 * The schema of a message from that of its payload. The server checks a payload without `type` and `uid`. A
 * strict schema must allow both here: `allOf` with the envelope would accept no message.
 */
export function withEnvelope(schema: JsonSchema, envelope: JsonSchema, resolve: (reference: string) => unknown): JsonSchema {
  const fields = envelope["properties"] as Record<string, JsonSchema>; // Ours.
  /** The fields of an example. Each has one value, or an example. */
  const given = Object.fromEntries(
    Object.entries(fields).map(([name, field]) => [name, field["const"] ?? (field["examples"] as unknown[])[0]]),
  );
  const visit = (part: unknown, isRoot: boolean, seen: readonly unknown[]): unknown => {
    if (!isSchema(part) || seen.includes(part)) return part;
    const { $ref: reference } = part;
    if (typeof reference === "string") return visit(resolve(reference), isRoot, [...seen, part]);
    const copy: Record<string, unknown> = { ...part };
    delete copy["definitions"];
    delete copy["$defs"];
    for (const keyword of LISTS) {
      const list = copy[keyword];
      if (Array.isArray(list)) copy[keyword] = list.map((each) => visit(each, false, [...seen, part]));
    }
    if (isRoot || "additionalProperties" in copy) {
      const { type: _, uid: __, ...rest } = { ...copy["properties"] as JsonSchema | undefined }; // A map of schemas.
      copy["properties"] = { ...(isRoot ? fields : { type: true, uid: true }), ...rest };
    }
    if (isRoot) {
      delete copy["default"]; // The default of an omitted payload: a message is never omitted.
      const { examples } = copy;
      if (Array.isArray(examples)) copy["examples"] = examples.filter(isSchema).map((each) => ({ ...given, ...each, ...given }));
      copy["type"] = "object";
      copy["required"] = [...new Set([...envelope["required"] as string[], ...copy["required"] as string[] | undefined ?? []])];
    }
    if (typeof copy["maxProperties"] === "number") copy["maxProperties"] += Object.keys(fields).length;
    if ("propertyNames" in copy) copy["propertyNames"] = { anyOf: [{ enum: Object.keys(fields) }, copy["propertyNames"]] };
    return copy;
  };
  const merged = visit(schema, true, []);
  return isSchema(merged) ? merged : envelope;
}
