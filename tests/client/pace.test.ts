import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Pace } from "../../src/client/pace.ts";

describe("Pace", () => {
  it("keeps to the one rate that a server announces", () => {
    const sent: string[] = [];
    let uid = "";
    const clock = { now: () => 0, monotonic: () => 0, setTimeout: () => 1, clearTimeout: () => {} };
    const pace = new Pace({
      clock,
      nextUid: () => uid = `${Number(uid) + 1}`,
      send: (text: string) => void sent.push(text),
      resume: () => {},
      unanswered: () => 0,
    } as never); // With all that is asked of it here.
    pace.reset();
    pace.send("0", false);
    const text = "x".repeat(150);
    let count = 0;
    for (let round = 0; round < 10; round++) {
      const bytes = { rate: 1_000, burst: 1_000, left: Math.max(0, 1_000 - 150 * count) };
      pace.heard({ type: "pong", uid, limits: { payload: 65_536, waiting: 64, bytes } } as never); // As above.
      while (pace.send(text, false)) count++;
    }
    assert.ok(count <= 6, `${count} were sent, though no time has passed`);
    assert.equal(sent.filter((each) => each === text).length, count);
  });
});
