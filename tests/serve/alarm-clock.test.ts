import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AlarmClock } from "../../src/serve/alarm-clock.ts";

describe("AlarmClock", () => {
  it("runs the other due timers and sets the next alarm when one throws", () => {
    const [alarms, errors, calls] = [[] as number[], [] as unknown[], [] as string[]];
    const setAlarm = (time: number) => Promise.resolve(void alarms.push(time));
    const clock = new AlarmClock({ storage: { setAlarm } }, (error) => errors.push(error));
    const error = new Error("As it was told to");
    clock.setTimeout(() => {
      throw error;
    }, 0);
    clock.setTimeout(() => calls.push("due"), 0);
    clock.setTimeout(() => calls.push("later"), 60_000);
    clock.ring();
    assert.deepEqual([calls, errors], [["due"], [error]]);
    assert.equal(alarms.length, 2);
    assert.ok(alarms[1]! - alarms[0]! >= 60_000);
  });

  it("reports an alarm that the storage refuses, and sets the alarm again with the next timer", async () => {
    const [alarms, errors] = [[] as number[], [] as unknown[]];
    const error = new Error("As it was told to");
    const setAlarm = (time: number) => alarms.push(time) === 1 ? Promise.reject(error) : Promise.resolve();
    const clock = new AlarmClock({ storage: { setAlarm } }, (error) => errors.push(error));
    clock.setTimeout(() => {}, 1_000);
    clock.setTimeout(() => {}, 60_000); // Within the same turn.
    await new Promise((resolve) => setTimeout(resolve));
    assert.deepEqual([alarms.length, errors], [1, [error]]);
    clock.setTimeout(() => {}, 60_000);
    assert.deepEqual(alarms, [alarms[0], alarms[0]]);
  });
});
