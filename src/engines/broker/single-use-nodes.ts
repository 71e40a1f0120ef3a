/** Starts the name of a node that sends one envelope. Names of other nodes have no dot. */
const PREFIX = "tx.";

/** Maximum time from the sealing of the envelope of a transaction to its commit, in ms. */
const MAX_AGE = 3_600_000;

/** Maximum number of nodes remembered. */
const MAX_NODES = 50_000;

/** Nodes that send one envelope, which a transaction commits at any later time. Each is accepted once. */
export class SingleUseNodes {
  readonly #times = new Map<string, number>();
  /** The latest time of sealing of a forgotten node: an older envelope may be a copy. */
  #forgotten = -Infinity;

  /** Makes the name of such a node. */
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
