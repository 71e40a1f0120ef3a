import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Ajv } from "ajv";
import fc from "fast-check";
import { diffSchemas } from "../../src/asyncapi/schema-diff.ts";
import { contracts } from "./contracts.ts";
import { asyncapi } from "../../src/asyncapi/asyncapi.ts";
import { toJsonSchema } from "@valibot/to-json-schema";

const diff = (before: unknown, after: unknown): string[] =>
  diffSchemas(before, after, [before, after]).map(({ path, effect, text }) => `${effect} ${path}: ${text}`);

const object = (properties: object, required: string[] = [], more: object = {}) => ({
  type: "object",
  properties,
  required,
  ...more,
});

/** The same code on each runtime: Deno, which compiles schemas fastest, tries most. */
const RUNS = "Deno" in globalThis ? 500 : 100;

describe("diffSchemas", () => {
  const text = { type: "string" };
  const number = { type: "number" };
  const cases: Record<string, [before: unknown, after: unknown, changes: string[]]> = {
    "the same": [object({ a: text }, ["a"]), object({ a: text }, ["a"]), []],
    "words for people": [{ ...text, title: "a", default: 1 }, { ...text, description: "b" }, []],
    "a shorter text": [{ ...text, maxLength: 500 }, { ...text, maxLength: 100 }, ["narrowed : maxLength 500 → 100"]],
    "a longer text": [{ ...text, maxLength: 100 }, text, ["widened : maxLength 100 → none"]],
    "a new lower bound": [number, { ...number, minimum: 3 }, ["narrowed : minimum none → 3"]],
    "a bound that is included now": [
      { ...number, exclusiveMinimum: 0 },
      { ...number, minimum: 0 },
      ["widened : exclusiveMinimum 0 → minimum 0"],
    ],
    "a bound that is excluded now": [
      { ...number, maximum: 9 },
      { ...number, exclusiveMaximum: 9 },
      ["narrowed : maximum 9 → exclusiveMaximum 9"],
    ],
    "the same bound of whole numbers": [{ type: "integer", exclusiveMinimum: 0 }, { type: "integer", minimum: 1 }, []],
    "another type": [text, number, ["changed : string → number"]],
    "whole numbers only": [number, { type: "integer" }, ["narrowed : number → integer"]],
    "any value": [text, {}, ["widened : string → any value"]],
    "a value more": [{ enum: ["a"] }, { enum: ["a", "b"] }, ['widened : "b" added']],
    "a value less": [{ enum: ["a", "b"] }, { const: "a" }, ['narrowed : "b" removed']],
    "one value only": [text, { const: "a" }, ['narrowed : only "a"']],
    "any text": [{ const: "a" }, text, ['widened : any string instead of "a"']],
    "a new optional field": [object({}), object({ a: text }), ["compatible a: added"]],
    "a new required field": [object({}), object({ a: text }, ["a"]), ["narrowed a: added, required"]],
    "a field that is required now": [object({ a: text }), object({ a: text }, ["a"]), ["narrowed a: now required"]],
    "a field that is optional now": [object({ a: text }, ["a"]), object({ a: text }), ["widened a: now optional"]],
    "a required field less": [object({ a: text }, ["a"]), object({}), ["widened a: removed, was required"]],
    "an optional field less": [object({ a: text }), object({}), ["compatible a: removed, now ignored"]],
    "a field less, and others refused": [
      object({ a: text }, [], { additionalProperties: false }),
      object({}, [], { additionalProperties: false }),
      ["narrowed a: removed, and now refused"],
    ],
    "others refused": [object({}), object({}, [], { additionalProperties: false }), ["narrowed (other fields): now refused"]],
    "a deep field": [
      object({ a: { type: "array", items: object({ b: text }) } }),
      object({ a: { type: "array", items: object({ b: number }) } }),
      ["changed a[].b: string → number"],
    ],
    "null too": [text, { anyOf: [text, { type: "null" }] }, ["widened : null added"]],
    "null too, by a list of types": [text, { type: ["string", "null"] }, ["widened : null added"]],
    "no null": [{ type: ["string", "null"] }, text, ["narrowed : null removed"]],
    "the same values as alternatives": [{ enum: ["a", "b"] }, { anyOf: [{ const: "b" }, { const: "a" }] }, []],
    "a value more as an alternative": [{ const: "a" }, { anyOf: [{ const: "a" }, { const: "b" }] }, ['widened : "b" added']],
    "an alternative more": [
      { oneOf: [object({ kind: { const: "a" } }, ["kind"])] },
      { oneOf: [object({ kind: { const: "a" } }, ["kind"]), object({ kind: { const: "b" } }, ["kind"])] },
      ['widened : { kind: "b" } added'],
    ],
    "a change in an alternative": [
      { anyOf: [object({ kind: { const: "a" }, x: text }), object({ kind: { const: "b" } })] },
      { anyOf: [object({ kind: { const: "b" } }), object({ kind: { const: "a" }, x: number })] },
      ["changed x: string → number"],
    ],
    "alternatives beside fields": [
      object({ type: { const: "x" } }, [], { anyOf: [object({ a: text }, ["a"])] }),
      object({ type: { const: "x" } }, [], { anyOf: [object({ a: text }, ["a"]), object({ b: text }, ["b"])] }),
      ["widened : object added"],
    ],
    "alternatives instead of one of them": [
      object({ type: { const: "x" }, a: text }, ["type", "a"]),
      object({ type: { const: "x" } }, ["type"], { anyOf: [object({ b: text }, ["b"]), object({ a: text }, ["a"])] }),
      ["widened : object added"],
    ],
    "one alternative instead of several": [
      object({ type: { const: "x" } }, ["type"], { oneOf: [object({ a: text }, ["a"]), object({ b: text }, ["b"])] }),
      object({ type: { const: "x" }, a: text }, ["type", "a"]),
      ["narrowed : object removed"],
    ],
    "an alternative more that refuses other fields": [
      object({ type: { const: "x" }, kind: { const: "a" } }, ["type", "kind"], { additionalProperties: false }),
      object({ type: { const: "x" } }, ["type"], {
        anyOf: [
          object({ type: true, kind: { const: "b" } }, ["kind"], { additionalProperties: false }),
          object({ type: true, kind: { const: "a" } }, ["kind"], { additionalProperties: false }),
        ],
      }),
      ['widened : { kind: "b" } added'],
    ],
    "a change beside alternatives": [
      object({ n: number }, [], { anyOf: [object({ a: text }, ["a"]), object({ b: text }, ["b"])] }),
      object({ n: text }, [], { anyOf: [object({ a: text }, ["a"]), object({ b: text }, ["b"])] }),
      ["changed n: number → string"],
    ],
    "parts of an intersection in another order": [
      { allOf: [object({ a: text }, ["a"]), object({ b: text }, ["b"])] },
      { allOf: [object({ b: text }, ["b"]), object({ a: text }, ["a"])] },
      [],
    ],
    "a part of an intersection more": [
      { allOf: [object({ a: text })] },
      { allOf: [object({ b: text }, ["b"]), object({ a: text })] },
      ["narrowed : a part of allOf added"],
    ],
    "a part of an intersection less": [
      { allOf: [object({ b: text }), object({ a: text })] },
      { allOf: [object({ a: text })] },
      ["widened : a part of allOf removed"],
    ],
    "a part of an intersection": [{ allOf: [object({ a: text })] }, { allOf: [object({ a: number })] }, [
      "changed a: string → number",
    ]],
    "a tuple's second value": [
      { type: "array", items: [text, text] },
      { type: "array", items: [text, number] },
      ["changed [1]: string → number"],
    ],
    "a record's values": [
      { type: "object", additionalProperties: text },
      { type: "object", additionalProperties: number },
      ["changed (other fields): string → number"],
    ],
    "a field less, which is one of the others now": [
      object({ a: text }, [], { additionalProperties: number }),
      object({}, [], { additionalProperties: number }),
      ["changed a: string → number", "compatible a: removed, now ignored"],
    ],
    "a field more, which was one of the others": [
      object({}, [], { additionalProperties: text }),
      object({ a: { ...text, maxLength: 3 } }, [], { additionalProperties: text }),
      ["narrowed a: maxLength none → 3", "compatible a: added"],
    ],
    "fields with names that every object has": [
      object({}),
      object({ constructor: text, toString: text }),
      ["compatible constructor: added", "compatible toString: added"],
    ],
    "a format more": [text, { ...text, format: "email" }, ["narrowed : format added"]],
    "another pattern": [{ ...text, pattern: "a" }, { ...text, pattern: "b" }, ["changed : pattern changed"]],
  };
  for (const [name, [before, after, changes]] of Object.entries(cases)) {
    it(`reports ${name}`, () => assert.deepEqual(diff(before, after), changes));
  }

  it("follows references, and ends where a schema comes back to itself", () => {
    const tree = (name: object) => ({
      $ref: "#/definitions/tree",
      definitions: { tree: object({ name, children: { type: "array", items: { $ref: "#/definitions/tree" } } }, ["name"]) },
    });
    assert.deepEqual(diff(tree(text), tree(text)), []);
    assert.deepEqual(diff(tree(text), tree(number)), ["changed name: string → number"]);
  });

  it("reports nothing for the schemas of a contract and themselves", () => {
    for (const contract of Object.values(contracts)) {
      const document = asyncapi(contract, { info: { title: "Test", version: "1" }, toJsonSchema });
      for (const { messages } of Object.values(document.channels)) {
        for (const { payload } of Object.values(messages)) {
          assert.deepEqual(diffSchemas(payload, structuredClone(payload), [document, structuredClone(document)]), []);
        }
      }
    }
  });

  it("finds what a change refuses that was accepted, and accepts that was refused", () => {
    const ajv = new Ajv({ strict: false }); // Once: it compiles the schema of schemas first, which takes 10 ms.
    fc.assert(
      fc.property(versions, fc.array(anyValue, { minLength: 30, maxLength: 30 }), ([before, after], values) => {
        const [accepted, accepts] = [ajv.compile(before), ajv.compile(after)];
        const effects = new Set(diffSchemas(before, after, [before, after]).map(({ effect }) => effect));
        for (const value of values) {
          const [was, is] = [accepted(value), accepts(value)];
          if (was && !is) assert.ok(effects.has("narrowed") || effects.has("changed"), `refused: ${JSON.stringify(value)}`);
          if (!was && is) assert.ok(effects.has("widened") || effects.has("changed"), `accepted: ${JSON.stringify(value)}`);
        }
      }),
      { numRuns: RUNS },
    );
  });
});

/** Values of few kinds, so that a schema accepts many of them. An object has all fields that schemas have, or none is declared. */
const { value: anyValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 2 },
    fc.constantFrom(...["", "a", "b", "aa", 0, 1, 2, 1.5, null, true]),
    fc.record({ a: tie("value"), b: tie("value") }, { requiredKeys: [] }),
    fc.array(tie("value"), { maxLength: 3 }),
  ),
}));

/** A schema and a later version of it. Most parts are the same, so that one difference decides over many values. */
type Versions = readonly [before: object, after: object];

/** Two values that are mostly the same. */
const twice = <Value>(arbitrary: fc.Arbitrary<Value>): fc.Arbitrary<readonly [Value, Value]> =>
  fc.oneof({ weight: 3, arbitrary: arbitrary.map((each) => [each, each] as const) }, {
    weight: 1,
    arbitrary: fc.tuple(arbitrary, arbitrary),
  });

const bound = fc.option(fc.integer({ min: 0, max: 2 }), { nil: undefined });

/** A schema without the keywords that are `undefined`. */
const compact = (schema: object): object => Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== undefined));

const leaf: fc.Arbitrary<object> = fc.oneof(
  fc.record({ type: fc.constant("string"), minLength: bound, maxLength: bound }).map(compact),
  fc.record({ type: fc.constantFrom("number", "integer"), minimum: bound, exclusiveMaximum: bound }).map(compact),
  fc.record({ type: fc.constantFrom("number", "integer"), exclusiveMinimum: bound, maximum: bound }).map(compact),
  fc.record({ enum: fc.uniqueArray(fc.constantFrom("a", "b", 1, 2, null), { minLength: 1 }) }),
  fc.record({ const: fc.constantFrom("a", "b", 1, null) }),
  fc.constantFrom<object>({ type: "null" }, { type: ["string", "null"] }, {}, { type: "boolean" }),
);

const required = fc.uniqueArray(fc.constantFrom("a", "b"));

/** Two versions of an object. */
const objects: fc.Arbitrary<readonly [ObjectSchema, ObjectSchema]> = fc.tuple(twice(leaf), twice(leaf), twice(required)).map(
  ([a, b, needs]) => {
    const version = (at: 0 | 1): ObjectSchema => ({ type: "object", properties: { a: a[at], b: b[at] }, required: needs[at] });
    return [version(0), version(1)];
  },
);

interface ObjectSchema {
  readonly type: "object";
  readonly properties: Record<string, object>;
  readonly required: string[];
}

const { versions } = fc.letrec<{ versions: Versions }>((tie) => ({
  versions: fc.oneof(
    { maxDepth: 3 },
    twice(leaf),
    // Every object declares both fields: what is not declared may be added later with any type, which counts as compatible.
    fc.tuple(tie("versions"), tie("versions"), fc.tuple(required, required)).map(([a, b, needs]): Versions => {
      const version = (at: 0 | 1) => ({ type: "object", properties: { a: a[at], b: b[at] }, required: needs[at] });
      return [version(0), version(1)];
    }),
    // What is not declared has the schema of all other fields.
    fc.tuple(tie("versions"), tie("versions"), fc.tuple(fc.boolean(), fc.boolean())).map(([a, rest, declares]): Versions => {
      const version = (at: 0 | 1) => ({
        ...{ type: "object", properties: declares[at] ? { a: a[at] } : {}, additionalProperties: rest[at] },
      });
      return [version(0), version(1)];
    }),
    fc.tuple(tie("versions"), twice(bound), twice(bound)).map(([items, least, most]): Versions => {
      const version = (at: 0 | 1) => compact({ type: "array", items: items[at], minItems: least[at], maxItems: most[at] });
      return [version(0), version(1)];
    }),
    fc.tuple(fc.array(tie("versions"), { minLength: 1, maxLength: 3 }), twice(leaf)).map(([parts, [more, others]]): Versions => [
      { anyOf: [more, ...parts.map(([before]) => before)] },
      { anyOf: [...parts.map(([, after]) => after), others] },
    ]),
    // As a message whose payload is one of several objects, or all of them.
    fc.tuple(fc.array(objects, { minLength: 1, maxLength: 3 }), twice(objects), fc.constantFrom("anyOf", "allOf"), twice(leaf))
      .map((
        [parts, [more, others], keyword, [c, newC]],
      ): Versions => {
        const [first, ...rest] = [...parts.map(([, after]) => after), others[1]];
        const alone = { ...first, properties: { ...first!.properties, c: newC } };
        const version = (field: object, of: object[]) => ({ type: "object", properties: { c: field }, [keyword]: of });
        return [
          version(c, [more[0], ...parts.map(([before]) => before)]),
          rest.length > 2 ? alone : version(newC, [...rest, first!]),
        ];
      }),
  ),
}));
