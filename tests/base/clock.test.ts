import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkMs, CurrentClock, Deadlines, systemClock, type Timed, unref, within } from "../../src/base/clock.ts";
import { withGlobals } from "../support/globals.ts";
import { Random } from "../support/random.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

/** Something to wake, which writes down that it was. */
class Sleeper implements Timed {
  deadline = 0;
  heapIndex = -1;
  readonly name: string;
  readonly due: () => void;

  constructor(name: string, woken: string[], then: () => void = () => {}) {
    this.name = name;
    this.due = () => {
      woken.push(name);
      then();
    };
  }
}

function create() {
  const clock = new TestClock();
  const woken: string[] = [];
  const reports: unknown[] = [];
  const sleeper = (name: string, then?: () => void) => new Sleeper(name, woken, then);
  return { clock, deadlines: new Deadlines(clock, (error) => void reports.push(error)), woken, reports, sleeper };
}

describe("Deadlines", () => {
  it("wakes an item once, when its time has come and not before", () => {
    const { clock, deadlines, woken, sleeper } = create();
    deadlines.set(sleeper("a"), 100);
    clock.advance(99);
    assert.deepEqual(woken, []);
    clock.advance(1);
    assert.deepEqual(woken, ["a"]);
    clock.advance(1000);
    assert.deepEqual(woken, ["a"]);
  });

  it("goes by the monotonic clock when the wall clock steps", () => {
    const { clock, deadlines, woken, sleeper } = create();
    deadlines.set(sleeper("a"), 100);
    clock.step(1_000_000);
    clock.advance(99);
    assert.deepEqual(woken, []);
    clock.step(-2_000_000);
    clock.advance(1);
    assert.deepEqual(woken, ["a"]);
  });

  it("has no timer while it has no deadline", () => {
    const { clock, deadlines, sleeper } = create();
    assert.equal(clock.timers, 0);
    const [a, b] = [sleeper("a"), sleeper("b")];
    deadlines.set(a, 100);
    deadlines.set(b, 200);
    assert.deepEqual([clock.timers, deadlines.size], [1, 2]);
    deadlines.delete(a);
    deadlines.delete(b);
    assert.deepEqual([clock.timers, deadlines.size], [0, 0]);
    deadlines.set(a, 100);
    clock.advance(100);
    assert.deepEqual([clock.timers, deadlines.size], [0, 0]);
  });

  it("delete does nothing when the item is not waiting", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const [a, b] = [sleeper("a"), sleeper("b")];
    deadlines.set(a, 1);
    deadlines.delete(b);
    deadlines.delete(b);
    clock.advance(1);
    deadlines.delete(a);
    assert.deepEqual(woken, ["a"]);
  });

  it("set again replaces the deadline, sooner or later", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const [sooner, later] = [sleeper("sooner"), sleeper("later")];
    deadlines.set(sooner, 500);
    deadlines.set(later, 100);
    deadlines.set(sooner, 50);
    deadlines.set(later, 300);
    assert.equal(deadlines.size, 2);
    clock.advance(50);
    assert.deepEqual(woken, ["sooner"]);
    clock.advance(249);
    assert.deepEqual(woken, ["sooner"]);
    clock.advance(1);
    assert.deepEqual(woken, ["sooner", "later"]);
  });

  it("waits again when a timer fires early", () => {
    const { clock, deadlines, woken, sleeper } = create();
    deadlines.set(sleeper("a"), 100);
    clock.advance(40);
    clock.fireEarly();
    assert.deepEqual(woken, []);
    assert.equal(clock.timers, 1);
    clock.advance(60);
    assert.deepEqual(woken, ["a"]);
  });

  it("wakes all that are due, the earliest first, when a timer fires late", () => {
    const { clock, deadlines, woken, sleeper } = create();
    for (const [name, delay] of [["d", 40], ["b", 20], ["e", 51], ["a", 10], ["c", 30]] as const) {
      deadlines.set(sleeper(name), delay);
    }
    clock.jump(50);
    assert.deepEqual(woken, ["a", "b", "c", "d"]);
    clock.jump(1);
    assert.deepEqual(woken, ["a", "b", "c", "d", "e"]);
  });

  it("wakes 64 with one timer, the others with the next, so that messages are handled in between", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const timers = new Map<number, number>();
    const count = () => void timers.set(clock.delays.length, (timers.get(clock.delays.length) ?? 0) + 1);
    for (let n = 0; n < 150; n++) deadlines.set(sleeper(String(n), count), 100);
    clock.advance(100);
    assert.deepEqual([...timers.values()], [64, 64, 22]);
    assert.equal(new Set(woken).size, 150);
  });

  it("rounds a fraction of a millisecond up, so that a timer is not early each time", () => {
    const { clock, deadlines, sleeper } = create();
    deadlines.set(sleeper("a"), 10.25);
    assert.deepEqual(clock.delays, [11]);
  });

  it("sets timers of at most 2³¹−1 ms when a delay is longer", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const days = 86_400_000;
    deadlines.set(sleeper("a"), 60 * days);
    clock.advance(60 * days - 1);
    assert.deepEqual(woken, []);
    assert.deepEqual(clock.delays.filter((delay) => delay > 2 ** 31 - 1), []);
    clock.advance(1);
    assert.deepEqual(woken, ["a"]);
  });

  it("an item may set itself anew in due(), which waits for the next timer even with no delay", () => {
    const { clock, deadlines, woken, sleeper } = create();
    let rounds = 0;
    const again: Timed = sleeper("again", () => {
      if (++rounds < 3) deadlines.set(again, 0);
    });
    deadlines.set(again, 10);
    deadlines.set(sleeper("other"), 10);
    clock.advance(9);
    clock.advance(1);
    assert.deepEqual(woken, ["again", "other", "again", "again"]);
  });

  it("an item that is put off in another's due() is woken at its new time only", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const second = sleeper("second");
    deadlines.set(sleeper("first", () => deadlines.set(second, 5)), 10);
    deadlines.set(second, 10);
    clock.advance(14);
    assert.deepEqual(woken, ["first"]);
    clock.advance(1);
    assert.deepEqual(woken, ["first", "second"]);
  });

  it("an item that is deleted in another's due() before its own time is never woken", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const second = sleeper("second");
    deadlines.set(second, 20);
    deadlines.set(sleeper("first", () => deadlines.delete(second)), 10);
    clock.advance(100);
    assert.deepEqual(woken, ["first"]);
    assert.equal(clock.timers, 0);
  });

  it("an item that is deleted in another's due() at its own time is not woken, and neither is one put off", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const [deleted, later] = [sleeper("deleted"), sleeper("later")];
    const first = sleeper("first", () => {
      deadlines.delete(deleted);
      deadlines.set(later, 7);
    });
    for (const item of [first, deleted, later]) deadlines.set(item, 10);
    clock.advance(16);
    assert.deepEqual(woken, ["first"]);
    clock.advance(1);
    assert.deepEqual([woken, clock.timers], [["first", "later"], 0]);
  });

  it("reports a due() that throws or rejects, and wakes the others all the same", async () => {
    const { clock, deadlines, woken, reports, sleeper } = create();
    const errors = [new Error("thrown"), new Error("rejected")];
    deadlines.set(
      sleeper("throws", () => {
        throw errors[0];
      }),
      10,
    );
    deadlines.set({ deadline: 0, heapIndex: -1, due: () => Promise.reject(errors[1]) as never }, 10); // A caller without a compiler.
    for (const [name, delay] of [["same", 10], ["later", 20]] as const) deadlines.set(sleeper(name), delay);
    clock.advance(20);
    await turn();
    assert.deepEqual([woken, reports, clock.timers], [["throws", "same", "later"], errors, 0]);
  });

  it("use keeps each deadline's distance from now when the clock is replaced", () => {
    const { clock, deadlines, woken, sleeper } = create();
    deadlines.set(sleeper("a"), 100);
    deadlines.set(sleeper("b"), 300);
    clock.advance(40);
    const other = new TestClock();
    other.advance(1_000_000);
    deadlines.use(other);
    assert.equal(clock.timers, 0);
    other.advance(59);
    assert.deepEqual(woken, []);
    other.advance(1);
    assert.deepEqual(woken, ["a"]);
    other.advance(200);
    assert.deepEqual(woken, ["a", "b"]);
  });

  it("use sets no timer when nothing waits", () => {
    const { deadlines } = create();
    const other = new TestClock();
    deadlines.use(other);
    assert.deepEqual(other.delays, []);
  });

  it("does what a list that is searched each time does, for any changes", () => {
    const random = new Random();
    for (let round = 0; round < 100; round++) {
      let { clock, deadlines, woken, sleeper } = create();
      const items = Array.from({ length: 30 }, (_, index) => sleeper(String(index)));
      const expected = new Map<Sleeper, number>();
      let now = 0;
      for (let step = 0; step < 80; step++) {
        const item = random.pick(items);
        const kind = random.below(10);
        if (kind < 5) {
          const delay = random.below(50);
          deadlines.set(item, delay);
          expected.set(item, now + delay);
        } else if (kind < 7) {
          deadlines.delete(item);
          expected.delete(item);
        } else if (kind < 9) {
          const passed = random.below(30);
          now += passed;
          // Timers in time, or late because the process was busy.
          if (kind === 7) clock.advance(passed);
          else clock.jump(passed);
          const due = [...expected].filter(([, at]) => at <= now);
          for (const [each] of due) expected.delete(each);
          const order = woken.splice(0).map((name) => due.find(([each]) => each.name === name)?.[1]);
          assert.deepEqual(order, due.map(([, at]) => at).sort((a, b) => a - b), `seed ${random.seed}`);
        } else {
          clock = new TestClock();
          clock.advance(random.below(10_000));
          deadlines.use(clock);
        }
        assert.equal(deadlines.size, expected.size, `seed ${random.seed}`);
        assert.equal(clock.timers, expected.size > 0 ? 1 : 0, `seed ${random.seed}`);
        for (const each of items) assert.equal(each.heapIndex >= 0, expected.has(each), `seed ${random.seed}`);
      }
    }
  });
});

describe("Deadlines of a Worker", () => {
  /** A clock whose timers end with the request that has set them. */
  class RequestClock extends TestClock {
    readonly isPerRequest = true;
    readonly #request: number[] = [];

    override setTimeout(callback: () => void, delay: number): number {
      const handle = super.setTimeout(callback, delay);
      this.#request.push(handle);
      return handle;
    }

    endRequest(): void {
      for (const handle of this.#request.splice(0)) this.clearTimeout(handle);
    }
  }

  function create() {
    const clock = new RequestClock();
    const woken: string[] = [];
    const sleeper = (name: string) => new Sleeper(name, woken);
    return { clock, deadlines: new Deadlines(clock, assert.ifError), woken, sleeper };
  }

  it("wakes an item although the request that has set an earlier deadline is over", () => {
    const { clock, deadlines, woken, sleeper } = create();
    deadlines.set(sleeper("first"), 100);
    clock.endRequest();
    deadlines.set(sleeper("second"), 200);
    clock.advance(200);
    assert.deepEqual(woken, ["second"]);
  });

  it("wakes an item at its last deadline, once, and none that was deleted", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const [moved, deleted] = [sleeper("moved"), sleeper("deleted")];
    deadlines.set(moved, 100);
    deadlines.set(moved, 300);
    assert.equal(clock.timers, 1);
    deadlines.set(deleted, 50);
    deadlines.delete(deleted);
    clock.advance(299);
    assert.deepEqual(woken, []);
    clock.advance(1_000);
    assert.deepEqual(woken, ["moved"]);
    assert.deepEqual([deadlines.size, clock.timers], [0, 0]);
  });

  it("wakes the items of requests that are long over with those of a later one", async () => {
    const { clock, deadlines, woken, sleeper } = create();
    for (const name of ["a", "b"]) deadlines.set(sleeper(name), 100);
    clock.endRequest();
    clock.advance(10_100);
    assert.deepEqual(woken, []);
    deadlines.set(sleeper("later"), 1_000);
    await turn();
    assert.deepEqual(woken, ["a", "b"]);
    clock.advance(1_000);
    assert.deepEqual(woken, ["a", "b", "later"]);
    // And once more.
    deadlines.set(sleeper("c"), 100);
    clock.endRequest();
    clock.advance(10_100);
    deadlines.set(sleeper("last"), 1_000);
    await turn();
    assert.deepEqual(woken, ["a", "b", "later", "c"]);
  });

  it("waits again when the timer of an item fires early", () => {
    const { clock, deadlines, woken, sleeper } = create();
    deadlines.set(sleeper("a"), 100);
    clock.advance(40);
    clock.fireEarly();
    assert.deepEqual(woken, []);
    clock.advance(60);
    assert.deepEqual([woken, clock.timers], [["a"], 0]);
  });

  it("gives each item a timer of its own when it changes to such a clock, and one to all when it changes back", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const shared = new TestClock();
    deadlines.use(shared);
    const [a, b, c] = [sleeper("a"), sleeper("b"), sleeper("c")];
    for (const item of [a, b, c]) deadlines.set(item, 100);
    assert.equal(shared.timers, 1);
    deadlines.use(clock);
    assert.deepEqual([shared.timers, clock.timers], [0, 3]);
    deadlines.use(shared);
    assert.deepEqual([shared.timers, clock.timers], [1, 0]);
    // Its own timer is gone with the other clock: that of the others stays.
    deadlines.delete(b);
    assert.equal(shared.timers, 1);
    shared.advance(100);
    assert.deepEqual(woken, ["a", "c"]);
  });
});

describe("Deadlines with timers that may run out", () => {
  class CheapClock extends TestClock {
    readonly mayRunOut = true;
  }

  function create() {
    const clock = new CheapClock();
    const woken: string[] = [];
    return { clock, deadlines: new Deadlines(clock, assert.ifError), woken, sleeper: (name: string) => new Sleeper(name, woken) };
  }

  it("keeps the timer of a deadline that was deleted, and uses it for a later one", () => {
    const { clock, deadlines, woken, sleeper } = create();
    const short = sleeper("short");
    deadlines.set(short, 100);
    deadlines.delete(short);
    assert.equal(clock.timers, 1);
    deadlines.set(sleeper("later"), 150);
    assert.deepEqual(clock.delays, [100]);
    clock.advance(150);
    assert.deepEqual([woken, clock.timers], [["later"], 0]);
  });

  it("has no timer once it ends: at the end if nothing waits, else with the last deadline", () => {
    for (const deletesFirst of [true, false]) {
      const { clock, deadlines, sleeper } = create();
      const item = sleeper("a");
      deadlines.set(item, 100);
      if (deletesFirst) deadlines.delete(item);
      deadlines.end();
      assert.equal(clock.timers, deletesFirst ? 0 : 1);
      deadlines.delete(item);
      assert.equal(clock.timers, 0);
    }
  });
});

describe("within", () => {
  const create = () => {
    const clock = new TestClock();
    const deadlines = new Deadlines(clock, assert.ifError);
    return { clock, within: (call: () => unknown) => within(deadlines, 100, call, () => new Error("late")) };
  };

  it("returns what the call returns, without a timer when that is no promise", async () => {
    const { clock, within } = create();
    assert.deepEqual([await within(() => 7), clock.delays], [7, []]);
    const stall = new Stall<number>();
    const result = within(() => stall.promise);
    clock.advance(99);
    stall.resolve(8);
    assert.deepEqual([await result, await within(() => ({ then: (resolve: (value: number) => void) => resolve(9) }))], [8, 9]);
    await turn();
    assert.equal(clock.timers, 0);
  });

  it("rejects with what the call throws or rejects with", async () => {
    const { clock, within } = create();
    const error = new Error("broken");
    await assert.rejects(
      within(() => {
        throw error;
      }),
      error,
    );
    await assert.rejects(within(() => Promise.reject(error)), error);
    await turn();
    assert.equal(clock.timers, 0);
  });

  it("rejects when the call takes longer", async () => {
    const { clock, within } = create();
    const result = within(() => new Promise(() => {}));
    clock.advance(100);
    await assert.rejects(result, /late/);
  });
});

describe("CurrentClock", () => {
  it("continues without a step when another clock replaces its own, and returns that clock's wall time", () => {
    const [first, second] = [new TestClock(), new TestClock()];
    second.advance(10_000);
    const clock = new CurrentClock(first);
    first.advance(7);
    const before = clock.monotonic();
    assert.deepEqual([before, clock.now()], [first.monotonic(), first.now()]);
    clock.use(second);
    assert.equal(clock.monotonic(), before);
    second.advance(5);
    second.step(60_000);
    assert.deepEqual([clock.monotonic(), clock.now()], [before + 5, second.now()]);
    clock.use(first);
    assert.equal(clock.monotonic(), before + 5);
  });
});

describe("checkMs", () => {
  it("accepts whole numbers that a timer of the platform can wait, and names what is wrong", () => {
    for (const ms of [1, 1000, 2 ** 31 - 1]) checkMs("timeout", ms);
    for (const ms of [0, -1, 0.5, 2 ** 31, Infinity, NaN, "5", null, undefined]) {
      assert.throws(() => checkMs("Cannot ask: timeout", ms), {
        name: "TypeError",
        message: "Cannot ask: timeout must be a whole number of ms from 1 to 2147483647",
      });
    }
  });
});

describe("unref", () => {
  it("unreferences the handle of each runtime, and ignores one that cannot be", () => {
    const calls: unknown[] = [];
    withGlobals({ Deno: { unrefTimer: (handle: number) => calls.push(handle) } }, () => {
      for (const handle of [{ unref: () => calls.push("object") }, {}, 7]) unref(handle);
    });
    withGlobals({ Deno: undefined }, () => unref(8));
    assert.deepEqual(calls, ["object", 7]);
  });
});

describe("systemClock", () => {
  it("lets the process end while a timer is set", () => {
    const unreferenced: unknown[] = [];
    const deno = { unrefTimer: (handle: number) => unreferenced.push(handle) };
    const handle = withGlobals({ Deno: deno }, () => systemClock.setTimeout(() => {}, 0));
    systemClock.clearTimeout(handle);
    // On Deno the handle is a number, which only `unrefTimer` unreferences.
    if (typeof handle === "number") assert.deepEqual(unreferenced, [handle]);
    else assert.equal((handle as { hasRef(): boolean }).hasRef(), false);
  });

  it("calls back, unless it was cleared", async () => {
    // Its timers keep no process going, so something else has to.
    const held = setInterval(() => {}, 1_000);
    await new Promise<void>((resolve, reject) => {
      const cleared = systemClock.setTimeout(() => reject(new Error("It was cleared")), 0);
      systemClock.clearTimeout(cleared);
      systemClock.setTimeout(resolve, 1);
    });
    clearInterval(held);
  });

  it("tells the wall clock and one that never steps back", () => {
    const before = Date.now();
    const now = systemClock.now();
    assert.ok(now >= before && now <= Date.now());
    const first = systemClock.monotonic();
    assert.ok(systemClock.monotonic() >= first);
  });
});
