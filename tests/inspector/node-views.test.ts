import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type NodeView, takeSnapshot } from "../../src/inspector/page/node-views.ts";
import type { Snapshot } from "../../src/inspector/shown.ts";

const snapshotOf = (node: string, seq: number, at: number, sent = 0) =>
  ({ node, seq, at, sent, received: 0, published: 0, stats: { opened: 0, closed: 0 } }) as Snapshot; // What is read of it.

describe("takeSnapshot", () => {
  it("goes on when the clock of a node steps back", () => {
    const nodes = new Map<string, NodeView>();
    takeSnapshot(nodes, snapshotOf("a", 1, 100_000), 0);
    takeSnapshot(nodes, snapshotOf("b", 1, 100_000), 0);
    for (let second = 1; second <= 6; second++) {
      takeSnapshot(nodes, snapshotOf("a", 1 + second, 1_000 * second, 10 * second), 1_000 * second);
    }
    assert.equal(nodes.get("a")!.snapshot.sent, 60);
    assert.equal(nodes.get("a")!.rates.sent, 10);
    assert.deepEqual([...nodes.keys()], ["a"], "a node that says nothing is removed");
  });

  it("takes a snapshot once, and none that is older", () => {
    const nodes = new Map<string, NodeView>();
    takeSnapshot(nodes, snapshotOf("a", 1, 1_000, 1), 0);
    takeSnapshot(nodes, snapshotOf("a", 2, 2_000, 5), 1_000);
    takeSnapshot(nodes, snapshotOf("a", 1, 1_000, 1), 1_100);
    takeSnapshot(nodes, snapshotOf("a", 2, 2_000, 5), 1_200);
    const { snapshot, rates, seenAt } = nodes.get("a")!;
    assert.deepEqual([snapshot.seq, rates.sent, seenAt], [2, 4, 1_000]);
  });
});
