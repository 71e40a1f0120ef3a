import { randomOf } from "../../src/testing/random.ts";

/** Random choices of one part of a simulation. Each part has its own, so that leaving out one part changes little in the others. */
export class Dice {
  readonly random: () => number;

  constructor(seed: number, part: string) {
    let mixed = seed >>> 0;
    for (const character of part) mixed = Math.imul(mixed ^ character.codePointAt(0)!, 0x9e3779b1) >>> 0; // Each has one.
    this.random = randomOf(mixed);
  }

  /** A whole number from 0 to below the limit. */
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  pick<Choice>(choices: readonly Choice[]): Choice {
    return choices[this.below(choices.length)]!; // Below the length, so there is one.
  }
}
