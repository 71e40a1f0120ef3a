/** Has a process of its own: it replaces properties of globalThis. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { WebSocketController } from "../../mod.ts";
import * as v from "valibot";
import { testkit } from "../../src/testing/testkit.ts";
import { createChat } from "./chat.ts";

const real = {
  setTimeout,
  setInterval,
  clearTimeout,
  clearInterval,
  Date,
  random: Math.random,
  uuid: crypto.randomUUID,
  now: performance.now,
};
const current = () => ({
  ...{ setTimeout, setInterval, clearTimeout, clearInterval, Date },
  ...{ random: Math.random, uuid: crypto.randomUUID, now: performance.now },
});

describe("testkit, with globals", () => {
  it("replaces timers and dates of handlers, and puts them back", async () => {
    const controller = new WebSocketController();
    controller.handle("later", v.object({}), async () => {
      const start = new Date();
      await new Promise((resolve) => setTimeout(resolve, 5_000));
      return [Date.now() - start.getTime(), start instanceof Date, new Date(0).toISOString()];
    });
    const t = testkit(controller, { globals: true });
    const client = await t.connect();
    const reply = client.request("later");
    await t.advance(5_000);
    assert.deepEqual(await reply, [5_000, true, "1970-01-01T00:00:00.000Z"]);
    assert.equal(Date.now(), t.now);
    await t.close();
    assert.deepEqual(current(), real);
  });

  it("fires an interval until it is cleared, and fails to close while it is not", async () => {
    const t = testkit(createChat().app, { globals: true });
    let count = 0;
    const interval = setInterval(() => count++, 1_000);
    const cleared = setTimeout(() => count += 100, 500);
    clearTimeout(cleared);
    await t.advance(3_000);
    assert.equal(count, 3);
    await assert.rejects(t.close(), /a timer of the app, due in 1000 ms \(.*globals\.test/s);
    clearInterval(interval);
    assert.deepEqual(current(), real);
  });

  it("draws the same random numbers for the same seed", async () => {
    const draw = async (seed: number) => {
      const t = testkit(createChat().app, { globals: true, seed });
      const drawn = [Math.random(), crypto.randomUUID()];
      await t.close();
      return drawn;
    };
    assert.deepEqual(await draw(1), await draw(1));
    assert.notDeepEqual(await draw(1), await draw(2));
    assert.match(String((await draw(3))[1]), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it("belongs to one kit at a time", async () => {
    const t = testkit(createChat().app, { globals: true });
    assert.throws(() => testkit(createChat().app, { globals: true }), /another test kit has, close it first/);
    await t.close();
    assert.equal(globalThis.setTimeout, real.setTimeout);
  });
});
