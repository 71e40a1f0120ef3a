// The simulation replaces globals (globalThis.setImmediate among them), so that this file needs a process of its own.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { simulate } from "./simulation.ts";
import { SEEDS } from "./sizes.ts";

describe("simulate", () => {
  it("replays a seed to the byte", async () => {
    const size = { seed: 11, hours: 0.3, nodes: 3, clients: 10 };
    const first = await simulate(size);
    const second = await simulate(size);
    assert.deepEqual(second, first);
    assert.notEqual((await simulate({ ...size, seed: 12 })).hash, first.hash);
  });

  for (const seed of SEEDS) {
    it(`finds nothing that breaks a promise, with seed ${seed}`, async () => {
      const { problems, counts } = await simulate({ seed, hours: 2, nodes: 3, clients: 12 });
      assert.deepEqual(problems, []);
      assert.ok(counts["published"]! > 20 && counts["recovered"]! > 0, JSON.stringify(counts)); // Counted in every episode.
    });
  }

  for (const seed of SEEDS.slice(0, 2)) {
    it(`finds nothing that breaks a promise to clients of the library, with seed ${seed}`, async () => {
      const size = { seed, hours: 2, nodes: 3, clients: 4, library: 8 };
      const { problems, counts, hash } = await simulate(size);
      assert.deepEqual(problems, []);
      assert.ok(counts["published"]! > 20 && counts["recovered"]! > 0, JSON.stringify(counts)); // As above.
      assert.equal((await simulate(size)).hash, hash);
    });
  }
});
