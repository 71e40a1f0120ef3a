/** The alarm of a subclass, over a storage that fails. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Sql } from "../../src/engines/sqlite-histories.ts";
import { ApplicationAlarm } from "../../src/serve/application-alarm.ts";
import { noSqlite, openSqlite } from "../engines/sqlite.ts";
import { TestClock } from "../support/test-clock.ts";

interface Storage {
  setAlarm(time: number | Date): Promise<void>;
  getAlarm(): Promise<number | null>;
  deleteAlarm(): Promise<void>;
}

function open(run: (retryCount: number) => unknown = () => {}) {
  const [database, clock, errors, calls] = [openSqlite(), new TestClock(), [] as string[], [] as number[]];
  /** Which statements fail. */
  const disk: { fails?: RegExp | undefined } = {};
  const sql: Sql = {
    exec(query, ...bindings) {
      if (disk.fails?.test(query)) throw new Error("The storage fails");
      return database.exec(query, ...bindings);
    },
  };
  const report = (error: unknown) => {
    const { message, cause } = error as Error;
    errors.push(cause instanceof Error ? `${message}: ${cause.message}` : message);
  };
  let starts = 0;
  /** The object, after an eviction if it has been there before. */
  const start = () => {
    const own = ++starts;
    const storage = {} as Storage; // It is given its methods next.
    new ApplicationAlarm({
      ...{ sql, report },
      clock: {
        now: () => clock.now(),
        monotonic: () => clock.monotonic(),
        setTimeout: (callback, delay) => clock.setTimeout(() => own === starts && callback(), delay),
        clearTimeout: (handle) => clock.clearTimeout(handle),
      },
      run: ({ scheduledTime, retryCount }) => {
        calls.push(scheduledTime);
        return run(retryCount);
      },
    }).attach(storage);
    return storage;
  };
  const storage = start();
  /** Advances the clock, and lets the calls of each second end. */
  const advance = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 1_000) {
      clock.advance(1_000);
      await new Promise((resolve) => setTimeout(resolve));
    }
  };
  return { disk, storage, start, clock, errors, calls, advance };
}

describe("ApplicationAlarm", { skip: noSqlite }, () => {
  it("refuses times that workerd does not accept for an alarm", async () => {
    const { storage } = open();
    for (const time of [NaN, -1, Infinity, new Date("2189-01-01")]) {
      await assert.rejects(storage.setAlarm(time), { name: "TypeError", message: /pass a Date before 2189/ });
    }
    await storage.setAlarm(new Date("2188-12-31"));
  });

  for (const [statements, fails] of [["read", /SELECT/], ["written", /INSERT/], ["deleted", /DELETE/]] as const) {
    it(`runs when the storage works again, after nothing could be ${statements}`, async () => {
      const { disk, storage, clock, errors, calls, advance } = open();
      const due = clock.now() + 1_000;
      await storage.setAlarm(due);
      disk.fails = fails;
      await advance(60_000);
      assert.ok(errors.length >= 1 && errors.length <= 10, `${errors.length} errors`);
      assert.deepEqual([...new Set(errors)], ["The storage fails"]);
      disk.fails = undefined;
      await advance(120_000);
      assert.deepEqual([...new Set(calls)], [due]);
      assert.equal(await storage.getAlarm(), null);
      if (statements === "deleted") assert.deepEqual(calls, [due]);
      await storage.setAlarm(clock.now() + 1_000);
      await advance(1_000);
      assert.equal(new Set(calls).size, 2);
    });
  }

  it("runs an alarm 7 times when an eviction ends each attempt", async () => {
    const retries: number[] = [];
    const { storage, start, clock, errors, advance } = open((retryCount) => {
      retries.push(retryCount);
      return new Promise(() => {});
    });
    await storage.setAlarm(clock.now() + 1_000);
    let next = storage;
    for (let eviction = 0; eviction < 10; eviction++) {
      await advance(130_000);
      next = start();
    }
    assert.deepEqual(retries, [0, 1, 2, 3, 4, 5, 6]);
    assert.deepEqual(errors, ["Cannot run alarm(): attempt 7 of 7 failed: The object was evicted during alarm()"]);
    assert.equal(await next.getAlarm(), null);
  });

  it("waits the full delay after a failure, however long the attempt has taken", async () => {
    const fails: (() => void)[] = [];
    const { storage, clock, calls, advance } = open(() =>
      new Promise((_, reject) => fails.push(() => reject(new Error("Failure"))))
    );
    await storage.setAlarm(clock.now() + 1_000);
    await advance(1_000);
    const counts: number[] = [];
    for (const delay of [2_000, 4_000, 8_000]) {
      await advance(30_000);
      fails.shift()!();
      await new Promise((resolve) => setTimeout(resolve)); // It has failed.
      await advance(delay - 1_000);
      counts.push(calls.length);
      await advance(1_000);
      counts.push(calls.length);
    }
    assert.deepEqual(counts, [1, 2, 2, 3, 3, 4]);
  });
});
