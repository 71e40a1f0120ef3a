import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Envelopes } from "../../src/engines/broker/envelope.ts";
import { isMark, markOf, MAX_SEQUENCE, offsetOf, sequenceOf, standsFor } from "../../src/engines/nats/offset.ts";

const SECRETS: Record<string, string[]> = { unsigned: [], signed: ["a secret of the application"] };

describe("The offset of a message", () => {
  for (const [name, secrets] of Object.entries(SECRETS)) {
    it(`distinguishes ${name} messages of one sequence`, async () => {
      const envelopes = new Envelopes({ node: "node", secrets, maxLength: 1e6, now: () => 0, dropped() {} });
      const offsets = new Set<number>();
      for (let number = 0; number < 1_000; number++) {
        offsets.add(offsetOf(7, await envelopes.seal("publication", "room", "1", "say")));
      }
      // Of 8,192 tags: a thousand at random meet some 60 times.
      assert.ok(offsets.size > 900, `${offsets.size}`);
      for (const offset of offsets) assert.equal(sequenceOf(offset), 7);
    });
  }

  it("grows with the sequence, and is a safe integer up to the last", () => {
    for (const sequence of [1, 2, 1_000_000, MAX_SEQUENCE - 1]) {
      for (const text of ["", "\n", "\n{}\n1", "x".repeat(1_000), markOf()]) {
        assert.ok(offsetOf(sequence, text) < offsetOf(sequence + 1, text));
        assert.ok(Number.isSafeInteger(offsetOf(sequence + 1, text)));
        assert.equal(sequenceOf(offsetOf(sequence, text)), sequence);
      }
    }
  });

  it("of a mark is the one that it names, or its own", () => {
    const own = { sequence: 9, text: markOf() };
    assert.equal(standsFor(own), offsetOf(9, own.text));
    assert.notEqual(markOf(), markOf());
    const offset = offsetOf(7, "\n{}\n1");
    const named = markOf(offset);
    assert.ok(isMark(named) && !isMark("\n{}\n1"));
    assert.equal(standsFor({ sequence: 9, text: named }), offset);
    // As the version before wrote it, or somebody else.
    for (const text of ["mark 0", "mark 7", "mark ", "mark x", "mark -1", "mark 1e300"]) {
      assert.equal(standsFor({ sequence: 9, text }), offsetOf(9, text));
    }
  });
});
