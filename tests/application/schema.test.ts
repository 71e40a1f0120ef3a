import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";
import * as mini from "zod/mini";
import { z as z3 } from "zod/v3";
import { checkSchema, parse } from "../../src/application/schema.ts";
import { issuePath } from "../../src/protocol/protocol.ts";
import { unhandledIn } from "../support/unhandled.ts";

/** The output, or the path of the first issue. */
async function read(schema: unknown, value: unknown): Promise<unknown> {
  const parsed = await parse(checkSchema(schema)!, value);
  return parsed.success ? { output: parsed.output } : issuePath(parsed.issues[0]!);
}

/** A schema that no library made. */
function standard(validate: (value: unknown) => unknown): unknown {
  return { "~standard": { version: 1, vendor: "own", validate } };
}

const NESTED: Record<string, unknown> = {
  valibot: v.object({ items: v.array(v.object({ text: v.string() })) }),
  "valibot, asynchronous": v.objectAsync({
    items: v.arrayAsync(v.objectAsync({ text: v.pipeAsync(v.string(), v.checkAsync(() => Promise.resolve(true))) })),
  }),
  Zod: z.object({ items: z.array(z.object({ text: z.string() })) }),
  "Zod Mini": mini.object({ items: mini.array(mini.object({ text: mini.string() })) }),
  "Zod, asynchronous": z.object({ items: z.array(z.object({ text: z.string().refine(() => Promise.resolve(true)) })) }),
  "Zod 3, asynchronous": z3.object({ items: z3.array(z3.object({ text: z3.string().refine(() => Promise.resolve(true)) })) }),
  ArkType: type({ items: type({ text: "string" }).array() }),
};

describe("parse", () => {
  for (const [library, schema] of Object.entries(NESTED)) {
    it(`returns the output, or the issues with their path: ${library}`, async () => {
      const value = { items: [{ text: "a" }, { text: "b" }] };
      assert.deepEqual(await read(schema, value), { output: value });
      assert.equal(await read(schema, { items: [{ text: "a" }, { text: 1 }] }), "items.1.text");
      assert.equal(await read(schema, {}), "items");
    });
  }

  it("returns a promise of an asynchronous schema only", () => {
    for (const [library, schema] of Object.entries(NESTED)) {
      const parsed = parse(checkSchema(schema)!, { items: [{ text: "a" }] });
      assert.equal(parsed instanceof Promise, library.endsWith("asynchronous"), library);
    }
  });

  it("stops at the first issue with valibot; Zod and ArkType collect all of them", async () => {
    const count = async (library: string) => {
      const parsed = await parse(checkSchema(NESTED[library])!, { items: [{ text: 1 }, { text: 2 }] });
      return parsed.success ? 0 : parsed.issues.length;
    };
    assert.deepEqual(await Promise.all(["valibot", "valibot, asynchronous", "Zod", "ArkType"].map(count)), [1, 1, 2, 2]);
  });

  it("reads a path of keys, and of objects that hold one", async () => {
    for (const path of [["a", 1, "b"], [{ key: "a" }, { key: 1 }, { key: "b" }]]) {
      assert.equal(await read(standard(() => ({ issues: [{ message: "Wrong", path }] })), {}), "a.1.b");
    }
    assert.equal(await read(standard(() => ({ issues: [{ message: "Wrong", path: [Symbol("a")] }] })), {}), "");
    assert.equal(await read(standard(() => ({ issues: [{ message: "Wrong" }] })), {}), "");
  });

  it("throws what a schema throws, and rejects with what one rejects with", async () => {
    const error = new Error("thrown");
    const fail = (): never => {
      throw error;
    };
    for (const schema of [v.pipe(v.any(), v.check(fail)), z.any().refine(fail), type("unknown").narrow(fail), standard(fail)]) {
      assert.throws(() => parse(checkSchema(schema)!, 1), error);
    }
    const reject = () => Promise.reject(error);
    for (const schema of [v.pipeAsync(v.any(), v.checkAsync(reject)), z.any().refine(reject), standard(reject)]) {
      await assert.rejects(async () => await parse(checkSchema(schema)!, 1), error);
    }
  });

  it("leaves no rejection of Zod 3 unhandled, which its own validate does", async () => {
    const schema = z3.object({ a: z3.string().refine(() => Promise.reject(new Error("Unhandled"))) });
    const unhandled = await unhandledIn(() =>
      assert.rejects(async () => await parse(checkSchema(schema)!, { a: "x" }), /Unhandled/)
    );
    assert.deepEqual(unhandled, []);
    assert.deepEqual(await read(z3.string().transform(Number), "7"), { output: 7 });
  });

  it("leaves no rejection of Zod unhandled, which its own validate does", async () => {
    const reject = () => Promise.reject(new Error("Unhandled"));
    const schemas = [
      z.object({ a: z.string().refine(reject) }),
      z.object({ a: z.string().superRefine(reject) }),
      z.object({ a: z.string().transform(reject) }),
      z.object({ a: z.preprocess(reject, z.string()) }),
      z.object({ a: z.lazy(() => z.string().refine(reject)) }),
      z.array(z.object({ a: z.codec(z.string(), z.string(), { decode: reject, encode: reject }) })).transform((list) => list[0]),
      mini.object({ a: mini.string().check(mini.refine(reject)) }),
    ];
    for (const [index, schema] of schemas.entries()) {
      const unhandled = await unhandledIn(() =>
        assert.rejects(async () => await parse(checkSchema(schema)!, index === 5 ? [{ a: "x" }] : { a: "x" }), /Unhandled/)
      );
      assert.deepEqual(unhandled, [], `schema ${index}`);
    }
  });

  const promise = () => Promise.reject(new Error("Unhandled")) as unknown;
  const rejecting: Record<string, [schema: unknown, refused: unknown]> = {
    valibot: [v.object({ a: v.pipe(v.string(), v.transform(promise)), b: v.number() }), { a: "x", b: "no" }],
    ArkType: [type({ a: type("string").pipe(promise), b: "number" }), undefined],
    "another library": [standard(() => ({ value: { a: promise() } })), undefined],
  };
  for (const [library, [schema, refused]] of Object.entries(rejecting)) {
    it(`throws when the output contains a promise, which is not left unhandled: ${library}`, async () => {
      const checked = checkSchema(schema)!;
      const unhandled = await unhandledIn(() => {
        assert.throws(() => parse(checked, { a: "x", b: 1 }), /contains a promise/);
        if (refused !== undefined) assert.deepEqual((parse(checked, refused) as { success: boolean }).success, false);
      });
      assert.deepEqual(unhandled, []);
    });
  }
});

describe("checkSchema", () => {
  it("accepts any Standard Schema", () => {
    const schemas = [...Object.values(NESTED), z.string(), mini.string(), type("string"), standard(() => ({ value: 1 }))];
    for (const schema of schemas) assert.ok(checkSchema(schema));
  });

  it("refuses what is none", () => {
    for (
      const value of [undefined, null, 1, "text", {}, [], () => {}, v.string, v.minLength(1), { "~standard": {} }, {
        "~standard": { version: 2, vendor: "own", validate: () => ({ value: 1 }) },
      }]
    ) {
      assert.equal(checkSchema(value), null);
    }
  });

  it("refuses a schema of valibot that would not await an asynchronous part of it", () => {
    const later = v.pipeAsync(v.string(), v.checkAsync(() => Promise.resolve(true)));
    const unawaited = [
      v.object({ a: later as never }),
      v.objectAsync({ a: v.object({ b: later as never }) }),
      v.pipe(v.string(), v.check((async () => await true) as never)),
      v.pipeAsync(v.string(), v.check((async () => await true) as never)),
      v.objectAsync({ a: v.pipe(v.string(), v.transform(async () => await 1)) }),
    ];
    for (const [index, schema] of unawaited.entries()) assert.equal(checkSchema(schema), null, `schema ${index}`);
    // An entry of that name is no flag.
    assert.ok(checkSchema(v.objectAsync({ async: v.boolean(), a: later })));
  });
});
