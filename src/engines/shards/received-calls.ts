import type { RelayCall } from "./shards.ts";

/** Maximum number of runs of the home object that are kept: calls of an earlier run may still be under way. */
const MAX_RUNS = 10;

/** The number of the latest call that a relay has received, for each run of the home object. */
export class ReceivedCalls {
  readonly #latest = new Map<string, number>();

  /**
   * Records a call with items. Returns whether it is new, so that the items of a repeated call are handled once.
   *
   * @throws {Error} if the call is older than the latest: its items would be out of order.
   */
  record({ run, number }: Pick<RelayCall, "run" | "number">): boolean {
    const latest = this.#latest.get(run) ?? 0;
    if (number < latest) throw new Error("Cannot handle the call: a later one has arrived before it");
    this.#latest.set(run, number);
    for (const oldest of this.#latest.keys()) if (this.#latest.size > MAX_RUNS) this.#latest.delete(oldest);
    return number > latest;
  }
}
