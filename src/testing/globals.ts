import { uuidOf } from "./random.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** Handle of a timer. It has the methods of Node's, and is a number where one is wanted. */
class Timer {
  readonly #restart: (timer: Timer) => number;
  number: number;

  constructor(restart: (timer: Timer) => number) {
    this.#restart = restart;
    this.number = restart(this);
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  refresh(): this {
    this.number = this.#restart(this);
    return this;
  }

  [Symbol.toPrimitive](): number {
    return this.number;
  }
}

/** What `util.promisify` calls in place of `setTimeout`. */
const PROMISIFY = Symbol.for("nodejs.util.promisify.custom");

let isReplaced = false;

/**
 * Replaces the globals that read the time, set timers or draw random numbers, until the returned function is called. `setImmediate`,
 * `queueMicrotask`, `AbortSignal.timeout`, `node:timers` and `crypto.getRandomValues` stay as they are.
 *
 * @throws {TypeError} while they are replaced by another kit.
 */
export function replaceGlobals(time: VirtualTime, random: () => number): () => void {
  if (isReplaced) throw new TypeError("Cannot replace the globals: another test kit has, close it first");
  isReplaced = true;
  const timers = new Map<number, Timer>();
  const set = (callback: (...args: unknown[]) => void, delay: number, args: unknown[], repeats: boolean): Timer => {
    // Its stack is read only if the timer is left: that reads source maps.
    const place = new Error("Set here");
    const restart = (timer: Timer): number => {
      if (timer.number !== undefined) clear(timer);
      const number = time.set(
        () => {
          timers.delete(number);
          if (repeats) timer.refresh();
          callback(...args);
        },
        repeats ? Math.max(1, delay) : delay,
        "the app",
        undefined,
        place,
      );
      timers.set(number, timer);
      return number;
    };
    return new Timer(restart);
  };
  const clear = (handle: unknown): void => {
    const number = handle instanceof Timer ? handle.number : Number(handle);
    timers.delete(number);
    time.clear(number);
  };
  const RealDate = globalThis.Date;
  const date: DateConstructor = new Proxy(RealDate, {
    construct: (target, args, newTarget) =>
      Reflect.construct(target, args.length > 0 ? args : [time.now], newTarget === date ? target : newTarget),
    apply: () => new RealDate(time.now).toString(),
    get: (target, name, receiver) =>
      name === "now" ? () => time.now : Reflect.get(target, name, receiver === date ? target : receiver),
  });
  const start = time.elapsed;
  const setTimeout = (callback: () => void, delay = 0, ...args: unknown[]) => set(callback, delay, args, false);
  const later = (delay?: number, value?: unknown) => new Promise((resolve) => setTimeout(() => resolve(value), delay));
  Object.defineProperty(setTimeout, PROMISIFY, { value: later });
  const undo = [
    replace(globalThis, "setTimeout", setTimeout),
    replace(globalThis, "setInterval", (callback: () => void, delay = 0, ...args: unknown[]) => set(callback, delay, args, true)),
    replace(globalThis, "clearTimeout", clear),
    replace(globalThis, "clearInterval", clear),
    replace(globalThis, "Date", date),
    replace(performance, "now", () => time.elapsed - start),
    replace(Math, "random", random),
    replace(crypto, "randomUUID", () => uuidOf(random)),
  ];
  return () => {
    for (const each of undo) each();
    isReplaced = false;
  };
}

function replace(owner: object, name: string, value: unknown): () => void {
  const own = Object.getOwnPropertyDescriptor(owner, name);
  Object.defineProperty(owner, name, { value, configurable: true, writable: true, enumerable: own?.enumerable ?? false });
  return () => {
    if (own) Object.defineProperty(owner, name, own);
    else delete (owner as Record<string, unknown>)[name]; // An own property that hides the one of the prototype.
  };
}
