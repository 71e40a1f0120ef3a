import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Revocations } from "../../src/connection/revocations.ts";
import { assertProperty } from "../support/property.ts";

const accountability = (user: string | null, role: string | null) => ({ user, role });

describe("Revocations", () => {
  it("includes whom the filter matches: a user, a role, or both at once", () => {
    const cases = [
      [{ user: "ann" }, [true, true, false, false]],
      [{ role: "editor" }, [true, false, true, false]],
      [{ user: "ann", role: "editor" }, [true, false, false, false]],
    ] as const;
    for (const [filter, expected] of cases) {
      const revocations = new Revocations(1000);
      revocations.add("refreshed", filter, 0);
      const who = [
        accountability("ann", "editor"),
        accountability("ann", null),
        accountability("bob", "editor"),
        accountability(null, null),
      ];
      assert.deepEqual(who.map((each) => revocations.includes("refreshed", each, 0)), expected);
    }
  });

  it("includes only those since the number an attempt began with, though all were within one millisecond", () => {
    const revocations = new Revocations(1000);
    const ann = accountability("ann", null);
    const before = revocations.number;
    assert.equal(revocations.includes("refreshed", ann, before), false);
    revocations.add("refreshed", { user: "ann" }, 5);
    const after = revocations.number;
    revocations.add("refreshed", { user: "bob" }, 5);
    assert.deepEqual([revocations.includes("refreshed", ann, before), revocations.includes("refreshed", ann, after)], [
      true,
      false,
    ]);
    assert.equal(revocations.includes("refreshed", accountability("bob", null), after), true);
  });

  it("includes only those of the kind that is asked for", () => {
    const revocations = new Revocations(1000);
    const ann = accountability("ann", null);
    revocations.add("refreshed", {}, 0);
    assert.deepEqual([revocations.includes("refreshed", ann, 0), revocations.includes("disconnected", ann, 0)], [true, false]);
    revocations.add("disconnected", { user: "ann" }, 0);
    assert.deepEqual([revocations.includes("refreshed", ann, 1), revocations.includes("disconnected", ann, 1)], [false, true]);
  });

  it("forgets what is older than it keeps, when another is added", () => {
    const revocations = new Revocations(1000);
    revocations.add("refreshed", { user: "ann" }, 0);
    revocations.add("refreshed", { user: "bob" }, 999);
    assert.equal(revocations.includes("refreshed", accountability("ann", null), 0), true);
    revocations.add("refreshed", { user: "cid" }, 1000);
    assert.deepEqual(["ann", "bob", "cid"].map((user) => revocations.includes("refreshed", accountability(user, null), 0)), [
      false,
      true,
      true,
    ]);
  });

  it("does what a list that is never forgotten does, for attempts no older than it keeps", () => {
    const id = fc.constantFrom("a", "b");
    const filter = fc.oneof(fc.record({ user: id }), fc.record({ role: id }), fc.record({ user: id, role: id }));
    const step = fc.record({
      passed: fc.nat(300),
      filter: fc.option(filter),
      user: fc.option(id),
      role: fc.option(id),
      age: fc.nat(5),
    });
    assertProperty(fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const revocations = new Revocations(1000);
      const all: { user?: string; role?: string }[] = [];
      const numbers: { number: number; at: number }[] = [{ number: 0, at: 0 }];
      let now = 0;
      for (const { passed, filter, user, role, age } of steps) {
        now += passed;
        numbers.push({ number: revocations.number, at: now });
        if (filter) {
          revocations.add("refreshed", filter, now);
          all.push(filter);
        }
        const began = numbers.at(-1 - age);
        if (!began || now - began.at >= 1000) continue;
        const expected = all.slice(began.number).some((each) =>
          (each.user === undefined || each.user === user) && (each.role === undefined || each.role === role)
        );
        assert.equal(revocations.includes("refreshed", { user, role }, began.number), expected);
      }
    }));
  });
});
