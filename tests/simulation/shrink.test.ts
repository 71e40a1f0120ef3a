import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FaultKind } from "./faults.ts";
import { kindOf, shrink, type Size } from "./shrink.ts";

const ALL: FaultKind[] = ["clocks", "order", "network", "node killed"];

/** A simulation that fails in a way of its own if the size is like this. */
const failingIf =
  (fails: (size: Size) => boolean, problem = (size: Size) => `c${size.seed} is at ${size.hours}`) => (size: Size) =>
    Promise.resolve({ problems: fails(size) ? [problem(size)] : [], hash: "", counts: { hours: size.hours } });

describe("shrink", () => {
  const size: Size = { seed: 3, hours: 10, nodes: 5, clients: 40 };

  it("leaves out what a failure does not need", async () => {
    const needs = ({ clients, nodes, hours, faults = ALL }: Size) =>
      clients >= 3 && nodes >= 2 && hours >= 1 && faults.includes("network") && faults.includes("order");
    const found: Size[] = [];
    const smallest = await shrink(failingIf(needs), size, ["c7 is at 1"], ALL, (smaller) => void found.push(smaller));
    assert.deepEqual(smallest, { seed: 3, hours: 1.25, nodes: 2, clients: 3, faults: ["order", "network"] });
    assert.deepEqual(found.at(-1), smallest);
  });

  it("tries other seeds, because a smaller size has another schedule", async () => {
    const simulate = failingIf(({ seed, clients }) => clients === 40 ? seed === 3 : clients >= 20 && seed === 6);
    const smallest = await shrink(simulate, size, ["c7 is at 1"], [], () => {});
    assert.deepEqual([smallest.clients, smallest.seed], [20, 6]);
  });

  it("takes no failure of another kind", async () => {
    const simulate = failingIf(() => true, ({ clients }) => clients === 40 ? "c1 is at 2" : "c1 lost its members");
    assert.equal((await shrink(simulate, size, ["c7 is at 1"], [], () => {})).clients, 40);
  });
});

describe("kindOf", () => {
  it("leaves out names and numbers", () => {
    assert.equal(
      kindOf("c7 is at 12 in n1.4 of log:3, which ends at 17 in n1.4"),
      kindOf("c1 is at 2 in n0.1 of log:0, which ends at 3 in n0.1"),
    );
    assert.notEqual(kindOf("c7 is at 12"), kindOf("c7 did not come back"));
  });
});
