import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { checkSchema, parse } from "../../src/application/schema.ts";
import { unhandledIn } from "../support/unhandled.ts";

describe("parse", () => {
  const rejecting = v.pipe(v.string(), v.transform(() => Promise.reject(new Error("Unhandled")) as unknown));
  const schema = checkSchema(v.object({ a: rejecting, b: v.number() }))!;

  it("throws when the output contains a promise", async () => {
    const unhandled = await unhandledIn(() => assert.throws(() => parse(schema, { a: "x", b: 1 }), /contains a promise/));
    assert.deepEqual(unhandled, []);
  });

  it("leaves no promise unhandled when another field is invalid", async () => {
    const unhandled = await unhandledIn(() => assert.equal(parse(schema, { a: "x", b: "no" }).success, false));
    assert.deepEqual(unhandled, []);
  });
});
