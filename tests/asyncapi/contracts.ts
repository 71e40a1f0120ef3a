/** The same contract in three schema libraries, and one with schemas that are harder to describe. */
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";
import { defineContract } from "../../mod.ts";
import type { Contract } from "../../src/protocol/contract-types.ts";

const said = v.object({ from: v.string(), text: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(500)) });

const valibot = defineContract({
  requests: {
    say: { payload: v.object({ room: v.string(), text: v.string() }), reply: v.object({ id: v.number() }) },
    leave: {},
  },
  questions: {
    confirm: { payload: v.object({ text: v.string() }), reply: v.object({ yes: v.boolean() }) },
    "ready?": {},
  },
  messages: { news: v.object({ text: v.string(), urgent: v.optional(v.boolean()) }) },
  channels: {
    "room:*": {
      events: { said, moved: v.object({ at: v.pipe(v.string(), v.transform(Number)) }) },
      snapshot: v.array(said),
      query: v.object({ since: v.optional(v.number()) }),
      member: v.object({ name: v.string() }),
    },
    wire: {},
  },
});

const zodSaid = z.object({ from: z.string(), text: z.string().trim().min(1).max(500) });

const zod: Contract = {
  requests: {
    say: { payload: z.object({ room: z.string(), text: z.string() }), reply: z.object({ id: z.number() }) },
    leave: {},
  },
  questions: {
    confirm: { payload: z.object({ text: z.string() }), reply: z.object({ yes: z.boolean() }) },
    "ready?": {},
  },
  messages: { news: z.object({ text: z.string(), urgent: z.boolean().optional() }) },
  channels: {
    "room:*": {
      events: { said: zodSaid, moved: z.object({ at: z.string().transform(Number) }) },
      snapshot: z.array(zodSaid),
      query: z.object({ since: z.number().optional() }),
      member: z.object({ name: z.string() }),
    },
    wire: {},
  },
};

const arkSaid = type({ from: "string", text: "1 <= string <= 500" });

const arktype: Contract = {
  requests: {
    say: { payload: type({ room: "string", text: "string" }), reply: type({ id: "number" }) },
    leave: {},
  },
  questions: { confirm: { payload: type({ text: "string" }), reply: type({ yes: "boolean" }) }, "ready?": {} },
  messages: { news: type({ text: "string", "urgent?": "boolean" }) },
  channels: {
    "room:*": {
      events: { said: arkSaid, moved: type({ at: "string.numeric.parse" }) },
      snapshot: arkSaid.array(),
      query: type({ "since?": "number" }),
      member: type({ name: "string" }),
    },
    wire: {},
  },
};

interface Tree {
  name: string;
  children: Tree[];
}
const tree: v.GenericSchema<Tree> = v.object({ name: v.string(), children: v.array(v.lazy(() => tree)) });
const zodTree = z.object({
  name: z.string(),
  get children() {
    return z.array(zodTree);
  },
});

const odd: Contract = {
  requests: {
    "a/b c~d%é": { payload: v.strictObject({ text: v.string() }) },
    choose: {
      payload: v.variant("kind", [
        v.strictObject({ kind: v.literal("a"), a: v.pipe(v.string(), v.email()) }),
        v.strictObject({ kind: v.literal("b"), b: v.tuple([v.string(), v.number()]) }),
      ]),
      reply: v.nullable(v.picklist(["yes", "no"])),
    },
    plant: { payload: tree, reply: zodTree },
    grow: { payload: zodTree, reply: v.optional(v.string()) },
    count: { payload: v.pipe(v.record(v.pipe(v.string(), v.regex(/^x/)), v.number()), v.maxEntries(2)) },
    both: { payload: v.intersect([v.object({ a: v.string() }), v.object({ b: v.pipe(v.number(), v.integer(), v.gtValue(3)) })]) },
    when: { payload: z.object({ at: z.date(), id: z.uuid() }), reply: z.string().transform((text) => text.length) },
    either: { payload: type({ kind: "'a'", text: "string" }).or({ kind: "'b'", n: "number" }) },
    closed: { payload: type({ "+": "reject", text: "string" }) },
    later: { payload: v.objectAsync({ text: v.pipeAsync(v.string(), v.checkAsync(() => Promise.resolve(true))) }) },
    nothing: { reply: v.void() },
  },
  channels: { "a.b+c:{id}/x": { events: {} }, "*": {}, "team:{team}:{user}": { events: { hi: tree }, snapshot: tree } },
};

const example = { text: "hello" };
const withExamples = v.pipe(v.object({ text: v.string() }), v.examples([example]));
const zodWithExamples = z.object({ text: z.string() }).meta({ examples: [example] });

const exampled: Contract = {
  requests: {
    say: { payload: withExamples, reply: zodWithExamples },
    shout: { payload: zodWithExamples, reply: withExamples },
    typed: { payload: z.object({ type: z.string(), text: z.string() }).meta({ examples: [{ type: "other", ...example }] }) },
    either: { payload: v.union([withExamples, v.strictObject({ n: v.pipe(v.number(), v.examples([7])) })]) },
    none: { payload: z.object({ text: z.string() }).meta({ examples: [] }) },
    absent: { payload: z.object({ text: z.string() }).default(example) },
    left: { payload: v.optional(v.object({ text: v.string() }), example) },
  },
  questions: { confirm: { payload: withExamples, reply: withExamples } },
  messages: { news: withExamples, old: zodWithExamples },
  channels: { wire: { events: { said: withExamples }, snapshot: withExamples, member: withExamples, query: withExamples } },
};

export const leaf: v.GenericSchema<{ size: number; leaves: unknown[] }> = v.object({
  size: v.number(),
  leaves: v.array(v.lazy(() => leaf)),
});

/** Names that are those of others when they are written otherwise, or that every object has. */
const named: Contract = {
  requests: { "a b": { payload: tree }, "a.b": { payload: leaf }, "a_b": { payload: tree }, ["__proto__"]: { payload: leaf } },
  messages: {
    constructor: v.intersect([v.object({ constructor: v.string(), b: v.string() }), v.object({ toString: v.string() })]),
  },
  channels: {
    "a.b": { events: { c: tree } },
    a: { events: { "b.c": leaf } },
    constructor: { events: { valueOf: tree } },
  },
};

export const contracts: Readonly<Record<string, Contract>> = {
  valibot,
  "Zod 4": zod,
  ArkType: arktype,
  "odd schemas": odd,
  "names that are alike": named,
  "schemas with examples and defaults": exampled,
  "an empty contract": {},
  "a contract with requests only": { requests: { say: { payload: said } } },
};
