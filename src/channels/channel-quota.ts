/** Time in ms that a new name counts against the limit. */
const PERIOD = 60_000;

/** Number of keys above which keys without a recent name are removed. */
const PRUNE_AT = 1024;

/** Limits of one user over all its connections to this node. */
export interface ChannelLimits {
  readonly maxSubscriptionsPerUser: number;
  readonly maxNewChannelsPerMinute: number;
}

/** Limits the subscriptions of each user and the new channel names that it uses. A user is one key of `rateLimit`. */
export class ChannelQuota {
  readonly #limits: ChannelLimits;
  readonly #now: () => number;
  readonly #subscriptions = new Map<string, number>();
  /** New names of each key, oldest first, with the time of first use in ms of the monotonic clock. */
  readonly #names = new Map<string, Map<string, number>>();
  #pruneAt = PRUNE_AT;

  /** @param now monotonic clock, in ms */
  constructor(limits: ChannelLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Whether the key may have another subscription. */
  hasRoom(key: string): boolean {
    return (this.#subscriptions.get(key) ?? 0) < this.#limits.maxSubscriptionsPerUser;
  }

  /** Adds to the key's number of subscriptions; negative to subtract. */
  count(key: string, change: number): void {
    const count = (this.#subscriptions.get(key) ?? 0) + change;
    if (count > 0) this.#subscriptions.set(key, count);
    else this.#subscriptions.delete(key);
  }

  /** Records a channel without subscribers on this node. Returns 0, or the ms to wait before another new name is allowed. */
  recordName(key: string, channel: string): number {
    const { maxNewChannelsPerMinute } = this.#limits;
    if (maxNewChannelsPerMinute === Infinity) return 0;
    const now = this.#now();
    if (this.#names.size > this.#pruneAt) this.#prune(now);
    const names = this.#names.get(key) ?? new Map<string, number>();
    forget(names, now);
    if (names.has(channel)) return 0;
    if (names.size >= maxNewChannelsPerMinute) {
      const [oldest = now] = names.values();
      return Math.max(1, Math.ceil(oldest + PERIOD - now));
    }
    names.set(channel, now);
    this.#names.set(key, names);
    return 0;
  }

  #prune(now: number): void {
    for (const [key, names] of this.#names) {
      forget(names, now);
      if (names.size === 0) this.#names.delete(key);
    }
    // Doubling keeps the amortized cost of pruning at O(1) per name.
    this.#pruneAt = Math.max(PRUNE_AT, 2 * this.#names.size);
  }
}

/** Deletes names older than {@link PERIOD}. */
function forget(names: Map<string, number>, now: number): void {
  for (const [name, at] of names) {
    if (now - at < PERIOD) return;
    names.delete(name);
  }
}
