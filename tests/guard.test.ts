import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { guard } from "../src/guard.ts";
import { Stall, turn } from "./waiting.ts";

/** Runs it guarded; what was reported so far is in the list. */
function guarded(run: () => unknown): unknown[] {
  const reported: unknown[] = [];
  guard(run, (error) => reported.push(error));
  return reported;
}

describe("guard", () => {
  it("runs the code once and reports nothing when it returns", () => {
    let runs = 0;
    for (const result of [undefined, null, 0, "x", {}, [], () => {}]) {
      assert.deepEqual(guarded(() => (runs++, result)), []);
    }
    assert.equal(runs, 7);
  });

  it("reports what the code throws, undefined too, before it returns", () => {
    const error = new Error("thrown");
    assert.deepEqual(
      guarded(() => {
        throw error;
      }),
      [error],
    );
    assert.deepEqual(
      guarded(() => {
        throw undefined;
      }),
      [undefined],
    );
  });

  it("reports a rejection, now or later, undefined too", async () => {
    const error = new Error("rejected");
    const reported = guarded(() => Promise.reject(error));
    const reportedUndefined = guarded(() => Promise.reject(undefined));
    const stall = new Stall();
    const reportedLater = guarded(async () => {
      await stall.promise;
      throw error;
    });
    await turn();
    assert.deepEqual([reported, reportedUndefined, reportedLater], [[error], [undefined], []]);
    stall.resolve();
    await turn();
    assert.deepEqual(reportedLater, [error]);
  });

  it("reports once when a thenable calls back twice and then throws", async () => {
    const reported = guarded(() => ({
      then(_resolve: unknown, reject: (reason: unknown) => void) {
        reject("first");
        reject("second");
        throw new Error("third");
      },
    }));
    await turn();
    assert.deepEqual(reported, ["first"]);
  });

  it("reports what a thenable throws when its then is read or called", async () => {
    const error = new Error("hostile");
    const reading = guarded(() => ({
      get then() {
        throw error;
      },
    }));
    const calling = guarded(() => ({
      then() {
        throw error;
      },
    }));
    const constructed = guarded(() =>
      Object.defineProperty(Promise.resolve(), "constructor", {
        get() {
          throw error;
        },
      })
    );
    await turn();
    assert.deepEqual([reading, calling, constructed], [[error], [error], [error]]);
  });

  it("waits for nothing when the code never settles", async () => {
    const reported = guarded(() => new Promise(() => {}));
    await turn();
    assert.deepEqual(reported, []);
  });
});
