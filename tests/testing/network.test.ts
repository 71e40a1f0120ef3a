import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { testkit } from "../../src/testing/testkit.ts";
import { createChat, received } from "./chat.ts";

describe("testkit, the network", () => {
  it("cuts a client, which comes back and recovers what it missed", async () => {
    const { app, channels, controller } = createChat();
    const t = testkit(app);
    const causes: string[] = [];
    controller.on("close", ({ cause }) => causes.push(cause));
    const alice = await t.connect({ token: "alice" });
    const items = received(alice.subscribe("room:1"));
    await t.advance(0);
    t.cut(alice);
    await channels.publish("room:1", "said", 1);
    await t.advance(0);
    assert.equal(alice.status, "waiting");
    assert.deepEqual(causes, ["error"]);
    await t.advance(500);
    assert.equal(alice.status, "open");
    assert.deepEqual(items.map(({ data }) => data), [undefined, 1]);
    await t.close();
  });

  it("lets both ends find out that a connection is lost", async () => {
    const { app, controller } = createChat();
    const t = testkit(app);
    const causes: string[] = [];
    controller.on("close", ({ cause }) => causes.push(cause));
    const alice = await t.connect({ token: "alice" });
    const closes: number[] = [];
    alice.on("close", ({ code }) => closes.push(code));
    t.cut(alice, { silent: true });
    await t.advance(20_000);
    assert.deepEqual([causes, closes], [[], []]);
    await t.advance(25_000);
    assert.deepEqual([causes, closes], [["heartbeat"], [1006]]);
    await t.close();
  });

  it("stalls a client, whose requests arrive, until it is too slow", async () => {
    const { app, controller } = createChat(undefined, { maxBufferedBytes: 1_000 });
    const t = testkit(app);
    const [alice, bob] = [await t.connect({ token: "alice" }), await t.connect({ token: "bob" })];
    const causes: string[] = [];
    controller.on("close", ({ cause, client }) => causes.push(`${client.accountability.user} ${cause}`));
    const heard: unknown[] = [];
    bob.on("message", ({ message }) => heard.push(message["n"]));
    t.stall(alice);
    let isAnswered = false;
    const asked = alice.request("who").finally(() => isAnswered = true);
    await t.advance(0);
    assert.equal(isAnswered, false);
    t.unstall(alice);
    assert.equal(await asked, "alice");
    t.stall(alice);
    for (let n = 0; n < 30; n++) await controller.broadcast({ type: "news", n, text: "x".repeat(100) });
    await t.advance(1_000);
    assert.deepEqual(causes, ["alice slow"]);
    assert.deepEqual(heard, Array.from({ length: 30 }, (_, n) => n));
    await t.close();
  });

  it("reports to a slow consumer how much it missed once it reads again", async () => {
    const { app, controller } = createChat(undefined, { maxBufferedBytes: 1_000, slowConsumer: "drop" });
    const t = testkit(app);
    const alice = await t.connect({ token: "alice" });
    const errors: unknown[] = [];
    alice.on("error", ({ error }) => errors.push((error as { code?: string }).code));
    t.stall(alice);
    for (let n = 0; n < 30; n++) await controller.broadcast({ type: "news", n, text: "x".repeat(100) });
    t.unstall(alice);
    await t.advance(1_000);
    assert.deepEqual(errors, ["MESSAGES_DROPPED"]);
    await t.close();
  });

  it("says whom it cannot cut or stall", async () => {
    const t = testkit(createChat().app);
    const alice = await t.connect({ token: "alice" });
    await alice.close();
    assert.throws(() => t.cut(alice), /Cannot cut the client: it is not connected/);
    assert.throws(() => t.stall(alice), /Cannot stall the client: it is not connected/);
    assert.throws(() => t.partition([0]), /there is one only/);
    await t.close();
  });
});
