import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { toJsonSchema } from "@valibot/to-json-schema";
import { Ajv } from "ajv";
import * as v from "valibot";
import { z } from "zod";
import { asyncapi, type AsyncApiDocument, type AsyncApiMessage } from "../../src/asyncapi/asyncapi.ts";
import { resolvePointer } from "../../src/asyncapi/json-schema.ts";
import { CloseCode } from "../../src/protocol/close.ts";
import type { Contract } from "../../src/protocol/contract-types.ts";
import { contracts, leaf } from "./contracts.ts";

const PROTOCOL = readFileSync(new URL("../../PROTOCOL.md", import.meta.url), "utf8");

const CONNECTION = "WebSocket connection";

const documentOf = (contract: Contract): AsyncApiDocument =>
  asyncapi(contract, {
    info: { title: "Test", version: "1.0.0" },
    servers: { main: { host: "example.com", pathname: "/websocket", protocol: "wss" } },
    securitySchemes: { token: { type: "http", scheme: "bearer" } },
    toJsonSchema,
  });

/** One for all schemas: it compiles the schema of schemas first, which takes 10 ms. */
const ajv = new Ajv({ strict: false, validateFormats: false });

/** Validates values by the schema of a message. */
function validatorOf(document: AsyncApiDocument, channel: string, message: string): (value: unknown) => boolean {
  const { components, channels } = document;
  const { payload } = channels[channel]!.messages[message]!;
  // References count from the root, so the components are put there.
  const validate = ajv.compile({ ...payload, components });
  return (value) => validate(value);
}

function messageOf(document: AsyncApiDocument, channel: string, message: string): AsyncApiMessage {
  const found = document.channels[channel]?.messages[message];
  assert.ok(found, `no message "${message}" in "${channel}"`);
  return found;
}

function* eachMessage(document: AsyncApiDocument): Generator<[channel: string, name: string, AsyncApiMessage]> {
  for (const [channel, { messages }] of Object.entries(document.channels)) {
    for (const [name, message] of Object.entries(messages)) yield [channel, name, message];
  }
}

describe("asyncapi", () => {
  for (const [name, contract] of Object.entries(contracts)) {
    it(`gives examples that fit: ${name}`, () => {
      const document = documentOf(contract);
      for (const [channel, name, { examples = [] }] of eachMessage(document)) {
        const fits = validatorOf(document, channel, name);
        for (const { payload } of examples) assert.ok(fits(payload), `${channel}, ${name}: ${JSON.stringify(payload)}`);
      }
    });

    it(`is JSON, and refers to what is there: ${name}`, () => {
      const document = documentOf(contract);
      assert.deepEqual(JSON.parse(JSON.stringify(document)), document);
      for (const [, reference = ""] of JSON.stringify(document).matchAll(/"\$ref":("(?:[^"\\]|\\.)*")/g)) {
        assert.ok(resolvePointer(document, JSON.parse(reference)) !== undefined, reference);
      }
    });
  }

  it("describes the same contract alike in each library", () => {
    const [valibot, zod, arktype] = ["valibot", "Zod 4", "ArkType"].map((name) => documentOf(contracts[name]!));
    assert.deepEqual(Object.keys(zod!.operations), Object.keys(valibot!.operations));
    assert.deepEqual(Object.keys(arktype!.operations), Object.keys(valibot!.operations));
    for (const document of [valibot!, zod!, arktype!]) {
      const fits = validatorOf(document, CONNECTION, "request say");
      assert.ok(fits({ type: "say", uid: 1, room: "a", text: "b" }));
      assert.ok(!fits({ type: "say", room: "a" }));
      assert.ok(!fits({ type: "other", room: "a", text: "b" }));
    }
  });

  it("describes a question as an operation with the answers to it", () => {
    for (const name of ["valibot", "Zod 4", "ArkType"]) {
      const document = documentOf(contracts[name]!);
      const { action, messages, reply, tags } = document.operations["question confirm"]!;
      const names = (references: readonly { $ref: string }[]) =>
        references.map(({ $ref }) => decodeURIComponent($ref.split("/").at(-1)!));
      assert.deepEqual([action, names(messages), names(reply!.messages), tags], [
        "send",
        ["question confirm"],
        ["answer confirm", "refusal"],
        [{ name: "questions" }],
      ]);
      const [asks, answers, refuses] = ["question confirm", "answer confirm", "refusal"].map((message) =>
        validatorOf(document, CONNECTION, message)
      );
      const envelope = { type: "confirm", uid: "ask:1" };
      assert.deepEqual([asks!({ ...envelope, text: "Delete it?" }), asks!(envelope), asks!({ ...envelope, uid: 1, text: "" })], [
        true,
        false,
        false,
      ]);
      const answer = (data: unknown) => answers!({ ...envelope, status: "ok", data });
      assert.deepEqual([answer({ yes: true }), answer({ yes: "yes" }), answer(undefined)], [true, false, false]);
      const refusal = (error: object) => refuses!({ ...envelope, status: "error", error });
      assert.deepEqual([refusal({ code: "DECLINED" }), refusal({})], [true, false]);
    }
  });

  it("describes what a client publishes by the input of a schema, and what subscribers receive by its output", () => {
    for (const name of ["valibot", "Zod 4", "ArkType"]) {
      const document = documentOf(contracts[name]!);
      const message = (data: unknown, type: string) => ({ type, channel: "room:1", event: "moved", data });
      const publish = validatorOf(document, "room:*", "publish moved");
      const publication = validatorOf(document, "room:*", "publication moved");
      assert.ok(publish(message({ at: "4" }, "publish")), name);
      assert.ok(!publish(message({ at: 4 }, "publish")), name);
      assert.ok(publication(message({ at: 4 }, "subscription")), name);
    }
  });

  it("accepts the messages that the schema of a payload accepts, with type and uid beside it", () => {
    const email = { kind: "a", a: "mika@example.com" };
    const cases: Record<string, [accepted: object[], refused: object[]]> = {
      "a/b c~d%é": [[{ text: "a" }], [{ text: 1 }, { text: "a", more: 1 }, {}]],
      choose: [[email, { kind: "b", b: ["a", 1] }], [{ kind: "c" }, { ...email, b: 1 }, { kind: "b", b: [1, 1] }]],
      plant: [[{ name: "a", children: [{ name: "b", children: [] }] }], [{ name: "a", children: [{ name: "b" }] }]],
      grow: [[{ name: "a", children: [{ name: "b", children: [] }] }], [{ name: "a", children: [{ name: "b" }] }]],
      count: [[{}, { x1: 1, x2: 2 }], [{ y: 1 }, { x1: "1" }, { x1: 1, x2: 2, x3: 3 }]],
      both: [[{ a: "a", b: 4 }], [{ a: "a" }, { a: "a", b: 3 }]],
      either: [[{ kind: "a", text: "a" }, { kind: "b", n: 1 }], [{ kind: "a", n: 1 }]],
      closed: [[{ text: "a" }], [{ text: "a", more: 1 }]],
      later: [[{ text: "a" }], [{ text: 1 }]],
    };
    const contract = contracts["odd schemas"]!;
    const document = documentOf(contract);
    for (const [type, [accepted, refused]] of Object.entries(cases)) {
      const fits = validatorOf(document, CONNECTION, `request ${type}`);
      for (const payload of accepted) {
        assert.ok(fits({ ...payload, type }), `${type} accepts ${JSON.stringify(payload)}`);
        assert.ok(fits({ ...payload, type, uid: "u" }), `${type} accepts ${JSON.stringify(payload)} with a uid`);
      }
      for (const payload of refused) {
        assert.ok(!fits({ ...payload, type, uid: "u" }), `${type} refuses ${JSON.stringify(payload)}`);
      }
    }
  });

  it("requires the data of a reply, unless its schema accepts none", () => {
    const document = documentOf(contracts["odd schemas"]!);
    const requires = (type: string) =>
      (messageOf(document, CONNECTION, `reply ${type}`).payload["required"] as string[]).includes("data");
    assert.deepEqual(["choose", "plant", "grow", "nothing", "count"].map(requires), [true, true, false, false, false]);
  });

  it("keeps the words that a schema has for people", () => {
    const text = v.pipe(v.string(), v.description("What is said"), v.examples(["Hello"]));
    const message = messageOf(documentOf({ requests: { say: { payload: v.object({ text }) } } }), CONNECTION, "request say");
    assert.deepEqual((message.payload["properties"] as Record<string, unknown>)["text"], {
      type: "string",
      description: "What is said",
      examples: ["Hello"],
    });
    assert.deepEqual(message.examples, [{ payload: { type: "say", uid: 1, text: "Hello" } }]);
  });

  it("gives the examples of a payload as messages", () => {
    const document = documentOf(contracts["schemas with examples and defaults"]!);
    const exampleOf = (message: string) => messageOf(document, CONNECTION, message).examples?.map(({ payload }) => payload);
    for (const type of ["say", "shout"]) assert.deepEqual(exampleOf(`request ${type}`), [{ type, uid: 1, text: "hello" }]);
    assert.deepEqual(exampleOf("message news"), [{ type: "news", uid: 1, text: "hello" }]);
    assert.deepEqual(exampleOf("question confirm"), [{ type: "confirm", uid: "ask:7f0c", text: "hello" }]);
    assert.deepEqual(exampleOf("request typed"), [{ type: "typed", uid: 1, text: "hello" }]);
    assert.deepEqual(exampleOf("request none"), undefined);
    assert.deepEqual(exampleOf("request absent"), [{ type: "absent", uid: 1, text: "text" }]);
  });

  it("keeps parts apart whose names are alike", () => {
    const document = documentOf(contracts["names that are alike"]!);
    const fits = (channel: string, message: string, data: object) => {
      const base = { type: "subscription", channel, uid: 1, event: message.split(" ")[1] };
      return validatorOf(document, channel, message)({ ...base, data });
    };
    const [tree, leaf] = [{ name: "a", children: [] }, { size: 1, leaves: [] }];
    assert.deepEqual([fits("a.b", "publication c", tree), fits("a.b", "publication c", leaf)], [true, false]);
    assert.deepEqual([fits("a", "publication b.c", tree), fits("a", "publication b.c", leaf)], [false, true]);
    assert.equal(Object.keys(document.components.schemas ?? {}).length, 10);
    const { examples } = messageOf(document, CONNECTION, "message constructor");
    assert.deepEqual(examples?.map(({ payload }) => payload), [
      { type: "constructor", uid: 1, constructor: "text", b: "text", toString: "text" },
    ]);
  });

  it("describes a channel whose name is that of a prototype", () => {
    const document = documentOf({ channels: { ["__proto__"]: { events: { ["__proto__"]: leaf } } } });
    const publication = messageOf(document, "__proto__", "publication __proto__");
    assert.deepEqual(publication.examples?.length, 1);
    for (const { messages } of Object.values(document.operations)) {
      for (const { $ref } of messages) assert.ok(resolvePointer(document, $ref) !== undefined, $ref);
    }
  });

  it("leaves out a bound that is not finite", () => {
    const schemas = {
      zod: z.object({ n: z.number().min(-Infinity).max(Infinity) }),
      valibot: v.object({ n: v.pipe(v.number(), v.minValue(-Infinity), v.maxValue(Infinity)) }),
    };
    for (const payload of Object.values(schemas)) {
      const { properties } = messageOf(documentOf({ requests: { say: { payload } } }), CONNECTION, "request say").payload;
      assert.deepEqual((properties as Record<string, unknown>)["n"], { type: "number" });
    }
  });

  it("names a channel by its address, with parameters, and accepts its names only", () => {
    const { channels } = documentOf(contracts["odd schemas"]!);
    assert.deepEqual(Object.values(channels).map(({ address }) => address), [
      null,
      "a.b+c:{id}/x",
      "{rest}",
      "team:{team}:{user}",
    ]);
    assert.deepEqual(Object.keys(channels["team:{team}:{user}"]!.parameters ?? {}), ["team", "user"]);
    const document = documentOf({ channels: { "a.b+c:{id}/x": {}, "room:*": {}, wire: {} } });
    const accepts = (channel: string, name: string) =>
      validatorOf(document, channel, "subscribe")({ type: "subscribe", channel: name });
    assert.deepEqual(["a.b+c:1/x", "aXb+c:1/x", "a.b+c:/x"].map((name) => accepts("a.b+c:{id}/x", name)), [true, false, false]);
    assert.deepEqual(["room:", "room:1", "room:a b", "rooms"].map((name) => accepts("room:*", name)), [true, true, false, false]);
    assert.deepEqual(["wire", "wires"].map((name) => accepts("wire", name)), [true, false]);
  });

  it("lets a server have its own security, and any of the schemes otherwise", () => {
    const { servers } = asyncapi({}, {
      info: { title: "Test", version: "1" },
      servers: { a: { host: "a", protocol: "wss" }, b: { host: "b", protocol: "wss", security: [] } },
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
    });
    assert.deepEqual(servers, {
      a: { host: "a", protocol: "wss", security: [{ $ref: "#/components/securitySchemes/token" }] },
      b: { host: "b", protocol: "wss", security: [] },
    });
  });

  it("throws for what it cannot describe, and says where it is", () => {
    const options = { info: { title: "Test", version: "1" } };
    const describeSay = (payload: unknown) => () => asyncapi({ requests: { say: { payload } } }, options);
    assert.throws(describeSay({ text: "string" }), {
      name: "TypeError",
      message: "Cannot describe request say payload: it is no schema",
    });
    assert.throws(
      describeSay(v.object({})),
      /^TypeError: Cannot describe request say payload: .* pass toJsonSchema \(valibot: that of @valibot/,
    );
    const broken = { "~standard": { jsonSchema: { input: () => assert.fail("no") } } };
    assert.throws(
      describeSay(broken),
      /^TypeError: Cannot describe request say payload: its library cannot convert it to JSON Schema/,
    );
    assert.doesNotThrow(describeSay(z.object({ at: z.date() })));
  });
});

describe("The document's account of the protocol", () => {
  it("has the codes of PROTOCOL.md, with their meanings", () => {
    const document = documentOf({});
    const rows = (section: string) =>
      [...sectionOf(section).matchAll(/^\| (.+?) *\| (.+?) *\|/gm)].slice(2).map((
        [, code = "", meaning = ""],
      ) => [code, meaning]);
    assert.deepEqual(document["x-errors"].map(({ code, meaning }) => [`\`${code}\``, meaning]), rows("5 Errors"));

    const closes = document["x-close-codes"];
    assert.deepEqual(closes.map(({ name, code }) => [name, code]), Object.entries(CloseCode));
    const written = rows("6 Close codes");
    // Rows of two codes have both meanings, the second without its subject.
    const meanings = new Map(closes.map(({ code, meaning }) => [String(code), meaning]));
    const paired = (codes: string) =>
      codes.split(", ").map((code, index) => index === 0 ? meanings.get(code) : meanings.get(code)?.replace(/^the server /, ""))
        .join(", or ");
    assert.deepEqual(written, written.map(([codes = ""]) => [codes, paired(codes)]));
    assert.deepEqual(written.flatMap(([codes = ""]) => codes.split(", ")).toSorted(), [...meanings.keys()].toSorted());
    assert.deepEqual(closes.filter(({ reconnect }) => !reconnect).map(({ code }) => code), [1009, 4400, 4401, 4403, 4408]);
  });

  it("has a message for each that PROTOCOL.md lists", () => {
    const contract = contracts["valibot"]!;
    const document = documentOf({ ...contract, requests: { ...contract.requests, ask: { stream: {} } } });
    const names = new Set([...eachMessage(document)].map(([, , { name }]) => name));
    const listed = [...PROTOCOL.slice(0, PROTOCOL.indexOf("## 1 ")).matchAll(/^\| ((?:`[\w.]+`(?:, )?)+) /gm)].flatMap((
      [, types = ""],
    ) => types.match(/[\w.]+/g) ?? []);
    assert.ok(listed.length >= 8);
    for (const type of listed) assert.ok(names.has(type), `no message "${type}"`);
  });

  it("describes an item of the input of each request that declares one", () => {
    const document = documentOf({
      requests: {
        upload: { stream: { input: v.object({ part: v.string() }) } },
        count: { payload: v.object({}), stream: { input: v.number(), output: v.string() } },
        ask: { stream: { output: v.string() } },
      },
    });
    const inputs = Object.keys(document.operations).filter((name) => name.startsWith("input "));
    assert.deepEqual(inputs, ["input upload", "input count"]);
    const [channel] = [...eachMessage(document)].find(([, name]) => name === "input count")!;
    const fits = (name: string, data: unknown) =>
      validatorOf(document, channel, name)({ type: "stream.input", uid: 1, item: 1, data });
    const items = [1, "1", { part: "a" }, { part: 1 }];
    assert.deepEqual(items.map((item) => fits("input count", item)), [true, false, false, false]);
    assert.deepEqual(items.map((item) => fits("input upload", item)), [false, false, true, false]);
  });

  it("accepts every example of PROTOCOL.md", () => {
    const say = v.object({ text: v.string() });
    const document = documentOf({
      requests: {
        say: { payload: say, reply: v.object({ id: v.number() }) },
        pay: { payload: v.object({ amount: v.number() }), reply: v.object({ id: v.number() }) },
        ask: {
          payload: v.object({ prompt: v.string() }),
          reply: v.object({ tokens: v.number() }),
          stream: { output: v.string() },
        },
        transcribe: {
          payload: v.object({ language: v.string() }),
          reply: v.object({ text: v.string() }),
          stream: { input: v.string() },
        },
      },
      messages: { news: say },
      channels: { "room:*": { events: { say } } },
    });
    const validators = [...eachMessage(document)].map(([channel, name]) => validatorOf(document, channel, name));
    // The others show a form: they have fields with `?`, or without a value.
    const examples = [...PROTOCOL.matchAll(/^[→←] (\{.*\})$/gm)].flatMap(([, line = ""]) => parseIfJson(line));
    assert.ok(examples.length >= 17, `${examples.length} examples`);
    for (const example of examples) assert.ok(validators.some((fits) => fits(example)), JSON.stringify(example));
  });
});

function parseIfJson(line: string): unknown[] {
  try {
    return [JSON.parse(line)];
  } catch {
    return [];
  }
}

/** The text of a section of PROTOCOL.md. */
function sectionOf(heading: string): string {
  const [, text = ""] = PROTOCOL.split(`## ${heading}\n`);
  return text.split("\n## ")[0] ?? "";
}
