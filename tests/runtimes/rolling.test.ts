import assert from "node:assert/strict";
import { it } from "node:test";
import { lacks } from "../support/brokers.ts";
import { deployRolling } from "./rolling-deploy.ts";

const skip = lacks("nginx") || lacks("redis-server");

it("replaces three nodes behind nginx without a loss for any client", { skip, timeout: 300_000 }, async () => {
  const report = await deployRolling({
    ...{ broker: "redis", runtime: "node", clients: 300, plainClients: 30, crowd: 20, rate: 50 },
    // Long enough for a client that reconnects late on a slow machine.
    ...{ window: 1_500, timeout: 60_000, grace: 10_000 },
  });
  const { replacements, publications, requests, closes, plainCloses, ...faults } = report;
  assert.deepEqual(faults, { lost: 0, doubled: 0, gaps: 0, leaves: 0, failed: [] });
  assert.deepEqual(replacements.map(({ code }) => code), [0, 0, 0]);
  // Every client was on a node that was replaced, and each was closed by the drain.
  assert.deepEqual([Object.keys(closes), Object.keys(plainCloses)], [["1012"], ["1012"]]);
  assert.ok(closes[1012]! >= 300 && plainCloses[1012]! >= 30, JSON.stringify(report));
  assert.ok(publications > 0 && requests > publications);
});
