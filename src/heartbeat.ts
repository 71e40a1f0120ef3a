/** The connection a heartbeat belongs to. */
export interface HeartbeatOwner {
  /** Asks the peer for a sign of life. */
  probe(): void;
  /** The peer has given none for a whole period. */
  silent(): void;
}

/**
 * Finds a peer that is gone. Only what comes in counts: one that is written to and never answers is dead, and one that
 * answers protocol pings is alive though it never sends a message.
 */
export class Heartbeat {
  readonly #owner: HeartbeatOwner;
  readonly #period: number;
  readonly #now: () => number;
  #heard = true;
  #at: number;

  /**
   * @param period ms between two beats.
   * @param now the monotonic clock, in ms.
   */
  constructor(owner: HeartbeatOwner, period: number, now: () => number) {
    this.#owner = owner;
    this.#period = period;
    this.#now = now;
    // Spread over half a period: clients that came back together after a restart are not asked together for ever.
    this.#at = now() + period * (0.5 + Math.random() / 2);
  }

  /** Something came in. */
  heard(): void {
    this.#heard = true;
  }

  /** When {@link due} is to be called, in ms from now. */
  get remaining(): number {
    return Math.max(0, this.#at - this.#now());
  }

  due(): void {
    if (this.remaining > 0) return;
    if (!this.#heard) return this.#owner.silent();
    this.#heard = false;
    this.#at = this.#now() + this.#period;
    this.#owner.probe();
  }
}
