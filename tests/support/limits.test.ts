import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { TYPESCRIPT } from "./typescript.ts";

const elsewhere = ("Bun" in globalThis || "Deno" in globalThis) && "Bun has a limit of its own, and Deno none";

describe("The limit of a test", { skip: elsewhere }, () => {
  it("ends one that hangs, says where it is, and lets the others run", () => {
    const hanging = fileURLToPath(new URL("hanging.ts", import.meta.url));
    const env = { ...process.env, TEST_LIMIT: "50", NODE_TEST_CONTEXT: undefined };
    const args = [...TYPESCRIPT, "--test-reporter=tap", hanging];
    const { status, stdout } = spawnSync(process.execPath, args, { env, encoding: "utf8" });
    assert.equal(status, 1);
    assert.match(stdout, /not ok 1 - hangs[^]*location: '[^']*hanging\.ts:[^]*test timed out after 50ms/);
    assert.match(stdout, /ok 2 - goes on/);
  });
});
