import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { testkit } from "../../src/testing/testkit.ts";
import { VirtualNodes } from "./virtual-nodes.ts";

/** A cluster of three nodes. Each client is admitted as the user that it names. */
function cluster() {
  const controllers: WebSocketController[] = [];
  const kit = testkit((node) => {
    const controller = controllers[node] = new WebSocketController({
      mode: "public",
      logger: false,
      timeout: 100,
      authenticate: (credentials) =>
        "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
    });
    return new Hono().get("/websocket", controller.upgrade);
  }, { nodes: 3 });
  return { kit, controllers };
}

/** Starts node 1 while node 0 is away for less than its engine's timeout: node 0 notices nothing, and reads no orders afterwards. */
async function startUnseen({ kit, controllers }: ReturnType<typeof cluster>): Promise<WebSocketController> {
  kit.kill(1);
  kit.partition([2], [0]);
  kit.start(1);
  // It waits a second for the answer of node 0.
  await kit.advance(1_200);
  return controllers[1]!; // Just started.
}

describe("An order", () => {
  // Found by the simulation, seed 3.
  it("reaches a node that was disconnected while its sender started", async () => {
    const nodes = cluster();
    const { kit } = nodes;
    const alice = await kit.socket({ node: 0, path: "/websocket?access_token=alice" });
    const sender = await startUnseen(nodes);
    void sender.disconnect({ user: "alice" });
    await kit.advance(300);
    kit.heal();
    await kit.advance(1_000);
    assert.equal(alice.readyState, 3);
    await kit.close();
  });

  it("of an unknown node ends no connection that was opened later", async () => {
    const nodes = cluster();
    const { kit } = nodes;
    const sender = await startUnseen(nodes);
    void sender.disconnect({ user: "alice" });
    await kit.advance(300);
    const alice = await kit.socket({ node: 0, path: "/websocket?access_token=alice" });
    kit.heal();
    await kit.advance(1_000);
    assert.equal(alice.readyState, 1);
    await kit.close();
  });

  // The first was found by the simulation, seed 1000096 with 2 nodes and 4 clients.
  const LATE = {
    "a long lease": { lease: 360_000, checkInterval: 180_000, timeout: 5_000 },
    "a long timeout": { timeout: 300_000 },
  };
  for (const [title, options] of Object.entries(LATE)) {
    it(`reaches a node that notices its disconnect only after minutes because of ${title}`, async () => {
      const nodes = new VirtualNodes({ secret: "a secret of the tests", ...options });
      const [cut, sender] = [await nodes.start(0), await nodes.start(1)];
      nodes.broker.cut(0);
      await nodes.advance(1_000);
      await nodes.during(sender.engine.order("an order"), 1_000);
      while (cut.engine.status !== "unavailable") await nodes.advance(10_000);
      nodes.broker.restore(0);
      await nodes.advance(10_000);
      assert.deepEqual(cut.host.messages, ["an order"]);
      await nodes.close();
    });
  }
});
