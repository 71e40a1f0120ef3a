import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Channels } from "../../src/channels/channels.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { anybody, createChannels, kept } from "../support/channels-fixture.ts";
import { observe } from "../support/observed.ts";

const publish = (id: unknown, uid = 1, data: unknown = uid) => ({ type: "publish", channel: "a", event: "e", data, id, uid });

describe("Channels.publish with an id", () => {
  it("publishes once and resolves with the same position", async () => {
    const { channels, join } = createChannels({ a: kept, "b:*": anybody });
    const reader = join();
    await reader.ask({ type: "subscribe", channel: "a" }, { type: "subscribe", channel: "b:1" });
    const first = await channels.publish("a", "e", 1, { id: "x" });
    const other = await channels.publish("a", "e", 2, { id: "y" });
    assert.deepEqual(await channels.publish("a", "e", 3, { id: "x" }), first);
    assert.deepEqual(await channels.publish("a", "e", 4, { id: "y" }), other);
    assert.equal(await channels.publish("b:1", "e", 5, { id: "x" }), null);
    assert.equal(await channels.publish("b:1", "e", 6, { id: "x" }), null);
    assert.deepEqual((await reader.take()).map(({ data }) => data), [1, 2, 5]);
  });

  it("remembers the id for the window, and publishes it again after it", async () => {
    for (const [options, window] of [[{}, 300_000], [{ idWindow: 1_000 }, 1_000]] as const) {
      const { channels, clock } = createChannels({ a: kept }, options);
      const first = await channels.publish("a", "e", 1, { id: "x" });
      clock.advance(window - 1);
      assert.deepEqual(await channels.publish("a", "e", 1, { id: "x" }), first);
      clock.advance(1);
      assert.notDeepEqual(await channels.publish("a", "e", 1, { id: "x" }), first);
    }
  });

  it("throws for an id that is no string of 1 to 64 characters", () => {
    const { channels } = createChannels({ a: kept });
    for (const id of ["", "x".repeat(65), 1, null]) {
      assert.throws(() => channels.publish("a", "e", 1, { id: id as string }), /^TypeError: Cannot publish to "a": the id/);
    }
  });

  it("throws for a transaction that is undefined", () => {
    const { channels } = createChannels({ a: kept });
    assert.throws(() => channels.publish("a", "e", 1, { transaction: undefined }), /^TypeError: .* transaction is undefined/);
  });

  it("passes a transaction to an engine that has them, and throws with another", async () => {
    const passed: unknown[] = [];
    class Transactions extends MemoryEngine {
      readonly hasTransactions: boolean;

      constructor(hasTransactions: boolean) {
        super();
        this.hasTransactions = hasTransactions;
      }

      override publish(...args: unknown[]) {
        passed.push(args[4]);
        return super.publish(...args as Parameters<MemoryEngine["publish"]>);
      }
    }
    const transaction = { query: () => {} };
    const { channels } = createChannels({ a: kept }, { engine: new Transactions(true) });
    await channels.publish("a", "e", 1, { transaction });
    await channels.publish("a", "e", 2);
    assert.deepEqual(passed, [transaction, undefined]);
    for (const engine of [new Transactions(false), new MemoryEngine()]) {
      const { channels } = createChannels({ a: kept }, { engine });
      assert.throws(
        () => channels.publish("a", "e", 1, { transaction }),
        /^TypeError: .* pass the controller an engine of noroshi\/postgres/,
      );
    }
  });

  it("refuses a window and a limit that are out of range", () => {
    const { controller } = observe();
    for (const options of [{ idWindow: 0 }, { idWindow: Infinity }, { maxIdsPerUser: 0 }]) {
      assert.throws(() => new Channels(controller, { a: kept }, options), /^TypeError: Cannot create the channels: option/);
    }
  });
});

describe("A publish message with an id", () => {
  it("is published once for a user, whichever connection repeats it", async () => {
    const { channels, join } = createChannels({ a: kept });
    const [tab, other] = [join("mika"), join("mika")];
    const [ok] = await tab.ask(publish("x"));
    assert.equal(ok.status, "ok");
    assert.deepEqual(await other.ask(publish("x", 2)), [{ ...ok, uid: 2 }]);
    // Twice in one turn, too.
    const [first, second] = await tab.ask(publish("y", 3), publish("y", 4));
    assert.deepEqual({ ...first, uid: 0 }, { ...second, uid: 0 });
    assert.deepEqual((await channels.history("a")).publications.map(({ data }) => data), [1, 3]);
  });

  it("keeps the ids of users, of anonymous clients and of the server apart", async () => {
    const { channels, join } = createChannels({ a: kept });
    const peers = [join("mika"), join("yuki"), join('mika","x'), join()];
    for (const [number, peer] of peers.entries()) await peer.ask(publish("x", number));
    await channels.publish("a", "e", 4, { id: "x" });
    // Anonymous clients have one scope in common.
    await join().ask(publish("x", 5));
    assert.deepEqual((await channels.history("a")).publications.map(({ data }) => data), [0, 1, 2, 3, 4]);
  });

  it("is authorized each time", async () => {
    let isAllowed = true;
    const { join } = createChannels({ a: { ...kept, authorize: () => isAllowed } });
    const peer = join("mika");
    await peer.ask(publish("x"));
    isAllowed = false;
    assert.equal((await peer.ask(publish("x")))[0].error.code, "FORBIDDEN");
  });

  it("is refused when its id is no string of 1 to 64 characters", async () => {
    const { join } = createChannels({ a: kept });
    for (const id of ["", "x".repeat(65), 1, null, {}]) {
      const [{ error }] = await join().ask(publish(id));
      assert.deepEqual([error.code, error.path], ["INVALID_PAYLOAD", "id"]);
    }
  });

  it("is refused when the user has sent too many ids, until the window is over", async () => {
    const { join, clock } = createChannels({ a: kept }, { rateLimit: {}, maxIdsPerUser: 2, idWindow: 60_000 });
    const [tab, other, yuki] = [join("mika"), join("mika"), join("yuki")];
    assert.equal((await tab.ask(publish("1")))[0].status, "ok");
    clock.advance(10_000);
    assert.equal((await other.ask(publish("2")))[0].status, "ok");
    const [{ error }] = await tab.ask(publish("3"));
    assert.deepEqual([error.code, error.retry_after], ["REQUESTS_EXCEEDED", 50_000]);
    // A refusal would say that nothing was published.
    for (const id of ["1", "2", "1"]) assert.equal((await tab.ask(publish(id)))[0].status, "ok");
    assert.equal((await tab.ask(publish(undefined)))[0].status, "ok");
    assert.equal((await yuki.ask(publish("3")))[0].status, "ok");
    clock.advance(50_000);
    assert.equal((await tab.ask(publish("3")))[0].status, "ok");
  });
});
