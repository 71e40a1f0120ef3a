/** `npm run simulate`: what is promised holds in many virtual hours of faults. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { TYPESCRIPT } from "../support/typescript.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Resolves with the exit code and what it printed. */
function simulate(...args: string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [...TYPESCRIPT, "scripts/simulate.ts", ...args], { cwd: root }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr });
    });
  });
}

describe("npm run simulate", () => {
  it("finds nothing that breaks a promise in 20 hours", async () => {
    const { code, output } = await simulate("--hours", "20");
    assert.equal(code, 0, output);
    const counts = JSON.parse(output.trim().split("\n").at(-1)!); // It has printed something.
    assert.ok(counts.hours >= 20 && counts.published > 10_000, output);
  });
});
