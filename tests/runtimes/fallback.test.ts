/** The conformance suite over the fallback transport: server-sent events one way, and POST the other. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { heldBack } from "./behaviours/authentication.ts";
import { conformance, type Difference } from "./conformance.ts";
import { EventBridge } from "./event-bridge.ts";
import { startDurableObject, startServer } from "./server.ts";
import { Wire } from "./wire.ts";

const DIFFERENCES: Record<string, Difference> = {
  ...heldBack,
  "a client that reads stays connected and misses nothing when one turn exceeds the buffer limit": {
    because: "a stream is read after the turn, so everything is buffered until then",
    async instead(server) {
      const wire = await Wire.open(server.port, "/bounded");
      await wire.ask({ type: "ping" });
      const news = Array.from({ length: 20 }, (_, n) => ({ type: "news", n, text: "x".repeat(10_000) }));
      await server.control("bounded", "turn", { steps: news.map((send) => ({ send })) });
      for (let n = 0; n < 7; n++) assert.equal((await wire.next()).n, n);
      assert.equal((await wire.closed).code, 4508);
    },
  },
  "a peer that never answers the close handshake is gone after the close timeout": {
    because: "the last event needs no answer: the connection has ended with the response",
    async instead(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.answersClose = false;
      wire.send({ type: "close", code: 4000, reason: "bye" });
      const [{ code, reason, wasClean }] = await server.control("public", "wait", { event: "close" });
      assert.deepEqual({ code, reason, wasClean }, { code: 4000, reason: "bye", wasClean: true });
      await server.control("public", "quiet");
    },
  },
};

/** As in `bun.test.ts`. */
const ON_BUN: Record<string, Difference> = {
  "answers 4xx to an odd request target and keeps serving": {
    because: "Bun normalizes the target before the application receives it",
    async instead({ port }) {
      for (const target of ["http://[/public", "//[/public", "http://a:b:c/public"]) await Wire.request(port, target);
      await Wire.open(port, "/public");
    },
  },
};

for (const runtime of ["node", "bun", "deno"] as const) {
  conformance(`The fallback on ${runtime}`, async () => await new EventBridge(await startServer(runtime)).start(), {
    differences: runtime === "bun" ? { ...DIFFERENCES, ...ON_BUN } : DIFFERENCES,
  });
}

/** As in `cloudflare.test.ts`. */
const IN_AN_OBJECT: Record<string, Difference> = {
  "answers 4xx when the method is not GET": {
    because: "workerd answers 500 itself",
    async instead({ port }) {
      assert.equal(
        (await Wire.request(port, "/public", { method: "POST", headers: { "Content-Length": "0" } })).answer.status,
        500,
      );
      await Wire.open(port, "/public");
    },
  },
  "answers 4xx to an odd request target and keeps serving": {
    because: "workerd answers 500 itself to a target it cannot parse",
    async instead({ port }) {
      assert.equal((await Wire.request(port, "http://[/public")).answer.status, 500);
      await Wire.open(port, "/public");
    },
  },
  "answers 4xx to an upgrade with a thousand headers": {
    because: "workerd has no limit; Cloudflare's network has its own",
    async instead({ port }) {
      const headers = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`X${i}`, "1"]));
      assert.equal((await Wire.request(port, "/public", { headers })).answer.status, 101);
    },
  },
};

const poked = fileURLToPath(new URL("fixture/poked-worker.ts", import.meta.url));

conformance("The fallback on a Durable Object", async () => await new EventBridge(await startDurableObject(poked), 4).start(), {
  differences: { ...DIFFERENCES, ...IN_AN_OBJECT },
});
