/** The test kit inside workerd, as a test runner for Workers would run it. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { Miniflare } from "miniflare";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

const WORKER = `
import { testkit } from "./src/testing/testkit.ts";
import { createChat } from "./tests/testing/chat.ts";

export default {
  async fetch() {
    const t = testkit(createChat().app);
    const alice = await t.connect({ token: "alice" });
    const heard = [];
    alice.subscribe("room:1", { onEvent: ({ data }) => heard.push(data.text) });
    await t.advance(0);
    await alice.request("say", { text: "hi" });
    t.cut(alice);
    await t.advance(30_000);
    await alice.request("say", { text: "again" });
    await t.advance(0);
    await t.close();
    return Response.json(heard);
  },
};
`;

describe("testkit in workerd", () => {
  let script: string;
  before(async () => {
    const { outputFiles } = await build({
      stdin: { contents: WORKER, resolveDir: root, loader: "ts" },
      ...{ bundle: true, write: false, format: "esm", platform: "neutral", mainFields: ["module", "main"] },
      ...{ conditions: ["workerd", "worker"], external: ["node:*"] },
    });
    script = outputFiles[0]!.text; // There is one.
  });

  for (const compatibilityFlags of [[], ["nodejs_compat"]]) {
    it(`runs an app with the flags [${compatibilityFlags.join()}]`, { timeout: 240_000 }, async () => {
      const worker = new Miniflare({ modules: true, script, compatibilityDate: "2026-07-30", compatibilityFlags, cf: false });
      try {
        const response = await worker.dispatchFetch("http://localhost/");
        assert.deepEqual(await response.json(), ["hi", "again"]);
      } finally {
        await worker.dispose();
      }
    });
  }
});
