/** The spans of handlers inside workerd, which has `AsyncLocalStorage` with a flag. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { Miniflare } from "miniflare";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

const WORKER = `
import { AsyncLocalStorage } from "node:async_hooks";
import { context, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController } from "./mod.ts";
import { observe } from "./src/otel/otel.ts";
import { testkit } from "./src/testing/testkit.ts";

let spans = 0;
const tracer = {
  startSpan: () => trace.wrapSpanContext({ traceId: "a".repeat(32), spanId: String(++spans).padStart(16, "0"), traceFlags: 0 }),
};
const storage = new AsyncLocalStorage();
const run = (of, call, self, ...args) => storage.run(of, () => call.apply(self, args));
context.setGlobalContextManager({
  active: () => storage.getStore() ?? ROOT_CONTEXT,
  with: run,
  bind: (of, call) => (...args) => run(of, call, undefined, ...args),
});

export default {
  async fetch() {
    const controller = new WebSocketController({ mode: "public", logger: false });
    observe(controller, { meter: false, tracer });
    const active = { call: [], count: [] };
    const look = (type) => active[type].push(trace.getActiveSpan()?.spanContext().spanId);
    controller.handle("call", v.object({}), async () => {
      look("call");
      await crypto.subtle.digest("SHA-256", new Uint8Array());
      look("call");
    });
    controller.handle("count", v.object({}), async function* () {
      look("count");
      yield 1;
      look("count");
    });
    const t = testkit(controller);
    const client = await t.connect();
    await client.request("call", {});
    for await (const _ of client.stream("count", {}));
    await t.close();
    return Response.json(active);
  },
};
`;

describe("A span of a handler in workerd", () => {
  it("is active in the handler, before and after its awaits", { timeout: 240_000 }, async () => {
    const { outputFiles } = await build({
      stdin: { contents: WORKER, resolveDir: root, loader: "ts" },
      ...{ bundle: true, write: false, format: "esm", platform: "neutral", mainFields: ["module", "main"] },
      ...{ conditions: ["workerd", "worker"], external: ["node:*"] },
    });
    const script = outputFiles[0]!.text; // There is one.
    const worker = new Miniflare({
      ...{ modules: true, script, cf: false },
      ...{ compatibilityDate: "2026-07-30", compatibilityFlags: ["nodejs_als"] },
    });
    try {
      const response = await worker.dispatchFetch("http://localhost/");
      const { call, count } = await response.json() as Record<string, string[]>; // As the worker writes it.
      assert.deepEqual([call, count], [["0000000000000001", "0000000000000001"], ["0000000000000002", "0000000000000002"]]);
    } finally {
      await worker.dispose();
    }
  });
});
