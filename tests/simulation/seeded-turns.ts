import process from "node:process";
import { nextTurn, Turns } from "../../src/testing/turns.ts";
import type { Dice } from "./dice.ts";

/** How often a turn is one of the event loop: only there the runtime reports unhandled rejections and cleans up. */
const LOOP_EVERY = 256;

/**
 * Turns of the event loop in an order that the dice decide: what several connections deliver in one turn is shuffled, and some of it
 * waits for the next one. A connection itself delivers in order, because it posts one delivery at a time.
 */
export class SeededTurns extends Turns {
  readonly #dice: Dice;
  readonly #fail: (error: unknown) => void;
  #posted: (() => void)[] = [];
  #postponed: { turns: number; readonly run: () => void }[] = [];
  #immediate: (() => void)[] = [];
  #count = 0;

  constructor(dice: Dice, report: (error: unknown) => void) {
    super(report);
    this.#dice = dice;
    this.#fail = report;
  }

  override post(run: () => void): void {
    this.#posted.push(run);
  }

  /** Calls the function after so many turns. */
  postpone(run: () => void, turns: number): void {
    this.#postponed.push({ turns, run });
  }

  /** Replaces `setImmediate`, whose callbacks run in the order of the calls. Returns a function that restores it. */
  replaceImmediate(): () => void {
    const owner = globalThis as { setImmediate?: unknown };
    const original = owner.setImmediate;
    owner.setImmediate = (run: () => void) => void this.#immediate.push(run);
    return () => void (owner.setImmediate = original);
  }

  /** Runs turns until nothing is under way. Only this runs any. */
  override async settle(): Promise<void> {
    for (;;) {
      // Every promise that can settle settles. Nothing here waits for input or for another thread.
      await (++this.#count % LOOP_EVERY === 0 ? nextTurn() : nextTick());
      if (this.#posted.length + this.#postponed.length + this.#immediate.length === 0) return;
      const posted = this.#posted;
      if (this.#postponed.length > 0) posted.push(...this.#due());
      this.#shuffle(posted);
      this.#posted = posted.length > 1 && this.#dice.chance(0.2) ? posted.splice(1 + this.#dice.below(posted.length)) : [];
      for (const run of posted) this.#run(run);
      if (this.#immediate.length === 0) continue;
      const immediate = this.#immediate;
      this.#immediate = [];
      for (const run of immediate) this.#run(run);
    }
  }

  /** What was postponed until this turn. */
  #due(): (() => void)[] {
    const due = this.#postponed.filter((each) => --each.turns <= 0);
    if (due.length > 0) this.#postponed = this.#postponed.filter(({ turns }) => turns > 0);
    return due.map(({ run }) => run);
  }

  #shuffle(runs: (() => void)[]): void {
    for (let last = runs.length - 1; last > 0; last--) {
      const other = this.#dice.below(last + 1);
      [runs[last], runs[other]] = [runs[other]!, runs[last]!]; // Both are below the length.
    }
  }

  #run(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#fail(error);
    }
  }
}

/** Resolves once all promises have settled that can: a turn of the event loop costs several times as much. */
const nextTick = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));
