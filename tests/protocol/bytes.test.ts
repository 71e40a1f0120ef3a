import assert from "node:assert/strict";
import { describe, it } from "node:test";

/** The module as it is loaded where there is no `Buffer`, as in a browser and in a Worker. */
async function withoutBuffer(): Promise<typeof import("../../src/protocol/bytes.ts")> {
  const buffer = Object.getOwnPropertyDescriptor(globalThis, "Buffer")!;
  Object.defineProperty(globalThis, "Buffer", { configurable: true, value: undefined });
  try {
    return await import("../../src/protocol/bytes.ts");
  } finally {
    Object.defineProperty(globalThis, "Buffer", buffer);
  }
}

const { byteLength, exceedsBytes } = await withoutBuffer();

describe("byteLength without Buffer", () => {
  it("counts the bytes of short and of long texts, whatever was counted before", () => {
    for (const length of [0, 1, 16_384, 16_385, 200_001, 1]) {
      for (const [char, size] of [["a", 1], ["é", 2], ["語", 3], ["💬", 4], ["\ud83d", 3]] as const) {
        assert.equal(byteLength(char.repeat(length)), size * length, `${length} of ${char}`);
      }
    }
    assert.deepEqual([exceedsBytes("é".repeat(10), 20), exceedsBytes("é".repeat(10), 19)], [false, true]);
  });
});
