import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Admission, type ConnectionLimits, FailureLimiter, RateLimiter, Slot } from "../../src/base/limits.ts";
import { assertProperty } from "../support/property.ts";

/** Addresses and users are counted where there is a limit: here it is one that no test reaches. */
const UNLIMITED: ConnectionLimits = {
  maxConnections: Infinity,
  maxPending: Infinity,
  maxPendingPerIp: 1_000,
  maxConnectionsPerIp: 1_000,
  maxConnectionsPerUser: 1_000,
};

/** A place that is there, or the test fails. */
function place(result: Slot | string): Slot {
  assert.ok(result instanceof Slot, `the limit of ${String(result)} is reached`);
  return result;
}

const counts = (admission: Admission) => [admission.total, admission.pending, admission.keys];

describe("Admission.reserve", () => {
  it("takes as many as each limit allows, tells which is reached, and has room again once one is given back", () => {
    for (
      const [limits, reached] of [
        [{ maxConnections: 2 }, "connections"],
        [{ maxPending: 2 }, "pending"],
        [{ maxPendingPerIp: 2 }, "ip-pending"],
        [{ maxConnectionsPerIp: 2 }, "ip"],
      ] as const
    ) {
      const admission = new Admission({ ...UNLIMITED, ...limits });
      const [first] = [place(admission.reserve("a")), place(admission.reserve("a"))];
      assert.equal(admission.reserve("a"), reached);
      assert.deepEqual(counts(admission), [2, 2, 1]);
      first.release();
      place(admission.reserve("a"));
      assert.equal(admission.reserve("a"), reached);
    }
  });

  it("counts each address apart, and none where the runtime does not tell", () => {
    const admission = new Admission({ ...UNLIMITED, maxConnectionsPerIp: 1 });
    place(admission.reserve("a"));
    place(admission.reserve("b"));
    for (let n = 0; n < 3; n++) place(admission.reserve(null));
    assert.deepEqual([admission.reserve("a"), ...counts(admission)], ["ip", 5, 5, 2]);
  });

  it("counts an address by its /64 network, and an address that is pending apart", () => {
    const admission = new Admission({ ...UNLIMITED, maxConnectionsPerIp: 2, maxPendingPerIp: 1 });
    const first = place(admission.reserve("2001:db8:1:2::1"));
    assert.equal(admission.reserve("2001:db8:1:2::2"), "ip-pending");
    first.admit();
    place(admission.reserve("2001:db8:1:2::2"));
    assert.equal(admission.reserve("2001:db8:1:2:3::"), "ip");
    place(admission.reserve("2001:db8:1:3::1"));
  });

  it("counts neither addresses nor users where their connections are not limited", () => {
    const admission = new Admission({ ...UNLIMITED, maxConnectionsPerIp: Infinity, maxConnectionsPerUser: Infinity });
    for (let n = 0; n < 3; n++) assert.ok(place(admission.reserve("a")).claim("ann"));
    assert.deepEqual(counts(admission), [3, 3, 0]);
  });

  it("counts what is admitted among all, not among the pending", () => {
    const admission = new Admission({ ...UNLIMITED, maxConnections: 2, maxPending: 1 });
    const first = place(admission.reserve("a"));
    assert.equal(admission.reserve("a"), "pending");
    first.admit();
    first.admit();
    place(admission.reserve("a"));
    assert.deepEqual([admission.reserve("a"), ...counts(admission)], ["connections", 2, 1, 1]);
  });

  it("counts the admitted connections, and those of each address or user for which there is a limit", () => {
    for (const limits of [{ maxConnectionsPerIp: Infinity }, { maxConnectionsPerUser: Infinity }]) {
      const admission = new Admission({ ...UNLIMITED, ...limits });
      const [slot] = [place(admission.reserve("a")), place(admission.reserve("b"))];
      assert.ok(slot.claim("ann"));
      slot.admit();
      assert.deepEqual([admission.total, admission.admitted, admission.keys], [2, 1, "maxConnectionsPerIp" in limits ? 1 : 2]);
    }
  });

  it("restore takes a place whatever the limits, for the connection is there", () => {
    const admission = new Admission({ ...UNLIMITED, maxConnections: 1, maxPending: 1, maxConnectionsPerIp: 1 });
    place(admission.reserve("a"));
    admission.restore("a");
    assert.deepEqual(counts(admission), [2, 2, 1]);
  });
});

describe("Slot", () => {
  it("is taken from when a connection takes it, also when that is admitted or gone", () => {
    const admission = new Admission(UNLIMITED);
    const [slot, released] = [admission.restore("a"), admission.restore("b")];
    assert.equal(slot.taken, false);
    slot.take();
    assert.equal(slot.taken, true);
    slot.admit();
    slot.take();
    slot.admit();
    assert.deepEqual([slot.taken, admission.pending], [true, 1], "it is admitted once");
    released.release();
    released.take();
    assert.deepEqual([released.released, released.taken], [true, true]);
  });

  it("claim counts a user's connections, and refuses one more without changing anything", () => {
    const admission = new Admission({ ...UNLIMITED, maxConnectionsPerUser: 1 });
    const [ann, bob] = [admission.restore(null), admission.restore(null)];
    assert.deepEqual([ann.claim("ann"), ann.claim("ann"), bob.claim("bob"), bob.claim("ann")], [true, true, true, false]);
    // Still bob's: he has as many as he may.
    assert.equal(admission.restore(null).claim("bob"), false);
    assert.equal(ann.claim(null), true);
    assert.equal(bob.claim("ann"), true);
    assert.equal(admission.restore(null).claim("bob"), true);
  });

  it("release gives everything back once, in whatever phase, and again does nothing", () => {
    for (const prepare of [(_slot: Slot) => {}, (slot: Slot) => slot.admit(), (slot: Slot) => void slot.claim("ann")]) {
      const admission = new Admission(UNLIMITED);
      const other = admission.restore("a");
      const slot = place(admission.reserve("a"));
      prepare(slot);
      assert.equal(slot.released, false);
      for (let n = 0; n < 3; n++) slot.release();
      slot.due();
      slot.admit();
      assert.deepEqual([slot.claim("bob"), slot.released, ...counts(admission)], [true, true, 1, 1, 1]);
      other.release();
      assert.deepEqual(counts(admission), [0, 0, 0]);
    }
  });

  it("due gives it back when nobody came for it in time", () => {
    const admission = new Admission(UNLIMITED);
    admission.restore("a").due();
    assert.deepEqual(counts(admission), [0, 0, 0]);
  });
});

describe("Admission, as a naive model has it", () => {
  const id = fc.constantFrom("a", "b", "c", null);
  const index = fc.nat(30);
  const limit = fc.constantFrom(1, 2, 3, 5, 1_000);
  const step = fc.oneof(
    fc.tuple(fc.constant("reserve" as const), id),
    fc.tuple(fc.constant("restore" as const), id),
    fc.tuple(fc.constant("claim" as const), id, index),
    fc.tuple(fc.constant("admit" as const), fc.constant(null), index),
    fc.tuple(fc.constant("release" as const), fc.constant(null), index),
  );

  it("reserves, refuses and counts the same in any sequence, and counts nothing once all is given back", () => {
    assertProperty(fc.property(
      fc.record({
        maxConnections: limit,
        maxPending: limit,
        maxPendingPerIp: limit,
        maxConnectionsPerIp: limit,
        maxConnectionsPerUser: limit,
      }),
      fc.array(step, { maxLength: 60 }),
      (limits, steps) => {
        const admission = new Admission(limits);
        const all: { slot: Slot; ip: string | null; user: string | null; pending: boolean; live: boolean }[] = [];
        const live = () => all.filter((each) => each.live);
        const take = (slot: Slot, ip: string | null) => all.push({ slot, ip, user: null, pending: true, live: true });
        for (const [kind, key, at = 0] of steps) {
          const one = all[at % Math.max(1, all.length)];
          if (kind === "restore") take(admission.restore(key), key);
          else if (kind === "reserve") {
            const reached = live().length >= limits.maxConnections
              ? "connections"
              : key !== null && live().filter(({ ip }) => ip === key).length >= limits.maxConnectionsPerIp
              ? "ip"
              : key !== null && live().filter(({ ip, pending }) => pending && ip === key).length >= limits.maxPendingPerIp
              ? "ip-pending"
              : live().filter(({ pending }) => pending).length >= limits.maxPending
              ? "pending"
              : undefined;
            const result = admission.reserve(key);
            if (reached) assert.equal(result, reached);
            else take(place(result), key);
          } else if (!one) continue;
          else if (kind === "claim") {
            const others = live().filter((each) => each !== one && each.user === key).length;
            const may = !one.live || key === null || key === one.user || others < limits.maxConnectionsPerUser;
            assert.equal(one.slot.claim(key), may);
            if (may && one.live) one.user = key;
          } else if (kind === "admit") {
            one.slot.admit();
            one.pending = false;
          } else {
            one.slot.release();
            one.live = false;
          }
          const keys = new Set(live().flatMap(({ ip, user }) => [ip && `ip ${ip}`, user && `user ${user}`]).filter(Boolean));
          assert.deepEqual(counts(admission), [live().length, live().filter(({ pending }) => pending).length, keys.size]);
        }
        for (const { slot } of all.reverse()) slot.release();
        assert.deepEqual(counts(admission), [0, 0, 0]);
      },
    ));
  });
});

describe("RateLimiter", () => {
  const LIMIT = { messages: 10, burst: 3, bytes: 100, burstBytes: 50 };

  it("takes a burst at once and then as many a second as it refills, each key apart", () => {
    const limiter = new RateLimiter(LIMIT);
    const take = (now: number, key = "a") => limiter.take(key, 1, now);
    assert.deepEqual([take(0), take(0), take(0), take(0), take(0, "b")], [0, 0, 0, 100, 0]);
    assert.deepEqual([take(50), take(100), take(100)], [50, 0, 100]);
    // Not more than the burst, however long it was quiet.
    assert.deepEqual([take(1e6), take(1e6), take(1e6), take(1e6)], [0, 0, 0, 100]);
  });

  it("takes bytes likewise, and a message larger than the whole bucket when that is full", () => {
    const limiter = new RateLimiter(LIMIT);
    assert.deepEqual([limiter.take("a", 40, 0), limiter.take("a", 20, 0), limiter.take("a", 10, 0)], [0, 100, 0]);
    assert.deepEqual([limiter.take("b", 51, 0), limiter.take("b", 5000, 0), limiter.take("b", 5000, 500)], [0, 500, 0]);
  });

  it("takes nothing for a message it refuses", () => {
    const limiter = new RateLimiter(LIMIT);
    for (let n = 0; n < 3; n++) limiter.take("a", 1, 0);
    for (let n = 0; n < 100; n++) assert.equal(limiter.take("a", 1, 0), 100);
    assert.equal(limiter.take("a", 1, 100), 0);
  });

  it("tells the time to wait honestly: refused before it, taken after it", () => {
    assertProperty(
      fc.property(
        fc.record({
          messages: fc.double({ min: 0.001, max: 2000, noNaN: true }),
          burst: fc.integer({ min: 1, max: 20 }),
          bytes: fc.double({ min: 0.5, max: 1e9, noNaN: true }),
          burstBytes: fc.integer({ min: 1, max: 1e7 }),
        }),
        // A process that has run for up to ten years.
        fc.double({ min: 0, max: 10 * 365 * 86_400_000, noNaN: true }),
        fc.array(
          fc.record({
            bytes: fc.oneof(fc.nat(6000), fc.nat(1e7)),
            passed: fc.double({ min: 0, max: 300, noNaN: true }),
            // Where between the refusal and the time it named others are refused too: each is a sum with a rounding of its own.
            refused: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 5 }),
          }),
          { minLength: 1, maxLength: 40 },
        ),
        (limit, start, steps) => {
          const limiter = new RateLimiter(limit);
          let now = start;
          for (const { bytes, passed, refused } of steps) {
            now += passed;
            const wait = limiter.take("a", bytes, now);
            if (wait === 0) continue;
            assert.ok(Number.isSafeInteger(wait) && wait > 0);
            for (const part of wait > 1.01 ? [...refused.sort((a, b) => a - b), 1] : []) {
              assert.ok(limiter.take("a", bytes, now + part * (wait - 1.01)) > 0, `before ${wait} ms`);
            }
            now += wait;
            assert.equal(limiter.take("a", bytes, now), 0, `after ${wait} ms`);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("neither takes nor gives anything when the clock steps back", () => {
    const limiter = new RateLimiter(LIMIT);
    limiter.take("a", 1, 1000);
    assert.deepEqual([limiter.take("a", 1, 0), limiter.take("a", 1, 0), limiter.take("a", 1, 0)], [0, 0, 100]);
  });

  it("forgets a key whose bucket is full again, so that as many are kept as were busy lately", () => {
    const limiter = new RateLimiter(LIMIT);
    for (let n = 0; n < 20_000; n++) limiter.take(`key-${n}`, 1, n);
    // One token refills in 100 ms, so that about a hundred are not full; looking for the others waits until 1,024 are kept.
    assert.ok(limiter.size <= 1025, `${limiter.size} are kept`);
    assert.equal(limiter.take("key-0", 1, 20_000), 0);
  });

  it("keeps a key whose bucket is not full, whatever others come", () => {
    const limiter = new RateLimiter({ ...LIMIT, messages: 0.001 });
    for (let n = 0; n < 3; n++) limiter.take("busy", 1, 0);
    for (let n = 0; n < 5000; n++) limiter.take(`key-${n}`, 1, n);
    assert.ok(limiter.take("busy", 1, 5000) > 0);
  });

  it("left returns the remaining messages and bytes as whole numbers, and their limits", () => {
    const limiter = new RateLimiter(LIMIT);
    const left = (now: number) => {
      const { messages, bytes } = limiter.left("a", now);
      assert.deepEqual([messages.rate, messages.burst, bytes.rate, bytes.burst], [10, 3, 100, 50]);
      return [messages.left, bytes.left];
    };
    assert.deepEqual([left(0), limiter.size], [[3, 50], 0]);
    for (let n = 0; n < 3; n++) limiter.take("a", 10, 0);
    assert.deepEqual([left(0), left(50), left(100), left(1e6)], [[0, 20], [0, 25], [1, 30], [3, 50]]);
    limiter.charge("a", 1e6, 5);
    assert.deepEqual(left(1e6), [-2, 50]);
  });

  it("charge takes what is not there, up to a debt, and has it waited for", () => {
    const limiter = new RateLimiter(LIMIT);
    assert.equal(limiter.peek("a", 0), 0);
    for (let n = 0; n < 50; n++) limiter.charge("a", 0, 1, 2);
    assert.deepEqual([limiter.peek("a", 0), limiter.take("a", 1, 0)], [300, 300]);
    assert.ok(limiter.peek("a", 299) > 0);
    assert.deepEqual([limiter.peek("a", 301), limiter.take("a", 1, 301)], [0, 0]);
    assert.equal(limiter.size, 1, "peek keeps no bucket");
  });
});

describe("FailureLimiter", () => {
  it("lets attempts of an address be made until thirty have failed, and one a second from then on", () => {
    let now = 0;
    const limiter = new FailureLimiter(() => now);
    for (let n = 0; n < 30; n++) {
      assert.equal(limiter.wait("a"), 0);
      limiter.failed("a");
    }
    assert.deepEqual([limiter.wait("a"), limiter.wait("b")], [1000, 0]);
    now = 1000;
    assert.equal(limiter.wait("a"), 0);
    // Three that were under way together.
    for (let n = 0; n < 3; n++) limiter.failed("a");
    assert.equal(limiter.wait("a"), 3000);
  });

  it("refuses an address for 30 seconds at most, however many attempts of it failed at once", () => {
    let now = 0;
    const limiter = new FailureLimiter(() => now);
    for (let n = 0; n < 300; n++) limiter.failed("a");
    assert.equal(limiter.wait("a"), 30_000);
    now = 30_000;
    assert.equal(limiter.wait("a"), 0);
  });

  it("counts a /64 network of IPv6 as one address, and all clients without one together", () => {
    const limiter = new FailureLimiter(() => 0);
    for (let n = 0; n < 30; n++) limiter.failed(`2001:db8:1:2::${n.toString(16)}`);
    for (let n = 0; n < 30; n++) limiter.failed(null);
    const waits = ["2001:db8:1:2:ffff::", "2001:db8:1:3::1", null, "203.0.113.7"].map((ip) => limiter.wait(ip));
    assert.deepEqual(waits, [1000, 0, 1000, 0]);
  });
});

describe("RateLimiter, forgetting buckets", () => {
  it("does not forget the one it is taking from", () => {
    const limiter = new RateLimiter({ messages: 0.001, burst: 1, bytes: 1, burstBytes: 1 });
    // The next key is the one at which full buckets are looked for.
    for (let n = 0; n < 1024; n++) limiter.take(`key-${n}`, 0, 0);
    limiter.take("one more", 0, 0);
    assert.notEqual(limiter.take("one more", 0, 0), 0);
  });
});
