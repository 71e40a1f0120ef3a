/** Prefix of the names of single-use nodes. Names of other nodes have no dot. */
const PREFIX = "tx.";

/** Maximum time from sealing the envelope of a transaction to its commit, in ms. */
const MAX_AGE = 3_600_000;

/** Maximum number of single-use nodes that are kept. */
const MAX_NODES = 50_000;

/**
 * Node names that are used for one envelope, which a transaction publishes at its commit. Its number could not be compared with those of
 * envelopes that were sent before the commit. Each name is accepted once.
 */
export class SingleUseNodes {
  readonly #times = new Map<string, number>();
  /** The latest time of sealing of a node that is no longer kept. Envelopes that are not newer may be copies. */
  #forgotten = -Infinity;

  /** Makes a new name. */
  static name(): string {
    return `${PREFIX}${crypto.randomUUID()}`;
  }

  static has(node: string): boolean {
    return node.startsWith(PREFIX);
  }

  get size(): number {
    return this.#times.size;
  }

  /** Records the envelope of a node. @param time when it was sealed. @param arrivedAt when it was received or stored, by the same clock. */
  judge(node: string, time: number, arrivedAt: number): "genuine" | "replayed" | "stale" {
    if (this.#times.has(node)) return "replayed";
    if (Math.abs(arrivedAt - time) > MAX_AGE || time <= this.#forgotten) return "stale";
    this.#times.set(node, time);
    if (this.#times.size > MAX_NODES) {
      for (const [oldest, sealed] of this.#times) {
        this.#times.delete(oldest);
        this.#forgotten = Math.max(this.#forgotten, sealed);
        break;
      }
    }
    return "genuine";
  }
}
