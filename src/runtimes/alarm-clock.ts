import type { Clock } from "../clock.ts";

/** The part of a Durable Object's storage that is used. */
interface AlarmStorage {
  setAlarm(time: number): Promise<void>;
}

/** Timers kept by the object's one alarm: it wakes a hibernating object, where a timer would keep it from hibernating. */
export class AlarmClock implements Clock {
  readonly #storage: AlarmStorage;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();
  #handles = 0;
  #armed = Infinity;

  constructor({ storage }: { storage: AlarmStorage }) {
    this.#storage = storage;
  }

  now(): number {
    return Date.now();
  }

  /** workerd's clocks stand still but for I/O, and an alarm goes by the wall clock. */
  monotonic(): number {
    return Date.now();
  }

  setTimeout(callback: () => void, delay: number): number {
    this.#timers.set(++this.#handles, { at: Date.now() + delay, callback });
    this.#arm();
    return this.#handles;
  }

  // The alarm stays: that it rings once in vain costs less than a write for every timer that was not needed.
  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number); // What setTimeout returned.
  }

  /** The alarm has gone off. */
  ring(): void {
    this.#armed = Infinity;
    const now = Date.now();
    for (const [handle, { at, callback }] of [...this.#timers]) {
      if (at <= now && this.#timers.delete(handle)) callback();
    }
    this.#arm();
  }

  #arm(): void {
    const first = Math.min(...Array.from(this.#timers.values(), ({ at }) => at));
    if (first >= this.#armed) return;
    this.#armed = first;
    void this.#storage.setAlarm(first);
  }
}
