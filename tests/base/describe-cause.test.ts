import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { describeCause } from "../../src/base/describe-cause.ts";

describe("describeCause", () => {
  it("is the message of the cause, or any other cause as text, else the answer", () => {
    const answer = new Error("The token is not valid");
    const described = [new TypeError("no key"), "expired", null, 0, undefined].map((cause) => describeCause(cause, answer));
    assert.deepEqual(described, ["no key", "expired", "null", "0", "The token is not valid"]);
  });

  it("is the answer when a cause cannot be shown", () => {
    const hostile = {
      toString() {
        throw new Error("hostile");
      },
    };
    const error = Object.defineProperty(new Error(), "message", { get: () => hostile.toString() });
    for (const cause of [hostile, error, Object.create(null)]) {
      assert.equal(describeCause(cause, new Error("Refused")), "Refused (a cause that cannot be shown)");
    }
  });
});
