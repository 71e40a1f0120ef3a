import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { endingOf, PublicationFrame } from "../../src/channels/publication-frame.ts";

const position = { epoch: "x", offset: 3 };

describe("PublicationFrame", () => {
  it("has the uid of each subscription at its end, and is encoded once for those that have the same", () => {
    const frame = new PublicationFrame("room:1", { event: 'a "b"', data: '{"n":1}', position });
    const message = { type: "subscription", event: 'a "b"', channel: "room:1", data: { n: 1 }, offset: 3 };
    assert.deepEqual(JSON.parse(frame.ending(endingOf(undefined)).text), message);
    assert.equal(frame.isJson, true);
    for (const uid of ["x", 1, "1", '"']) {
      const ended = frame.ending(endingOf(uid));
      assert.deepEqual(JSON.parse(ended.text), { ...message, uid });
      assert.equal(frame.ending(endingOf(uid)), ended);
      assert.equal(ended.isShared, true);
    }
    const { offset: _offset, ...unkept } = message;
    assert.deepEqual(
      JSON.parse(new PublicationFrame("room:1", { event: 'a "b"', data: '{"n":1}', position: null }).text),
      unkept,
    );
  });

  it("keeps no more than 64 of its encodings", () => {
    const frame = new PublicationFrame("a", { event: "e", data: "1", position });
    const encode = () => Array.from({ length: 100 }, (_, uid) => frame.ending(endingOf(uid)));
    const [first, second] = [encode(), encode()];
    assert.equal(first.filter((each, index) => each === second[index]).length, 64);
    assert.deepEqual(first.map(({ text }) => text), second.map(({ text }) => text));
  });
});
