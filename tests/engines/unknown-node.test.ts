import assert from "node:assert/strict";
import { it } from "node:test";
import { VirtualNodes } from "./virtual-nodes.ts";

const HISTORY = { size: 100, ttl: 3_600_000 };

// Found by the simulation, seed 1000121 with 2 nodes and 4 clients.
it("a publication of a node that is not known yet is read from the history at once, not by the next check", async () => {
  const nodes = new VirtualNodes({ secret: "a secret of the tests", lease: 360_000, checkInterval: 180_000, timeout: 60_000 });
  const old = await nodes.start(0);
  await nodes.during(old.engine.subscribe("room", HISTORY), 1_000);
  nodes.broker.cut(0);
  // Its greeting waits behind the cut, and the publication arrives right after it.
  const young = await nodes.start(1);
  await nodes.during(young.engine.publish("room", { event: "say", data: "1" }, HISTORY), 1_000);
  nodes.broker.restore(0);
  await nodes.advance(3_000);
  assert.deepEqual([old.engine.dropped, old.host.data("room"), old.host.gaps], [{ "unknown node": 1 }, [1], []]);
  await nodes.close();
});
