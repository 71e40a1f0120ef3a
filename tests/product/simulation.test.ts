/** `npm run simulate`: what is promised holds in many virtual hours of faults, and faults that were once real are found. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Resolves with the exit code and what it printed. */
function simulate(...args: string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, ["--import", "tsx", "scripts/simulate.ts", ...args], { cwd: root }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr });
    });
  });
}

/** The arguments of a command that was printed, such as `npm run simulate -- --seed 7 --faults "network,order"`. */
const argumentsOf = (command: string): string[] =>
  (command.match(/"[^"]*"|\S+/g) ?? []).map((word) => word.replaceAll('"', "")).slice(4);

describe("npm run simulate", () => {
  it("finds nothing that breaks a promise in 40 hours", async () => {
    const { code, output } = await simulate("--hours", "40");
    assert.equal(code, 0, output);
    const counts = JSON.parse(output.trim().split("\n").at(-1)!); // It has printed something.
    assert.ok(counts.hours >= 40 && counts.published > 20_000, output);
  });

  it("finds a fault in the code, and prints the command of a smaller simulation that finds it too", async () => {
    const { code, output } = await simulate("--mutation", "tail-unchecked", "--hours", "10", "--shrink");
    assert.equal(code, 0, output);
    assert.match(output, /^found +tail-unchecked after .* h, .* s of CPU, seed 1: /m);
    const command = output.match(/^Smaller: (.*)$/m)?.[1] ?? "";
    const [, clients, faults] = command.match(/--clients (\d+) --faults "([^"]*)"/) ?? [];
    assert.ok(Number(clients) < 12, output);
    // A publication has to be lost on its way to a node.
    assert.equal(faults, "network", output);
    const again = await simulate(...argumentsOf(command));
    assert.match(again.output, /^found /m);
  });
});
