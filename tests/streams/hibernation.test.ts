import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController } from "../../mod.ts";
import type { ClientStream } from "../../src/client/streams.ts";
import { testkit } from "../../src/testing/testkit.ts";
import { noSqlite } from "../engines/sqlite.ts";

describe("A stream whose Durable Object is evicted", { skip: noSqlite }, () => {
  function create() {
    return testkit(() => {
      const controller = new WebSocketController({
        logger: false,
        authenticate: () => ({ accountability: { user: "ann", role: null }, expires_at: null }),
      });
      const steps = async function* () {
        yield 1;
        yield 2;
        await new Promise(() => {});
      };
      controller.handle("plain", v.object({}), steps);
      controller.handle("lasting", v.object({}), steps, { resumable: true });
      const Numbers = { stream: { input: v.number() } };
      controller.handle("sum", Numbers, async ({ input }) => {
        let sum = 0;
        for await (const item of input) sum += item;
        return sum;
      });
      controller.handle("echo", Numbers, async function* ({ input }) {
        for await (const item of input) yield item;
        return undefined;
      });
      return { app: new Hono().get("/websocket", controller.upgrade), controller };
    }, { hibernates: true });
  }

  it("ends: a plain one with DISCONNECTED, a resumable one with STREAM_LOST after what was kept", async () => {
    const t = create();
    const client = await t.connect({ token: "ann" });
    const read = async (stream: ClientStream) => {
      const items: unknown[] = [];
      try {
        for await (const item of stream) items.push(item);
      } catch (error) {
        return [items, (error as { code: string }).code];
      }
      return items;
    };
    const [plain, lasting] = [client.stream("plain"), client.stream("lasting")];
    const seen = [read(plain), read(lasting)];
    await t.advance(0);
    const id = (await lasting.id)!;
    t.hibernate();
    await client.send({ type: "wakes it" });
    await t.advance(1_000);
    assert.deepEqual(await Promise.all(seen), [[[1, 2], "DISCONNECTED"], [[1, 2], "STREAM_LOST"]]);
    const late = read(client.attach(id, { after: 1 }));
    await t.advance(1_000);
    assert.deepEqual(await late, [[2], "STREAM_LOST"]);
    t.hibernate();
    await client.send({ type: "wakes it" });
    await t.advance(1_000);
    await t.close();
  });

  it("ends a request with input with DISCONNECTED, whether it is answered in parts or at once", async () => {
    const t = create();
    const client = await t.connect({ token: "ann" });
    async function* numbers() {
      yield 1;
      await new Promise(() => {});
    }
    const streams = ["sum", "echo"].map((type) => client.stream(type, {}, { input: numbers() }));
    const ends = streams.map((stream) => stream.result.catch(({ code }) => code));
    const [, echoed] = streams.map((stream) => stream[Symbol.asyncIterator]());
    assert.deepEqual(await echoed!.next(), { done: false, value: 1 });
    t.hibernate();
    await client.send({ type: "wakes it" });
    await t.advance(1_000);
    assert.deepEqual(await Promise.race([Promise.all(ends), t.advance(60_000)]), ["DISCONNECTED", "DISCONNECTED"]);
    await assert.rejects(echoed!.next(), { code: "DISCONNECTED" });
    // A request that is answered leaves no mark behind.
    const answered = client.stream("sum", {}, {
      input: (async function* () {
        yield 2;
        yield 3;
      })(),
    });
    assert.equal(await answered.result, 5);
    await t.close();
  });

  it("ends with DISCONNECTED, although the credentials of its client have expired meanwhile", async () => {
    const t = testkit(() => {
      const controller = new WebSocketController({
        logger: false,
        authenticate: () => ({ accountability: { user: "ann", role: null }, expires_at: Date.now() / 1000 + 60 }),
      });
      controller.handle("plain", v.object({}), async function* () {
        yield 1;
        await new Promise(() => {});
      });
      return { app: new Hono().get("/websocket", controller.upgrade), controller };
    }, { hibernates: true });
    const socket = await t.socket({ path: "/websocket?access_token=ann" });
    assert.equal((await socket.ask({ type: "plain", uid: 1 }))["data"], 1);
    await t.advance(61_000);
    assert.equal((await socket.next())["type"], "auth");
    t.hibernate();
    socket.send({ type: "wakes it", uid: 2 });
    await t.advance(1_000);
    const answers = await Promise.all([socket.next(), socket.next()]);
    assert.deepEqual(answers.map(({ uid, ...rest }) => [uid, (rest["error"] as { code: string }).code]), [
      [1, "DISCONNECTED"],
      [2, "TOKEN_EXPIRED"],
    ]);
    await t.close();
  });
});
