import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import type { Mutation } from "./mutations.ts";
import type { AnyFault } from "./simulation.ts";
import type { Simulate } from "./shrink.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** The simulation of a source. */
export interface SimulationModule {
  readonly simulate: Simulate;
  readonly FAULTS: readonly AnyFault[];
}

/**
 * Builds the simulation, with a change in the source if there is one. Bundled, so that each has its own copy of all modules.
 *
 * @param folder that the bundle is written to.
 * @throws {Error} if what the change replaces is not in the source once.
 */
export async function buildSimulation(folder: string, name: string, mutation?: Mutation): Promise<SimulationModule> {
  const file = join(folder, `${name}.mjs`);
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: ["tests/simulation/simulation.ts"],
    bundle: true,
    platform: "node",
    format: "esm",
    write: false,
    plugins: [{
      name: "mutation",
      setup({ onLoad }) {
        onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, ({ path }) => {
          if (!mutation || path !== join(root, "src", mutation.file)) return undefined;
          let contents = readFileSync(path, "utf8");
          for (const { before, after } of [mutation, mutation.also ?? []].flat()) {
            if (contents.split(before).length !== 2) throw new Error(`Cannot change ${path}: "${before}" is not there once`);
            contents = contents.replace(before, () => after);
          }
          return { contents, loader: "ts" };
        });
      },
    }],
  });
  writeFileSync(file, outputFiles[0]!.contents); // There is one.
  return await import(pathToFileURL(file).href);
}
