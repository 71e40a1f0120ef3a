/** Puts the source of this repository in place of the package `noroshi`, as tsconfig.json does for compilers: `node --import`. */
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { isMainThread } from "node:worker_threads";

const root = new URL("../../", import.meta.url);
const { exports } = JSON.parse(readFileSync(new URL("deno.json", root), "utf8"));

// The hooks have a thread of their own.
if (isMainThread) register(import.meta.url);

export function resolve(specifier, context, nextResolve) {
  const file = /^noroshi(?:\/|$)/.test(specifier) && exports[`.${specifier.slice("noroshi".length)}`];
  return nextResolve(file ? new URL(file, root).href : specifier, context);
}
