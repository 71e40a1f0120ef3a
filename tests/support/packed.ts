import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/**
 * The packed package, which `npm test` names in `NOROSHI_TARBALL`. Without it, the package is built and packed into `folder`. Two builds at a
 * time would delete each other's `dist`.
 */
export async function packPackage(folder: string): Promise<string> {
  return process.env["NOROSHI_TARBALL"] ?? await buildPackage(folder);
}

/** Builds and packs the package; resolves with the path of the tarball, in a new folder inside `folder`. */
export async function buildPackage(folder: string): Promise<string> {
  const target = mkdtempSync(join(folder, "packed-"));
  // The log level of `npm test --silent` would hide errors.
  await promisify(execFile)("npm", ["pack", "--pack-destination", target, "--loglevel=error"], { cwd: root });
  return join(target, readdirSync(target)[0]!); // npm has made it.
}
