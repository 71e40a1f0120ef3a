import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { afterTurn } from "../../src/base/turn.ts";
import { withGlobals } from "../support/globals.ts";

/** Whether `afterTurn` calls back later than it returns. */
function callsLater(globals: Record<string, unknown>): Promise<boolean> {
  let hasReturned = false;
  return new Promise((resolve) => {
    withGlobals(globals, () => afterTurn(() => resolve(hasReturned)));
    hasReturned = true;
  });
}

describe("afterTurn", () => {
  it("calls back later, without a timer, which takes 1 ms or more", async () => {
    assert.equal(await callsLater({ setTimeout: () => assert.fail("a timer") }), true);
  });

  it("calls back later where there is no setImmediate, as in workerd", async () => {
    assert.equal(await callsLater({ setImmediate: undefined }), true);
  });
});
