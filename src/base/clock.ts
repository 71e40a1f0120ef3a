/** Building blocks that know nothing of WebSockets: clock and deadlines, guarded calls, event bus, limits, addresses. */
import { guard, isThenable } from "./guard.ts";
import type { Writable } from "./writable.ts";

/** The time and its timers. A test passes its own clock; a Durable Object's timer is its alarm. */
export interface Clock {
  /** The wall clock, in ms since 1970. The `exp` of a token is compared with it. */
  now(): number;
  /** The monotonic clock, which never steps, in ms. Timeouts are measured with it. */
  monotonic(): number;
  /** Calls back after `delay` ms, at most 2³¹−1, and returns a handle. */
  setTimeout(callback: () => void, delay: number): unknown;
  /** Cancels the call of a handle that `setTimeout` returned. */
  clearTimeout(handle: unknown): void;
  /** Whether a timer ends with the request that has set it, as in a Worker: then no other request can rely on it. @default {false} */
  readonly isPerRequest?: boolean;
  /**
   * Whether a timer that nothing needs any more may fire instead of being cleared: clients that come and go would otherwise set
   * and clear one each. @default {false}
   */
  readonly mayRunOut?: boolean;
}

/** A clock that can be replaced: its monotonic time goes on from where it was. */
export class CurrentClock {
  #clock: Clock;
  #shift = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  readonly now = (): number => this.#clock.now();

  readonly monotonic = (): number => this.#clock.monotonic() + this.#shift;

  use(clock: Clock): void {
    this.#shift += Math.ceil(this.#clock.monotonic() - clock.monotonic()); // Whole: with a fraction, sums would round differently.
    this.#clock = clock;
  }
}

/** On Deno a timer is a number, which this function unreferences. */
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
    // Sockets keep a process alive, deadlines must not: a history in memory has one for as long as it is kept.
    unref(handle);
    return handle;
  },
  // The handle is what setTimeout above returned, whose type differs between the runtimes.
  clearTimeout: (handle) => clearTimeout(handle as number | undefined),
  // An object has one context for all its requests, and a clock of its own.
  isPerRequest: "WebSocketPair" in globalThis,
  mayRunOut: true,
};

/**
 * Calls code of the application and waits at most `ms` for its result. A throw, a rejection and a hostile thenable all reject.
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
  if (!isThenable(result)) return result; // Without a timer.
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
  /** The deadline, in whole ms of the monotonic clock: V8 takes 16 bytes more for any other number. */
  readonly deadline: number;
  /** Index in the heap; −1: not in it. */
  readonly heapIndex: number;
  /** Called once the deadline has passed. It may set a new one. */
  due(): void;
}

/** What {@link Deadlines} alone may write. The fields stand in the items, because an object of their own would cost memory per client. */
type HeapItem = Writable<Timed>;

/** Maximum number of items per timer. Messages are handled before the next timer: pinging one client takes up to 0.1 ms. */
const MAX_WOKEN = 64;

/** Time in ms after which an overdue deadline counts as that of a request that has ended, and its timer with it. */
const ABANDONED = 10_000;

/**
 * Any number of deadlines behind one timer: in a binary heap, so that 100,000 clients cost one timer and O(log n) per change.
 * Without deadlines there is no timer.
 */
export class Deadlines {
  readonly #heap: HeapItem[] = [];
  #clock: Clock;
  readonly #report: (error: unknown) => void;
  /** The items that {@link run} is about to call. */
  readonly #due = new Set<HeapItem>();
  #timer: unknown;
  #armed = Infinity;
  /** The timer of each item, with a clock whose timers end with their request. */
  readonly #own = new Map<HeapItem, unknown>();
  #isDismissing = false;
  #isEnding = false;

  /**
   * Created by the controller.
   *
   * @param report called with what an item throws. The other items are called all the same.
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
    for (const handle of this.#own.values()) this.#clock.clearTimeout(handle);
    this.#own.clear();
    this.#clock = clock;
    for (const item of this.#heap) item.deadline += shift;
    for (const item of clock.isPerRequest ? this.#heap : []) this.#armOwn(item);
    this.#arm();
  }

  /** Sets the deadline of the item, in ms from now, in place of an earlier one. */
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
    if (this.#own.size > 0) this.#disarmOwn(item);
    item.heapIndex = -1;
    const last = this.#heap.pop();
    if (last && last !== item) {
      this.#heap[index] = last;
      last.heapIndex = index;
      this.#up(index);
      this.#down(last.heapIndex);
    }
    if (this.#heap.length === 0 && (this.#isEnding || !this.#clock.mayRunOut)) this.#disarm();
  }

  /** From now on no timer is left to run out: it would keep the owner in memory until then. */
  end(): void {
    this.#isEnding = true;
    if (this.#heap.length === 0) this.#disarm();
  }

  /** Calls the items that are due: at most {@link MAX_WOKEN}, and the others with the next timer. */
  run(): void {
    this.#disarm();
    this.#callUntil(this.#clock.monotonic());
    this.#arm();
  }

  #callUntil(time: number): void {
    // Collected first: a deadline that an item sets meanwhile waits for the next timer, even with a delay of 0.
    for (let first = this.#heap[0]; first && first.deadline <= time && this.#due.size < MAX_WOKEN; first = this.#heap[0]) {
      this.delete(first);
      this.#due.add(first);
    }
    // An item that is deleted or set again by an earlier one is not called.
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
    this.#own.set(item, this.#clock.setTimeout(due, this.#delayOf(item)));
    const first = this.#heap[0]!; // The item is in the heap.
    if (this.#isDismissing || first.deadline + ABANDONED > this.#clock.monotonic()) return;
    this.#isDismissing = true;
    queueMicrotask(() => this.#dismiss());
  }

  #disarmOwn(item: HeapItem): void {
    this.#clock.clearTimeout(this.#own.get(item));
    this.#own.delete(item);
  }

  /** Calls the items of requests that have ended. */
  #dismiss(): void {
    this.#callUntil(this.#clock.monotonic() - ABANDONED);
    this.#isDismissing = false;
  }

  #delayOf(item: HeapItem): number {
    return Math.min(Math.max(0, Math.ceil(item.deadline - this.#clock.monotonic())), MAX_DELAY);
  }

  // The timer may be early for the first deadline, never late: moving it on every change would cost a timer per message.
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
    this.#timer = undefined;
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
