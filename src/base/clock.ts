/** Building blocks without WebSockets: clock and deadlines, guarded calls, event bus, limits, addresses. */
import { guard, isThenable } from "./guard.ts";
import type { Writable } from "./writable.ts";

/** The time, and timers. A test passes its own clock; a Durable Object uses its alarm as the timer. */
export interface Clock {
  /** The wall clock, in ms since 1970. The `exp` of a token is compared with it. */
  now(): number;
  /** The monotonic clock, which never steps, in ms. Timeouts are measured with it. */
  monotonic(): number;
  /** Calls back after `delay` ms, at most 2³¹−1, and returns a handle. */
  setTimeout(callback: () => void, delay: number): unknown;
  /** Cancels the call of a handle that `setTimeout` returned. */
  clearTimeout(handle: unknown): void;
  /** Whether a timer ends with the request that has set it, as in a Worker, so that no other request can rely on it. @default {false} */
  readonly isPerRequest?: boolean;
  /**
   * Whether a timer that is no longer needed may fire instead of being cleared, so that short connections do not each set and clear one.
   *
   * @default {false}
   */
  readonly mayRunOut?: boolean;
}

/** A clock that can be replaced by another, at which its monotonic time continues without a step. */
export class CurrentClock {
  #clock: Clock;
  #shift = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  readonly now = (): number => this.#clock.now();

  readonly monotonic = (): number => this.#clock.monotonic() + this.#shift;

  use(clock: Clock): void {
    this.#shift += Math.ceil(this.#clock.monotonic() - clock.monotonic()); // A whole number, because sums with a fraction would round differently.
    this.#clock = clock;
  }
}

/** On Deno a timer is a number, which `unrefTimer` unreferences. */
interface DenoGlobal {
  readonly Deno?: { unrefTimer(handle: number): void };
}

/** Lets the process end while the timer is set. */
export function unref(handle: unknown): void {
  if (typeof handle === "object") (handle as { unref?(): void }).unref?.();
  // The handle is a number on Deno, and on workerd, which has no `Deno`.
  else (globalThis as unknown as DenoGlobal).Deno?.unrefTimer(handle as number);
}

/** The clock of the platform. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout(callback, delay) {
    const handle: unknown = setTimeout(callback, delay);
    // Only sockets keep the process alive. Deadlines must not, such as that of a history in memory.
    unref(handle);
    return handle;
  },
  // The type of a handle differs between the runtimes.
  clearTimeout: (handle) => clearTimeout(handle as number | undefined),
  // True on workerd. A Durable Object has one context for all its requests, and uses a clock of its own.
  isPerRequest: "WebSocketPair" in globalThis,
  mayRunOut: true,
};

/**
 * Calls code of the application and waits at most `ms` for its result. Rejects if the code throws or rejects.
 *
 * @param late returns the error for a call that takes longer.
 */
export async function within<Value>(
  deadlines: Deadlines,
  ms: number,
  call: () => Value | Promise<Value>,
  late: () => Error,
): Promise<Value> {
  const result = call();
  if (!isThenable(result)) return result; // Needs no timer.
  return await new Promise((resolve, reject) => {
    const timer: Timed = { deadline: 0, heapIndex: -1, due: () => reject(late()) };
    deadlines.set(timer, ms);
    Promise.resolve(result).then(resolve, reject).finally(() => deadlines.delete(timer));
  });
}

// A longer delay fires after 1 ms on every runtime.
const MAX_DELAY = 2 ** 31 - 1;

/** What {@link isMs} accepts, for error messages. */
export const MS = "a whole number of ms from 1 to 2147483647";

/** Whether the value is a duration that a timer of the platform accepts, in ms. */
export const isMs = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= MAX_DELAY;

/**
 * Checks a duration, in ms.
 *
 * @param what the start of the error message, such as `Cannot ask the cluster: timeout`.
 * @throws {TypeError} if {@link isMs} rejects the value.
 */
export function checkMs(what: string, value: unknown): void {
  if (!isMs(value)) throw new TypeError(`${what} must be ${MS}`);
}

/** Something that has a deadline. */
export interface Timed {
  /** The deadline, in ms of the monotonic clock. A whole number, because others take 16 bytes more in V8. */
  readonly deadline: number;
  /** Index in the heap; −1: not in it. */
  readonly heapIndex: number;
  /** Called once the deadline has passed. It may set a new one. */
  due(): void;
}

/** The fields of {@link Timed} that only {@link Deadlines} may write. They are in the items, because a separate object would take memory for each client. */
type HeapItem = Writable<Timed>;

/** Maximum number of items called for one timer, so that messages are handled in between. Pinging one client takes up to 0.1 ms. */
const MAX_WOKEN = 64;

/** Time in ms after which an overdue deadline counts as abandoned: its timer has ended with its request. */
const ABANDONED = 10_000;

/**
 * Any number of deadlines with one timer. They are in a binary heap, so that a change with 100,000 clients takes O(log n). Without
 * deadlines there is no timer.
 */
export class Deadlines {
  readonly #heap: HeapItem[] = [];
  #clock: Clock;
  readonly #report: (error: unknown) => void;
  /** The items that {@link run} is about to call. */
  readonly #due = new Set<HeapItem>();
  #timer: unknown;
  #armed = Infinity;
  /** By item: its own timer. Used with a clock whose timers end with their request. */
  readonly #ownTimers = new Map<HeapItem, unknown>();
  #isCallingAbandoned = false;
  #isEnding = false;

  /**
   * Created by the controller.
   *
   * @param report called with what an item throws. The other items are called nevertheless.
   */
  constructor(clock: Clock, report: (error: unknown) => void) {
    this.#clock = clock;
    this.#report = report;
  }

  /** The monotonic time of its clock, in ms. */
  now(): number {
    return this.#clock.monotonic();
  }

  /** Number of deadlines that are set. */
  get size(): number {
    return this.#heap.length;
  }

  /** Switches to another clock. The time left to each deadline stays the same. */
  use(clock: Clock): void {
    const shift = Math.ceil(clock.monotonic() - this.#clock.monotonic());
    this.#disarm();
    for (const handle of this.#ownTimers.values()) this.#clock.clearTimeout(handle);
    this.#ownTimers.clear();
    this.#clock = clock;
    for (const item of this.#heap) item.deadline += shift;
    for (const item of clock.isPerRequest ? this.#heap : []) this.#armOwn(item);
    this.#arm();
  }

  /** Sets or replaces the deadline of the item, in ms from now. */
  set(timed: Timed, delay: number): void {
    const item: HeapItem = timed;
    this.#due.delete(item);
    item.deadline = Math.ceil(this.#clock.monotonic() + delay);
    if (item.heapIndex < 0) item.heapIndex = this.#heap.push(item) - 1;
    this.#up(item.heapIndex);
    this.#down(item.heapIndex);
    if (this.#clock.isPerRequest) this.#armOwn(item);
    this.#arm();
  }

  /** Removes the deadline of the item, if it has one. */
  delete(timed: Timed): void {
    const item: HeapItem = timed;
    this.#due.delete(item);
    const { heapIndex: index } = item;
    if (index < 0) return;
    if (this.#ownTimers.size > 0) this.#disarmOwn(item);
    item.heapIndex = -1;
    const last = this.#heap.pop();
    if (last && last !== item) {
      this.#heap[index] = last;
      this.#up(index);
      this.#down(last.heapIndex);
    }
    if (this.#heap.length === 0 && (this.#isEnding || !this.#clock.mayRunOut)) this.#disarm();
  }

  /** Clears timers that are not needed from now on, because they would keep the owner in memory. */
  end(): void {
    this.#isEnding = true;
    if (this.#heap.length === 0) this.#disarm();
  }

  /** Calls up to {@link MAX_WOKEN} items that are due, and the others with the next timer. */
  run(): void {
    this.#disarm();
    this.#callUntil(this.#clock.monotonic());
    this.#arm();
  }

  #callUntil(time: number): void {
    // Collected first, so that a deadline that an item sets meanwhile waits for the next timer, even with a delay of 0.
    for (let first = this.#heap[0]; first && first.deadline <= time && this.#due.size < MAX_WOKEN; first = this.#heap[0]) {
      this.delete(first);
      this.#due.add(first);
    }
    // An item that an earlier one deletes or sets again is not called.
    for (const item of this.#due) {
      this.#due.delete(item);
      guard(() => item.due(), this.#report);
    }
  }

  #armOwn(item: HeapItem): void {
    this.#disarmOwn(item);
    const due = () => {
      if (item.deadline > this.#clock.monotonic()) return this.#armOwn(item);
      this.delete(item);
      guard(() => item.due(), this.#report);
    };
    this.#ownTimers.set(item, this.#clock.setTimeout(due, this.#delayOf(item)));
    const first = this.#heap[0]!; // The item is in the heap.
    if (this.#isCallingAbandoned || first.deadline + ABANDONED > this.#clock.monotonic()) return;
    this.#isCallingAbandoned = true;
    queueMicrotask(() => this.#callAbandoned());
  }

  #disarmOwn(item: HeapItem): void {
    this.#clock.clearTimeout(this.#ownTimers.get(item));
    this.#ownTimers.delete(item);
  }

  /** Calls the items of requests that have ended. */
  #callAbandoned(): void {
    this.#callUntil(this.#clock.monotonic() - ABANDONED);
    this.#isCallingAbandoned = false;
  }

  #delayOf(item: HeapItem): number {
    return Math.min(Math.max(0, Math.ceil(item.deadline - this.#clock.monotonic())), MAX_DELAY);
  }

  // The timer may fire before the first deadline, but never after. Moving it at each change would take a timer per message.
  #arm(): void {
    const first = this.#heap[0];
    if (!first || first.deadline >= this.#armed || this.#clock.isPerRequest) return;
    this.#disarm();
    this.#armed = first.deadline;
    this.#timer = this.#clock.setTimeout(() => this.run(), this.#delayOf(first));
  }

  #disarm(): void {
    if (this.#armed === Infinity) return;
    this.#clock.clearTimeout(this.#timer);
    this.#armed = Infinity;
  }

  #up(index: number): void {
    const heap = this.#heap;
    const item = heap[index]!;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (heap[parent]!.deadline <= item.deadline) break;
      this.#put(heap[parent]!, index);
      index = parent;
    }
    this.#put(item, index);
  }

  #down(index: number): void {
    const heap = this.#heap;
    const item = heap[index]!;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.deadline < heap[child]!.deadline) child++;
      if (heap[child]!.deadline >= item.deadline) break;
      this.#put(heap[child]!, index);
      index = child;
    }
    this.#put(item, index);
  }

  #put(item: HeapItem, index: number): void {
    this.#heap[index] = item;
    item.heapIndex = index;
  }
}
