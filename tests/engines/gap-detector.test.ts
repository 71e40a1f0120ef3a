import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HistoryPage, Position } from "../../src/engines/engine.ts";
import { GapDetector, type PositionedPublication } from "../../src/engines/broker/gap-detector.ts";
import { Random } from "../support/random.ts";
import { Stall, turn } from "../support/waiting.ts";
import { range } from "./conformance.ts";

const at = (offset: number, epoch = "e"): Position => ({ epoch, offset });
const publication = (offset: number, epoch = "e"): PositionedPublication => ({
  event: "say",
  data: `${offset}`,
  position: at(offset, epoch),
});

/** A subscription whose history the test writes, and what it tells: offsets, and `gap`, `unknown`, `failed`. */
function create() {
  const told: (number | string)[] = [];
  const reads: Position[] = [];
  const history = { epoch: "e", kept: [] as number[] };
  let stall: Stall | undefined;
  let failure: Error | undefined;
  const page = (after: Position): HistoryPage => {
    const { epoch, kept } = history;
    const top = Math.max(0, ...kept);
    const missing = range(top - after.offset).map((number) => after.offset + 1 + number);
    const isComplete = after.epoch === epoch && after.offset <= top && missing.every((offset) => kept.includes(offset));
    const known = missing.filter((offset) => kept.includes(offset));
    return { position: at(top, epoch), publications: known.map((offset) => publication(offset, epoch)), isComplete };
  };
  const gaps = new GapDetector({
    follows: (offset, previous) => offset === previous,
    async read(after) {
      reads.push(after);
      if (stall) await stall.promise;
      if (failure) throw failure;
      return page(after);
    },
    deliver: ({ data }) => void told.push(Number(data)),
    gap: ({ epoch, offset }) => void told.push(`gap ${epoch} ${offset}`),
    unknown: () => void told.push("unknown"),
    failed: (error) => void told.push(`failed: ${(error as Error).message}`),
  });
  const receive = (...offsets: number[]) => {
    for (const offset of offsets) gaps.receive(publication(offset), offset - 1);
  };
  return {
    gaps,
    history,
    told,
    reads,
    receive,
    /** Lets nobody read until it is let go. */
    hold: () => stall = new Stall(),
    fail: (error: Error | undefined) => failure = error,
  };
}

describe("GapDetector", () => {
  it("delivers each publication once, from its start, without reading the history", async () => {
    const { gaps, receive, told, reads } = create();
    receive(1, 2, 3);
    assert.deepEqual(told, []);
    gaps.start(at(2));
    receive(4, 4, 5, 5);
    await turn();
    assert.deepEqual([told, reads], [[3, 4, 5], []]);
  });

  it("ignores publications from before its start or its last read, without reading the history", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(2));
    receive(1, 2, 3);
    history.kept = range(9);
    receive(8);
    await turn();
    receive(4, 6, 5, 8);
    await turn();
    assert.deepEqual([told, reads], [[3, 4, 5, 6, 7, 8], [at(3)]]);
  });

  it("reads the history when an offset below the last live one arrives: a copy, or a history that went back", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(0));
    receive(1, 2, 3, 4, 5);
    history.kept = range(6);
    receive(4);
    await turn();
    assert.deepEqual([told, reads], [[1, 2, 3, 4, 5], [at(5)]]);
    // The last three are lost, and others have their offsets.
    history.kept = [1, 2, 3];
    receive(3);
    await turn();
    receive(4);
    assert.deepEqual([told.slice(5), reads.length], [["gap e 3", 4], 2]);
  });

  it("reads what is missing before the publications that arrived before its start", async () => {
    const { gaps, history, receive, told, reads } = create();
    receive(5);
    history.kept = range(6);
    gaps.start(at(2));
    await turn();
    assert.deepEqual([told, reads], [[3, 4, 5], [at(2)]]);
  });

  it("reads missing publications, and delivers them before later ones", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(1));
    history.kept = range(8);
    receive(2, 5);
    assert.deepEqual(told, [2]);
    await turn();
    assert.deepEqual([told, reads], [[2, 3, 4, 5, 6, 7], [at(2)]]);
    receive(6, 7, 8);
    await turn();
    assert.deepEqual([told.slice(6), reads.length], [[8], 1]);
  });

  it("queues what arrives during a read, and reads again when publications are still missing", async () => {
    const { gaps, history, receive, told, reads, hold } = create();
    gaps.start(at(0));
    history.kept = [1, 2];
    const stall = hold();
    receive(2, 4);
    stall.resolve();
    // What is kept after the page was read, and before it is looked at.
    await Promise.resolve();
    history.kept = [1, 2, 3, 4];
    await turn();
    assert.deepEqual(told, [1, 2, 3, 4]);
    assert.deepEqual(reads, [at(0), at(2)]);
  });

  it("reports a gap when the history is incomplete, and continues from its end", async () => {
    const { gaps, history, receive, told } = create();
    gaps.start(at(1));
    history.kept = [5, 6];
    receive(6);
    await turn();
    receive(7);
    assert.deepEqual(told, ["gap e 6", 7]);
  });

  it("reports a gap when the epoch has changed, and continues in the new history", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(9));
    history.epoch = "f";
    history.kept = [1, 2];
    gaps.receive(publication(2, "f"), 1);
    await turn();
    history.kept.push(3);
    gaps.receive(publication(3, "f"), 2);
    // One of before, that was under way.
    receive(10);
    await turn();
    assert.deepEqual(told, ["gap f 2", 3, "unknown"]);
    assert.deepEqual(reads, [at(9), at(3, "f")]);
  });

  it("drops publications that the history does not have: of a later offset, or of another epoch", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(2));
    history.kept = [1, 2];
    gaps.receive(publication(1_000_000), 999_999);
    await turn();
    gaps.receive(publication(3, "another"), 2);
    await turn();
    assert.deepEqual([told, reads.length], [["unknown", "unknown"], 2]);
    history.kept.push(3);
    receive(3);
    assert.deepEqual([told.at(-1), reads.length], [3, 2]);
  });

  it("skips entries that are not publications", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(1));
    gaps.receive({ position: at(2) }, 1);
    receive(3);
    assert.deepEqual([told, reads], [[3], []]);
    // One that was lost is a hole as any other.
    history.kept = [4, 5];
    gaps.receive({ position: at(5) }, 4);
    await turn();
    assert.deepEqual([told, reads.length], [[3, 4, 5], 1]);
  });

  it("notices by a check that the last publication was lost", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.check(at(5));
    gaps.start(at(0));
    receive(1);
    gaps.check(at(1));
    gaps.check(at(0));
    assert.deepEqual(reads, []);
    history.kept = [1, 2, 3];
    gaps.check(at(3));
    gaps.check(at(3));
    await turn();
    assert.deepEqual([told, reads], [[1, 2, 3], [at(1)]]);
    for (const [number, top] of [null, at(3, "f")].entries()) {
      gaps.check(top);
      await turn();
      assert.equal(reads.length, number + 2);
    }
    assert.deepEqual(told, [1, 2, 3]);
  });

  it("notices by a check that the history has gone back", async () => {
    const { gaps, history, receive, told, reads } = create();
    gaps.start(at(0));
    receive(1, 2, 3);
    // Asked before the last of them came.
    gaps.check(at(2), at(2));
    assert.deepEqual(reads, []);
    history.kept = [1];
    gaps.check(at(1), at(3));
    await turn();
    assert.deepEqual([told.slice(3), reads], [["gap e 1"], [at(3)]]);
  });

  it("reads again when it is resumed during a read", async () => {
    const { gaps, history, told, reads, hold } = create();
    history.kept = [1];
    gaps.start(at(1));
    const stall = hold();
    void gaps.resume();
    void gaps.resume();
    stall.resolve();
    while (gaps.reading) await gaps.reading;
    assert.deepEqual([reads, told], [[at(1), at(1)], []]);
  });

  it("reads the history when it is resumed, whatever arrived before", async () => {
    const { gaps, history, told, reads } = create();
    await gaps.resume();
    assert.deepEqual(reads, []);
    gaps.start(at(0));
    history.kept = [1];
    await gaps.resume();
    assert.deepEqual([told, reads], [[1], [at(0)]]);
  });

  it("reports a failed read, and reads at the next check, even when the end of the history is known by then", async () => {
    const { gaps, history, receive, told, reads, fail } = create();
    gaps.start(at(1));
    history.kept = [2, 3];
    fail(new Error("away"));
    receive(3);
    await turn();
    assert.deepEqual(told, ["failed: away"]);
    fail(undefined);
    gaps.check(at(1));
    await turn();
    assert.deepEqual([told.slice(1), reads.length], [[2, 3], 2]);
    receive(4);
    assert.deepEqual([told.at(-1), reads.length], [4, 2]);
  });

  it("reads the history when the next publication arrives while it is behind", async () => {
    const { gaps, history, receive, told, fail } = create();
    gaps.start(at(1));
    fail(new Error("away"));
    receive(3);
    await turn();
    fail(undefined);
    history.kept = [2, 3];
    receive(2);
    await turn();
    assert.deepEqual(told, ["failed: away", 2, 3]);
  });

  it("queues 1,000 publications during a read, and reads the others from the history", async () => {
    // The page ends before those that wait, or with them.
    for (const end of [2, 1_001]) {
      const { gaps, history, receive, told, reads, hold } = create();
      const all = range(2_500).map((number) => number + 1);
      gaps.start(at(0));
      const stall = hold();
      receive(...all.slice(1));
      history.kept = all.slice(0, end);
      stall.resolve();
      await Promise.resolve();
      history.kept = all;
      await turn();
      assert.deepEqual(told, all);
      assert.deepEqual(reads, [at(0), at(end)]);
    }
  });

  it("delivers nothing once it is stopped, even during a read", async () => {
    for (const [isReading, kept] of [[false, [1, 2]], [true, [1, 2]], [true, [2]]] as const) {
      const { gaps, history, receive, told, reads, hold } = create();
      gaps.start(at(0));
      history.kept = [...kept];
      const stall = hold();
      if (isReading) receive(2);
      gaps.stop();
      stall.resolve();
      receive(1, 2);
      gaps.check(at(9));
      await gaps.resume();
      await turn();
      assert.deepEqual([told, reads.length], [[], isReading ? 1 : 0]);
    }
  });

  it("delivers everything in order, whatever is lost, repeated or late, and whenever a read fails", async () => {
    const random = new Random();
    for (const _ of range(100)) {
      const { gaps, history, told, receive, fail } = create();
      const late: number[] = [];
      let hasStarted = false;
      for (let offset = 1; offset <= 60; offset++) {
        history.kept.push(offset);
        const fate = random.below(10);
        if (fate < 5) receive(offset);
        else if (fate < 7) receive(offset, offset);
        else if (fate < 8) late.push(offset);
        if (random.below(6) === 0) receive(...late.splice(0));
        if (random.below(8) === 0) {
          fail(random.below(2) === 0 ? new Error("away") : undefined);
        }
        if (random.below(6) === 0) gaps.check(at(offset));
        if (random.below(3) === 0) await turn();
        if (!hasStarted && random.below(5) === 0) {
          hasStarted = true;
          gaps.start(at(0));
        }
      }
      if (!hasStarted) gaps.start(at(0));
      await turn();
      fail(undefined);
      gaps.check(at(60));
      await turn();
      assert.deepEqual(told.filter((each) => each !== "failed: away"), history.kept, `SEED=${random.seed}`);
    }
  });
});
