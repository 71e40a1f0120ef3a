import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Frame, SuffixedFrame } from "../../src/protocol/frame.ts";
import { type Batch, SharedBatch, WriteQueue, type Writer } from "../../src/delivery/write-queue.ts";
import { withGlobals } from "../support/globals.ts";
import { assertProperty } from "../support/property.ts";

class Socket implements Writer {
  batch: Batch | undefined;
  readonly writes: string[][] = [];
  readonly batches: Batch[] = [];

  write(): void {
    const { batch } = this;
    if (!batch) return;
    this.batch = undefined;
    this.batches.push(batch);
    this.writes.push(batch.frames().map(({ text }) => text));
  }
}

const frame = (text: string): Frame => new Frame(text, true);

function create() {
  const turns: (() => void)[] = [];
  return {
    queue: new WriteQueue((callback) => turns.push(callback)),
    endTurn: () => turns.splice(0).forEach((end) => end()),
    turns,
  };
}

describe("WriteQueue", () => {
  it("writes what a client is sent in one turn at once and in order, when the turn ends", () => {
    const { queue, endTurn, turns } = create();
    const socket = new Socket();
    assert.equal(queue.isEmpty, true);
    for (const text of ["1", "2", "3"]) queue.push(socket, frame(text));
    assert.deepEqual([socket.writes, turns.length, queue.isEmpty], [[], 1, false]);
    endTurn();
    assert.equal(queue.isEmpty, true);
    queue.push(socket, frame("4"));
    endTurn();
    assert.deepEqual([socket.writes, turns.length], [[["1", "2", "3"], ["4"]], 0]);
  });

  it("hands the same batch to clients that were sent the same frames, and one of its own to another", () => {
    const { queue, endTurn } = create();
    const [a, b, c] = [new Socket(), new Socket(), new Socket()];
    queue.push(c, frame("for c"));
    for (const each of [frame("1"), frame("2")]) for (const socket of [a, b, c]) queue.push(socket, each);
    endTurn();
    assert.deepEqual([a, b, c].map(({ writes }) => writes), [[["1", "2"]], [["1", "2"]], [["for c", "1", "2"]]]);
    assert.equal(a.batches[0], b.batches[0]);
    assert.notEqual(a.batches[0], c.batches[0]);
    assert.equal(a.batches[0]?.bytes, 2);
  });

  it("writes nothing twice when a client was written to before the turn ended", () => {
    const { queue, endTurn } = create();
    const socket = new Socket();
    queue.push(socket, frame("1"));
    socket.write();
    queue.push(socket, frame("2"));
    endTurn();
    assert.deepEqual(socket.writes, [["1"], ["2"]]);
  });

  it("loses, doubles and reorders nothing, for any frames to any clients in any turns", () => {
    assertProperty(fc.property(
      fc.array(fc.oneof(
        { weight: 3, arbitrary: fc.record({ to: fc.subarray([0, 1, 2, 3]) }) },
        { weight: 1, arbitrary: fc.record({ now: fc.nat(3) }) },
        { weight: 1, arbitrary: fc.constant("turn" as const) },
      )),
      (steps) => {
        const { queue, endTurn } = create();
        const sockets = [0, 1, 2, 3].map(() => new Socket());
        const expected: string[][] = sockets.map(() => []);
        for (const [i, step] of steps.entries()) {
          if (step === "turn") endTurn();
          else if ("now" in step) sockets[step.now]!.write();
          else {
            const each = frame(`${i}`);
            for (const to of step.to) {
              queue.push(sockets[to]!, each);
              expected[to]!.push(each.text);
            }
          }
        }
        endTurn();
        assert.deepEqual(sockets.map(({ writes }) => writes.flat()), expected);
      },
    ));
  });

  it("lets inbound messages have their turn when there is more to write than a slice of time takes", () => {
    const { queue, turns } = create();
    let now = 0;
    withGlobals({ performance: { now: () => now } }, () => {
      class Slow extends Socket {
        override write(): void {
          now += 0.1;
          super.write();
        }
      }
      const sockets = Array.from({ length: 300 }, () => new Slow());
      const each = frame("1");
      for (const socket of sockets) queue.push(socket, each);
      turns.shift()!();
      const written = () => sockets.filter(({ writes }) => writes.length > 0).length;
      assert.ok(written() >= 50 && written() < 150, `${written()} in the first turn`);
      // What is sent to those who wait goes out with what they wait for.
      queue.push(sockets[299]!, frame("2"));
      queue.push(sockets[0]!, frame("2"));
      while (turns.length > 0) turns.shift()!();
      assert.deepEqual([sockets[299]!.writes, sockets[0]!.writes, written()], [[["1", "2"]], [["1"], ["2"]], 300]);
    });
  });

  it("writes to the others, and in the next turn, when a socket throws", () => {
    const { queue, endTurn, turns } = create();
    const [before, after] = [new Socket(), new Socket()];
    const broken = new Socket();
    broken.write = () => {
      broken.batch = undefined;
      throw new Error("gone");
    };
    for (const socket of [before, broken, after]) queue.push(socket, frame("1"));
    assert.throws(endTurn, /gone/);
    endTurn();
    for (const socket of [before, broken]) queue.push(socket, frame("2"));
    assert.throws(endTurn, /gone/);
    assert.deepEqual([turns.length, queue.isEmpty], [0, true]);
    queue.push(after, frame("3"));
    endTurn();
    assert.deepEqual([before.writes, after.writes], [[["1"], ["2"]], [["1"], ["3"]]]);
  });
});

describe("A batch", () => {
  const batchOf = (...frames: Frame[]): Batch => frames.reduce<Batch>((batch, each) => batch.with(each), new SharedBatch());

  it("puts JSON together, in order, and leaves what need not be JSON by itself", () => {
    const [a, b, c] = ['{"type":"a"}', '{"type":"b"}', '{"type":"c"}'].map(frame) as [Frame, Frame, Frame];
    const raw = new Frame("raw", false);
    assert.deepEqual(batchOf(a).texts(), [a.text]);
    assert.deepEqual(batchOf(a, b, c).texts(), [`[${a.text},${b.text},${c.text}]`]);
    assert.deepEqual(batchOf(a, b, raw, c).texts(), [`[${a.text},${b.text}]`, "raw", c.text]);
    assert.deepEqual(batchOf(raw, raw).texts(), ["raw", "raw"]);
  });

  it("makes no array of more than 65,536 bytes, and sends a larger message alone", () => {
    const of = (bytes: number) => frame(`"${"ü".repeat((bytes - 2) / 2)}"`);
    const texts = batchOf(of(40_000), of(20_000), of(40_000), of(20_000), of(100_000), of(1_000)).texts();
    assert.deepEqual(texts.map((text) => [JSON.parse(text)].flat().length), [2, 2, 1, 1]);
    assert.deepEqual([batchOf(of(40_000), of(25_536)).texts().length, batchOf(of(40_000), of(25_538)).texts().length], [1, 2]);
  });
});

describe("SharedBatch", () => {
  it("is a chain that clients share until one is sent what it alone is sent", () => {
    const [news, base, more] = [frame("news"), frame('{"a":1}'), frame("more")];
    const own = () => new SuffixedFrame(base, '{"a":1', ',"uid":"ü"}');
    const shared = new SharedBatch().with(news);
    assert.equal(shared.with(more), shared.with(more));
    const [one, other] = [shared.with(own()), shared.with(own())];
    assert.notEqual(one, other);
    assert.deepEqual([shared.isShared, one.isShared, other.isShared], [true, false, false]);
    assert.equal(one.with(more), one);
    const texts = ["news", '{"a":1,"uid":"ü"}', "more"];
    assert.deepEqual([one.frames().map(({ text }) => text), one.count, one.bytes], [texts, 3, 4 + 18 + 4]);
    assert.deepEqual([other.count, shared.count], [2, 1]);
  });

  it("keeps sharing what has an end that others have, too", () => {
    const ended = new SuffixedFrame(frame("{}"), "{", "}");
    ended.isShared = true;
    const chain = new SharedBatch();
    assert.equal(chain.with(ended), chain.with(ended));
  });
});
