import { isSchema, type JsonSchema } from "./json-schema.ts";

/** Values of formats that libraries use. */
const FORMATS: Readonly<Record<string, string>> = {
  "date-time": "2026-01-31T12:00:00Z",
  date: "2026-01-31",
  time: "12:00:00Z",
  email: "mika@example.com",
  hostname: "example.com",
  ipv4: "192.0.2.1",
  ipv6: "2001:db8::1",
  uri: "https://example.com/",
  uuid: "3f1e7a52-8c0b-4d4e-9a6f-2b7c5d8e1f90",
};

/** Keywords that {@link exampleOf} obeys, and those that restrict nothing. */
const KNOWN = new Set(
  ("$comment $defs $ref additionalItems additionalProperties allOf anyOf const default definitions deprecated description enum " +
    "examples exclusiveMaximum exclusiveMinimum format items maxItems maxLength maximum minItems minLength minimum oneOf pattern " +
    "properties readOnly required title type writeOnly").split(" "),
);

/** Maximum depth of an example. A schema that recurses through required fields has none. */
const MAX_DEPTH = 8;

/** Value of a schema that fits it; `undefined` where that is not certain, as with keywords that are not known here. */
export function exampleOf(
  schema: unknown,
  resolve: (reference: string) => unknown,
  depth = 0,
): Example {
  if (schema === true) return { value: "…" };
  if (!isSchema(schema) || depth > MAX_DEPTH) return undefined;
  const inner = (part: unknown) => exampleOf(part, resolve, depth + 1);
  if (typeof schema["$ref"] === "string") return inner(resolve(schema["$ref"]));
  if ("const" in schema) return { value: schema["const"] };
  for (const keyword of ["examples", "enum"]) {
    const values = schema[keyword];
    // An empty list: there is no example, and an optional field is left out.
    if (Array.isArray(values)) return values.length > 0 ? { value: values[0] } : undefined;
  }
  if ("default" in schema) return { value: schema["default"] };
  if (Object.keys(schema).some((keyword) => !KNOWN.has(keyword))) return undefined;

  const { anyOf, oneOf, allOf } = schema;
  const parts = Array.isArray(allOf) ? allOf.map(inner) : [];
  for (const alternatives of [anyOf, oneOf]) if (Array.isArray(alternatives)) parts.push(first(alternatives, inner));
  if (parts.length === 0) return ofType(schema, inner, depth);
  return combine(parts, "properties" in schema ? objectOf(schema, inner, depth) : undefined);
}

type Example = { readonly value: unknown } | undefined;
type Inner = (part: unknown) => Example;

function first(parts: readonly unknown[], inner: Inner): Example {
  for (const part of parts) {
    const example = inner(part);
    if (example) return example;
  }
  return undefined;
}

/** One value for several schemas: the one, or an object with the fields of all. Fields of `own` take precedence. */
function combine(parts: readonly Example[], own: Example): Example {
  if (parts.length === 1 && !own) return parts[0];
  const fields = new Map<string, unknown>();
  for (const part of parts) {
    if (!isSchema(part?.value)) return undefined;
    for (const [name, value] of Object.entries(part.value)) {
      // Two schemas of one field: a value of one need not fit the other.
      if (fields.has(name) && JSON.stringify(fields.get(name)) !== JSON.stringify(value)) return undefined;
      fields.set(name, value);
    }
  }
  return { value: { ...Object.fromEntries(fields), ...own?.value as object | undefined } }; // Of an object.
}

function ofType(schema: JsonSchema, inner: Inner, depth: number): Example {
  const type: unknown = Array.isArray(schema["type"]) ? schema["type"][0] : schema["type"];
  if (type === "object") return objectOf(schema, inner, depth);
  if (type === "array") return arrayOf(schema, inner);
  if (type === "string") return stringOf(schema);
  if (type === "number" || type === "integer") return numberOf(schema);
  if (type === "boolean") return { value: true };
  if (type === "null") return { value: null };
  return type === undefined ? { value: "…" } : undefined;
}

function objectOf(schema: JsonSchema, inner: Inner, depth: number): Example {
  const properties = isSchema(schema["properties"]) ? schema["properties"] : {};
  const required = Array.isArray(schema["required"]) ? schema["required"] : [];
  const fields: [string, unknown][] = [];
  for (const name of new Set([...Object.keys(properties), ...required])) {
    const isRequired = required.includes(name);
    // An example of an optional field without restrictions shows nothing.
    const property = Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (!isRequired && (depth > 2 || !restricts(property))) continue;
    const example = inner(property ?? (isSchema(schema["additionalProperties"]) ? schema["additionalProperties"] : true));
    if (example) fields.push([name, example.value]);
    else if (isRequired) return undefined;
  }
  return { value: Object.fromEntries(fields) };
}

const restricts = (schema: unknown): boolean =>
  isSchema(schema) && Object.keys(schema).some((keyword) => keyword !== "description");

function arrayOf(schema: JsonSchema, inner: Inner): Example {
  const { items = true, minItems, maxItems } = schema;
  const parts = Array.isArray(items)
    ? items
    : Array<unknown>(Math.max(1, typeof minItems === "number" ? minItems : 1)).fill(items);
  const count = typeof maxItems === "number" ? Math.min(parts.length, maxItems) : parts.length;
  const values = parts.slice(0, count).map(inner);
  // An empty one fits, too, unless some are required.
  if (values.includes(undefined)) return minItems === undefined || minItems === 0 ? { value: [] } : undefined;
  return typeof minItems === "number" && values.length < minItems ? undefined : { value: values.map((each) => each?.value) };
}

function stringOf({ format, pattern, minLength = 0, maxLength = Infinity }: JsonSchema): Example {
  if (typeof minLength !== "number" || typeof maxLength !== "number") return undefined;
  const text = "text".repeat(Math.ceil(minLength / 4) || 1).slice(0, Math.max(minLength, Math.min(4, maxLength)));
  const candidates = typeof format === "string" ? [FORMATS[format]] : [text, "1", ...Object.values(FORMATS)];
  const value = candidates.find((each) =>
    each !== undefined && each.length >= minLength && each.length <= maxLength &&
    (typeof pattern !== "string" || matches(pattern, each))
  );
  return value === undefined ? undefined : { value };
}

function matches(pattern: string, value: string): boolean {
  try {
    return new RegExp(pattern, "u").test(value);
  } catch {
    return false; // Not of this dialect.
  }
}

function numberOf(schema: JsonSchema): Example {
  const { minimum = -Infinity, maximum = Infinity, exclusiveMinimum = -Infinity, exclusiveMaximum = Infinity } = schema;
  const bounds = [minimum, maximum, exclusiveMinimum, exclusiveMaximum];
  if (!bounds.every((bound) => typeof bound === "number")) return undefined;
  const [low, high, above, below] = bounds as [number, number, number, number]; // As checked.
  const fits = (value: number) => value >= low && value <= high && value > above && value < below;
  const value = [1, 0, Math.ceil(low), Math.floor(high), Math.floor(above) + 1, Math.ceil(below) - 1].find(fits);
  return value === undefined ? undefined : { value };
}
