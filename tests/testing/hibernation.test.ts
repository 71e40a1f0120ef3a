import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { answerOnce } from "../../src/once/once.ts";
import { type ScheduledCall, Schedules } from "../../src/serve/schedules.ts";
import { testkit } from "../../src/testing/testkit.ts";
import { noSqlite } from "../engines/sqlite.ts";
import { createChat, received } from "./chat.ts";

describe("testkit, hibernation", { skip: noSqlite }, () => {
  it("keeps clients, their subscriptions and the history over it", async () => {
    const chats: ReturnType<typeof createChat>[] = [];
    const build = () => {
      const chat = createChat(() => t.now);
      chats.push(chat);
      return chat;
    };
    const t = testkit(build, { hibernates: true });
    const alice = await t.connect({ token: "alice" });
    const bob = await t.connect({ token: "bob" });
    const items = received(alice.subscribe("room:1"));
    await t.advance(0);
    t.hibernate();
    await bob.request("say", { text: "hi" });
    await t.advance(0);
    assert.equal(chats.length, 2);
    assert.deepEqual(items.map(({ data }) => data), [undefined, { by: "bob", text: "hi" }]);
    assert.equal(chats[1]!.controller.clients().size, 2);
    t.hibernate();
    assert.equal(await (await t.connect({ token: "carol" })).request("who"), "carol");
    assert.equal(chats[2]!.controller.clients().size, 3);
    t.hibernate();
    await bob.close();
    assert.equal(chats[3]!.controller.clients().size, 2);
    await t.close();
  });

  it("starts a subscription that waited for its client to read when the object hibernated", async () => {
    const chats: ReturnType<typeof createChat>[] = [];
    const t = testkit(() => {
      const chat = createChat(() => t.now, { maxBufferedBytes: 8_192 });
      chats.push(chat);
      return chat;
    }, { hibernates: true });
    const alice = await t.connect({ token: "alice" });
    received(alice.subscribe("room:1"));
    await t.advance(0);
    t.stall(alice);
    // More than half of what may wait for it.
    for (let number = 0; number < 6; number++) await chats[0]!.channels.publish("room:1", "said", "x".repeat(1_000));
    const items = received(alice.subscribe("room:2"));
    await t.advance(100);
    assert.deepEqual(chats[0]!.channels.stats("room:2").subscriptions, 1);
    t.hibernate();
    t.unstall(alice);
    await t.advance(1_000);
    assert.equal(chats.length, 2);
    assert.deepEqual(items.map(({ event }) => event), ["init"]);
    await chats[1]!.channels.publish("room:2", "said", "hi");
    await t.advance(0);
    assert.deepEqual(items.map(({ event, data }) => [event, data]), [["init", undefined], ["said", "hi"]]);
    await t.close();
  });

  it("calls what is scheduled, and wakes for it", async () => {
    const calls: string[] = [];
    const built: Schedules<{ note: string }>[] = [];
    const t = testkit(() => {
      const schedules = new Schedules({ note: ({ payload }: ScheduledCall<string>) => calls.push(`${payload} ${t.now}`) });
      built.push(schedules);
      return { ...createChat(() => t.now), schedules };
    }, { hibernates: true });
    const now = t.now;
    await built[0]!.schedule(60_000, "note", "a minute");
    t.hibernate();
    await t.advance(59_000);
    assert.equal(built.length, 1);
    await t.advance(2_000);
    assert.deepEqual([built.length, calls], [2, [`a minute ${now + 60_000}`]]);
    await t.close();
  });

  it("wakes for a deadline", async () => {
    let built = 0;
    const t = testkit(() => {
      built++;
      return createChat(() => t.now);
    }, { hibernates: true });
    const guest = await t.connect({ token: "guest", heartbeat: 0, reconnect: false });
    await t.advance(20_000);
    t.hibernate();
    await t.advance(39_000);
    assert.deepEqual([built, guest.status], [1, "open"]);
    await t.advance(2_000);
    assert.equal(built, 2);
    assert.equal(guest.error?.code, "TOKEN_EXPIRED");
    await t.close();
  });

  for (const how of ["stop", "kill"] as const) {
    it(`keeps the storage of an object over ${how}, as a deploy and a crash do`, async () => {
      let paid = 0;
      const chats: ReturnType<typeof createChat>[] = [];
      const calls: string[] = [];
      const built: Schedules<{ note: string }>[] = [];
      const t = testkit(() => {
        const chat = createChat(() => t.now, { once: answerOnce() });
        chat.controller.handle("pay", v.object({}), () => ++paid);
        const schedules = new Schedules({ note: ({ payload }: ScheduledCall<string>) => calls.push(payload) });
        chats.push(chat);
        built.push(schedules);
        return { ...chat, schedules };
      }, { hibernates: true });
      const alice = await t.connect({ token: "alice" });
      let begun = 0;
      alice.subscribe("room:1", { onInit: () => begun++ });
      const position = await alice.publish("room:1", "said", 1, { id: "x" });
      const pay = async () => {
        const socket = await t.socket();
        await socket.ask({ type: "auth", access_token: "alice" });
        return (await socket.ask({ type: "pay", uid: "1.once" }))["data"];
      };
      assert.equal(await pay(), 1);
      await built[0]!.schedule(60_000, "note", "a minute");
      await t[how](0);
      t.start(0);
      await t.advance(10_000);
      assert.deepEqual([alice.status, begun], ["open", 1]); // Recovered: it has not begun again.
      assert.deepEqual(await alice.publish("room:1", "said", 1, { id: "x" }), position);
      assert.equal((await chats[1]!.channels.history("room:1")).publications.length, 1);
      assert.equal(await pay(), 1);
      await t.advance(60_000);
      assert.deepEqual(calls, ["a minute"]);
      await t.close();
    });
  }
});
