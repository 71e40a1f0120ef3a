import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { asyncapi } from "../../src/asyncapi/asyncapi.ts";
import { diffContracts } from "../../src/asyncapi/contract-diff.ts";
import type { Contract } from "../../src/protocol/contract-types.ts";
import { contracts } from "./contracts.ts";

const documentOf = (contract: Contract) => asyncapi(contract, { info: { title: "Test", version: "1" }, toJsonSchema });

const diff = (before: Contract, after: Contract): string[] =>
  diffContracts(documentOf(before), documentOf(after)).map(({ isBreaking, text }) =>
    `${isBreaking ? "breaking" : "compatible"} ${text}`
  );

const text = v.object({ text: v.string() });
const short = v.object({ text: v.pipe(v.string(), v.maxLength(3)) });

describe("diffContracts", () => {
  it("finds nothing between a contract and itself", () => {
    for (const contract of Object.values(contracts)) assert.deepEqual(diff(contract, contract), []);
  });

  const cases: Record<string, [before: Contract, after: Contract, changes: string[]]> = {
    "a request less": [{ requests: { a: {}, b: {} } }, { requests: { a: {} } }, ["breaking Request b: removed"]],
    "a request more": [{ requests: { a: {} } }, { requests: { a: {}, b: {} } }, ["compatible Request b: added"]],
    "a request that accepts less": [
      { requests: { say: { payload: text } } },
      { requests: { say: { payload: short } } },
      ["breaking Request “say”, text: maxLength none → 3"],
    ],
    "a request that accepts more": [
      { requests: { say: { payload: short } } },
      { requests: { say: { payload: text } } },
      ["compatible Request “say”, text: maxLength 3 → none"],
    ],
    "a request that accepts another object, too": [
      { requests: { say: { payload: text } } },
      { requests: { say: { payload: v.union([v.object({ html: v.string() }), text]) } } },
      ["compatible Request “say”: object added"],
    ],
    "a request that accepts one object of two": [
      { requests: { say: { payload: v.union([text, v.object({ html: v.string() })]) } } },
      { requests: { say: { payload: text } } },
      ["breaking Request “say”: object removed"],
    ],
    "a message that may be another object": [
      { messages: { news: text } },
      { messages: { news: v.union([text, v.object({ html: v.string() })]) } },
      ["breaking Message “news”: object added"],
    ],
    "nothing where an intersection is written in another order": [
      { requests: { say: { payload: v.intersect([text, v.object({ a: v.string() })]) } } },
      { requests: { say: { payload: v.intersect([v.object({ a: v.string() }), text]) } } },
      [],
    ],
    "a reply that holds less": [
      { requests: { say: { reply: text } } },
      { requests: { say: { reply: short } } },
      ["compatible Reply to “say”, data.text: maxLength none → 3"],
    ],
    "a reply that holds more": [
      { requests: { say: { reply: short } } },
      { requests: { say: { reply: text } } },
      ["breaking Reply to “say”, data.text: maxLength 3 → none"],
    ],
    "a reply with a field less": [
      { requests: { say: { reply: v.object({ id: v.number(), at: v.number() }) } } },
      { requests: { say: { reply: v.object({ id: v.number() }) } } },
      ["breaking Reply to “say”, data.at: removed, was required"],
    ],
    "a reply with a field more": [
      { requests: { say: { reply: v.object({ id: v.number() }) } } },
      { requests: { say: { reply: v.object({ id: v.number(), at: v.optional(v.number()) }) } } },
      ["compatible Reply to “say”, data.at: added"],
    ],
    "a reply that becomes a stream": [
      { requests: { say: { payload: text, reply: text } } },
      { requests: { say: { payload: text, reply: text, stream: { output: text } } } },
      [
        "breaking Item of “say”: added",
        ...["Credit", "Cancel", "Input", "End", "Resume", "List"].map((operation) => `compatible ${operation}: added`),
      ],
    ],
    "another name of a parameter": [
      { channels: { "room:{id}": { events: { a: text } }, constructor: {} } },
      { channels: { "room:{room}": { events: { a: short } }, constructor: {} } },
      [
        "breaking room:{id}, publish “a”, data.text: maxLength none → 3",
        "compatible room:{id}, publication of “a”, data.text: maxLength none → 3",
      ],
    ],
    "a channel less, whose name every object has": [
      { channels: { constructor: {} } },
      { channels: {} },
      ["breaking Channel constructor: removed"],
    ],
    "a question less": [{ questions: { a: {}, b: {} } }, { questions: { a: {} } }, ["breaking Question b: removed"]],
    "a question more": [{ questions: { a: {} } }, { questions: { a: {}, b: {} } }, ["compatible Question b: added"]],
    "a question that may hold more": [
      { questions: { say: { payload: short } } },
      { questions: { say: { payload: text } } },
      ["breaking Question “say”, text: maxLength 3 → none"],
    ],
    "an answer of which less is accepted": [
      { questions: { say: { reply: text } } },
      { questions: { say: { reply: short } } },
      ["breaking Answer to “say”, data.text: maxLength none → 3"],
    ],
    "a message less": [{ messages: { news: text } }, { messages: {} }, ["breaking Message news: removed"]],
    "a channel less": [{ channels: { a: {}, b: {} } }, { channels: { a: {} } }, ["breaking Channel b: removed"]],
    "a channel more": [{ channels: { a: {} } }, { channels: { a: {}, b: {} } }, ["compatible Channel b: added"]],
    "an event less": [
      { channels: { "room:*": { events: { a: text, b: text } } } },
      { channels: { "room:*": { events: { a: text } } } },
      ["breaking room:*, publication of “b”: removed", "breaking room:*, publish “b”: removed"],
    ],
    "an event that accepts less": [
      { channels: { "room:*": { events: { a: text } } } },
      { channels: { "room:*": { events: { a: short } } } },
      [
        "breaking room:*, publish “a”, data.text: maxLength none → 3",
        "compatible room:*, publication of “a”, data.text: maxLength none → 3",
      ],
    ],
    "a query that accepts less, and a snapshot that holds less": [
      { channels: { wire: { query: v.object({ since: v.optional(v.number()) }), snapshot: text } } },
      { channels: { wire: { query: v.object({ since: v.number() }), snapshot: short } } },
      ["breaking wire, subscribe, query.since: now required", "compatible wire, subscribed, data.text: maxLength none → 3"],
    ],
  };
  for (const [name, [before, after, changes]] of Object.entries(cases)) {
    it(`reports ${name}`, () => assert.deepEqual(diff(before, after), changes));
  }
});
