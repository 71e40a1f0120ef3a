import type { Clock } from "../base/clock.ts";
import { guard, type Report } from "../base/guard.ts";

/** workerd accepts alarms before this time only, in ms since 1970. */
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
  #lastHandle = 0;
  /** Time that the alarm is set to, in ms since 1970; Infinity: none. */
  #alarmAt = Infinity;

  constructor({ storage }: { storage: AlarmStorage }, report: Report) {
    this.#report = report;
    const { setAlarm } = storage; // Kept, because `ApplicationAlarm` replaces the method.
    this.#setAlarm = (time) => setAlarm.call(storage, time);
  }

  now(): number {
    return Date.now();
  }

  /** The wall clock, because alarms follow it. workerd's clocks advance only on I/O anyway. */
  monotonic(): number {
    return Date.now();
  }

  setTimeout(callback: () => void, delay: number): number {
    this.#timers.set(++this.#lastHandle, { at: Date.now() + delay, callback });
    this.#arm();
    return this.#lastHandle;
  }

  // The alarm stays set: one needless alarm costs less than a storage write for each cancelled timer.
  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number); // Returned by `setTimeout`.
  }

  /** Runs the due timers, even if one of them throws. Called by the object's `alarm` handler. */
  ring(): void {
    this.#alarmAt = Infinity;
    const now = Date.now();
    for (const [handle, { at, callback }] of [...this.#timers]) {
      if (at <= now && this.#timers.delete(handle)) guard(callback, this.#report);
    }
    this.#arm();
  }

  #arm(): void {
    const first = Math.min(...Array.from(this.#timers.values(), ({ at }) => at));
    if (first >= this.#alarmAt) return;
    this.#alarmAt = first;
    void this.#set(first);
  }

  async #set(time: number): Promise<void> {
    try {
      await this.#setAlarm(time);
    } catch (error) {
      if (this.#alarmAt === time) this.#alarmAt = Infinity; // The next timer sets it again.
      this.#report(error);
    }
  }
}
