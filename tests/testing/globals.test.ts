/** Has a process of its own: it replaces properties of globalThis. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createNoopMeter } from "@opentelemetry/api";
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { inspector } from "../../src/inspector/inspector.ts";
import { observe } from "../../src/otel/otel.ts";
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

  it("takes a delay as the runtimes do: a text of digits, and what is no number as none", async () => {
    const t = testkit(createChat().app, { globals: true });
    await t.advance(5);
    const start = Date.now();
    const fired: unknown[] = [];
    const later = (delay: unknown) => setTimeout(() => fired.push([delay, Date.now() - start]), delay as number);
    for (const delay of ["100", "soon", null, undefined, Number.NaN, -1]) later(delay);
    let count = 0;
    const interval = setInterval(() => count++, "soon" as never);
    await t.advance(100);
    clearInterval(interval);
    assert.deepEqual(fired, [["soon", 0], [null, 0], [undefined, 0], [Number.NaN, 0], [-1, 0], ["100", 100]]);
    assert.equal(count, 100);
    await t.close();
  });

  it("clears timers that were set before it, and no others", async () => {
    const fired: string[] = [];
    const early = setTimeout(() => fired.push("early"), 2 ** 30);
    const t = testkit(createChat().app, { globals: true });
    // Their numbers would reach that of the early one.
    const timers = Array.from({ length: 3 + Number(early) % 5_000 }, () => setTimeout(() => fired.push("kit's"), 10));
    const cleared: unknown[] = [];
    await t.close().catch(() => {}); // They are left.
    const clear = globalThis.clearTimeout;
    globalThis.clearTimeout = (handle) => void cleared.push(handle);
    try {
      const next = testkit(createChat().app, { globals: true });
      const own = setTimeout(() => fired.push("own"), 10);
      clearTimeout(early);
      clearTimeout(timers[0]); // Of the kit before.
      clearTimeout(Number(timers[1]));
      clearTimeout(undefined);
      await next.advance(10);
      clearTimeout(own); // It has fired.
      await next.close();
    } finally {
      globalThis.clearTimeout = clear;
      clear(early);
    }
    assert.deepEqual(fired, ["own"]);
    assert.equal(cleared[0], early);
  });

  it("keeps the number of an interval while it repeats", async () => {
    const t = testkit(createChat().app, { globals: true });
    let count = 0;
    const number = Number(setInterval(() => count++, 10));
    await t.advance(20);
    clearInterval(number);
    await t.advance(100);
    assert.equal(count, 2);
    await t.close();
  });

  it("lets a timer be left for which the process does not go on", async () => {
    const t = testkit(createChat().app, { globals: true });
    // Deno's own type is a number.
    const interval = setInterval(() => {}, 1_000) as unknown as { ref(): unknown; unref(): { hasRef(): boolean } };
    assert.equal(interval.unref().hasRef(), false);
    await t.close();
    const next = testkit(createChat().app, { globals: true });
    (setInterval(() => {}, 1_000) as unknown as typeof interval).unref();
    (setInterval(() => {}, 2_000) as unknown as { unref(): typeof interval }).unref().ref();
    await assert.rejects(next.close(), /^Error: The test has left a timer of the app, due in 2000 ms \(.*globals\.test[^,]*$/s);
  });

  it("closes with an app that is observed, and while its inspector is open", async () => {
    const t = testkit(() => {
      const controller = new WebSocketController({ mode: "public", logger: false });
      observe(controller, { meter: createNoopMeter(), tracer: false });
      const app = new Hono().get("/websocket", controller.upgrade);
      app.route("/inspector", inspector(controller, { authorize: () => true }));
      return { app, controller };
    }, { globals: true });
    await t.socket({ path: "/websocket" });
    const page = await t.socket({ path: "/inspector/live" });
    await t.advance(2_000);
    await t.close();
    assert.notEqual(page.readyState, 1);
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
    const second = () => testkit(createChat().app, { globals: true });
    // It says where the first was made: a test that failed before it closed its kit.
    assert.throws(second, /another test kit has, close it first \(.*globals\.test/);
    await t.close();
    assert.equal(globalThis.setTimeout, real.setTimeout);
  });

  it("renews an expired token and recovers a subscription, and prints how long that takes", async () => {
    for (let count = 0; count < 3; count++) {
      const start = real.now.call(performance);
      const { app, channels } = createChat(undefined, {
        authenticate: (credentials) => {
          const user = "access_token" in credentials ? credentials.access_token : null;
          return { accountability: { user, role: null }, expires_at: Date.now() / 1_000 + 900 };
        },
      });
      const t = testkit(app, { globals: true });
      let tokens = 0;
      const alice = await t.connect({
        token: () => {
          tokens++;
          return "alice";
        },
      });
      const heard: unknown[] = [];
      alice.subscribe("room:1", { onEvent: ({ data }) => heard.push(data) });
      await t.advance(900_000);
      assert.equal(tokens, 2);
      await channels.publish("room:1", "said", 1);
      await t.advance(0);
      t.cut(alice);
      await channels.publish("room:1", "said", 2);
      await t.advance(1_000);
      await channels.publish("room:1", "said", 3);
      await t.advance(0);
      await t.close();
      assert.deepEqual(heard, [1, 2, 3]);
      console.log(`15 virtual minutes took ${Math.round(real.now.call(performance) - start)} ms`); // No limit: the machine may be busy.
    }
  });
});
