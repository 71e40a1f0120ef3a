/** How long a name counts as new, in ms. */
const PERIOD = 60_000;

/** Keys that are kept before those without a new name are looked for and forgotten. */
const PRUNE_AT = 1024;

/** What one user may have in channels over all its connections to this node; the key says who counts as one. */
export interface ChannelLimits {
  readonly maxSubscriptionsPerUser: number;
  readonly maxNewChannelsPerMinute: number;
}

/** Counts what users have in channels, and the channel names they bring up. */
export class ChannelQuota {
  readonly #limits: ChannelLimits;
  readonly #now: () => number;
  readonly #subscriptions = new Map<string, number>();
  /** For each key the names it has brought up, the oldest first, and when: ms of the monotonic clock. */
  readonly #names = new Map<string, Map<string, number>>();
  #pruneAt = PRUNE_AT;

  /** @param now the monotonic clock, in ms. */
  constructor(limits: ChannelLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Whether there may be one subscription more. */
  hasRoom(key: string): boolean {
    return (this.#subscriptions.get(key) ?? 0) < this.#limits.maxSubscriptionsPerUser;
  }

  /** So many subscriptions more, or less. */
  count(key: string, change: number): void {
    const count = (this.#subscriptions.get(key) ?? 0) + change;
    if (count > 0) this.#subscriptions.set(key, count);
    else this.#subscriptions.delete(key);
  }

  /** Brings up a channel that nobody here is subscribed to: 0, or the ms to wait until one more name may be new. */
  bringUp(key: string, channel: string): number {
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
    // Doubled by what is left, so that looking costs O(1) a name.
    this.#pruneAt = Math.max(PRUNE_AT, 2 * this.#names.size);
  }
}

/** Lets go of the names that are not new any more. */
function forget(names: Map<string, number>, now: number): void {
  for (const [name, at] of names) {
    if (now - at < PERIOD) return;
    names.delete(name);
  }
}
