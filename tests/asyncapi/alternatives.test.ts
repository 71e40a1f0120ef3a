/** Unions of objects that refuse or ignore other fields: what a change of them breaks is decided by values. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { diffSchemas } from "../../src/asyncapi/schema-diff.ts";
import { assertProperty } from "../support/property.ts";

interface ObjectSchema {
  readonly type: "object";
  readonly properties: Readonly<Record<string, Schema>>;
  readonly required: readonly string[];
  readonly additionalProperties?: false;
}

type Leaf = { readonly type: "string" | "number" | "null" } | { readonly enum: readonly string[] };
type Schema = Leaf | ObjectSchema | { readonly anyOf: readonly Schema[] };

const isObject = (schema: Schema): schema is ObjectSchema => "properties" in schema;
const alternativesOf = (schema: Schema): Exclude<Schema, { anyOf: unknown }>[] =>
  "anyOf" in schema ? schema.anyOf.flatMap(alternativesOf) : [schema];

const NAMES = ["a", "b", "kind"];
const VALUES = { string: ["x", "free"], number: [1], null: [null] };

const objectOf = (
  fields: readonly (readonly [name: string, schema: Schema, isRequired: boolean])[],
  isStrict: boolean,
): ObjectSchema => ({
  type: "object",
  properties: Object.fromEntries(fields.map(([name, schema]) => [name, schema])),
  required: fields.flatMap(([name, , isRequired]) => isRequired ? [name] : []),
  ...(isStrict && { additionalProperties: false }),
});

const { schema } = fc.letrec<{ leaf: Schema; schema: Schema; object: Schema }>((tie) => ({
  leaf: fc.oneof(
    fc.constantFrom<Schema>({ type: "string" }, { type: "number" }, { type: "null" }),
    fc.uniqueArray(fc.constantFrom("x", "y"), { minLength: 1 }).map((values) => ({ enum: values })),
  ),
  object: fc.tuple(
    fc.uniqueArray(
      fc.tuple(fc.constantFrom(...NAMES), fc.oneof({ weight: 4, arbitrary: tie("leaf") }, tie("schema")), fc.boolean()),
      { maxLength: 2, selector: ([name]) => name },
    ),
    fc.boolean(),
  ).map(([fields, isStrict]) => objectOf(fields, isStrict)),
  schema: fc.oneof(
    { maxDepth: 2 },
    { weight: 1, arbitrary: tie("leaf") },
    { weight: 2, arbitrary: tie("object") },
    { weight: 4, arbitrary: fc.array(tie("object"), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })) },
  ),
}));

/** A version of the schema that differs in one place. */
function changed(before: Schema): fc.Arbitrary<Schema> {
  const more = schema.map((other) => ({ anyOf: [before, other] }));
  if ("anyOf" in before) {
    const { anyOf } = before;
    return fc.nat(anyOf.length - 1).chain((index) =>
      fc.oneof(
        schema.map((other) => ({ anyOf: [...anyOf, other] })),
        changed(anyOf[index]!).map((other) => ({ anyOf: anyOf.with(index, other) })),
        changed(anyOf[index]!).map((other) => ({ anyOf: [...anyOf, other] })),
        fc.constant(anyOf.length > 1 ? { anyOf: anyOf.toSpliced(index, 1) } : before),
      )
    );
  }
  if (!isObject(before)) return fc.oneof(schema, more);
  const isStrict = before.additionalProperties === false;
  const fields = Object.entries(before.properties).map(([name, field]) => [name, field, before.required.includes(name)] as const);
  return fc.oneof(
    more,
    fc.constant(objectOf(fields, !isStrict)),
    fc.tuple(fc.constantFrom(...NAMES), schema, fc.boolean()).map((field) =>
      objectOf([...fields.filter(([name]) => name !== field[0]), field], isStrict)
    ),
    fc.constantFrom(...NAMES).map((gone) => objectOf(fields.filter(([name]) => name !== gone), isStrict)),
  );
}

const versions = schema.chain((one) =>
  fc.oneof(changed(one), changed(one).chain(changed), schema).chain((other) =>
    fc.constantFrom([one, other] as const, [other, one] as const)
  )
);

function accepts(schema: Schema, value: unknown): boolean {
  return alternativesOf(schema).some((each) => {
    if ("enum" in each) return each.enum.includes(value as string);
    if (!isObject(each)) return each.type === (value === null ? "null" : typeof value);
    if (typeof value !== "object" || value === null || !each.required.every((name) => Object.hasOwn(value, name))) return false;
    return Object.entries(value).every(([name, field]) =>
      Object.hasOwn(each.properties, name) ? accepts(each.properties[name]!, field) : each.additionalProperties !== false
    );
  });
}

/** Values with declared fields only, at most some hundred. */
function valuesOf(schema: Schema): unknown[] {
  return alternativesOf(schema).flatMap((each): unknown[] => {
    if ("enum" in each) return [...each.enum];
    if (!isObject(each)) return VALUES[each.type];
    let objects: Record<string, unknown>[] = [{}];
    for (const [name, field] of Object.entries(each.properties)) {
      const filled = objects.flatMap((object) => valuesOf(field).slice(0, 6).map((value) => ({ ...object, [name]: value })));
      objects = each.required.includes(name) ? filled : [...objects, ...filled];
    }
    return objects;
  });
}

/**
 * The value without fields that a client of the old version does not know, and ignores: those of no alternative that the value can be
 * of. A field whose value says which one it is, is known.
 */
function withoutUnknown(value: unknown, alternatives: readonly Schema[]): unknown {
  const objects = alternatives.filter(isObject);
  if (typeof value !== "object" || value === null || alternatives.length === 0) return value;
  const given = value as Readonly<Record<string, unknown>>;
  const othersOf = ({ properties, required }: ObjectSchema) =>
    required.filter((name) => {
      const field = properties[name]!; // It is declared.
      return "enum" in field && !field.enum.includes(given[name] as string);
    });
  const possible = objects.filter((each) => othersOf(each).length === 0);
  const distinguishing = new Set(possible.length > 0 ? objects.flatMap(othersOf) : []);
  const kept = Object.entries(given).flatMap(([name, field]) => {
    const of = (possible.length > 0 ? possible : objects).filter(({ properties }) => Object.hasOwn(properties, name));
    if (of.length === 0 && !distinguishing.has(name)) return [];
    return [[name, withoutUnknown(field, of.flatMap(({ properties }) => alternativesOf(properties[name]!)))]];
  });
  return Object.fromEntries(kept);
}

describe("diffSchemas, of alternatives", () => {
  const effectsOf = (before: Schema, after: Schema) => diffSchemas(before, after, [before, after]).map(({ effect }) => effect);

  it("finds what a new version refuses of an old one", () => {
    assertProperty(
      fc.property(versions, ([before, after]) => {
        const refused = valuesOf(before).find((value) => !accepts(after, value));
        if (refused === undefined) return;
        assert.ok(effectsOf(before, after).some((each) => each === "narrowed" || each === "changed"), JSON.stringify(refused));
      }),
      { numRuns: 500 },
    );
  });

  it("finds what a new version may hold that an old one does not", () => {
    assertProperty(
      fc.property(versions, ([before, after]) => {
        const alternatives = alternativesOf(before);
        const unexpected = valuesOf(after).find((value) => !accepts(before, withoutUnknown(value, alternatives)));
        if (unexpected === undefined) return;
        assert.ok(effectsOf(before, after).some((each) => each === "widened" || each === "changed"), JSON.stringify(unexpected));
      }),
      { numRuns: 500 },
    );
  });

  it("finds a field that another strict alternative has in another type, and none that is new", () => {
    const text: Schema = { type: "string" };
    const [a, b] = [objectOf([["a", text, true]], true), objectOf([["b", { type: "number" }, true]], true)];
    const of = (kind: string, ...fields: (readonly [string, Schema, boolean])[]) =>
      objectOf([["kind", { enum: [kind] }, true], ...fields], true);
    const cases: [before: Schema, after: Schema, isWider: boolean][] = [
      [{ anyOf: [a, b] }, { anyOf: [a, b, objectOf([["a", text, true], ["b", text, true]], true)] }, true],
      [{ anyOf: [a, b] }, { anyOf: [objectOf([["a", text, true], ["b", text, false]], true), b] }, true],
      [{ anyOf: [a, b] }, { anyOf: [objectOf([["a", text, true], ["c", text, false]], true), b] }, false],
      [
        { anyOf: [of("x"), of("y", ["b", text, true])] },
        { anyOf: [of("x", ["b", text, true]), of("y", ["b", text, true])] },
        false,
      ],
      [{ anyOf: [of("x"), of("y")] }, { anyOf: [of("x"), of("y"), of("z")] }, true],
    ];
    for (const [before, after, isWider] of cases) {
      assert.equal(effectsOf(before, after).includes("widened"), isWider, JSON.stringify(after));
    }
  });
});
