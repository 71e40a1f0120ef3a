/** Limits of the number of connections, the rate of messages, and failed authentications. */
import { addressKey } from "./address.ts";
import type { Timed } from "./clock.ts";
import type { AnnouncedLimits } from "../protocol/protocol.ts";

/** Maximum numbers of connections. `Infinity` means no limit. */
export interface ConnectionLimits {
  /** Of all connections. */
  readonly maxConnections: number;
  /** Of connections that are not admitted yet. */
  readonly maxPending: number;
  /** Of connections from one address that are not admitted yet. */
  readonly maxPendingPerIp: number;
  /** Of connections from one address. */
  readonly maxConnectionsPerIp: number;
  /** Of connections of one user. */
  readonly maxConnectionsPerUser: number;
}

/** The limit that was reached. */
export type ReachedLimit = "connections" | "pending" | "ip-pending" | "ip";

/** The current numbers of connections. */
interface Counts {
  total: number;
  pending: number;
  /** By address. Absent without a limit, because an entry takes 70 bytes. */
  readonly ips: Map<string, number> | undefined;
  /** Pending connections by address. */
  readonly pendingIps: Map<string, number>;
  readonly users: Map<string, number> | undefined;
  readonly maxPerUser: number;
}

/** Counts connections against their limits, from before the first `await` of an upgrade until they close. */
export class Admission {
  readonly #limits: ConnectionLimits;
  readonly #counts: Counts;

  constructor(limits: ConnectionLimits) {
    const { maxConnectionsPerIp, maxConnectionsPerUser } = limits;
    this.#limits = limits;
    this.#counts = {
      total: 0,
      pending: 0,
      ips: maxConnectionsPerIp === Infinity ? undefined : new Map(),
      pendingIps: new Map(),
      users: maxConnectionsPerUser === Infinity ? undefined : new Map(),
      maxPerUser: maxConnectionsPerUser,
    };
  }

  get total(): number {
    return this.#counts.total;
  }

  get pending(): number {
    return this.#counts.pending;
  }

  /** Number of connections that are admitted and not closed. */
  get admitted(): number {
    return this.#counts.total - this.#counts.pending;
  }

  /** Number of addresses and users that are counted, without those of pending connections. */
  get keys(): number {
    const { ips, users } = this.#counts;
    return (ips?.size ?? 0) + (users?.size ?? 0);
  }

  /**
   * Reserves a slot for a pending connection, or returns the limit that was reached.
   *
   * @param ip the client's address, an IPv6 address counted as its /64 network; `null`: unknown, so only the totals apply.
   */
  reserve(ip: string | null): Slot | ReachedLimit {
    const { maxConnections, maxPending, maxPendingPerIp, maxConnectionsPerIp } = this.#limits;
    const { total, pending, ips, pendingIps } = this.#counts;
    const key = ip === null ? null : addressKey(ip);
    if (total >= maxConnections) return "connections";
    if (key !== null && (ips?.get(key) ?? 0) >= maxConnectionsPerIp) return "ip";
    if (key !== null && (pendingIps.get(key) ?? 0) >= maxPendingPerIp) return "ip-pending";
    if (pending >= maxPending) return "pending";
    return new Slot(this.#counts, key);
  }

  /** Takes a slot for a connection that exists already, such as one that has returned from hibernation. No limit applies. */
  restore(ip: string | null): Slot {
    return new Slot(this.#counts, ip === null ? null : addressKey(ip));
  }
}

function add(counts: Map<string, number> | undefined, key: string | null, change: number): void {
  if (key === null || !counts) return;
  const count = (counts.get(key) ?? 0) + change;
  if (count > 0) counts.set(key, count);
  else counts.delete(key);
}

/** The slot of one connection. It is released once, however the upgrade or the connection ends. */
export class Slot implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #counts: Counts;
  /** The key of the address; `null` once it is no longer counted, which saves 50 bytes for an idle client. */
  #key: string | null;
  #user: string | null = null;
  #stage: "reserved" | "taken" | "admitted" | "released" = "reserved";

  /** @param key the key of the client's address; `null`: unknown. */
  constructor(counts: Counts, key: string | null) {
    this.#counts = counts;
    this.#key = key;
    counts.total++;
    counts.pending++;
    add(counts.ips, key, 1);
    add(counts.pendingIps, key, 1);
  }

  /** Whether the slot was released: no connection may use it any more. */
  get released(): boolean {
    return this.#stage === "released";
  }

  /** Whether a connection has taken the slot. */
  get taken(): boolean {
    return this.#stage !== "reserved";
  }

  /** A connection takes the slot. */
  take(): void {
    if (this.#stage === "reserved") this.#stage = "taken";
  }

  /** Called if no connection takes the slot in time. Runtimes do not always report that a client left during its upgrade. */
  due(): void {
    this.release();
  }

  /** Counts the connection for this user. Returns `false` if the user has reached the limit; then nothing has changed. */
  claim(user: string | null): boolean {
    if (this.released || user === this.#user) return true;
    const { users, maxPerUser } = this.#counts;
    if (user !== null && users && (users.get(user) ?? 0) >= maxPerUser) return false;
    add(users, user, 1);
    add(users, this.#user, -1);
    this.#user = user;
    return true;
  }

  /** Called when the connection was admitted. It no longer counts as pending. */
  admit(): void {
    if (this.#stage === "admitted" || this.released) return;
    this.#stage = "admitted";
    this.#counts.pending--;
    add(this.#counts.pendingIps, this.#key, -1);
    if (!this.#counts.ips) this.#key = null;
  }

  release(): void {
    if (this.released) return;
    this.admit();
    this.#stage = "released";
    this.#counts.total--;
    add(this.#counts.ips, this.#key, -1);
    add(this.#counts.users, this.#user, -1);
  }
}

/** Rates of messages and of their bytes, each limited by a token bucket. */
export interface RateLimit {
  /** Messages per second, on average. @default {100} */
  messages?: number;
  /** Maximum number of messages at once, when the bucket is full. @default {2_000} */
  burst?: number;
  /** Bytes per second, on average. @default {1_048_576} */
  bytes?: number;
  /** Maximum number of bytes at once, when the bucket is full. @default {8_388_608} */
  burstBytes?: number;
}

interface Bucket {
  messages: number;
  bytes: number;
  /** When the bucket was last refilled, in ms of the monotonic clock. */
  at: number;
}

/** Number of buckets above which full ones are removed. */
const PRUNE_AT = 1024;

/**
 * Shorter waits count as none, in ms. Because of rounding, partial refills may add up to slightly less than a message, but a client that
 * has waited for the time in the error must get through. The bucket goes below zero by the difference, so the average rate is exact.
 */
const ROUNDING = 0.001;

/** Rate limits by key. A bucket outlives its connection, so that reconnecting does not refill it. Full buckets are removed. */
export class RateLimiter {
  readonly #limit: Required<RateLimit>;
  readonly #buckets = new Map<string, Bucket>();
  #pruneAt = PRUNE_AT;

  constructor(limit: Required<RateLimit>) {
    this.#limit = limit;
  }

  /** Number of buckets in memory. */
  get size(): number {
    return this.#buckets.size;
  }

  /**
   * Takes a message from the bucket. Returns 0, or the ms to wait, in which case nothing was taken.
   *
   * @param messages its cost, in messages.
   */
  take(key: string, bytes: number, now: number, messages: number = 1): number {
    const bucket = this.#bucketOf(key, now);
    const { burst, burstBytes } = this.#limit;
    // A message larger than the bucket waits until it is full.
    const cost = Math.min(bytes, burstBytes);
    const count = Math.min(messages, burst);
    const wait = this.#waitOf(bucket, cost, count);
    if (wait > 0) return wait;
    bucket.messages -= count;
    bucket.bytes -= cost;
    return 0;
  }

  /** The result of {@link take} for an empty message, which is not taken. */
  peek(key: string, now: number): number {
    const bucket = this.#buckets.get(key);
    if (!bucket) return 0;
    this.#refill(bucket, now);
    return this.#waitOf(bucket, 0, 1);
  }

  /** The state of both buckets, as announced to the client (PROTOCOL.md §2.9). */
  left(key: string, now: number): Required<Pick<AnnouncedLimits, "messages" | "bytes">> {
    const { messages, burst, bytes, burstBytes } = this.#limit;
    const bucket = this.#buckets.get(key);
    if (bucket) this.#refill(bucket, now);
    const left = (amount: number) => Math.floor(amount + ROUNDING);
    return {
      messages: { rate: messages, burst, left: left(bucket?.messages ?? burst) },
      bytes: { rate: bytes, burst: burstBytes, left: left(bucket?.bytes ?? burstBytes) },
    };
  }

  /**
   * Takes empty messages even beyond the limit. The debt delays later ones.
   *
   * @param maxDebt maximum debt, in messages.
   */
  charge(key: string, now: number, messages: number = 1, maxDebt: number = Infinity): void {
    const bucket = this.#bucketOf(key, now);
    bucket.messages = Math.max(-maxDebt, bucket.messages - messages);
  }

  #bucketOf(key: string, now: number): Bucket {
    // Before the lookup, because pruning may remove this bucket, too, and what is taken from it would be lost.
    if (this.#buckets.size > this.#pruneAt) this.#prune(now);
    let bucket = this.#buckets.get(key);
    if (bucket) this.#refill(bucket, now);
    else this.#buckets.set(key, bucket = { messages: this.#limit.burst, bytes: this.#limit.burstBytes, at: now });
    return bucket;
  }

  #waitOf(bucket: Bucket, cost: number, count: number): number {
    const { messages, bytes } = this.#limit;
    const wait = 1000 * Math.max((count - bucket.messages) / messages, (cost - bucket.bytes) / bytes);
    return wait <= ROUNDING ? 0 : Math.ceil(wait);
  }

  #refill(bucket: Bucket, now: number): void {
    const { messages, burst, bytes, burstBytes } = this.#limit;
    const seconds = Math.max(0, now - bucket.at) / 1000;
    bucket.messages = Math.min(burst, bucket.messages + seconds * messages);
    bucket.bytes = Math.min(burstBytes, bucket.bytes + seconds * bytes);
    bucket.at = now;
  }

  #prune(now: number): void {
    for (const [key, bucket] of this.#buckets) {
      this.#refill(bucket, now);
      if (bucket.messages >= this.#limit.burst && bucket.bytes >= this.#limit.burstBytes) this.#buckets.delete(key);
    }
    // Prunes next at twice the remaining size, so that the amortized cost for each message is O(1).
    this.#pruneAt = Math.max(PRUNE_AT, 2 * this.#buckets.size);
  }
}

/** Maximum debt of an address, in failed attempts, so that it waits at most 30 s. */
const MAX_FAILURE_DEBT = 29;

/** The key of all clients without an address, such as those of a Unix socket. */
const UNKNOWN = "unknown";

/**
 * Limits failed authentications from one address: 30 at once, then one per second. An address is refused for at most 30 s, however many
 * have failed, because it may have valid clients, too, such as an office whose old tokens have all expired overnight.
 */
export class FailureLimiter {
  readonly #limiter = new RateLimiter({ messages: 1, burst: 30, bytes: 1, burstBytes: 1 });
  readonly #now: () => number;

  /** @param now the monotonic clock, in ms. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Time in ms until another attempt is allowed; 0 if it is allowed now. */
  wait(ip: string | null): number {
    return this.#limiter.peek(keyOf(ip), this.#now());
  }

  /**
   * Counts a failed attempt. Attempts are counted only when they fail, so that many valid clients of one address may reconnect together
   * after a restart. So concurrent attempts may exceed the burst.
   */
  failed(ip: string | null): void {
    this.#limiter.charge(keyOf(ip), this.#now(), 1, MAX_FAILURE_DEBT);
  }
}

const keyOf = (ip: string | null): string => ip === null ? UNKNOWN : addressKey(ip);

/** Refused messages, minus those accepted since, above which a client is closed. */
export const MAX_EXCESS = 100;
