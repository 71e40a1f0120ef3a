/** `npm run simulate`: what is promised holds in many virtual hours of faults. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { buildSimulation } from "../simulation/mutant.ts";
import { MUTATIONS } from "../simulation/mutations.ts";
import { kindOf, shrink, type Size } from "../simulation/shrink.ts";
import { TYPESCRIPT } from "../support/typescript.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** As in package.json: threads of V8 would only wait for each other, and much of what is made lives as long as an episode. */
const FLAGS = ["--single-threaded", "--max-semi-space-size=64"];

const NODE = [process.execPath, ...FLAGS, ...TYPESCRIPT] as const;

/** A simulation is the same on each runtime, and takes Deno 40 % less of CPU than Node 20. */
const DENO = [join(root, "node_modules/.bin/deno"), "run", "-A", "--no-check"] as const;

/** Resolves with the exit code and what it printed. */
function simulate(
  [command, ...options]: readonly [string, ...string[]],
  ...args: string[]
): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(
      command,
      [...options, "scripts/simulate.ts", ...args],
      { cwd: root },
      (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr });
      },
    );
  });
}

describe("npm run simulate", () => {
  it("finds nothing that breaks a promise in 20 hours", async () => {
    const { code, output } = await simulate(NODE, "--hours", "20");
    assert.equal(code, 0, output);
    const counts = JSON.parse(output.trim().split("\n").at(-1)!); // It has printed something.
    assert.ok(counts.hours >= 20 && counts.published > 10_000, output);
  });

  // A minute of CPU: the limit of other tests is not enough on a machine that does ten other things.
  it("finds nothing in 1,000 hours and a million publications of small clusters", { timeout: 1_500_000 }, async () => {
    const { code, output } = await simulate(DENO, ..."--seed 101 --hours 1000 --nodes 2 --clients 4 --burst 90".split(" "));
    assert.equal(code, 0, output);
    const counts = JSON.parse(output.trim().split("\n").at(-1)!); // It has printed something.
    assert.ok(counts.hours >= 1_000 && counts.published > 1_000_000, output);
  });

  it("has mutations of what is in the source once", () => {
    for (const [name, { file, before, also }] of Object.entries(MUTATIONS)) {
      const text = readFileSync(join(root, "src", file), "utf8");
      for (const each of [before, also?.before ?? before]) assert.equal(text.split(each).length, 2, name);
    }
  });

  it("finds faults that are put into the code", async () => {
    const names = ["gap-unseen", "waiting-lost", "page-incomplete", "members-unannounced"];
    const { code, output } = await simulate(DENO, "--mutation", names.join(","), "--hours", "50");
    assert.equal(code, 0, output);
    assert.deepEqual(output.match(/(?<=^found +)\S+/gm), names);
  });

  it("shrinks the failure of a fault in the code", async () => {
    const folder = await mkdtemp(join(tmpdir(), "noroshi-shrink-"));
    try {
      const { simulate, FAULTS } = await buildSimulation(folder, "mutant", MUTATIONS["gap-unseen"]);
      const size: Size = { seed: 1, hours: 5, nodes: 3, clients: 12 };
      const { problems } = await simulate(size);
      assert.ok(problems.length > 0);
      const smallest = await shrink(simulate, size, problems, FAULTS, () => {});
      // It is noticed only if a publication is lost between two nodes, or between a client's node and the broker.
      assert.ok(smallest.faults!.length <= 2, JSON.stringify(smallest)); // Set by `shrink`.
      assert.ok(
        smallest.nodes < size.nodes && smallest.clients < size.clients && smallest.hours < size.hours,
        JSON.stringify(smallest),
      );
      const found = (await simulate(smallest)).problems.map(kindOf);
      assert.ok(problems.map(kindOf).some((kind) => found.includes(kind)));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
