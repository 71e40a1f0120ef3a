/**
 * Runs TypeScript on Node: `node --import ./scripts/typescript.mjs file.ts`. The tests start hundreds of processes, and tsx takes 0.6 s of CPU
 * more for each.
 */
import { register } from "node:module";
import process from "node:process";

process.setSourceMapsEnabled(true);
register("./typescript-hooks.mjs", import.meta.url);
