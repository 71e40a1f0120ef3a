import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** The package again, at another place, as two dependencies that each bring their own have it. */
export interface SecondCopy {
  /** Where it is: the folder with `mod.ts` and `src`. */
  readonly folder: string;
  /** Loads one of its files. */
  load<Module>(path: string): Promise<Module>;
  remove(): void;
}

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Copies the source. What it depends on is not copied: Hono is there once. */
export function copyPackage(): SecondCopy {
  const folder = mkdtempSync(join(tmpdir(), "noroshi-copy-"));
  for (const path of ["mod.ts", "src"]) cpSync(join(root, path), join(folder, path), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"), "junction");
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  return {
    folder,
    load: (path) => import(pathToFileURL(join(folder, path)).href),
    remove: () => rmSync(folder, { recursive: true }),
  };
}
