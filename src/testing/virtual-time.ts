import type { Clock } from "../base/clock.ts";

/** A timer that has neither fired nor been cleared. */
export interface PendingTimer {
  /** When it fires, in ms since the start of the virtual time. */
  readonly at: number;
  /** Name of the clock that it was set on, such as `node 0`. */
  readonly owner: string;
  /** Call site that has set it, for timers of the application. */
  readonly callSite?: Error | undefined;
}

interface Timer extends PendingTimer {
  readonly number: number;
  readonly callback: () => void;
  readonly clock: VirtualClock | undefined;
}

/** Longer delays fire after 1 ms, as on every runtime. */
const MAX_DELAY = 2 ** 31 - 1;

/** Time that only {@link VirtualTime.advance} advances. All clocks of a test share it, so that their timers fire in order. */
export class VirtualTime {
  /** Sorted by time, then by the order in which they were set. */
  readonly #timers: Timer[] = [];
  readonly #settle: () => Promise<void>;
  readonly #start: number;
  #elapsed = 0;
  #numbers = 0;
  #advancing: Promise<void> = Promise.resolve();

  /**
   * @param start the wall clock at the start, in ms since 1970.
   * @param settle resolves when nothing is under way. Called after each timer.
   */
  constructor(start: number, settle: () => Promise<void>) {
    this.#start = start;
    this.#settle = settle;
  }

  /** The wall clock, in ms since 1970. */
  get now(): number {
    return this.#start + this.#elapsed;
  }

  /** Ms since the start. */
  get elapsed(): number {
    return this.#elapsed;
  }

  /** The timers that are set, the next one first. */
  get pending(): readonly PendingTimer[] {
    return this.#timers;
  }

  /**
   * Advances the time. Each timer fires at its time, including those that are set meanwhile, and its work is done before the time
   * advances further. A second call waits for the first.
   */
  advance(ms: number): Promise<void> {
    const advancing = this.#advancing.then(() => this.#advance(ms));
    this.#advancing = advancing.catch(() => {}); // The caller gets the rejection.
    return advancing;
  }

  /** Advances to the next timer, and fires it. Resolves with `false` if there is none. */
  async step(): Promise<boolean> {
    const [next] = this.#timers;
    if (next) await this.advance(Math.max(0, next.at - this.#elapsed));
    return next !== undefined;
  }

  /** @internal Called by clocks. */
  set(callback: () => void, delay: number, owner: string, clock?: VirtualClock, callSite?: Error): number {
    const wait = delay > MAX_DELAY || !(delay > 0) ? (delay > MAX_DELAY ? 1 : 0) : delay;
    const timer: Timer = { at: this.#elapsed + wait, number: ++this.#numbers, callback, owner, clock, callSite };
    let [from, to] = [0, this.#timers.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.#timers[middle]!.at <= timer.at) from = middle + 1;
      else to = middle;
    }
    this.#timers.splice(from, 0, timer);
    return timer.number;
  }

  /** @internal Called by clocks. */
  clear(number: unknown): boolean {
    if (this.#timers[0]?.number === number) return this.#timers.shift() !== undefined; // The one that fires.
    const index = this.#timers.findIndex((timer) => timer.number === number);
    return index >= 0 && this.#timers.splice(index, 1).length > 0;
  }

  /** @internal Called by clocks: removes the timers of one. Returns the time of the first of them, if there is any. */
  drop(clock: VirtualClock): number | undefined {
    const dropped = this.#timers.filter((timer) => timer.clock === clock);
    for (const { number } of dropped) this.clear(number);
    return dropped[0]?.at;
  }

  async #advance(ms: number): Promise<void> {
    const end = this.#elapsed + ms;
    await this.#settle();
    for (let next = this.#timers[0]; next && next.at <= end; next = this.#timers[0]) {
      this.#elapsed = Math.max(this.#elapsed, next.at);
      // Timers of the same time fire together, as on every runtime. Those that they set for this time fire in the next round.
      let count = 1;
      while (count < this.#timers.length && this.#timers[count]!.at <= this.#elapsed) count++; // The index is below the length.
      for (const timer of this.#timers.slice(0, count)) {
        if (!this.clear(timer.number)) continue; // An earlier one has cleared it.
        timer.callback();
        await undefined;
      }
      await this.#settle();
    }
    this.#elapsed = end;
    await this.#settle();
  }
}

/** The clock of one node or client. */
export class VirtualClock implements Clock {
  readonly #time: VirtualTime;
  readonly #owner: string;
  #isStopped = false;

  constructor(time: VirtualTime, owner: string) {
    this.#time = time;
    this.#owner = owner;
  }

  now(): number {
    return this.#time.now;
  }

  monotonic(): number {
    return this.#time.elapsed;
  }

  setTimeout(callback: () => void, delay: number): number {
    return this.#isStopped ? 0 : this.#time.set(callback, delay, this.#owner, this);
  }

  clearTimeout(handle: unknown): void {
    this.#time.clear(handle);
  }

  /** Drops all timers and ignores further ones, because the process has ended. Returns the time of the first, in ms since the start. */
  stop(): number | undefined {
    this.#isStopped = true;
    return this.#time.drop(this);
  }
}

/** The clock of one client. Its wall clock is never set, so the client does not have to check it twice a second. */
export class VirtualClientClock extends VirtualClock {
  override now(): number {
    return NaN;
  }
}
