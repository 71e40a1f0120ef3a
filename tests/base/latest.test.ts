import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { latest, latestCopy } from "../../src/base/latest.ts";

describe("latest", () => {
  it("keeps the result for the latest text, and calls again for another", () => {
    const calls: string[] = [];
    const parsed = latest((text) => (calls.push(text), { text }));
    const first = parsed("a");
    assert.equal(parsed("a"), first);
    assert.deepEqual([parsed("b"), parsed("a"), parsed("")], [{ text: "b" }, { text: "a" }, { text: "" }]);
    assert.deepEqual(calls, ["a", "b", "a", ""]);
  });
});

describe("latestCopy", () => {
  it("returns a text equal to the given one, each time", () => {
    const copy = latestCopy();
    const texts = ["", "/websocket", "/websocket", "/é💬", "/websocket", ""];
    assert.deepEqual(texts.map(copy), texts);
  });
});
