import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The cost of a password hash in `accounts.ts` of examples/chat, and one for tests that make dozens of hashes: it is slow on purpose. */
const [COST, CHEAP] = ["N: 16_384", "N: 16"];

/** Makes the password hashes of a copy of examples/chat cheap. Returns a function that undoes this. */
export function useCheapHashes(project: string): () => void {
  const file = join(project, "accounts.ts");
  const text = readFileSync(file, "utf8");
  assert.equal(text.split(COST).length, 2, `${COST} is not in accounts.ts, or more than once`);
  writeFileSync(file, text.replace(COST, CHEAP));
  return () => writeFileSync(file, text);
}
