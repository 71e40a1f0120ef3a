// The simulation replaces globals (globalThis.setImmediate among them), so that this file needs a process of its own.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { noSqlite } from "../engines/sqlite.ts";
import { simulate } from "./simulation.ts";
import { SEEDS } from "./sizes.ts";

describe("simulate, an object", { skip: noSqlite }, () => {
  const size = { hours: 1, nodes: 1, object: true, clients: 4, library: 8 };

  it("replays a seed to the byte", async () => {
    const first = await simulate({ ...size, seed: 11, hours: 0.3 });
    assert.deepEqual(await simulate({ ...size, seed: 11, hours: 0.3 }), first);
  });

  for (const seed of SEEDS) {
    it(`finds nothing that breaks a promise, with seed ${seed}`, async () => {
      const { problems, counts } = await simulate({ ...size, seed });
      assert.deepEqual(problems, []);
      const { published, recovered, hibernated, woken } = counts;
      // Counted in every episode.
      assert.ok(published! > 20 && recovered! > 0 && hibernated! > 3 && woken! > 3, JSON.stringify(counts));
    });
  }
});
