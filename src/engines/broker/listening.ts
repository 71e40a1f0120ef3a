/** Subscribes a node to channels at the broker, and unsubscribes from those without subscribers. */
import type { Deadlines, Timed } from "../../base/clock.ts";
import { inBatches, unavailable } from "./broker.ts";
import type { Reconnection } from "./reconnection.ts";

interface Waiting {
  readonly channel: string;
  resolve(): void;
  reject(error: unknown): void;
}

/** Maximum number of channels in one request. */
const BATCH = 500;

/**
 * Keeps this node's subscriptions at the broker. It makes one request at a time, for all channels that wait: an unsubscribe under way could
 * otherwise undo a later subscribe to the same channel.
 */
export class Listening implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;

  readonly #link: Reconnection;
  readonly #deadlines: Deadlines;
  readonly #time: number;
  readonly #isWanted: (channel: string) => boolean;
  #listened = new Set<string>();
  /** Channels without subscribers since the last call of `due`. */
  #lingering = new Set<string>();
  /** Channels without subscribers for longer: the next call of `due` unsubscribes from them. */
  #leaving = new Set<string>();
  #waiting: Waiting[] = [];
  #isRunning = false;
  #closed = false;

  /** @param time in ms that the node still listens to a channel without subscribers, at least; up to twice as long. */
  constructor(link: Reconnection, deadlines: Deadlines, time: number, isWanted: (channel: string) => boolean) {
    this.#link = link;
    this.#deadlines = deadlines;
    this.#time = time;
    this.#isWanted = isWanted;
  }

  /** The channels that the session listens to. */
  get channels(): Iterable<string> {
    return this.#listened;
  }

  /** Resolves when the session listens to the channel. */
  listen(channel: string): Promise<void> {
    if (this.#closed) return Promise.reject(unavailable("subscribe", "the engine is closed"));
    if (this.#listened.has(channel)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ channel, resolve, reject });
      void this.#run();
    });
  }

  /** Ends listening to a channel without subscribers, unless one returns within {@link #time}. */
  linger(channel: string): void {
    this.#lingering.add(channel);
    this.#leaving.delete(channel);
    if (this.heapIndex < 0) this.#deadlines.set(this, this.#time);
  }

  due(): void {
    for (const channel of this.#leaving) if (this.#isWanted(channel)) this.#leaving.delete(channel);
    void this.#unsubscribe([...this.#leaving]);
    this.#leaving = this.#lingering;
    this.#lingering = new Set();
    if (this.#leaving.size > 0) this.#deadlines.set(this, this.#time);
  }

  /** Subscribes to these channels over a new session. */
  async resume(channels: readonly string[]): Promise<void> {
    this.#listened = new Set();
    for (let first = 0; first < channels.length; first += BATCH) {
      const batch = channels.slice(first, first + BATCH);
      await this.#link.call("listen", (session) => session.listen(batch));
      this.#add(this.#listened, batch);
    }
  }

  close(): void {
    this.#closed = true;
    this.#deadlines.delete(this);
    this.#listened.clear();
    this.#lingering.clear();
    this.#leaving.clear();
    for (const { reject } of this.#waiting.splice(0)) reject(unavailable("subscribe", "the engine is closed"));
  }

  #add(listened: Set<string>, channels: readonly string[]): void {
    for (const channel of channels) {
      listened.add(channel);
      // The last subscriber may have left during the request.
      if (!this.#closed && !this.#isWanted(channel)) this.linger(channel);
    }
  }

  async #unsubscribe(channels: string[]): Promise<void> {
    const gone = channels.filter((channel) => this.#listened.delete(channel));
    if (gone.length === 0) return;
    this.#toUnsubscribe.push(...gone);
    await this.#run();
  }

  #toUnsubscribe: string[] = [];

  async #run(): Promise<void> {
    if (this.#isRunning || this.#closed) return;
    this.#isRunning = true;
    while (this.#waiting.length > 0 || this.#toUnsubscribe.length > 0) {
      // Both queues are taken in one step, and unsubscribed first, because a channel in both is wanted again.
      const gone = this.#toUnsubscribe.splice(0);
      const batch = this.#waiting.splice(0, BATCH);
      for (const part of inBatches(gone, BATCH)) {
        // A new session may have subscribed to some of them again.
        const channels = part.filter((channel) => !this.#listened.has(channel));
        // A failure ends the session, and the next one starts without these channels.
        await this.#link.call("unsubscribe", (session) => session.unlisten(channels)).catch(() => {});
      }
      if (batch.length === 0) continue;
      try {
        const listened = this.#listened;
        const channels = [...new Set(batch.map(({ channel }) => channel))].filter((channel) => !listened.has(channel));
        if (channels.length > 0) await this.#link.call("subscribe", (session) => session.listen(channels));
        this.#add(listened, channels);
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#isRunning = false;
  }
}
