import type { Clock } from "../../src/base/clock.ts";

/** A time that stands still until a test moves it. Its two clocks differ, so that one read for the other is seen. */
export class TestClock implements Clock {
  /** The delay of every timer that was ever set, in ms. */
  readonly delays: number[] = [];
  #wall = 1_800_000_000_000;
  #monotonic = 5_000;
  #handles = 0;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();

  /** Timers that have neither fired nor been cleared. */
  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  setTimeout(callback: () => void, delay: number): number {
    this.delays.push(delay);
    // A longer delay fires after 1 ms, as on every runtime.
    this.#timers.set(++this.#handles, { at: this.#monotonic + (delay > 2 ** 31 - 1 ? 1 : delay), callback });
    return this.#handles;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number); // What setTimeout returned.
  }

  /** Lets time pass: each timer fires at its own time, those that are set meanwhile too. */
  advance(ms: number): void {
    const end = this.#monotonic + ms;
    for (;;) {
      const [next] = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at);
      this.#moveTo(next ? Math.max(next[1].at, this.#monotonic) : end);
      if (!next) return;
      this.#timers.delete(next[0]);
      next[1].callback();
    }
  }

  /** Lets time pass while the process is busy: what was due meanwhile fires late, all at the end. */
  jump(ms: number): void {
    this.#moveTo(this.#monotonic + ms);
    this.advance(0);
  }

  /** Fires the first timer before its time, as a coarse platform timer may. */
  fireEarly(): void {
    const [first] = this.#timers;
    if (!first) throw new Error("Cannot fire early: no timer is set");
    this.#timers.delete(first[0]);
    first[1].callback();
  }

  /** Sets the wall clock, as an operator or NTP does; no time passes. */
  step(ms: number): void {
    this.#wall += ms;
  }

  #moveTo(time: number): void {
    this.#wall += time - this.#monotonic;
    this.#monotonic = time;
  }
}
