import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createPace } from "../../src/client/pace.ts";

describe("createPace", () => {
  it("keeps to the one rate that a server announces", () => {
    const sent: string[] = [];
    let uid = "";
    const clock = { now: () => 0, monotonic: () => 0, setTimeout: () => 1, clearTimeout: () => {} };
    const pace = createPace(
      clock,
      () => uid = `${Number(uid) + 1}`,
      () => true,
      (text) => void sent.push(text),
      () => {},
      () => 0,
    );
    const offer = (text: string) => pace.offer(text, () => assert.fail("It is not too big"));
    offer("0");
    const text = "x".repeat(150);
    let count = 0;
    for (let round = 0; round < 10; round++) {
      const bytes = { rate: 1_000, burst: 1_000, left: Math.max(0, 1_000 - 150 * count) };
      pace.heard({ type: "pong", uid, limits: { payload: 65_536, waiting: 64, bytes } });
      while (offer(text)) count++;
    }
    assert.ok(count <= 6, `${count} were sent, though no time has passed`);
    assert.equal(sent.filter((each) => each === text).length, count);
  });

  it("waits as long as the server says that it owes", () => {
    const delays: number[] = [];
    const clock = {
      now: () => 0,
      monotonic: () => 0,
      setTimeout: (_: () => void, ms: number) => delays.push(ms),
      clearTimeout: () => {},
    };
    const sent: string[] = [];
    const pace = createPace(clock, () => "2", () => true, (text) => void sent.push(text), () => {}, () => 0);
    pace.measure({ type: "auth", uid: "1", access_token: "again" });
    const messages = { rate: 100, burst: 2_000, left: -98 };
    pace.heard({ type: "auth", status: "ok", uid: "1", limits: { payload: 65_536, waiting: 64, messages } });
    assert.equal(pace.offer("text", () => assert.fail("It is not too big")), false);
    assert.deepEqual([sent.length, delays], [1, [1_000]]);
  });
});
