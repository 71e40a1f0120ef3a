/** Number of keys above which keys whose window is over are removed. */
const PRUNE_AT = 1_024;

/** Maximum number of counted ids that are kept to recognize repeats. A repeat of a dropped id counts again. */
const MAX_KNOWN = 50_000;

/** Limits how much each user makes the server remember, such as publication ids. A user is one key of `rateLimit`. */
export class IdQuota {
  readonly #max: number;
  readonly #window: number;
  readonly #now: () => number;
  readonly #counts = new Map<string, { count: number; readonly until: number }>();
  /** Ids that were counted, with the time until which the server remembers them, earliest first. */
  readonly #known = new Map<string, number>();
  #pruneAt = PRUNE_AT;

  /** @param window in ms; @param now monotonic clock, in ms */
  constructor(max: number, window: number, now: () => number) {
    this.#max = max;
    this.#window = window;
    this.#now = now;
  }

  /**
   * Counts an id of the key once, and allows its repeats: a client would take a refused repeat to mean that its first attempt had no
   * effect. Returns what {@link take} returns.
   */
  takeId(key: string, id: string): number {
    if (this.#max === Infinity) return 0;
    const now = this.#now();
    for (const [oldest, until] of this.#known) {
      if (until > now && this.#known.size <= MAX_KNOWN) break;
      this.#known.delete(oldest);
    }
    const known = JSON.stringify([key, id]);
    if (this.#known.has(known)) return 0;
    const wait = this.take(key);
    if (wait === 0) this.#known.set(known, now + this.#window);
    return wait;
  }

  /** Counts `count` ids of the key. Returns 0, or the ms to wait before the next one is allowed: then nothing was counted. */
  take(key: string, count = 1): number {
    if (this.#max === Infinity) return 0;
    const now = this.#now();
    let current = this.#counts.get(key);
    if (!current || current.until <= now) {
      if (this.#counts.size >= this.#pruneAt) this.#prune(now);
      this.#counts.set(key, current = { count: 0, until: now + this.#window });
    }
    if (current.count >= this.#max) return Math.max(1, Math.ceil(current.until - now));
    current.count += count;
    return 0;
  }

  #prune(now: number): void {
    for (const [key, { until }] of this.#counts) if (until <= now) this.#counts.delete(key);
    this.#pruneAt = Math.max(PRUNE_AT, 2 * this.#counts.size);
  }
}
