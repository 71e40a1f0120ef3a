/**
 * Clients connect, subscribe, publish, disconnect and reconnect at random. The test compares what they received with what was
 * published. `CHECKER_SECONDS=600` makes each runtime take 600 s in place of at most 15, and `SEED=…` repeats the random choices of another run.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { Checker } from "../support/checker.ts";
import { Random } from "../support/random.ts";
import { startDurableObject, startServer, type TestServer } from "./server.ts";
import { WanderingClient } from "./wandering-client.ts";
import { Wire } from "./wire.ts";

const SECONDS = Number(process.env["CHECKER_SECONDS"] ?? 15);
const CLIENTS = 40;
/** How often each action must happen: a busy machine does less in the same time, so the run continues for longer. */
const ENOUGH = 10;
/**
 * Counts that end a run before its time. Each channel then has some 170 publications and keeps 60, so that some clients recover and others have
 * missed too much. A longer run would only repeat that.
 */
const PLENTY = process.env["CHECKER_SECONDS"] === undefined ? { published: 500, subscribed: 150 } : undefined;
/** The longest extension of a run, in ms. */
const EXTENSION = 60_000;

const fixture = (name: string) => join(dirname(fileURLToPath(import.meta.url)), "fixture", name);
const start: Record<string, () => Promise<TestServer>> = {
  Bun: () => startServer("bun", fixture("checked-serve.ts")),
  Deno: () => startServer("deno", fixture("checked-serve.ts")),
  Node: () => startServer("node", fixture("checked-serve.ts")),
  // Without evictions, which workerd refuses for half a minute after several sockets. The conformance suite has them.
  "a Durable Object": () => startDurableObject(fixture("checked-worker.ts")),
};

describe("A history", { concurrency: true }, () => {
  after(() => Wire.resetAll());

  for (const [runtime, begin] of Object.entries(start)) {
    it(`reaches clients that reconnect at random complete, once and in order on ${runtime}`, {
      timeout: SECONDS * 1000 + EXTENSION + 120_000,
    }, async () => {
      const random = new Random();
      const checker = new Checker();
      const server = await begin();
      const options = { ports: () => [server.port], channels: ["log:a", "log:b", "log:c"], random, checker };
      const clients = Array.from({ length: CLIENTS }, (_, index) => new WanderingClient(`c${index}`, options));
      const end = performance.now() + SECONDS * 1000;
      const hasTriedEnough = () => Object.values(checker.counts).every((count) => count > ENOUGH);
      const hasTriedPlenty = () => {
        const { published, begun, recovered, lost } = checker.counts;
        return PLENTY !== undefined && published >= PLENTY.published && begun + recovered + lost >= PLENTY.subscribed;
      };
      const isOver = () => hasTriedEnough() ? hasTriedPlenty() || performance.now() >= end : performance.now() >= end + EXTENSION;
      await Promise.all(clients.map((client) => client.wander(isOver)));
      const tooLate = performance.now() + 60_000;
      await Promise.all(clients.map((client) => client.settle(() => performance.now() >= tooLate)));
      await Promise.all(clients.map((client) => client.leave()));
      console.log(`${runtime}: ${JSON.stringify(checker.counts)}, SEED=${random.seed}`);
      assert.deepEqual(checker.problems(), [], `SEED=${random.seed}`);
      for (const [kind, count] of Object.entries(checker.counts)) {
        assert.ok(count > ENOUGH, `${kind}: ${count}, so that little was tried`);
      }
      await server.stop();
    });
  }
});

describe("A WanderingClient", () => {
  it("subscribes again after the server has ended its subscription", async () => {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    await once(server, "listening");
    const { port } = server.address() as { port: number }; // Of a TCP server.
    let subscribed = 0;
    server.on("connection", (socket) =>
      socket.on("message", (text) => {
        const { type, channel, uid, recover } = JSON.parse(String(text));
        const send = (message: object) => socket.send(JSON.stringify({ type: "subscription", channel, uid, ...message }));
        if (type !== "subscribe") return;
        send({ event: "init", epoch: "e", offset: 7, ...(recover && { recovered: true }) });
        if (++subscribed === 1) send({ event: "unsubscribe", reason: "ENGINE_UNAVAILABLE" });
        else send({ event: "wrote", data: { id: "of another" }, offset: 8 });
      }));
    const checker = new Checker();
    checker.published("log:a", { epoch: "e", offset: 8 }, "of another");
    const options = { ports: () => [port], channels: ["log:a"], random: new Random(), checker };
    const client = new WanderingClient("c0", options);
    const tooLate = performance.now() + 60_000;
    await client.settle(() => performance.now() >= tooLate);
    await client.leave();
    server.close();
    assert.deepEqual([subscribed, checker.problems()], [2, []]);
  });
});
