import { isSchema, type JsonSchema } from "./json-schema.ts";
import { equal, fieldsOf, isPlain, requiredOf, typeName, valuesOf } from "./schema-keywords.ts";

/** Accepts every value. */
export const ANY: JsonSchema = {};
/** Accepts no value. */
export const NONE: JsonSchema = { not: {} };

/** Keywords with alternatives. `oneOf` is compared as `anyOf`: no library writes alternatives that exclude each other otherwise. */
export const ALTERNATIVES = ["anyOf", "oneOf"] as const;

/** The alternatives of a schema, by `anyOf`, `oneOf` or a list of types. Without these it is the only one. */
export function alternativesOf(schema: JsonSchema): readonly unknown[] {
  for (const keyword of ALTERNATIVES) {
    const { [keyword]: list, ...rest } = schema;
    if (!Array.isArray(list)) continue;
    const each = list.flatMap((part) => alternativesOf(isSchema(part) ? part : {}));
    // Keywords beside `anyOf` apply to each alternative.
    const alternatives = isPlain(rest) ? each : each.map((part) => bothOf(rest, part));
    if (alternatives.includes(undefined)) return [schema];
    const isListed = (each: unknown) => isSchema(each) && valuesOf(each) !== undefined && isPlain(each, "type", "const", "enum");
    const listed = alternatives.filter(isListed) as JsonSchema[];
    // Alternatives that list values are joined to one list.
    return listed.length < 2 ? alternatives : [
      ...alternatives.filter((each) => !isListed(each)),
      { enum: listed.flatMap((each) => "const" in each ? [each["const"]] : each["enum"]) },
    ];
  }
  const { type } = schema;
  return Array.isArray(type) && !valuesOf(schema) ? type.map((each) => ({ ...schema, type: each })) : [schema];
}

/** One schema for what both schemas accept. The first has fields only. `undefined`: these keywords cannot express it. */
function bothOf(fields: JsonSchema, other: unknown): JsonSchema | undefined {
  if (!isSchema(other) || !isPlain(fields, "type", "properties", "required") || fields["type"] !== "object") return undefined;
  const { type = "object", additionalProperties = true } = other;
  if (type !== "object" || "$ref" in other || valuesOf(other)) return undefined;
  const [own, others] = [fieldsOf(fields), fieldsOf(other)];
  const properties: Record<string, unknown> = { ...others };
  for (const [name, field] of Object.entries(own)) {
    const given = Object.hasOwn(others, name) ? others[name] : additionalProperties;
    if (given !== true && !equal(given, field)) return undefined;
    properties[name] = field;
  }
  return { ...other, type, properties, required: [...new Set([...requiredOf(fields), ...requiredOf(other)])] };
}

/** Text that distinguishes alternatives: their type, and the fields with a constant value. */
export function kindOf(schema: JsonSchema): string {
  const values = valuesOf(schema);
  return JSON.stringify([values ? typeof JSON.parse(values[0] ?? "null") : schema["type"], constantsOf(schema)]);
}

/** The fields with a constant value, as text. */
const constantsOf = (schema: JsonSchema): string[] =>
  Object.entries(fieldsOf(schema)).flatMap(([name, field]) =>
    isSchema(field) && "const" in field ? [`${name}: ${JSON.stringify(field["const"])}`] : []
  );

/** The required fields of an object whose values differ from those of another object: no value matches both. */
export function distinguishingOf(schema: JsonSchema, other: JsonSchema): string[] {
  return [...requiredOf(schema)].filter((name) => {
    const [field, otherField] = [fieldsOf(schema)[name], fieldsOf(other)[name]];
    const [values, others] = [isSchema(field) && valuesOf(field), isSchema(otherField) && valuesOf(otherField)];
    return values && others && !values.some((value) => others.includes(value));
  });
}

/** The constants that all alternatives have, which distinguish none of them. */
export function sharedBy([first = ANY, ...others]: readonly JsonSchema[]): readonly string[] {
  return constantsOf(first).filter((constant) => others.every((each) => constantsOf(each).includes(constant)));
}

/** A name of the alternative for the report. */
export function nameOf(schema: JsonSchema, shared: readonly string[]): string {
  const constants = constantsOf(schema).filter((constant) => !shared.includes(constant));
  if (constants.length > 0) return `{ ${constants.join(", ")} }`;
  return valuesOf(schema)?.join(", ") ?? typeName(schema["type"]);
}
