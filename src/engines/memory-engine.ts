import type { Timed } from "../base/clock.ts";
import type {
  Engine,
  EngineHost,
  EngineStatus,
  HistoryOptions,
  HistoryPage,
  Member,
  Position,
  PublicationContent,
  PublishOnce,
} from "./engine.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { History, HISTORY_BYTES } from "./history.ts";
import { PublishedIds } from "./published-ids.ts";

/** Options of {@link MemoryEngine}. */
export interface MemoryEngineOptions {
  /**
   * Approximate maximum size of all histories, in bytes. Beyond it, the least recently used channels lose publications, oldest
   * first, and are deleted if they have no subscriber. The 400 bytes of each channel with subscribers are not counted.
   *
   * @default {67_108_864}
   */
  maxHistoryBytes?: number;
}

/** Maximum number of channels swept in one turn of the event loop. */
const SWEEP_CHANNELS = 2_000;

/** Time between two sweeps, in ms. */
const SWEEP_PERIOD = 10_000;

/** The default engine, for one node. All state is in memory, and lost when the process ends. */
export class MemoryEngine implements Engine, Timed {
  /** Whether the engine can be used now. */
  status: EngineStatus = "ready";
  /** There are no other nodes. */
  readonly isAlone = true;
  /** When it sweeps next, in ms of the monotonic clock. */
  readonly deadline: number = 0;
  /** Index in the heap of deadlines. */
  readonly heapIndex: number = -1;

  readonly #histories = new Map<string, History>();
  /** Channels whose history can be trimmed, least recently used first. */
  readonly #used = new Set<string>();
  readonly #members = new Map<string, Map<string, Member>>();
  readonly #subscribed = new Set<string>();
  readonly #ids = new PublishedIds();
  readonly #maxHistoryBytes: number;
  #bytes = 0;
  /** Number of histories created so far. Each has its own epoch, because offsets start at 0. */
  #epochs = 0;
  #host: EngineHost | undefined;
  /** Channels left to sweep. */
  #sweeping: string[] = [];

  /** Creates the engine. @throws {TypeError} for an option out of range. */
  constructor({ maxHistoryBytes = 67_108_864 }: MemoryEngineOptions = {}) {
    if (!Number.isSafeInteger(maxHistoryBytes) || maxHistoryBytes < 1) {
      throw new TypeError("Cannot create the engine: maxHistoryBytes must be a whole number of bytes from 1, such as 67_108_864");
    }
    this.#maxHistoryBytes = maxHistoryBytes;
  }

  /** Number of channels with a history, members or a subscription. */
  get channels(): number {
    return new Set([...this.#histories.keys(), ...this.#members.keys(), ...this.#subscribed]).size;
  }

  /** Approximate size of all histories, in bytes. */
  get historyBytes(): number {
    return this.#bytes;
  }

  /** Starts the engine for one controller. @throws {TypeError} if it was started before. */
  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it belongs to another controller, make one for each");
    this.#host = host;
  }

  /** Sends a message to the other nodes. */
  send(): void {
    this.#check("send"); // There are no other nodes.
  }

  /** Lists the live nodes, including this one. */
  nodes(): string[] {
    this.#check("list the nodes");
    return this.#host ? [this.#host.node] : [];
  }

  /** Subscribes this node to a channel. */
  subscribe(channel: string, history: HistoryOptions | null): Position | null {
    this.#check("subscribe");
    this.#subscribed.add(channel);
    return history && this.#use(channel, history).position;
  }

  /** Ends the subscription of this node. */
  unsubscribe(channel: string): void {
    if (this.#subscribed.delete(channel) && this.#histories.has(channel)) this.#used.add(channel);
  }

  /** Publishes to a channel, and appends to its history if it has one. */
  publish(channel: string, content: PublicationContent, history: HistoryOptions | null, once?: PublishOnce): Position | null {
    this.#check("publish");
    if (once) {
      const known = this.#ids.find(channel, once, this.#now());
      if (known !== undefined) return known;
      this.#ids.checkRoom();
    }
    let publication = null;
    if (history) {
      const kept = this.#use(channel, history);
      const before = kept.bytes;
      publication = kept.append(content, history, this.#now());
      this.#bytes += kept.bytes - before;
      this.#trim();
    }
    if (once) this.#ids.add(channel, once, publication && publication.position, this.#now());
    if (this.#subscribed.has(channel)) {
      // The history does not keep `traceparent`, because later reads are not part of the trace.
      const live = publication && content.traceparent === undefined
        ? publication
        : { position: null, ...publication, ...content };
      this.#host?.published(channel, live);
    }
    return publication && publication.position;
  }

  /** Reads the history of a channel after a position. */
  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number = Infinity,
  ): HistoryPage {
    this.#check("read");
    const kept = this.#use(channel, history);
    const before = kept.bytes;
    const page = kept.read(after, limit, maxBytes, this.#now());
    this.#bytes += kept.bytes - before;
    return page;
  }

  /** Adds or updates a member of a channel. */
  join(channel: string, member: Member): void {
    this.#check("join");
    let members = this.#members.get(channel);
    if (!members) this.#members.set(channel, members = new Map());
    const before = members.get(member.user);
    members.set(member.user, member);
    const hasChanged = !before || before.data !== member.data;
    if (hasChanged && this.#subscribed.has(channel)) this.#host?.present(channel, [member], []);
  }

  /** Removes a member from a channel. */
  leave(channel: string, user: string): void {
    const members = this.#members.get(channel);
    if (!members?.delete(user)) return;
    if (members.size === 0) this.#members.delete(channel);
    if (this.#subscribed.has(channel)) this.#host?.present(channel, [], [user]);
  }

  /** Lists the members of a channel. */
  members(channel: string): Member[] {
    this.#check("list the members");
    return [...this.#members.get(channel)?.values() ?? []];
  }

  /** Ends the engine; it cannot be started again. */
  close(): void {
    this.status = "closed";
    this.#histories.clear();
    this.#used.clear();
    this.#members.clear();
    this.#subscribed.clear();
    this.#ids.clear();
    this.#bytes = 0;
    this.#sweeping = [];
    this.#host?.deadlines.delete(this);
  }

  #check(action: string): void {
    if (this.status !== "closed") return;
    throw new WebSocketError("engine", "ENGINE_UNAVAILABLE", `Cannot ${action}: the engine is closed`);
  }

  #now(): number {
    return this.#host?.now() ?? 0;
  }

  /** Returns the channel's history, created if necessary, and marks it as most recently used. */
  #use(channel: string, { ttl }: HistoryOptions): History {
    const now = this.#now();
    let history = this.#histories.get(channel);
    if (history && this.#hasExpired(channel, history, now)) {
      this.#delete(channel, history);
      history = undefined;
    }
    // The node's name makes the epoch unique across restarts.
    if (!history) {
      history = new History(`${this.#host?.node ?? ""}.${++this.#epochs}`);
      this.#bytes += history.bytes;
    }
    history.until = Math.max(history.until, now + ttl);
    this.#histories.set(channel, history);
    this.#used.delete(channel);
    this.#used.add(channel);
    this.#trim();
    if (this.heapIndex < 0) this.#host?.deadlines.set(this, SWEEP_PERIOD);
    return history;
  }

  /** Whether all positions of the history have expired. */
  #hasExpired(channel: string, history: History, now: number): boolean {
    return history.until <= now && !this.#subscribed.has(channel);
  }

  #delete(channel: string, history: History): void {
    this.#bytes -= history.bytes;
    this.#histories.delete(channel);
    this.#used.delete(channel);
  }

  /** Deletes channels that were not used for their `ttl`, and expired publications of the others. */
  due(): void {
    const now = this.#now();
    this.#ids.expire(now);
    if (this.#sweeping.length === 0) this.#sweeping = [...this.#histories.keys()];
    for (const channel of this.#sweeping.splice(-SWEEP_CHANNELS)) {
      const history = this.#histories.get(channel);
      if (!history) continue;
      const before = history.bytes;
      history.expire(now);
      this.#bytes += history.bytes - before;
      if (this.#hasExpired(channel, history, now)) this.#delete(channel, history);
    }
    if (this.#histories.size > 0) this.#host?.deadlines.set(this, this.#sweeping.length > 0 ? 0 : SWEEP_PERIOD);
  }

  /** Frees space, from the least recently used channel on. Empty channels without subscribers are deleted. */
  #trim(): void {
    const limit = this.#maxHistoryBytes + HISTORY_BYTES * this.#subscribed.size;
    // Each step but the last removes a channel from `#used`, so the amortized cost of a use is O(1).
    for (const channel of this.#used) {
      const history = this.#histories.get(channel)!; // `#delete` removes it from both maps.
      while (this.#bytes > limit && history.size > 0) {
        const before = history.bytes;
        history.shift();
        this.#bytes += history.bytes - before;
      }
      // The last channel is the one that was just used.
      if (this.#bytes <= limit || this.#used.size === 1) return;
      if (this.#subscribed.has(channel)) this.#used.delete(channel);
      else this.#delete(channel, history);
    }
  }
}
