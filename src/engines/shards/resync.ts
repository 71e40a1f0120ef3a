import type { Deadlines, Timed } from "../../base/clock.ts";
import type { RelayStore } from "./relay-store.ts";

/** What a {@link Resync} needs from its engine. */
export interface ResyncHost {
  /** Absent before the start. */
  readonly deadlines: Deadlines | undefined;
  readonly isClosed: boolean;
  /** Sends the home object everything, and reads what channels lack. `false`: something is missing still. */
  send(): Promise<boolean>;
  report(error: unknown): void;
}

/** The first and the longest time between two attempts, in ms: on the alarm, so that the relay may hibernate. */
const [FIRST_PAUSE, LONGEST_PAUSE] = [5_000, 60_000];

/** Sends the home object all that a relay has, again and again, once a call with a change has failed. */
export class Resync implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #store: RelayStore;
  readonly #host: ResyncHost;
  /** Whether it is scheduled, or will be once the start is over. */
  #isWanted = false;
  #isRunning = false;
  /** Number of calls under way that report ended subscriptions or members. */
  #removalCalls = 0;

  constructor(store: RelayStore, host: ResyncHost) {
    this.#store = store;
    this.#host = host;
  }

  /** @param isAtOnce whether it does not wait. Otherwise the pause doubles with each attempt that has failed, and relays differ. */
  request(isAtOnce = false): void {
    const { isClosed, deadlines } = this.#host;
    if (isClosed) return;
    this.#isWanted = this.#store.isBehind = true;
    const isScheduled = this.heapIndex >= 0;
    if (isScheduled && !isAtOnce) return;
    const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#store.failedResyncs);
    deadlines?.set(this, isAtOnce ? 0 : longest * (1 + Math.random()) / 2);
  }

  /** Makes a call that reports an ended subscription or member. It is noted in the storage: a relay that restarts sends everything. */
  async trackRemoval(call: () => Promise<unknown>): Promise<void> {
    this.#removalCalls++;
    this.#store.isBehind = true;
    try {
      await call();
    } catch (error) {
      this.request();
      throw error;
    } finally {
      this.#removalCalls--;
      this.#clear();
    }
  }

  due(): void {
    this.#run().catch((error) => this.#host.report(error));
  }

  async #run(): Promise<void> {
    if (this.#isRunning || this.#host.isClosed) return;
    this.#isRunning = true;
    this.#isWanted = false;
    let isWhole = false;
    try {
      isWhole = await this.#host.send();
    } catch (error) {
      this.#host.report(error);
    }
    this.#isRunning = false;
    if (this.#host.isClosed) return;
    if (!isWhole) this.#store.resyncFailed();
    if (!isWhole || this.#isWanted) this.request(); // Its deadline may have passed meanwhile.
    else this.#clear();
  }

  /** Notes that the home object knows everything, if it does. */
  #clear(): void {
    if (!this.#isWanted && !this.#isRunning && this.#removalCalls === 0) this.#store.isBehind = false;
  }
}
