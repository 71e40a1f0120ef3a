/** The pages of the API: `deno doc --html` of every entry, in the theme of Deno. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { root } from "./pages.ts";

/** Writes the pages into `api/` of the built site. They are left out where Deno is not installed. */
export function addApi(outDir: string): void {
  const deno = join(
    root,
    "node_modules/deno",
    process.platform === "win32" ? "deno.exe" : "deno",
  );
  // A record of strings, as JSR demands.
  const { exports } = JSON.parse(
    readFileSync(join(root, "deno.json"), "utf8"),
  ) as { exports: Record<string, string> };
  const args = [
    "doc",
    "--html",
    "--name=Noroshi",
    `--output=${join(outDir, "api")}`,
    ...Object.values(exports),
  ];
  const { status, stderr, error } = spawnSync(deno, args, {
    cwd: root,
    encoding: "utf8",
  });
  if (error) {
    return console.warn(`The pages of the API are left out: ${error.message}`);
  }
  if (status !== 0) throw new Error(`deno doc failed: ${stderr}`);
}
