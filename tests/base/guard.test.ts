import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ask, guard, isThenable } from "../../src/base/guard.ts";
import { Stall, turn } from "../support/waiting.ts";

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

describe("ask", () => {
  const isText = (value: unknown): value is string => typeof value === "string";

  /** What the hook answers, and what is reported of it, now and later. */
  async function asked(hook: () => unknown): Promise<[answer: string | undefined, reported: string[]]> {
    const reported: string[] = [];
    const answer = ask(hook, isText, (error) => reported.push(String(error)));
    await turn();
    return [answer, reported];
  }
  const wrong = "TypeError: Cannot use what a hook returned: it is of the wrong type, or a promise";

  it("answers what the hook returns when it is of the right type, and reports nothing", async () => {
    for (const answer of ["x", ""]) assert.deepEqual(await asked(() => answer), [answer, []]);
  });

  it("has no answer and reports when the hook throws", async () => {
    const throws = () => {
      throw new Error("hook");
    };
    assert.deepEqual(await asked(throws), [undefined, ["Error: hook"]]);
  });

  it("has no answer and reports when what is returned is of the wrong type", async () => {
    for (const value of [undefined, null, 7, {}, ["x"], Promise.resolve("x")]) {
      assert.deepEqual(await asked(() => value), [undefined, [wrong]]);
    }
  });

  it("reports what a promise that it cannot wait for rejects with", async () => {
    assert.deepEqual(await asked(() => Promise.reject(new Error("later"))), [undefined, [wrong, "Error: later"]]);
  });
});

describe("isThenable", () => {
  it("is true of a promise and of an object with a then that can be called", () => {
    for (const value of [Promise.resolve(), { then: () => {} }]) assert.equal(isThenable(value), true);
    for (const value of [undefined, null, 0, "then", {}, { then: true }, [], () => {}]) assert.equal(isThenable(value), false);
  });
});
