import { addressKey } from "./address.ts";
import type { Timed } from "./clock.ts";
import type { AnnouncedLimits } from "./protocol.ts";

/** How many connections there may be; each is unlimited at `Infinity`. */
export interface ConnectionLimits {
  /** In all. */
  readonly maxConnections: number;
  /** That have not been admitted yet. */
  readonly maxPending: number;
  /** From one address, that have not been admitted yet. */
  readonly maxPendingPerIp: number;
  /** From one address. */
  readonly maxConnectionsPerIp: number;
  /** Of one user. */
  readonly maxConnectionsPerUser: number;
}

/** Which limit is reached. */
export type ReachedLimit = "connections" | "pending" | "ip-pending" | "ip";

/** What is counted. */
interface Counts {
  total: number;
  pending: number;
  /** Absent where there may be any number: an entry would take 70 bytes. */
  readonly ips: Map<string, number> | undefined;
  /** Addresses of those that are pending. */
  readonly pendingIps: Map<string, number>;
  readonly users: Map<string, number> | undefined;
  readonly maxPerUser: number;
}

/** Counts the connections against their limits, from before the first `await` of an upgrade until they are gone. */
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

  /** How many addresses and users are counted for the whole of a connection. */
  get keys(): number {
    const { ips, users } = this.#counts;
    return (ips?.size ?? 0) + (users?.size ?? 0);
  }

  /**
   * Takes a place for a pending connection, or returns the limit that is reached.
   *
   * @param ip the client's address, counted with its network; `null`, where it is not known, counts among all only.
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

  /** Takes a place for a connection that is there already: it came back from hibernation. */
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

/** One connection's place. It is given back once, however the upgrade or the connection ends. */
export class Slot implements Timed {
  deadline = 0;
  place = -1;
  readonly #counts: Counts;
  /** Kept while one of the counts has it: an idle client's address would take 50 bytes. */
  #key: string | null;
  #user: string | null = null;
  #stage: "reserved" | "taken" | "admitted" | "released" = "reserved";

  /** @param key what the client's address is counted by. */
  constructor(counts: Counts, key: string | null) {
    this.#counts = counts;
    this.#key = key;
    counts.total++;
    counts.pending++;
    add(counts.ips, key, 1);
    add(counts.pendingIps, key, 1);
  }

  /** Whether it was given back: then no connection may use it. */
  get released(): boolean {
    return this.#stage === "released";
  }

  /** Whether a connection has come for it. */
  get taken(): boolean {
    return this.#stage !== "reserved";
  }

  /** A connection comes for it. */
  take(): void {
    if (this.#stage === "reserved") this.#stage = "taken";
  }

  /** Nobody came for it in time: a client that goes away during its upgrade is not always told of. */
  due(): void {
    this.release();
  }

  /** Counts the connection as this user's; `false`, and nothing changed, when the user has as many as may be. */
  claim(user: string | null): boolean {
    if (this.released || user === this.#user) return true;
    const { users, maxPerUser } = this.#counts;
    if (user !== null && users && (users.get(user) ?? 0) >= maxPerUser) return false;
    add(users, user, 1);
    add(users, this.#user, -1);
    this.#user = user;
    return true;
  }

  /** The connection is not pending any more. */
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

/** A token bucket for messages and one for their bytes: so many at once, refilled at so many a second. */
export interface RateLimit {
  /** Messages a second, in the long run. @default {100} */
  messages?: number;
  /** Messages at once. @default {2_000} */
  burst?: number;
  /** Bytes a second, in the long run. @default {1_048_576} */
  bytes?: number;
  /** Bytes at once. @default {8_388_608} */
  burstBytes?: number;
}

interface Bucket {
  messages: number;
  bytes: number;
  /** When it was last refilled, in ms of the monotonic clock. */
  at: number;
}

/** Buckets that are kept before full ones are looked for and forgotten. */
const PRUNE_AT = 1024;

/**
 * Waits up to this one, in ms, are none: what is refilled bit by bit adds up to a little less than a whole message, and whoever has waited as
 * long as it was told is to be let through. What is short then is owed by the bucket, so that no more pass in the long run.
 */
const ROUNDING = 0.001;

/** Rate limits by key. A bucket outlives its connection, so that reconnecting does not fill it, and is forgotten once full. */
export class RateLimiter {
  readonly #limit: Required<RateLimit>;
  readonly #buckets = new Map<string, Bucket>();
  #pruneAt = PRUNE_AT;

  constructor(limit: Required<RateLimit>) {
    this.#limit = limit;
  }

  /** How many buckets are not full, or were not when last looked at. */
  get size(): number {
    return this.#buckets.size;
  }

  /**
   * Takes a message of so many bytes, or one that costs as much as several; 0 when it is within the limit, else the ms after which it
   * would be.
   */
  take(key: string, bytes: number, now: number, messages: number = 1): number {
    const bucket = this.#bucketOf(key, now);
    const { burst, burstBytes } = this.#limit;
    // What is larger than the whole bucket waits for a full one.
    const cost = Math.min(bytes, burstBytes);
    const count = Math.min(messages, burst);
    const wait = this.#waitOf(bucket, cost, count);
    if (wait > 0) return wait;
    bucket.messages -= count;
    bucket.bytes -= cost;
    return 0;
  }

  /** What {@link take} would return for a message without bytes, which is not taken. */
  peek(key: string, now: number): number {
    const bucket = this.#buckets.get(key);
    if (!bucket) return 0;
    this.#refill(bucket, now);
    return this.#waitOf(bucket, 0, 1);
  }

  /** What a client is told of its two buckets. */
  left(key: string, now: number): Required<Pick<AnnouncedLimits, "messages" | "bytes">> {
    const { messages, burst, bytes, burstBytes } = this.#limit;
    const bucket = this.#buckets.get(key);
    if (bucket) this.#refill(bucket, now);
    const left = (amount: number) => Math.max(0, Math.floor(amount));
    return {
      messages: { rate: messages, burst, left: left(bucket?.messages ?? burst) },
      bytes: { rate: bytes, burst: burstBytes, left: left(bucket?.bytes ?? burstBytes) },
    };
  }

  /**
   * Takes messages without bytes whether or not they are within the limit: what is too much has to be waited for.
   *
   * @param maxDebt the messages that may be owed at most.
   */
  charge(key: string, now: number, messages: number = 1, maxDebt: number = Infinity): void {
    const bucket = this.#bucketOf(key, now);
    bucket.messages = Math.max(-maxDebt, bucket.messages - messages);
  }

  #bucketOf(key: string, now: number): Bucket {
    // Before the bucket is looked up: it would be forgotten while it is full, and what is taken from it with it.
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
    // Doubled by what is left, so that looking costs O(1) a message.
    this.#pruneAt = Math.max(PRUNE_AT, 2 * this.#buckets.size);
  }
}

/** Messages that an address may owe: it waits at most as many seconds, and one. */
const MAX_FAILURE_DEBT = 29;

/** What all clients count as whose address is not known, such as those behind a Unix socket. It is no address. */
const UNKNOWN = "unknown";

/**
 * Authentications that may fail from one address: 30 at once, then one a second. An address is refused for at most 30 seconds, however
 * many have failed: valid tokens may come from it too, such as those of an office whose old ones have all expired overnight.
 */
export class FailureLimiter {
  readonly #limiter = new RateLimiter({ messages: 1, burst: 30, bytes: 1, burstBytes: 1 });
  readonly #now: () => number;

  /** @param now the monotonic clock, in ms. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Whether another attempt may be made: 0, or the ms to wait. */
  wait(ip: string | null): number {
    return this.#limiter.peek(keyOf(ip), this.#now());
  }

  /**
   * An attempt has failed. Those that were under way together all count, beyond what may fail at once too: valid ones from the same address,
   * such as clients that all come back after a restart, must not be refused for being many.
   */
  failed(ip: string | null): void {
    this.#limiter.charge(keyOf(ip), this.#now(), 1, MAX_FAILURE_DEBT);
  }
}

const keyOf = (ip: string | null): string => ip === null ? UNKNOWN : addressKey(ip);

/** How many more messages may be refused than let through before a client is closed. */
export const MAX_EXCESS = 100;
