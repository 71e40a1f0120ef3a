import { spawnSync } from "node:child_process";
import { mkdtempSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./servers.ts";

/** The sources of a commit, with the packages that are installed here. */
export function checkOut(ref: string): string {
  const folder = mkdtempSync(join(tmpdir(), "noroshi-from-"));
  const command = `git -C "${root}" archive ${
    JSON.stringify(ref)
  } mod.ts src bench package.json tsconfig.json | tar -x -C "${folder}"`;
  const { status } = spawnSync("sh", ["-c", `set -e; ${command}`], { stdio: "inherit" });
  if (status !== 0) throw new Error(`Cannot check out ${ref}`);
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  return folder;
}
