/**
 * Serves or builds the documentation site: `npm run docs`, `npm run docs:build`; `npm run docs:reference` writes the generated pages only.
 * Its packages are installed in `docs/` by the first
 * run, so that the installation of the repository stays small.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { docs, root } from "./pages.ts";
import { writeReference } from "./reference.ts";

const [command = "dev", ...args] = process.argv.slice(2);
const vitepress = join(docs, "node_modules/vitepress/bin/vitepress.js");
writeReference();
if (command === "reference") process.exit();
if (!existsSync(vitepress)) {
  run("npm", ["ci", "--prefix", "docs", "--no-audit", "--no-fund"]);
}
run(process.execPath, [
  vitepress,
  command,
  "docs",
  ...(command === "dev" ? ["--host", "127.0.0.1"] : []),
  ...args,
]);

function run(program: string, args: string[]): void {
  const { status } = spawnSync(program, args, {
    cwd: root,
    stdio: "inherit",
    shell: program === "npm" && process.platform === "win32",
  });
  if (status !== 0) process.exit(status ?? 1);
}
