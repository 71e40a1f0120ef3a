import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { afterTurn } from "../../src/base/turn.ts";

/** Whether `afterTurn` calls back later than it returns; while it is called, `globalThis` has this value by the name. */
function callsLater(name: "setImmediate" | "setTimeout", value: unknown): Promise<boolean> {
  const before = Object.getOwnPropertyDescriptor(globalThis, name)!;
  Object.defineProperty(globalThis, name, { configurable: true, writable: true, value });
  try {
    let hasReturned = false;
    const called = new Promise<boolean>((resolve) => afterTurn(() => resolve(hasReturned)));
    hasReturned = true;
    return called;
  } finally {
    Object.defineProperty(globalThis, name, before);
  }
}

describe("afterTurn", () => {
  it("calls back later, without a timer, which takes 1 ms or more", async () => {
    assert.equal(await callsLater("setTimeout", () => assert.fail("a timer")), true);
  });

  it("calls back later where there is no setImmediate, as in workerd", async () => {
    assert.equal(await callsLater("setImmediate", undefined), true);
  });
});
