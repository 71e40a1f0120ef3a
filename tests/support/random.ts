import process from "node:process";

/** Random choices that can be repeated: a failure names the seed, and `SEED=… ` in the environment runs it again. */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))) {
    this.seed = this.#state = seed;
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
