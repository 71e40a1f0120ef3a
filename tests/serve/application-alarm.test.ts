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

function open() {
  const [database, clock, errors, calls] = [openSqlite(), new TestClock(), [] as string[], [] as number[]];
  /** Which statements fail. */
  const disk: { fails?: RegExp | undefined } = {};
  const sql: Sql = {
    exec(query, ...bindings) {
      if (disk.fails?.test(query)) throw new Error("The storage fails");
      return database.exec(query, ...bindings);
    },
  };
  const storage = {} as Storage; // It is given its methods next.
  new ApplicationAlarm({
    sql,
    clock,
    report: (error) => void errors.push((error as Error).message),
    run: ({ scheduledTime }) => void calls.push(scheduledTime),
  }).attach(storage);
  /** Lets time pass, with what ends meanwhile. */
  const advance = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 1_000) {
      clock.advance(1_000);
      await new Promise((resolve) => setTimeout(resolve));
    }
  };
  return { disk, storage, clock, errors, calls, advance };
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
    it(`runs once the storage works again, after nothing could be ${statements}`, async () => {
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
      await storage.setAlarm(clock.now() + 1_000);
      await advance(1_000);
      assert.equal(new Set(calls).size, 2);
    });
  }
});
