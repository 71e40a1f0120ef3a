import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Frame, SuffixedFrame } from "../../src/protocol/frame.ts";

describe("Frame", () => {
  it("of a message is JSON, and of a string of the application need not be", () => {
    const [message, text] = [Frame.of({ type: "news", text: "é" }), Frame.of("é")];
    assert.deepEqual([message.text, message.isJson, message.bytes], ['{"type":"news","text":"é"}', true, 27]);
    assert.deepEqual([text.text, text.isJson, text.bytes, text.bytes], ["é", false, 2, 2]);
    assert.throws(() => Frame.of({ type: "n", value: 1n }), TypeError);
  });

  it("is for several clients unless it says otherwise", () => {
    assert.deepEqual([Frame.of("x").isShared, new Frame("x", false).isShared, new Frame("x", false, 1, false).isShared], [
      true,
      true,
      false,
    ]);
  });

  it("has the number of bytes that it is created with, 0 too", () => {
    assert.deepEqual([new Frame("é", false, 2).bytes, new Frame("", false, 0).bytes, new Frame("", false).bytes], [2, 0, 0]);
  });
});

describe("SuffixedFrame", () => {
  it("is the other frame with another end, for one client, and counts the bytes of both parts", () => {
    const base = new Frame('{"text":"é"}', true);
    const frame = new SuffixedFrame(base, '{"text":"é"', ',"uid":"語"}');
    assert.deepEqual([frame.text, frame.bytes], ['{"text":"é","uid":"語"}', new TextEncoder().encode(frame.text).byteLength]);
    assert.deepEqual([frame.isJson, frame.isShared, frame.base, frame.suffix], [true, false, base, ',"uid":"語"}']);
  });
});
