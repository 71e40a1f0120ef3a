import type { RelayCall } from "./shards.ts";

/** Runs of the home object that are remembered. An object runs once, but a call of an earlier run may still be under way. */
const MAX_RUNS = 10;

/** The number of the latest call that a relay has had of each run of the home object. */
export class ReceivedCalls {
  readonly #latest = new Map<string, number>();

  /**
   * Records a call with items. Returns whether it is new; the items of a known call were handled before.
   *
   * @throws {Error} for a call from before the latest one: its items would come out of order, and maybe again.
   */
  record({ run, number }: Pick<RelayCall, "run" | "number">): boolean {
    const latest = this.#latest.get(run) ?? 0;
    if (number < latest) throw new Error("Cannot take the call: a later one has come before it");
    this.#latest.set(run, number);
    for (const oldest of this.#latest.keys()) if (this.#latest.size > MAX_RUNS) this.#latest.delete(oldest);
    return number > latest;
  }
}
