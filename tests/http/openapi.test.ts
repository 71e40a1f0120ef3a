import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { toJsonSchema } from "@valibot/to-json-schema";
import { Ajv2020 } from "ajv/dist/2020.js";
import * as v from "valibot";
import { defineContract } from "../../mod.ts";
import { channelsOpenApi } from "../../src/http/http.ts";

interface Tree {
  readonly value: string;
  readonly children: Tree[];
}
const Tree: v.GenericSchema<Tree> = v.object({ value: v.string(), children: v.array(v.lazy(() => Tree)) });

const contract = defineContract({
  channels: {
    "room:{id}": {
      events: { said: v.object({ text: v.string() }), grown: Tree },
      member: v.object({ name: v.string() }),
    },
    "files/*": {},
  },
});

const info = { title: "Newsroom", version: "1.0.0" };

describe("channelsOpenApi", () => {
  const document = channelsOpenApi(contract, {
    info,
    toJsonSchema,
    path: "/api",
    servers: [{ url: "https://example.com" }],
    securitySchemes: { token: { type: "http", scheme: "bearer" } },
  });
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  const { paths, components, security } = document as any;

  it("has a path for each channel and its members, with the parameters of the name", () => {
    assert.deepEqual(Object.keys(paths), [
      ...["/api/room:{id}", "/api/room:{id}/presence"],
      ...["/api/files%2F{rest}", "/api/files%2F{rest}/presence"],
    ]);
    assert.deepEqual(
      paths["/api/room:{id}"].parameters.map(({ name, required }: { name: string; required: boolean }) => [name, required]),
      [
        ["id", true],
      ],
    );
    assert.deepEqual([document.openapi, security], ["3.1.0", [{ token: [] }]]);
  });

  it("accepts what the channel does, and nothing else", () => {
    const ajv = new Ajv2020({ strict: false });
    const { schema } = paths["/api/room:{id}"].post.requestBody.content["application/json"];
    const validate = ajv.compile({ ...schema, components });
    assert.ok(validate({ event: "said", data: { text: "hello" } }));
    assert.ok(validate({ event: "grown", data: { value: "a", children: [{ value: "b", children: [] }] } }));
    for (
      const wrong of [
        { event: "said", data: { text: 1 } },
        { event: "said" },
        { event: "other", data: {} },
        { event: "grown", data: { value: "a", children: [{ value: 1, children: [] }] } },
      ]
    ) assert.equal(validate(wrong), false, JSON.stringify(wrong) ?? "");
    const any = ajv.compile(paths["/api/files%2F{rest}"].post.requestBody.content["application/json"].schema);
    assert.ok(any({ event: "anything" }));
  });

  it("resolves each of its references", () => {
    const text = JSON.stringify(document);
    for (const [, reference] of text.matchAll(/"\$ref":"#\/components\/([^"]+)"/g)) {
      const value = reference!.split("/").reduce((part, key) => part?.[decodeURIComponent(key)], components);
      assert.ok(value, String(reference));
    }
  });

  it("throws for what is no schema", () => {
    assert.throws(() => channelsOpenApi({ channels: { a: { events: { b: 1 } } } }, { info }), /it is no schema/);
  });
});
