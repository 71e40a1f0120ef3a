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
    assert.throws(() => testkit(createChat().app, { globals: true }), /another test kit has, close it first/);
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
