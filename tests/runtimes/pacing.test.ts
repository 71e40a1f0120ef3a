/** A client with more to send than its server accepts at once stays connected and loses nothing. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket as Ws } from "ws";
import { type ClientOptions, createClient, type WebSocketConstructor } from "../../src/client/client.ts";
import { PATIENT } from "../support/patient.ts";
import { Proxy } from "../support/proxy.ts";
import { Random } from "../support/random.ts";
import type { Pacing } from "./fixture/paced-serve.ts";
import { startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

const file = join(dirname(fileURLToPath(import.meta.url)), "fixture/paced-serve.ts");
const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

for (const runtime of ["node", "bun", "deno"] as const) {
  describe(`A client that sends more than a server on ${runtime} accepts at once`, () => {
    let server: TestServer;
    before(async () => void (server = await startServer(runtime, file)));
    after(() => server.stop());

    async function post(path: string, body: unknown = {}) {
      const init = { method: "POST", body: JSON.stringify(body), headers: { connection: "close" } };
      const response = await fetch(`http://127.0.0.1:${server.port}${path}`, init);
      assert.equal(response.status, 200);
      return await response.json();
    }

    /** A controller with these limits, and a client behind a proxy that the test can take down. */
    async function pace(pacing: Pacing, options: ClientOptions = {}) {
      const id = await post("/make", pacing) as number;
      const proxy = await Proxy.open(server.port);
      const client = createClient(`ws://127.0.0.1:${proxy.port}/${id}`, {
        WebSocket: Ws as unknown as WebSocketConstructor, // It has all that is needed.
        backoff: { base: 10, cap: 20 },
        ...PATIENT,
        ...options,
      });
      const errors: unknown[] = [];
      client.on("error", ({ error }) => void errors.push(error));
      return {
        client,
        proxy,
        errors,
        id,
        /** The report of the server. Everything sent before an answered request has been handled. */
        async read() {
          return await post(`/read/${id}`) as { handled: number[]; closes: number[]; limited: number };
        },
        async [Symbol.asyncDispose]() {
          await client.close();
          await proxy.close();
        },
      };
    }

    it("sends its full outbox after it was offline", { timeout: 300_000 }, async () => {
      await using paced = await pace({});
      const { client, proxy, errors, read } = paced;
      await client.ready;
      proxy.isDown = true;
      proxy.cut();
      await new Promise((resolve) => client.on("reconnecting", resolve));
      const sent = numbers(100).map((n) => client.send({ type: "n", n }));
      proxy.isDown = false;
      await Promise.all(sent);
      await client.request("n", { n: 100 });
      const { handled, closes } = await read();
      assert.deepEqual([handled, closes.filter((code) => code !== 1006)], [numbers(101), []]);
      assert.deepEqual(errors.filter((error) => (error as { code: string }).code !== "NOT_CONNECTED"), []);
    });

    it("restores a hundred subscriptions after each reconnect", { timeout: 300_000 }, async () => {
      await using paced = await pace({});
      const { client, proxy, read } = paced;
      const counts = new Map<string, number>();
      let wake = () => {};
      for (const n of numbers(100)) {
        client.subscribe(`room:${n}`, {
          onInit: ({ data }) => {
            counts.set(data as string, (counts.get(data as string) ?? 0) + 1);
            wake();
          },
        });
      }
      for (const round of [1, 2, 3]) {
        while ([...counts.values()].filter((count) => count >= round).length < 100) {
          await new Promise<void>((resolve) => wake = resolve);
        }
        proxy.cut();
      }
      const { closes } = await read();
      assert.deepEqual(closes.filter((code) => code !== 1006), []);
      assert.ok([...counts.values()].every((count) => count <= 4), "asked for more than once a connection");
    });

    it("receives the answers to seventy idempotent requests that a disconnect interrupted", { timeout: 300_000 }, async () => {
      await using paced = await pace({ hold: 2 });
      const { client, proxy, read } = paced;
      await client.ready;
      const answers = numbers(70).map((n) => client.request("n", { n }, { idempotent: true }));
      await client.request("n", { n: -1 });
      proxy.cut();
      assert.deepEqual(await Promise.all(answers), numbers(70));
      assert.deepEqual((await read()).closes.filter((code) => code !== 1006), []);
    });

    it("receives the answers to a hundred and to a thousand parallel requests", { timeout: 300_000 }, async () => {
      await using paced = await pace({ hold: 1 });
      const { client, read } = paced;
      for (const count of [100, 1_000]) {
        assert.deepEqual(await Promise.all(numbers(count).map((n) => client.request("n", { n }))), numbers(count));
      }
      assert.deepEqual((await read()).closes, []);
    });

    it(
      "rejects a message, a request and a subscription that are too big at once, and stays connected",
      { timeout: 300_000 },
      async () => {
        await using paced = await pace({ maxPayload: 500 });
        const { client, read } = paced;
        const before = client.send({ type: "n", n: 0, text: "語".repeat(160) });
        await client.ready;
        const code = "MESSAGE_TOO_BIG";
        await assert.rejects(before, { code });
        await assert.rejects(client.send({ type: "n", n: 1, text: "語".repeat(160) }), { code });
        await assert.rejects(client.request("n", { n: 1, text: "x".repeat(500) }), { code });
        await assert.rejects(client.publish("room:1", "say", "x".repeat(500)), { code });
        const iterator = client.subscribe("room:1", { query: { text: "x".repeat(500) } })[Symbol.asyncIterator]();
        await assert.rejects(iterator.next(), { code });
        const told = await new Promise((resolve) =>
          client.subscribe("room:1", { query: { text: "é".repeat(240) }, onError: resolve })
        );
        assert.equal((told as { code: string }).code, code);
        // The rest of the message takes 35 bytes.
        const text = "é".repeat(220);
        assert.equal(await client.request("n", { n: 2, text }), 2);
        const { handled, closes } = await read();
        assert.deepEqual([handled, closes], [[2], []]);
      },
    );

    it("loses nothing without an error, whatever the limits and the outages", { timeout: 300_000 }, async (t) => {
      const random = new Random();
      t.diagnostic(`SEED=${random.seed}`);
      for (let run = 0; run < 8; run++) {
        const burst = random.pick([10, 50, 2_000]);
        const maxPayload = random.pick([300, 1_000, 65_536]);
        const pacing: Pacing = {
          maxPipelined: random.pick([0, 1, 2, 5, 64]),
          maxPayload,
          rateLimit: random.below(3) === 0
            ? false
            : { burst, messages: random.pick([200, 1_000]), burstBytes: random.pick([2 * maxPayload, 2 ** 23]) },
          hold: random.pick([0, 1, 3]),
        };
        await using paced = await pace(pacing, { outbox: { maxMessages: 60 } });
        const { client, proxy, errors, read } = paced;
        const outcomes = new Map<number, string>();
        const rooms = new Set<unknown>();
        let n = 0;
        for (const round of [0, 1, 2]) {
          const isOffline = random.below(3) > 0;
          if (isOffline) {
            proxy.isDown = true;
            proxy.cut();
          }
          if (round > 0 && isOffline) {
            await new Promise((resolve) => client.status === "waiting" ? resolve(0) : client.on("reconnecting", resolve));
          }
          const work: Promise<unknown>[] = [];
          for (let count = random.below(70); count > 0; count--) {
            const id = n++;
            const text = "x".repeat(random.pick([0, 10, 100, 400]));
            const promise = random.below(2) === 0
              ? client.send({ type: "n", n: id, text })
              : client.request("n", { n: id, text }, { idempotent: true });
            work.push(promise.then(() => outcomes.set(id, "done"), ({ code }) => outcomes.set(id, code)));
          }
          for (let count = random.below(12); count > 0; count--) {
            client.subscribe(`room:${n++}`, { onInit: ({ data }) => rooms.add(data), onError: ({ code }) => rooms.add(code) });
          }
          await new Promise((resolve) => setTimeout(resolve, random.pick([0, 30, 100])));
          proxy.isDown = false;
          // Waits before the next disconnect, which may lose what has been handed to the connection.
          await Promise.all(work);
          await client.request("n", { n: -1 });
        }
        const { handled, closes, limited } = await read();
        const message = JSON.stringify({ seed: random.seed, run, pacing, closes, limited, errors: errors.map(String) });
        assert.deepEqual(closes.filter((code) => code !== 1006), [], message);
        assert.ok(!errors.some((error) => (error as { code: string }).code === "REQUESTS_EXCEEDED"), message);
        assert.equal(client.status, "open", message);
        const all = new Set(handled);
        for (const [id, outcome] of outcomes) {
          if (outcome === "done") assert.ok(all.has(id), `${id} is lost: ${message}`);
          else assert.match(outcome, /^(OUTBOX_FULL|MESSAGE_TOO_BIG)$/, message);
        }
      }
    });

    it("has all its requests handled once when another client uses up their shared limit", { timeout: 300_000 }, async () => {
      await using paced = await pace({ hold: 0, rateLimit: { burst: 20, messages: 5 } });
      const { client, errors, read, id } = paced;
      // The answer announces how much of the limit is left. The other client uses that up next.
      assert.equal(await client.request("n", { n: 0 }), 0);
      const other = await Wire.open(server.port, `/${id}`);
      for (const n of numbers(30)) other.send({ type: "n", n: -1 - n, uid: n });
      for (let left = 30; left > 0; left--) await other.next();
      const init = new Promise((resolve) => client.subscribe("room:1", { onInit: ({ data }) => resolve(data) }));
      const ns = numbers(10).map((n) => n + 1);
      assert.deepEqual(await Promise.all(ns.map((n) => client.request("n", { n }))), ns);
      assert.equal(await init, "room:1");
      other.reset();
      const { handled, limited } = await read();
      assert.deepEqual(handled.filter((n) => n >= 0).sort((a, b) => a - b), [0, ...ns]);
      assert.ok(limited > 0);
      assert.deepEqual(errors.filter((error) => (error as { code: string }).code !== "REQUESTS_EXCEEDED"), []);
      assert.equal(client.status, "open");
    });

    it("is held back when it ignores the limits, or closed with 4529", { timeout: 300_000 }, async () => {
      const id = await post("/make", { hold: 1, maxPipelined: 4, maxPayload: 1_000 }) as number;
      const wire = await Wire.open(server.port, `/${id}`);
      for (const n of numbers(2_000)) wire.send({ type: "n", n, uid: n, text: "x".repeat(200) });
      if (runtime === "bun") return assert.equal((await wire.closed).code, 4529);
      for (const n of numbers(2_000)) assert.equal((await wire.next()).data, n);
      wire.reset();
    });
  });
}
