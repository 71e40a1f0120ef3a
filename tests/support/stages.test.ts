import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Outcome, runStages, type Stage } from "../../scripts/stages.ts";
import { Stall, turn } from "./waiting.ts";

const PASSED: Outcome = { passed: 1, failures: [], skipped: 0, output: "" };

/** Stages that run until the test ends them, and the names of those that run. */
function create(costs: Record<string, { cores: number; seconds: number }>) {
  const running = new Set<string>();
  const stalls: Record<string, Stall<Outcome>> = {};
  const stages = Object.entries(costs).map(([name, cost]): Stage => {
    const stall = stalls[name] = new Stall();
    const run = async () => {
      running.add(name);
      try {
        return await stall.promise;
      } finally {
        running.delete(name);
      }
    };
    return { name, run, cost };
  });
  const end = async (name: string, outcome = PASSED) => {
    stalls[name]!.resolve(outcome);
    await turn();
  };
  return { stages, end, running: () => [...running] };
}

describe("runStages", () => {
  it("runs the longest stages first, as many at a time as there are cores for, and the next when one ends", async () => {
    const costs = {
      short: { cores: 0.5, seconds: 1 },
      heavy: { cores: 1.5, seconds: 10 },
      long: { cores: 0.5, seconds: 20 },
      heavier: { cores: 5, seconds: 5 },
    };
    const { stages, end, running } = create(costs);
    const printed: string[] = [];
    const ended = runStages(stages, { cores: 2, print: (text) => printed.push(text) });
    assert.deepEqual(running(), ["long", "heavy"]);
    await end("heavy", { ...PASSED, output: "what heavy printed" });
    assert.deepEqual(running(), ["long", "short"]);
    await end("long");
    await end("short");
    // More than there is runs alone.
    assert.deepEqual(running(), ["heavier"]);
    await end("heavier");
    assert.deepEqual((await ended).map(({ name }) => name), ["short", "heavy", "long", "heavier"]);
    assert.deepEqual(printed.map((text) => text.match(/━━ (\w+)/)?.[1]), ["heavy", "long", "short", "heavier"]);
    assert.match(printed[0]!, /what heavy printed/);
  });

  it("prints the name of a stage that is alone before it runs", async () => {
    const { stages, end } = create({ only: { cores: 1, seconds: 1 } });
    const printed: string[] = [];
    const ended = runStages(stages, { cores: 2, print: (text) => printed.push(text) });
    assert.match(printed[0]!, /━━ only/);
    await end("only", { ...PASSED, passed: 0 });
    assert.deepEqual((await ended)[0]!.failures, ["No test ran"]);
  });

  it("rejects when a stage does", async () => {
    const stages: Stage[] = [{ name: "broken", run: () => Promise.reject(new Error("Cannot run")) }];
    await assert.rejects(runStages(stages, { cores: 2, print: () => {} }), { message: "Cannot run" });
  });
});
