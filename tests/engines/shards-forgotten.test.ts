/** What a home object keeps of a relay that it has removed. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HomeEngine } from "../../src/engines/shards/home-engine.ts";
import type { RelayEngine } from "../../src/engines/shards/relay-engine.ts";
import { HOME, ShardedObjects } from "./sharded-objects.ts";
import { noSqlite } from "./sqlite.ts";

/** A home object and its relays. */
class Objects extends ShardedObjects {
  readonly home = this.start(HOME).engine as HomeEngine;

  /** A new relay that the home object lists, or the one of this name. */
  async relay(name?: string) {
    const { engine, ...relay } = this.start(name);
    const listed = { ...relay, engine: engine as RelayEngine };
    await listed.engine.register();
    return listed;
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
});
