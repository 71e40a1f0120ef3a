/** Schedules over the storage of an object that is evicted, with a wall clock that steps. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Clock } from "../../src/base/clock.ts";
import type { Sql } from "../../src/engines/sqlite-histories.ts";
import { type ScheduledCall, type ScheduleHandlers, Schedules, type SchedulesOptions } from "../../src/serve/schedules.ts";
import { noSqlite, openSqlite } from "../engines/sqlite.ts";
import { assertProperty } from "../support/property.ts";

/** Timers that follow the wall clock, as an object's alarm does. */
class WallClock implements Clock {
  readonly #timers = new Map<number, { at: number; callback: () => void }>();
  #handles = 0;
  #now = Date.parse("2026-11-29T08:00:30Z");

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  setTimeout(callback: () => void, delay: number): number {
    this.#timers.set(++this.#handles, { at: this.#now + delay, callback });
    return this.#handles;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number); // What setTimeout returned.
  }

  /** An eviction: no timer is left. */
  clear(): void {
    this.#timers.clear();
  }

  /** Sets the clock. */
  async step(ms: number): Promise<void> {
    this.#now += ms;
    await this.#ring();
  }

  /** Lets time pass: each timer fires at its time. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      const first = Math.min(...[...this.#timers.values()].map(({ at }) => at));
      if (first > end) break;
      this.#now = Math.max(this.#now, first);
      await this.#ring();
    }
    this.#now = end;
  }

  async #ring(): Promise<void> {
    for (const [handle, { at, callback }] of [...this.#timers]) {
      if (at <= this.#now && this.#timers.delete(handle)) callback();
    }
    await new Promise((resolve) => setTimeout(resolve)); // The calls that end in this turn have ended.
  }
}

const OPTIONS: SchedulesOptions = { attempts: 3, backoff: 1_000, timeout: 10_000 };

type Opened<Payloads> = ReturnType<typeof open<Payloads>>;

/** An object with schedules. */
function open<Payloads>(handlers: ScheduleHandlers<Payloads>, options: SchedulesOptions = {}, onError = () => {}) {
  const [database, clock, errors] = [openSqlite(), new WallClock(), [] as string[]];
  /** Which statements fail. */
  const storage: { fails?: RegExp | undefined } = {};
  const sql: Sql = {
    exec(query, ...bindings) {
      if (storage.fails?.test(query)) throw new Error("The storage fails");
      return database.exec(query, ...bindings);
    },
  };
  const report = (error: unknown) => {
    errors.push((error as Error).message);
    onError();
  };
  const start = (changed: SchedulesOptions = {}) => {
    const schedules = new Schedules(handlers, { ...OPTIONS, ...options, ...changed });
    clock.clear();
    schedules.start({ sql, clock, report });
    return schedules;
  };
  return { storage, clock, errors, start };
}

describe("Schedules", { skip: noSqlite }, () => {
  it("calls at a date, after a delay and by a cron expression", async () => {
    const calls: unknown[] = [];
    const { clock, start } = open({
      note: ({ payload, attempt, due }: ScheduledCall<string>) => calls.push([payload, attempt, due]),
    });
    const schedules = start();
    const now = clock.now();
    await schedules.schedule(new Date(now + 5_000), "note", "date");
    await schedules.schedule(2_000, "note", "delay");
    await schedules.schedule("* * * * *", "note", "cron", { id: "every minute" });
    assert.deepEqual((await schedules.list()).map(({ due }) => due - now), [2_000, 5_000, 30_000]);
    await clock.advance(90_000);
    assert.deepEqual(calls, [
      ["delay", 1, now + 2_000],
      ["date", 1, now + 5_000],
      ["cron", 1, now + 30_000],
      ["cron", 1, now + 90_000],
    ]);
    assert.deepEqual(await schedules.list(), [
      { id: "every minute", name: "note", payload: "cron", due: now + 150_000, cron: "* * * * *", attempts: 0 },
    ]);
  });

  it("passes the handler the payload after a round trip through JSON", async () => {
    const calls: unknown[] = [];
    const { clock, start } = open({
      remind: ({ payload }: ScheduledCall<{ at: Date; by?: string | undefined }>) => {
        const at: string = payload.at;
        calls.push({ ...payload, at });
      },
    });
    await start().schedule(1_000, "remind", { at: new Date(0), by: undefined });
    await clock.advance(1_000);
    assert.deepEqual(calls, [{ at: "1970-01-01T00:00:00.000Z" }]);
  });

  it("retries a failed call after growing delays, and keeps it as a dead letter after the last attempt", async () => {
    const times: number[] = [];
    const { clock, errors, start } = open({
      fail: ({ attempt }: ScheduledCall<undefined>) => {
        times.push(clock.now());
        throw new Error(`Failure ${attempt}`);
      },
    });
    const schedules = start();
    const now = clock.now();
    const id = await schedules.schedule(0, "fail");
    await clock.advance(60_000);
    assert.deepEqual(times.map((time) => time - now), [0, 1_000, 3_000]);
    assert.deepEqual(await schedules.deadLetters(), [{ id, name: "fail", due: now, attempts: 3, error: "Failure 3" }]);
    assert.deepEqual(errors, [1, 2, 3].map((attempt) => `Cannot run the schedule "fail": attempt ${attempt} of 3 failed`));
    assert.equal(await schedules.cancel(id), true);
    assert.deepEqual([...await schedules.deadLetters(), ...await schedules.list()], []);
  });

  it("continues a cron expression after a call has failed for good, and calls once for all missed times", async () => {
    let isBroken = true;
    let calls = 0;
    const { clock, start } = open({
      tick: () => {
        calls++;
        if (isBroken) throw new Error("Broken");
      },
    });
    let schedules = start();
    await schedules.schedule("* * * * *", "tick", undefined, { id: "tick" });
    await clock.advance(40_000);
    assert.equal(calls, 3);
    assert.deepEqual((await schedules.list()).map(({ id, attempts }) => [id, attempts]), [["tick", 0]]);
    assert.equal((await schedules.deadLetters()).length, 1);
    isBroken = false;
    clock.clear();
    await clock.step(600_000);
    schedules = start();
    await clock.advance(0);
    assert.equal(calls, 4);
    // A class schedules it again in its constructor, at each start.
    await schedules.schedule("* * * * *", "tick", undefined, { id: "tick" });
    assert.equal((await schedules.list()).length, 1);
  });

  it("calls once for each time of a cron expression when the clock is set back during the call", async () => {
    const dues: number[] = [];
    const { clock, start }: Opened<{ tick: undefined }> = open({
      tick: async ({ due }: ScheduledCall<undefined>) => {
        dues.push(due);
        if (dues.length === 1) await clock.step(-20_000);
      },
    });
    const schedules = start();
    const now = clock.now();
    await schedules.schedule("* * * * *", "tick");
    await clock.advance(120_000);
    assert.deepEqual(dues.map((due) => due - now), [30_000, 90_000]);
  });

  it("retries a call that an eviction has ended, and gives up after the last attempt", async () => {
    const attempts: number[] = [];
    const { clock, start } = open({
      crash: ({ attempt }: ScheduledCall<undefined>) => {
        attempts.push(attempt);
        return new Promise(() => {});
      },
    });
    let schedules = start();
    await schedules.schedule(0, "crash");
    for (let eviction = 0; eviction < 5; eviction++) {
      await clock.advance(9_000);
      schedules = start();
      await clock.advance(1_000);
    }
    assert.deepEqual(attempts, [1, 2, 3]);
    assert.equal((await schedules.deadLetters())[0]?.error, "The object was evicted during the call");
  });

  it("aborts a call that takes too long, and one that is cancelled or replaced", async () => {
    const signals: AbortSignal[] = [];
    const { clock, start } = open({
      hang: ({ signal }: ScheduledCall<number>) => {
        signals.push(signal);
        return new Promise(() => {});
      },
    });
    const schedules = start();
    const id = await schedules.schedule(0, "hang", 1);
    await clock.advance(9_999);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [false]);
    await clock.advance(1_001);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [true, false]);
    assert.equal((await schedules.list())[0]?.error, "The call took longer than 10000 ms");
    await schedules.schedule(0, "hang", 2, { id });
    await clock.advance(0);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [true, true, false]);
    await schedules.cancel(id);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [true, true, true]);
    assert.deepEqual(await schedules.list(), []);
  });

  it("refuses wrong arguments, schedules beyond maxSchedules, and calls before the object has started", async () => {
    const { start } = open({ note: () => {} }, { maxSchedules: 2, maxDeadLetters: 1 });
    const schedules = start() as unknown as Record<"schedule" | "cancel", (...args: unknown[]) => Promise<unknown>>; // As over RPC.
    const wrong: [args: unknown[], message: RegExp][] = [
      [[0, "other"], /^Cannot schedule "other": no such handler, use one of note$/],
      [[-1, "note"], /^Cannot schedule: pass a Date before 2189, a delay in ms from 0, or a cron expression$/],
      [[new Date("2189-01-01"), "note"], /pass a Date before 2189/],
      [[2 ** 45, "note"], /pass a Date before 2189/],
      [[Infinity, "note"], /pass a Date before 2189/],
      [[NaN, "note"], /pass a Date/],
      [[new Date(NaN), "note"], /pass a Date/],
      [[{}, "note"], /pass a Date/],
      [["at eight", "note"], /^Cannot read the cron expression "at eight"/],
      [[0, "note", () => {}], /pass a payload of at most 131072 bytes/],
      [[0, "note", "x".repeat(131_072)], /pass a payload of at most 131072 bytes/],
      [[0, "note", "é".repeat(65_536)], /pass a payload of at most 131072 bytes/],
      [["0,".repeat(128) + "0 * * * *", "note"], /it has more than 256 characters/],
      [[0, "note", 1, null], /whose id is a string of 1 to 64 characters/],
      [[0, "note", 1, { id: "" }], /whose id is a string of 1 to 64 characters/],
      [[0, "note", 1, { id: "\ud800" }], /without lone surrogates/],
      [[0, "note", 1, { Id: "x" }], /^Cannot schedule: unknown option "Id", use id$/],
    ];
    for (const [args, message] of wrong) await assert.rejects(schedules.schedule(...args), { name: "TypeError", message });
    await assert.rejects(schedules.cancel(undefined), { name: "TypeError" });
    assert.equal(await schedules.cancel("unknown"), false);
    const id = await schedules.schedule(60_000, "note");
    await schedules.schedule(60_000, "note");
    await assert.rejects(schedules.schedule(60_000, "note"), {
      code: "LIMIT_EXCEEDED",
      message: 'Cannot schedule "note": maxSchedules is reached: cancel some, or raise it',
    });
    await schedules.schedule(30_000, "note", undefined, { id });
    await schedules.cancel(id);
    await schedules.schedule(60_000, "note");

    await assert.rejects(new Schedules({ note: () => {} }).list(), {
      name: "TypeError",
      message: /the object has not started/,
    });
    assert.throws(() => new Schedules({ note: 1 as never }), { name: "TypeError" });
    assert.throws(() => new Schedules({}, { attempts: 0 }), { name: "TypeError", message: /option "attempts" must be/ });
    assert.throws(() => new Schedules({}, { retries: 1 } as never), { name: "TypeError", message: /unknown option "retries"/ });
  });

  for (const [statements, fails] of [["read", /SELECT/], ["written", /INSERT/], ["deleted", /DELETE/]] as const) {
    it(`calls when the storage works again, after nothing could be ${statements}`, async () => {
      const calls: unknown[] = [];
      const { storage, clock, errors, start } = open({ note: ({ payload }: ScheduledCall<number>) => calls.push(payload) });
      const schedules = start();
      for (let place = 0; place < 3; place++) await schedules.schedule(1_000, "note", place);
      storage.fails = fails;
      await clock.advance(600_000);
      // The delay between attempts grows up to a minute.
      assert.ok(errors.length >= 3 && errors.length < 60, `${errors.length} errors`);
      assert.deepEqual([...new Set(errors)].filter((error) => !error.startsWith("Cannot run")), ["The storage fails"]);
      storage.fails = undefined;
      await schedules.schedule(0, "note", 3);
      await clock.advance(120_000);
      assert.deepEqual([...new Set(calls)].sort(), [0, 1, 2, 3]);
      assert.deepEqual(await schedules.list(), []);
    });
  }

  describe("that the application changes during a call", () => {
    const hour = 3_600_000;

    it("does not run a call that another call due at the same time has cancelled or replaced", async () => {
      const calls: unknown[] = [];
      const { clock, start }: Opened<{ first: undefined; other: string }> = open({
        first: async (_call: ScheduledCall<undefined>) => {
          const both = [schedules.cancel("cancelled"), schedules.schedule(hour, "other", "new", { id: "replaced" })];
          calls.push((await Promise.all(both))[0]);
        },
        other: ({ id, payload }: ScheduledCall<string>) => void calls.push(`${id} ${payload}`),
      });
      const schedules = start();
      await schedules.schedule(1_000, "first", undefined, { id: "a" });
      for (const id of ["cancelled", "replaced"]) await schedules.schedule(1_000, "other", "old", { id });
      await clock.advance(5_000);
      assert.deepEqual(calls, [true]);
      await clock.advance(hour);
      assert.deepEqual(calls, [true, "replaced new"]);
    });

    for (const change of ["cancel", "replace"] as const) {
      it(`lets an error listener ${change} the call that has failed`, async () => {
        let calls = 0;
        const { clock, start }: Opened<{ fail: undefined }> = open(
          {
            fail: (_call: ScheduledCall<undefined>) => {
              calls++;
              throw new Error("Failure");
            },
          },
          {},
          () => void (change === "cancel" ? schedules.cancel("a") : schedules.schedule(hour, "fail", undefined, { id: "a" })),
        );
        const schedules = start();
        await schedules.schedule(0, "fail", undefined, { id: "a" });
        await clock.advance(60_000);
        assert.equal(calls, 1);
        const listed = (await schedules.list()).map(({ attempts, error }) => [attempts, error]);
        assert.deepEqual(listed, change === "cancel" ? [] : [[0, undefined]]);
      });
    }

    it("lets an abort listener schedule the call again when it takes too long", async () => {
      const times: number[] = [];
      const { clock, errors, start }: Opened<{ hang: undefined }> = open({
        hang: ({ signal }: ScheduledCall<undefined>) => {
          times.push(clock.now() - now);
          signal.addEventListener("abort", () => void schedules.schedule(hour, "hang", undefined, { id: "a" }));
          return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("Late"))));
        },
      });
      const schedules = start();
      const now = clock.now();
      await schedules.schedule(0, "hang", undefined, { id: "a" });
      await clock.advance(hour);
      assert.deepEqual(times, [0]);
      assert.deepEqual(errors, ['Cannot run the schedule "hang": attempt 1 of 3 failed']);
      await clock.advance(10_000);
      assert.deepEqual(times, [0, hour + 10_000]);
    });

    it("reports a call that fails after it has scheduled itself again, but not one that was cancelled", async () => {
      const { clock, errors, start }: Opened<{ again: undefined; cancelled: undefined }> = open({
        again: async (_call: ScheduledCall<undefined>) => {
          await schedules.schedule(hour, "again", undefined, { id: "a" });
          throw new Error("Failure");
        },
        cancelled: ({ signal }: ScheduledCall<undefined>) =>
          new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      });
      const schedules = start();
      await schedules.schedule(0, "again", undefined, { id: "a" });
      await schedules.schedule(0, "cancelled", undefined, { id: "b" });
      await clock.advance(5_000);
      await schedules.cancel("b");
      await clock.advance(5_000);
      assert.deepEqual(errors, ['Cannot run the schedule "again": attempt 1 of 3 failed']);
      assert.deepEqual((await schedules.list()).map(({ id, attempts }) => [id, attempts]), [["a", 0]]);
    });
  });

  it("keeps a call running when the storage fails to replace or cancel it", async () => {
    const signals: AbortSignal[] = [];
    const { storage, clock, start } = open({
      hang: ({ signal }: ScheduledCall<number>) => {
        signals.push(signal);
        return new Promise(() => {});
      },
    });
    const schedules = start();
    await schedules.schedule(0, "hang", 1, { id: "a" });
    await clock.advance(0);
    storage.fails = /INSERT|DELETE/;
    await assert.rejects(schedules.schedule(0, "hang", 2, { id: "a" }), /The storage fails/);
    await assert.rejects(schedules.cancel("a"), /The storage fails/);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [false]);
    storage.fails = undefined;
    assert.equal(await schedules.cancel("a"), true);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [true]);
  });

  it("retries a call that fails with a value that cannot be converted to text", async () => {
    const { clock, errors, start } = open({
      fail: (_call: ScheduledCall<undefined>) => {
        throw Object.create(null);
      },
    });
    const schedules = start();
    await schedules.schedule(0, "fail");
    await clock.advance(10_000);
    assert.deepEqual(errors, [1, 2, 3].map((attempt) => `Cannot run the schedule "fail": attempt ${attempt} of 3 failed`));
    assert.match((await schedules.deadLetters())[0]?.error ?? "", /cannot be shown/);
  });

  it("saves the outcome of a call later when the storage fails at its end", async () => {
    const calls: string[] = [];
    const { storage, clock, errors, start }: Opened<{ succeed: undefined; fail: undefined }> = open({
      succeed: (_call: ScheduledCall<undefined>) => {
        calls.push("succeed");
        storage.fails = /DELETE|INSERT/;
      },
      fail: (_call: ScheduledCall<undefined>) => {
        calls.push("fail");
        storage.fails = /DELETE|INSERT/;
        throw new Error("Failure");
      },
    }, { attempts: 1 });
    const schedules = start();
    for (const name of ["succeed", "fail"] as const) {
      await schedules.schedule(0, name);
      await clock.advance(1_000);
      storage.fails = undefined;
      await clock.advance(60_000);
    }
    assert.deepEqual(calls, ["succeed", "fail"]);
    assert.deepEqual(await schedules.list(), []);
    assert.deepEqual((await schedules.deadLetters()).map(({ error }) => error), ["Failure"]);
    assert.deepEqual(errors.filter((error) => error.startsWith("Cannot")), [
      'Cannot run the schedule "fail": attempt 1 of 1 failed',
    ]);
  });

  it("saves the dead letter of a cron expression together with its next call", async () => {
    const { storage, clock, start }: Opened<{ fail: undefined }> = open({
      fail: (_call: ScheduledCall<undefined>) => {
        storage.fails = /INSERT/;
        throw new Error("Failure");
      },
    }, { attempts: 1 });
    const schedules = start();
    await schedules.schedule("0 9 * * *", "fail", undefined, { id: "a" });
    await clock.advance(3_600_000);
    assert.deepEqual(await schedules.deadLetters(), []);
    storage.fails = undefined;
    await clock.advance(60_000);
    assert.deepEqual((await schedules.deadLetters()).map(({ error }) => error), ["Failure"]);
    assert.deepEqual((await schedules.list()).map(({ id, attempts }) => [id, attempts]), [["a", 0]]);
  });

  it("keeps the error of a call when a deployment lowers the attempts", async () => {
    const { clock, start } = open({
      fail: (_call: ScheduledCall<undefined>) => {
        throw new Error("Failure");
      },
    });
    await start().schedule(0, "fail");
    await clock.advance(2_000);
    const schedules = start({ attempts: 1 });
    await clock.advance(10_000);
    assert.equal((await schedules.deadLetters())[0]?.error, "No attempt is left. The last error: Failure");
  });

  it("corrects times set by a clock that was ahead, at the start and when a cron expression is scheduled again", async () => {
    const year = 365 * 86_400_000;
    const calls: string[] = [];
    const { clock, start } = open({
      tick: (_call: ScheduledCall<undefined>) => void calls.push("tick"),
      fail: (_call: ScheduledCall<undefined>) => {
        calls.push("fail");
        throw new Error("Failure");
      },
    });
    let schedules = start();
    const ahead = async () => {
      await schedules.schedule("* * * * *", "tick", undefined, { id: "tick" });
      await clock.step(year);
      clock.clear();
      await clock.step(-year);
      calls.length = 0;
    };
    await ahead();
    await schedules.schedule("* * * * *", "tick", undefined, { id: "tick" });
    await clock.advance(180_000);
    assert.deepEqual(calls, ["tick", "tick", "tick"]);
    const now = clock.now();
    await schedules.schedule(new Date(now - 1_000), "fail");
    await ahead();
    schedules = start();
    await clock.advance(60_000);
    assert.deepEqual(calls, ["fail", "fail", "tick"]);
  });

  it("does not call a cron expression twice when the clock is set back", async () => {
    let calls = 0;
    const { clock, start } = open({ tick: (_call: ScheduledCall<undefined>) => void calls++ });
    let schedules = start();
    await schedules.schedule("0 9 * * *", "tick", undefined, { id: "tick" });
    await clock.advance(3_600_000);
    await clock.step(-3_600_000);
    schedules = start();
    await schedules.schedule("0 9 * * *", "tick", undefined, { id: "tick" });
    await clock.advance(3_600_000);
    assert.equal(calls, 1);
  });

  it("keeps only the latest dead letters", async () => {
    const { clock, start } = open({
      fail: () => {
        throw new Error("Failure");
      },
    }, { attempts: 1, maxDeadLetters: 3 });
    const schedules = start();
    for (let place = 0; place < 5; place++) await schedules.schedule(place * 1_000, "fail", place);
    await clock.advance(10_000);
    assert.deepEqual((await schedules.deadLetters()).map(({ payload }) => payload), [4, 3, 2]);
  });

  it("keeps at most 16 MiB of payloads, and another 16 MiB in dead letters", async () => {
    const { clock, start } = open({
      fail: (_call: ScheduledCall<string>) => {
        throw new Error("Failure");
      },
    }, { attempts: 1 });
    let schedules = start();
    const payload = "x".repeat(131_070); // 128 KiB, with its quotes.
    for (let place = 0; place < 128; place++) await schedules.schedule(10_000, "fail", payload, { id: `${place}` });
    await schedules.schedule(9_000, "fail", payload, { id: "0" });
    const message = 'Cannot schedule "fail": all payloads together have at most 16777216 bytes: cancel some schedules';
    for (let restart = 0; restart < 2; restart++) {
      await assert.rejects(schedules.schedule(60_000, "fail", ""), { code: "LIMIT_EXCEEDED", message });
      schedules = start();
    }
    await clock.advance(10_000);
    // Dead letters do not count against the limit of schedules.
    await schedules.schedule(0, "fail", payload);
    await clock.advance(0);
    const letters = (await schedules.deadLetters()).map(({ id }) => id);
    assert.deepEqual([letters.length, letters.includes("0"), letters.includes("1")], [128, false, true]);
  });

  it("calls each schedule at least once and never early, or keeps a dead letter, under clock steps and evictions", async () => {
    const action = fc.oneof(
      fc.record({ kind: fc.constant("schedule" as const), delay: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ min: 0, max: 8_000 }) }),
      fc.record({ kind: fc.constant("step" as const), ms: fc.integer({ min: -20_000, max: 20_000 }) }),
      fc.record({ kind: fc.constant("evict" as const) }),
    );
    const behaviour = fc.constantFrom("succeed", "fail", "hang");
    await assertProperty(
      fc.asyncProperty(fc.array(action, { maxLength: 20 }), fc.array(behaviour), async (actions, behaviours) => {
        const violations: string[] = [];
        const done = new Set<string>();
        const attempts = new Map<string, number>();
        const { clock, start }: Opened<{ work: undefined }> = open({
          work: ({ id, due, attempt }: ScheduledCall<undefined>): unknown => {
            if (clock.now() < due) violations.push(`${id} is early`);
            if (attempt !== (attempts.get(id) ?? 0) + 1) violations.push(`${id} has attempt ${attempt}`);
            attempts.set(id, attempt);
            const next = behaviours.pop();
            if (next === "hang") return new Promise(() => {});
            if (next === "fail") throw new Error("Failure");
            return done.add(id);
          },
        });
        let schedules = start();
        const all: string[] = [];
        for (const each of actions) {
          if (each.kind === "schedule") all.push(await schedules.schedule(each.delay, "work"));
          else if (each.kind === "advance") await clock.advance(each.ms);
          else if (each.kind === "step") await clock.step(each.ms);
          else schedules = start();
        }
        await clock.advance(600_000);
        assert.deepEqual(violations, []);
        assert.deepEqual(await schedules.list(), []);
        const dead = new Set((await schedules.deadLetters()).map(({ id }) => id));
        for (const id of all) assert.ok(done.has(id) !== dead.has(id), "It is lost");
      }),
      { numRuns: 60 },
    );
  });
});
