import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Checker } from "./checker.ts";

const epoch = "e";

function create() {
  const checker = new Checker();
  const follower = checker.follow("a", "ann");
  for (const offset of [1, 2, 3, 4]) checker.published("a", { epoch, offset }, `p${offset}`);
  const event = (offset: number, id = `p${offset}`) => follower.event({ offset, data: { id } });
  return { checker, follower, event };
}

describe("Checker", () => {
  it("finds nothing wrong with what is as promised", () => {
    const { checker, follower, event } = create();
    follower.init({ epoch, offset: 0 }, undefined);
    event(1);
    event(2);
    follower.init({ epoch, offset: 2, recovered: true }, { epoch, offset: 2 });
    event(3);
    follower.init({ epoch, offset: 4, recovered: false }, { epoch, offset: 3 });
    assert.deepEqual(checker.problems(), []);
    assert.deepEqual(checker.counts, { published: 4, received: 3, begun: 1, recovered: 1, lost: 1 });
    assert.equal(checker.top("a", epoch), 4);
  });

  it("finds a gap, a repetition, another order, and another publication", () => {
    const faults: [string, (given: ReturnType<typeof create>) => void][] = [
      ["was not sent 2", ({ event }) => [1, 3].forEach((offset) => event(offset))],
      ["was sent 1 after 1", ({ event }) => [1, 1].forEach((offset) => event(offset))],
      ["was sent 1 after 2", ({ event }) => [2, 1].forEach((offset) => event(offset))],
      ["has p1 and other", ({ event }) => event(1, "other")],
    ];
    for (const [expected, run] of faults) {
      const given = create();
      given.follower.init({ epoch, offset: 0 }, undefined);
      run(given);
      assert.match(given.checker.problems().join(), new RegExp(expected));
    }
  });

  it("finds a recovery that leaves something out, or is of another place", () => {
    const faults: [string, Record<string, unknown>, number[]][] = [
      ["was not sent 3", { epoch, offset: 2, recovered: true }, [4]],
      ["not from where it asked", { epoch, offset: 3, recovered: true }, []],
      ["not from where it asked", { epoch: "f", offset: 2, recovered: true }, []],
      ["was not told", { epoch, offset: 2 }, []],
    ];
    for (const [expected, init, offsets] of faults) {
      const { checker, follower, event } = create();
      follower.init({ epoch, offset: 0 }, undefined);
      event(1);
      event(2);
      follower.init(init, { epoch, offset: 2 });
      offsets.forEach((offset) => event(offset));
      assert.match(checker.problems().join(), new RegExp(expected));
    }
    const { checker, event } = create();
    event(1);
    assert.match(checker.problems().join(), /before init/);
  });

  it("finds members who are not there, and those whom nobody tells of", () => {
    const { checker } = create();
    const there = new Set(["ann", "bob"]);
    checker.members("a node", ["bob", "ann"], there);
    assert.deepEqual(checker.problems(), []);
    checker.members("a node", ["ann", "ghost"], there);
    assert.deepEqual(checker.problems(), [
      "a node tells of ghost, who are not there",
      "a node does not tell of bob, who are there",
    ]);
  });

  it("counts a history that began anew", () => {
    const { checker } = create();
    assert.equal(checker.histories, 1);
    checker.published("a", { epoch: "f", offset: 1 }, "p");
    assert.equal(checker.histories, 2);
  });
});
