import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Roster } from "../src/roster.ts";
import { Random } from "./random.ts";

interface Guest {
  seat: number;
  berth: number;
}

const guests = (count: number): Guest[] => Array.from({ length: count }, () => ({ seat: -1, berth: -1 }));

describe("Roster", () => {
  it("has those of a Set, whoever comes and goes", () => {
    const random = new Random();
    const all = guests(20);
    const roster = new Roster<"seat", Guest>("seat");
    const set = new Set<Guest>();
    for (let n = 0; n < 2_000; n++) {
      const guest = random.pick(all);
      if (random.below(2) === 0) assert.equal(roster.delete(guest), set.delete(guest), `seed ${random.seed}`);
      else {
        roster.add(guest);
        set.add(guest);
      }
      assert.deepEqual([roster.size, [...roster].length], [set.size, set.size]);
      for (const each of all) assert.equal(roster.has(each), set.has(each), `seed ${random.seed}`);
      assert.deepEqual(new Set(roster), set);
    }
  });

  it("has the members of another by another property", () => {
    const [ann, bob] = guests(2) as [Guest, Guest];
    const [seated, aboard] = [new Roster<"seat", Guest>("seat"), new Roster<"berth", Guest>("berth")];
    for (const guest of [ann, bob]) seated.add(guest);
    for (const guest of [bob, ann]) aboard.add(guest);
    seated.delete(ann);
    assert.deepEqual([[...seated], [...aboard]], [[bob], [bob, ann]]);
    assert.deepEqual([seated.has(ann), aboard.has(ann)], [false, true]);
  });
});
