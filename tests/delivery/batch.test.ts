import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Batch, SharedBatch } from "../../src/delivery/batch.ts";
import { EndedFrame, Frame } from "../../src/protocol/frame.ts";

const frame = (text: string): Frame => new Frame(text, true);

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
    const texts = batchOf(of(40_000), of(20_000), of(20_000), of(100_000), of(1_000)).texts();
    assert.deepEqual(texts.map((text) => [JSON.parse(text)].flat().length), [2, 1, 1, 1]);
  });
});

describe("SharedBatch", () => {
  it("is a chain that clients share until one is sent what it alone is sent", () => {
    const [news, base, more] = [frame("news"), frame('{"a":1}'), frame("more")];
    const own = () => new EndedFrame(base, '{"a":1', ',"uid":"ü"}');
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
    const ended = new EndedFrame(frame("{}"), "{", "}");
    ended.isShared = true;
    const chain = new SharedBatch();
    assert.equal(chain.with(ended), chain.with(ended));
  });
});
