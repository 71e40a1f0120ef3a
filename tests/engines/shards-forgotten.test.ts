/** What a home object keeps of a relay that it has removed, and of one that was closed and started again. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HomeEngine } from "../../src/engines/shards/home-engine.ts";
import type { RelayEngine } from "../../src/engines/shards/relay-engine.ts";
import { Stall } from "../support/waiting.ts";
import { HOME, ShardedObjects } from "./sharded-objects.ts";
import { noSqlite } from "./sqlite.ts";

/** A home object and its relays. */
class Objects extends ShardedObjects {
  readonly #home = this.start(HOME);
  readonly home = this.#home.engine as HomeEngine;
  readonly homeNode: string = this.#home.host.node;

  /** A new relay that the home object lists, or the one of this name. */
  async relay(name?: string) {
    const { engine, ...relay } = this.start(name);
    const listed = { ...relay, engine: engine as RelayEngine };
    await listed.engine.register();
    return listed;
  }

  /** Closes a relay whose last call reaches no home object. */
  async loseEnd({ name, engine }: { name: string; engine: RelayEngine }): Promise<void> {
    this.onCall = (called, phase) => {
      if (called === HOME && phase === "before") throw new Error("Away");
    };
    this.connect(name, false);
    await engine.close();
    this.onCall = () => {};
  }

  /** Lets the home object receive the calls with this operation only after the returned promise was resolved. */
  stall(operation: string): Stall {
    const stall = new Stall();
    const receive = this.home.receive.bind(this.home);
    this.home.receive = async (call) => {
      if (call.operations.some(({ type }) => type === operation)) await stall.promise;
      return await receive(call);
    };
    return stall;
  }
}

async function withObjects(test: (objects: Objects) => Promise<void>): Promise<void> {
  const objects = new Objects();
  try {
    await test(objects);
  } finally {
    objects.stop();
  }
}

describe("HomeEngine", { skip: noSqlite, timeout: 600_000 }, () => {
  it("sends a message to all relays when the relay of its node was removed, even if two queries find that relay idle", () =>
    withObjects(async (objects) => {
      const [idle, other] = [await objects.relay(), await objects.relay()];
      objects.connect(idle.name, false);
      await Promise.all([objects.home.nodes(), objects.home.nodes()]);
      assert.deepEqual(objects.home.relays, [other.name]);
      await objects.home.send("to the node of the idle relay", idle.host.node);
      await objects.home.send("to all");
      await other.host.until(() => other.host.messages.includes("to all"));
      assert.deepEqual(other.host.messages, ["to the node of the idle relay", "to all"]);
    }));

  it("keeps the subscriptions of a relay that was started again before the end of the one before arrives", () =>
    withObjects(async (objects) => {
      const before = await objects.relay();
      await before.engine.subscribe("room", null);
      const stall = objects.stall("close");
      const closed = before.engine.close();
      objects.evict(before.name);
      const after = await objects.relay(before.name);
      await after.engine.subscribe("room", null);
      stall.resolve();
      await closed;
      assert.deepEqual(objects.home.relays, [after.name]);
      objects.home.publish("room", { event: "say", data: "1" }, null);
      await after.host.until(() => after.host.publications("room").length === 1);
      assert.deepEqual((await objects.home.nodes()).sort(), [objects.homeNode, after.host.node].sort());
    }));

  it("removes a relay whose end did not arrive, as soon as it finds the relay idle", async () => {
    for (const isRestarted of [false, true]) {
      await withObjects(async (objects) => {
        const relay = await objects.relay();
        await objects.loseEnd(relay);
        if (isRestarted) objects.restart(relay.name);
        assert.deepEqual(await objects.home.nodes(), [objects.homeNode]);
        assert.deepEqual(objects.home.relays, []);
      });
    }
  });

  it("keeps a relay that registers again while it is being found idle", () =>
    withObjects(async (objects) => {
      const { name, ...before } = await objects.relay();
      await objects.loseEnd({ name, ...before });
      objects.restart(name);
      const engine = objects.start(name).engine as RelayEngine;
      objects.connect(name, false);
      const receive = engine.receive.bind(engine);
      engine.receive = async (call) => {
        const answer = await receive(call);
        objects.connect(name, true);
        await engine.register();
        return answer;
      };
      await objects.home.nodes();
      assert.deepEqual(objects.home.relays, [name]);
    }));

  it("removes a relay that was started again and closed", () =>
    withObjects(async (objects) => {
      const before = await objects.relay();
      await before.engine.close();
      objects.evict(before.name);
      const after = await objects.relay(before.name);
      assert.deepEqual(objects.home.relays, [after.name]);
      await after.engine.close();
      assert.deepEqual(objects.home.relays, []);
    }));
});
