import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { byteLength, exceedsBytes } from "../../src/protocol/bytes.ts";
import { encode, type WebSocketMessage } from "../../src/protocol/protocol.ts";
import { Random } from "../support/random.ts";

describe("encode", () => {
  it("sends a string as it is", () => {
    for (const text of ["", "plain", '{"type":"x"}', "grüße 💬", "\u0000"]) assert.equal(encode(text), text);
  });

  it("replaces the lone surrogates of a string and keeps whole pairs", () => {
    assert.equal(encode("a\ud83d"), "a\ufffd");
    assert.equal(encode("\udcac\ud83d"), "\ufffd\ufffd");
    assert.equal(encode("\ud83d\udcac"), "💬");
  });

  it("sends an object as JSON, where a lone surrogate is escaped", () => {
    assert.equal(encode({ type: "x", list: [1, null], gone: undefined }), '{"type":"x","list":[1,null]}');
    assert.equal(encode({ type: "x", text: "\ud83d" }), '{"type":"x","text":"\\ud83d"}');
    assert.equal(encode({ type: "x", at: new Date(0) }), '{"type":"x","at":"1970-01-01T00:00:00.000Z"}');
  });

  it("throws TypeError when JSON cannot hold the message", () => {
    const cyclic: WebSocketMessage = { type: "x" };
    cyclic["self"] = cyclic;
    assert.throws(() => encode(cyclic), TypeError);
    assert.throws(() => encode({ type: "x", n: 1n }), TypeError);
    assert.throws(() => encode({ type: "x", toJSON: () => undefined }), TypeError);
  });

  it("throws TypeError with the remedy when it is neither a string nor one message: an array would be read as several", () => {
    for (const message of [undefined, null, 1, 1n, true, Symbol("x"), () => {}, [], [{ type: "x" }]]) {
      assert.throws(() => encode(message as never), {
        name: "TypeError",
        message: "Cannot send the message: pass a string or an object that JSON can hold",
      });
    }
  });
});

describe("encode of a message without a type", () => {
  it("throws TypeError with the remedy", () => {
    for (const message of [{}, { x: 1 }, { type: 1 }, { type: undefined }]) {
      assert.throws(() => encode(message as never), {
        name: "TypeError",
        message: 'Cannot send the message: it has no type, write { type: "news", … }',
      });
    }
  });
});

describe("exceedsBytes", () => {
  it("draws the line at the exact byte, whatever the characters take", () => {
    for (const char of ["a", "é", "語", "💬", "\ud83d"]) {
      const text = char.repeat(40);
      const bytes = byteLength(text);
      assert.equal(exceedsBytes(text, bytes), false, `${char} at ${bytes}`);
      assert.equal(exceedsBytes(text, bytes - 1), true, `${char} at ${bytes - 1}`);
    }
    assert.equal(exceedsBytes("", 0), false);
    assert.equal(exceedsBytes("a", 0), true);
  });

  it("agrees with the encoded length for any text and limit", () => {
    const random = new Random();
    for (let round = 0; round < 2000; round++) {
      const text = Array.from({ length: random.below(20) }, () => random.pick(["a", "é", "語", "💬", "\udcac"])).join("");
      const limit = random.below(70);
      assert.equal(exceedsBytes(text, limit), new TextEncoder().encode(text).byteLength > limit, `seed ${random.seed}`);
    }
  });
});

describe("byteLength", () => {
  it("counts UTF-8 bytes, three for a lone surrogate", () => {
    assert.deepEqual(["", "a", "é", "語", "💬", "\ud83d"].map(byteLength), [0, 1, 2, 3, 4, 3]);
  });

  it("counts a text of any length", () => {
    for (const [char, size] of [["a", 1], ["é", 2], ["語", 3], ["💬", 4], ["\ud83d", 3]] as const) {
      for (const length of [10_000, 16_383, 16_384, 16_385, 65_536, 200_001]) {
        assert.equal(byteLength(char.repeat(length)), size * length, `${length} of ${char}`);
      }
    }
  });
});
