import process from "node:process";

const given = process.env["SEED"];

/** What all random choices of a test file begin with: `SEED` of the environment, or a random one. */
export const SEED: number = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given);

const printed = new Set<string>();

/** The command that makes the same choices again. Its test file is the one that called. */
export function replayCommand(): string {
  const [, file = "tests/….test.ts"] = new Error().stack?.match(/\/(tests\/[\w/-]+\.test\.ts)/) ?? [];
  const runner = "Deno" in globalThis
    ? "deno test -A --no-check"
    : process.versions["bun"]
    ? "bun test"
    : "node --import tsx --test";
  return `SEED=${SEED} npx ${runner} ./${file}`;
}

/** Random choices that can be repeated: a test file that makes some prints the command that repeats them. */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number = SEED) {
    this.seed = this.#state = seed;
    const command = replayCommand();
    if (!printed.has(command)) console.log(`Random choices, repeated by: ${command}`);
    printed.add(command);
  }

  /** A whole number from 0 to below the limit (mulberry32). */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!; // Below the length, so there is one.
  }
}
