import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Outcome, runStages, type Stage } from "../../scripts/stages.ts";
import { Stall, turn } from "./waiting.ts";

const PASSED: Outcome = { passed: 1, failures: [], skipped: 0, output: "" };

/** Stages that run until the test ends them, the names of those that run, and a machine that is as idle as the test says. */
function create(...names: string[]) {
  const running = new Set<string>();
  const stalls: Record<string, Stall<Outcome>> = {};
  const stages = names.map((name): Stage => {
    const stall = stalls[name] = new Stall();
    const run = async () => {
      running.add(name);
      try {
        return await stall.promise;
      } finally {
        running.delete(name);
      }
    };
    return { name, run };
  });
  const end = async (name: string, outcome = PASSED) => {
    stalls[name]!.resolve(outcome);
    await turn();
  };
  let idlePart = 0;
  const looks: (() => void)[] = [];
  /** Lets time pass, in which that part of the machine was idle. */
  const pass = async (part: number) => {
    idlePart = part;
    for (const look of looks.splice(0)) look();
    await turn();
  };
  const printed: string[] = [];
  const machine = {
    idle: () => idlePart,
    pause: () => new Promise<void>((resolve) => void looks.push(resolve)),
    print: (text: string) => void printed.push(text),
  };
  return { stages, end, pass, machine, printed, running: () => [...running] };
}

describe("runStages", () => {
  it("starts another stage when part of the machine is idle, those that take longest first", async () => {
    const { stages, end, pass, machine, printed, running } = create("short", "demo", "shorter", "engines node");
    const ended = runStages(stages, machine);
    assert.deepEqual(running(), ["engines node"]);
    await pass(0.1);
    assert.deepEqual(running(), ["engines node"]);
    await pass(0.9);
    assert.deepEqual(running(), ["engines node", "demo"]);
    // What was idle before it started says nothing of now.
    await end("demo", { ...PASSED, output: "what demo printed" });
    assert.deepEqual(running(), ["engines node"]);
    await pass(0.5);
    assert.deepEqual(running(), ["engines node", "short"]);
    await end("engines node");
    await end("short");
    // At least one runs, however busy the machine is.
    assert.deepEqual(running(), ["shorter"]);
    await end("shorter");
    const rows = await ended;
    assert.deepEqual(rows.map(({ name }) => name), ["short", "demo", "shorter", "engines node"]);
    const begun = rows.toSorted((one, other) => one.from - other.from).map(({ name }) => name);
    assert.deepEqual(begun, ["engines node", "demo", "short", "shorter"]);
    assert.deepEqual(printed.map((text) => text.match(/━━ (\w+)/)?.[1]), ["demo", "engines", "short", "shorter"]);
    assert.match(printed[0]!, /what demo printed/);
  });

  it("runs at most eight at a time", async () => {
    const names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    const { stages, end, pass, machine, running } = create(...names);
    const ended = runStages(stages, machine);
    for (const _ of names) await pass(1);
    assert.deepEqual(running(), names.slice(0, 8));
    await end("c");
    await pass(1);
    assert.deepEqual(running(), ["a", "b", "d", "e", "f", "g", "h", "i"]);
    for (const name of names) await end(name);
    await ended;
  });

  it("prints the name of a stage that is alone before it runs", async () => {
    const { stages, end, machine, printed } = create("only");
    const ended = runStages(stages, machine);
    assert.match(printed[0]!, /━━ only/);
    await end("only", { ...PASSED, passed: 0 });
    assert.deepEqual((await ended)[0]!.failures, ["No test ran"]);
  });

  it("rejects when a stage does", async () => {
    const stages: Stage[] = [{ name: "broken", run: () => Promise.reject(new Error("Cannot run")) }];
    await assert.rejects(runStages(stages, { print: () => {} }), { message: "Cannot run" });
  });
});
