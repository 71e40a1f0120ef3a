import type { Deadlines, Timed } from "../../base/clock.ts";
import type { RelayStore } from "./relay-store.ts";

/** What {@link Resync} needs from its engine. */
export interface ResyncHost {
  /** Absent before the start. */
  readonly deadlines: Deadlines | undefined;
  readonly isClosed: boolean;
  /** Sends the home object everything, and reads what channels lack. Resolves with whether nothing is missing any more. */
  send(): Promise<boolean>;
  report(error: unknown): void;
}

/** Shortest and longest pause between two attempts, in ms. An alarm waits for them, so that the relay may hibernate. */
const [FIRST_PAUSE, LONGEST_PAUSE] = [5_000, 60_000];

/** After a call with a change has failed, sends the home object all that a relay has, until that succeeds. */
export class Resync implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #store: RelayStore;
  readonly #host: ResyncHost;
  /** Whether an attempt is scheduled, or will be at the start. */
  #isWanted = false;
  #isRunning = false;
  /** Number of calls under way that report ended subscriptions or members. */
  #removalCalls = 0;

  constructor(store: RelayStore, host: ResyncHost) {
    this.#store = store;
    this.#host = host;
  }

  /** Schedules an attempt. @param isAtOnce without a pause. Otherwise the pause doubles with each failure, with a random part. */
  request(isAtOnce = false): void {
    const { isClosed, deadlines } = this.#host;
    if (isClosed) return;
    this.#isWanted = this.#store.isBehind = true;
    const isScheduled = this.heapIndex >= 0;
    if (isScheduled && !isAtOnce) return;
    const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#store.failedResyncs);
    deadlines?.set(this, isAtOnce ? 0 : longest * (1 + Math.random()) / 2);
  }

  /**
   * Makes a call that reports an ended subscription or member. The storage records it before the call, so that a relay that is restarted
   * during the call sends everything.
   */
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
    let isComplete = false;
    try {
      isComplete = await this.#host.send();
    } catch (error) {
      this.#host.report(error);
    }
    this.#isRunning = false;
    if (this.#host.isClosed) return;
    if (!isComplete) this.#store.resyncFailed();
    if (!isComplete || this.#isWanted) this.request(); // Again, as a deadline that passed during the attempt had no effect.
    else this.#clear();
  }

  /** Records that the home object knows everything, unless an attempt or a call is under way. */
  #clear(): void {
    if (!this.#isWanted && !this.#isRunning && this.#removalCalls === 0) this.#store.isBehind = false;
  }
}
