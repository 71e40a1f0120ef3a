import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

let own: string | undefined;

/** A folder of this process, when it does not belong to a run of `npm test`. */
function ownFolder(): string {
  if (own === undefined) {
    const folder = own = mkdtempSync(join(tmpdir(), "noroshi-shared-"));
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  }
  return own;
}

/**
 * Resolves with the path of a file or folder that all processes of a test run share. The first that needs it makes it; some that begin at the
 * same time may each make it, and all use one.
 *
 * @param make makes it at the given path.
 */
export async function sharedPath(name: string, make: (path: string) => Promise<void>): Promise<string> {
  const path = join(process.env["NOROSHI_SHARED"] ?? ownFolder(), name);
  if (existsSync(path)) return path;
  const partial = `${path}.${randomUUID()}`;
  await make(partial);
  try {
    await rename(partial, path);
  } catch (error) {
    // A folder does not replace another.
    if (!existsSync(path)) throw error;
    await rm(partial, { recursive: true, force: true });
  }
  return path;
}
