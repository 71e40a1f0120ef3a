import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { turn } from "./waiting.ts";

/** Collects all garbage; resolves with the bytes that are in use. */
export async function heapUsed(): Promise<number> {
  const { Bun } = globalThis as unknown as { Bun?: { gc(force: boolean): void } }; // Absent elsewhere.
  if (!Bun) setFlagsFromString("--expose-gc");
  const collect: () => void = Bun ? () => Bun.gc(true) : runInNewContext("gc");
  let used = Infinity;
  // Weak references and what finalizers hold go in later turns.
  for (let round = 0; round < 5; round++) {
    await turn();
    collect();
    used = Math.min(used, process.memoryUsage().heapUsed);
  }
  return used;
}
