import type { Clock } from "../base/clock.ts";
import { guard, type Report } from "../base/guard.ts";

/** The end of the times that workerd accepts for an alarm, in ms since 1970. */
export const MAX_ALARM: number = Date.UTC(2189, 0, 1);

/** The part of a Durable Object's storage that this file uses. */
interface AlarmStorage {
  setAlarm(time: number): Promise<void>;
}

/** Timers on the single alarm of a Durable Object. An alarm wakes a hibernating object; a timer would prevent hibernation. */
export class AlarmClock implements Clock {
  readonly #setAlarm: (time: number) => Promise<void>;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();
  readonly #report: Report;
  #handles = 0;
  #armed = Infinity;

  constructor({ storage }: { storage: AlarmStorage }, report: Report) {
    this.#report = report;
    const { setAlarm } = storage; // `ApplicationAlarm` replaces it.
    this.#setAlarm = (time) => setAlarm.call(storage, time);
  }

  now(): number {
    return Date.now();
  }

  /** workerd's clocks advance only on I/O, and an alarm follows the wall clock. */
  monotonic(): number {
    return Date.now();
  }

  setTimeout(callback: () => void, delay: number): number {
    this.#timers.set(++this.#handles, { at: Date.now() + delay, callback });
    this.#arm();
    return this.#handles;
  }

  // The alarm stays set: one needless alarm costs less than a storage write for each cancelled timer.
  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number); // What setTimeout returned.
  }

  /** Runs the due timers, also after one that throws. The object's `alarm` handler calls it. */
  ring(): void {
    this.#armed = Infinity;
    const now = Date.now();
    for (const [handle, { at, callback }] of [...this.#timers]) {
      if (at <= now && this.#timers.delete(handle)) guard(callback, this.#report);
    }
    this.#arm();
  }

  #arm(): void {
    const first = Math.min(...Array.from(this.#timers.values(), ({ at }) => at));
    if (first >= this.#armed) return;
    this.#armed = first;
    void this.#set(first);
  }

  async #set(time: number): Promise<void> {
    try {
      await this.#setAlarm(time);
    } catch (error) {
      if (this.#armed === time) this.#armed = Infinity; // The next timer sets it again.
      this.#report(error);
    }
  }
}
