import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CallQueue } from "../../src/engines/postgres/call-queue.ts";
import { Stall, turn } from "../support/waiting.ts";
import { range } from "./conformance.ts";

/** A queue whose database fails with `code` for a call named "bad", and keeps the statements that it has run. */
function create(code = "22P05") {
  const run: string[][] = [];
  const failures: unknown[] = [];
  const stalls: Stall[] = [];
  const query = async (_statement: string, [, text]: readonly string[]) => {
    const names = (JSON.parse(text!) as [string][]).map(([name]) => name); // As called below.
    await stalls.shift()?.promise;
    if (names.includes("bad")) throw Object.assign(new Error("Not this one"), { code });
    run.push(names);
    return [{ answers: JSON.stringify(names) }];
  };
  const queue = new CallQueue({ query }, "select", "noroshi", (error) => failures.push(error));
  return { queue, run, failures, stalls };
}

describe("A queue of calls", () => {
  it("rejects the call that fails, and runs those that shared its statement in their order", async () => {
    const { queue, run, failures } = create();
    const names = range(200).map((number) => number === 77 ? "bad" : `${number}`);
    const results = await Promise.allSettled(names.map((name) => queue.call(name)));
    assert.deepEqual(results.flatMap(({ status }, number) => status === "rejected" ? number : []), [77]);
    assert.deepEqual(run.flat(), names.filter((name) => name !== "bad"));
    assert.ok(run.length < 10, `${run.length} statements`);
    assert.equal(failures.length, 1);
  });

  it("rejects all calls of a statement when the connection is lost", async () => {
    const { queue, run, failures } = create("57P01");
    const results = await Promise.allSettled(["a", "bad", "b"].map((name) => queue.call(name)));
    assert.deepEqual(results.map(({ status }) => status), ["rejected", "rejected", "rejected"]);
    assert.deepEqual([run, failures.length], [[], 1]);
  });

  it("retries a statement that conflicts with another transaction, a limited number of times", async () => {
    for (const code of ["40001", "40P01"]) {
      const run: string[] = [];
      let conflicts = 2;
      const query = (_statement: string, [, text]: readonly string[]) => {
        run.push(text!); // As called by the queue.
        return conflicts-- > 0
          ? Promise.reject(Object.assign(new Error("Later"), { code }))
          : Promise.resolve([{ answers: text }]);
      };
      const failures: unknown[] = [];
      const queue = new CallQueue({ query }, "select", "noroshi", (error) => failures.push(error));
      assert.deepEqual(await Promise.all(["a", "b"].map((name) => queue.call(name))), [["a"], ["b"]]);
      assert.deepEqual([run, failures], [range(3).map(() => '[["a"],["b"]]'), []]);
      conflicts = Infinity;
      await assert.rejects(queue.call("c"), { code });
      assert.equal(failures.length, 1);
    }
  });

  it("rejects waiting calls when it is stopped, and runs nothing later", async () => {
    const { queue, run, stalls } = create();
    const stall = new Stall();
    stalls.push(stall);
    const first = queue.call("first");
    await turn();
    const waiting = ["a", "b"].map((name) => queue.call(name));
    queue.stop(new Error("Closed"));
    const rejected = Promise.all([...waiting, queue.call("late")].map((call) => assert.rejects(call, /Closed/)));
    stall.resolve();
    assert.equal(await first, "first");
    await rejected;
    await turn();
    assert.deepEqual(run, [["first"]]);
  });

  it("does not retry parts of a failed statement after it is stopped", async () => {
    const { queue, run, stalls } = create();
    const stall = new Stall();
    stalls.push(stall);
    const calls = ["a", "bad", "b"].map((name) => assert.rejects(queue.call(name), /Closed/));
    await turn();
    queue.stop(new Error("Closed"));
    stall.resolve();
    await Promise.all(calls);
    assert.deepEqual(run, []);
  });
});
