import { guard } from "./guard.ts";

/** The time and one way to be called later. A test passes its own; a Durable Object's is its alarm. */
export interface Clock {
  /** The wall clock, in ms since 1970: what a token's `exp` is compared with. */
  now(): number;
  /** A clock that never steps, in ms: what timeouts are measured with. */
  monotonic(): number;
  /** Calls back after so many ms, at most 2³¹−1. */
  setTimeout(callback: () => void, delay: number): unknown;
  /** Cancels the call whose handle `setTimeout` returned. */
  clearTimeout(handle: unknown): void;
}

/** Where a timer is a number and can be let go of. */
interface DenoGlobal {
  readonly Deno?: { unrefTimer(handle: number): void };
}

/** The clock of the platform. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout(callback, delay) {
    const handle: unknown = setTimeout(callback, delay);
    // Connections keep a process alive, what is to be looked at later does not: a history in memory is looked at for as long as it is kept.
    if (typeof handle === "object") (handle as { unref?(): void }).unref?.();
    // A number: on Deno, which has this function, or on workerd, which has no such global.
    else (globalThis as unknown as DenoGlobal).Deno?.unrefTimer(handle as number);
    return handle;
  },
  // The handle is what setTimeout above returned, whose type differs between the runtimes.
  clearTimeout: (handle) => clearTimeout(handle as number | undefined),
};

/**
 * Calls code of the application and waits for its answer, at most so many ms. A throw, a rejection and a hostile thenable all reject.
 *
 * @param late makes the error of one that took longer.
 */
export function within<Value>(
  deadlines: Deadlines,
  ms: number,
  call: () => Value | Promise<Value>,
  late: () => Error,
): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer: Timed = { deadline: 0, place: -1, due: () => reject(late()) };
    deadlines.set(timer, ms);
    (async () => await call())().then(resolve, reject).finally(() => deadlines.delete(timer));
  });
}

// A longer delay fires after 1 ms on every runtime.
const MAX_DELAY = 2 ** 31 - 1;

/** What {@link isMs} takes. */
export const MS = "a whole number of ms from 1 to 2147483647";

/** Whether it is a duration that a timer of the platform takes, in ms: what every option of one is checked by. */
export const isMs = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= MAX_DELAY;

/**
 * Checks a duration.
 *
 * @param what the beginning of the message, such as `Cannot serve: option "drainTimeout"`.
 * @throws {TypeError} that says what to pass.
 */
export function checkMs(what: string, value: unknown): void {
  if (!isMs(value)) throw new TypeError(`${what} must be ${MS}`);
}

/** Something that is to be woken at a time. */
export interface Timed {
  /** When, in ms of the monotonic clock. Written by {@link Deadlines} only. */
  deadline: number;
  /** Its place in the heap, −1 outside of it. Written by {@link Deadlines} only. */
  place: number;
  /** Called once the deadline has passed; a new one may be set then. */
  due(): void;
}

/** Woken by one timer; the others wait for the next, so that messages are handled in between: to ping a client takes up to 0.1 ms. */
const MAX_WOKEN = 64;

/**
 * Any number of deadlines behind one timer: a binary heap, so that 100,000 clients cost one timer and O(log n) a change.
 * There is no timer while there is no deadline.
 */
export class Deadlines {
  readonly #heap: Timed[] = [];
  #clock: Clock;
  readonly #report: (error: unknown) => void;
  /** Those that {@link run} is waking. */
  readonly #due = new Set<Timed>();
  #timer: unknown;
  #armed = Infinity;

  /** @param report told what an item threw when it was woken: the others are woken all the same. */
  constructor(clock: Clock, report: (error: unknown) => void) {
    this.#clock = clock;
    this.#report = report;
  }

  /** How many are waiting. */
  get size(): number {
    return this.#heap.length;
  }

  /** Goes on with another clock; deadlines that are set keep their distance from now. */
  use(clock: Clock): void {
    const shift = clock.monotonic() - this.#clock.monotonic();
    this.#disarm();
    this.#clock = clock;
    for (const item of this.#heap) item.deadline += shift;
    this.#arm();
  }

  /** Wakes the item in so many ms, in place of what was set for it before. */
  set(item: Timed, delay: number): void {
    this.#due.delete(item);
    item.deadline = this.#clock.monotonic() + delay;
    if (item.place < 0) item.place = this.#heap.push(item) - 1;
    this.#up(item.place);
    this.#down(item.place);
    this.#arm();
  }

  delete(item: Timed): void {
    this.#due.delete(item);
    const { place } = item;
    if (place < 0) return;
    item.place = -1;
    const last = this.#heap.pop();
    if (last && last !== item) {
      this.#heap[place] = last;
      last.place = place;
      this.#up(place);
      this.#down(last.place);
    }
    if (this.#heap.length === 0) this.#disarm();
  }

  /** Wakes those whose time has come: all, or the first {@link MAX_WOKEN} and soon the next. */
  run(): void {
    this.#disarm();
    // Those due now; what an item sets for itself meanwhile waits for the next timer, even with a delay of 0.
    const now = this.#clock.monotonic();
    for (let first = this.#heap[0]; first && first.deadline <= now && this.#due.size < MAX_WOKEN; first = this.#heap[0]) {
      this.delete(first);
      this.#due.add(first);
    }
    // One that is deleted or set anew by another's waking is not woken.
    for (const item of this.#due) {
      this.#due.delete(item);
      guard(() => item.due(), this.#report);
    }
    this.#arm();
  }

  // The timer may be early for what is first by now, never late: moving it on every change would cost a timer a message.
  #arm(): void {
    const first = this.#heap[0];
    if (!first || first.deadline >= this.#armed) return;
    this.#disarm();
    this.#armed = first.deadline;
    const delay = Math.min(Math.max(0, Math.ceil(first.deadline - this.#clock.monotonic())), MAX_DELAY);
    this.#timer = this.#clock.setTimeout(() => this.run(), delay);
  }

  #disarm(): void {
    if (this.#armed === Infinity) return;
    this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#armed = Infinity;
  }

  #up(place: number): void {
    const heap = this.#heap;
    const item = heap[place]!;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (heap[parent]!.deadline <= item.deadline) break;
      this.#put(heap[parent]!, place);
      place = parent;
    }
    this.#put(item, place);
  }

  #down(place: number): void {
    const heap = this.#heap;
    const item = heap[place]!;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.deadline < heap[child]!.deadline) child++;
      if (heap[child]!.deadline >= item.deadline) break;
      this.#put(heap[child]!, place);
      place = child;
    }
    this.#put(item, place);
  }

  #put(item: Timed, place: number): void {
    this.#heap[place] = item;
    item.place = place;
  }
}
