import { isSchema, type JsonSchema } from "./json-schema.ts";

/** Keywords that restrict nothing. */
export const ANNOTATIONS: ReadonlySet<string> = new Set(
  "title description default examples deprecated readOnly writeOnly $comment definitions $defs $schema $id".split(" "),
);

/** Whether a schema has no keywords but annotations and those that are passed. */
export const isPlain = (schema: JsonSchema, ...keywords: string[]): boolean =>
  Object.keys(schema).every((keyword) => keywords.includes(keyword) || ANNOTATIONS.has(keyword));

/** The values that a schema lists, as JSON. */
export function valuesOf(schema: JsonSchema): string[] | undefined {
  if ("const" in schema) return [JSON.stringify(schema["const"])];
  return Array.isArray(schema["enum"]) ? schema["enum"].map((value) => JSON.stringify(value)) : undefined;
}

/** The properties of an object schema. */
export const fieldsOf = (schema: JsonSchema): JsonSchema => isSchema(schema["properties"]) ? schema["properties"] : {};

/** The names of its required properties. */
export const requiredOf = (schema: JsonSchema): ReadonlySet<string> =>
  new Set(Array.isArray(schema["required"]) ? schema["required"].map(String) : []);

/** The type, as the report names it. */
export const typeName = (type: unknown): string =>
  type === undefined ? "any value" : Array.isArray(type) ? type.join(" | ") : String(type);

/** Whether a JSON value has the type, or one of the types. */
export function typeFits(value: unknown, type: unknown): boolean {
  const types: readonly unknown[] = Array.isArray(type) ? type : [type];
  const own = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  return types.includes(own) || (Number.isInteger(value) && types.includes("integer"));
}

/** A bound of a schema. */
export interface Bound {
  readonly keyword: string;
  readonly written: number;
  readonly value: number;
  readonly isExclusive: boolean;
}

/** Whether a bound accepts less than another. */
export const isStricter = (one: Bound, other: Bound, sign: 1 | -1): boolean =>
  one.value === other.value ? one.isExclusive && !other.isExclusive : (one.value - other.value) * sign < 0;

/** The strictest bound of a schema by these keywords. */
export function boundOf(schema: JsonSchema, keywords: readonly string[], sign: 1 | -1): Bound | undefined {
  return keywords.flatMap((keyword, index): Bound[] => {
    const written = schema[keyword];
    if (typeof written !== "number") return [];
    // For integers `exclusiveMinimum: 0` is `minimum: 1`, and `exclusiveMaximum: 10` is `maximum: 9`.
    const isNext = index > 0 && schema["type"] === "integer" && Number.isInteger(written);
    return [{ keyword, written, value: isNext ? written - sign : written, isExclusive: index > 0 && !isNext }];
  }).sort((a, b) => isStricter(a, b, sign) ? -1 : 1)[0];
}

/** Whether it contains a `$ref`. */
export const hasReference = (schema: JsonSchema): boolean => JSON.stringify(schema).includes('"$ref"');

/** Whether JSON values are equal, in any order of keys. */
export function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null || Array.isArray(a) !== Array.isArray(b)) {
    return false;
  }
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && equal(a[key as never], b[key as never]));
}
