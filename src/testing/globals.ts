import { uuidOf } from "./random.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** The last number of a handle, in all kits. Numbers of real timers, which begin at 1 on some runtimes, are lower. */
let lastId = 2 ** 40;

/** Call sites of timers that do not keep the app's process alive. */
const unreffed = new WeakSet<Error>();

/** Handle of a timer. It has the methods of Node's handles, and converts to a number. */
class Timer {
  readonly id = ++lastId;
  readonly #callSite: Error;
  /** Number of the timer that is set now. */
  number: number | undefined;
  readonly #restart: (timer: Timer) => void;

  constructor(callSite: Error, restart: (timer: Timer) => void) {
    this.#callSite = callSite;
    this.#restart = restart;
    restart(this);
  }

  ref(): this {
    unreffed.delete(this.#callSite);
    return this;
  }

  unref(): this {
    unreffed.add(this.#callSite);
    return this;
  }

  hasRef(): boolean {
    return !unreffed.has(this.#callSite);
  }

  refresh(): this {
    this.#restart(this);
    return this;
  }

  [Symbol.toPrimitive](): number {
    return this.id;
  }
}

/** Symbol of the function that `util.promisify` returns for `setTimeout`. */
const PROMISIFY = Symbol.for("nodejs.util.promisify.custom");

/** The call site that has replaced the globals, while they are replaced. */
let replaced: Error | undefined;

/**
 * Replaces the globals that read the time, set timers or draw random numbers, until the returned function is called. `setImmediate`,
 * `queueMicrotask`, `AbortSignal.timeout`, `node:timers` and `crypto.getRandomValues` stay as they are.
 *
 * @throws {TypeError} while they are replaced by another kit.
 */
export function replaceGlobals(time: VirtualTime, random: () => number): () => void {
  if (replaced) {
    throw new TypeError(`Cannot replace the globals: another test kit has, close it first (${callSiteOf(replaced, 3)})`);
  }
  replaced = new Error("Replaced here");
  /** By number of the handle: the app's timers that are set. */
  const timers = new Map<number, Timer>();
  const set = (callback: (...args: unknown[]) => void, delay: unknown, args: unknown[], repeats: boolean): Timer => {
    const wait = Math.max(repeats ? 1 : 0, Number(delay) || 0); // A delay from an environment variable is a string.
    const callSite = new Error("Set here");
    return new Timer(callSite, (timer) => {
      time.clear(timer.number);
      timer.number = time.set(
        () => {
          timers.delete(timer.id);
          if (repeats) timer.refresh();
          callback(...args);
        },
        wait,
        "the app",
        undefined,
        callSite,
      );
      timers.set(timer.id, timer);
    });
  };
  /** Clears a timer of the app, or a real one that was set before the globals were replaced. */
  const clearBy = (real: (handle: never) => void) => (handle: unknown): void => {
    const timer = timers.get(handle instanceof Timer ? handle.id : Number(handle));
    if (timer) {
      timers.delete(timer.id);
      time.clear(timer.number);
    } else if (!(handle instanceof Timer)) real(handle as never); // It takes any value.
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
  const setTimeout = (callback: () => void, delay: unknown, ...args: unknown[]) => set(callback, delay, args, false);
  const later = (delay?: number, value?: unknown) => new Promise((resolve) => setTimeout(() => resolve(value), delay));
  Object.defineProperty(setTimeout, PROMISIFY, { value: later });
  const undo = [
    replace(globalThis, "setTimeout", setTimeout),
    replace(
      globalThis,
      "setInterval",
      (callback: () => void, delay: unknown, ...args: unknown[]) => set(callback, delay, args, true),
    ),
    replace(globalThis, "clearTimeout", clearBy(clearTimeout)),
    replace(globalThis, "clearInterval", clearBy(clearInterval)),
    replace(globalThis, "Date", date),
    replace(performance, "now", () => time.elapsed - start),
    replace(Math, "random", random),
    replace(crypto, "randomUUID", () => uuidOf(random)),
  ];
  return () => {
    for (const each of undo) each();
    replaced = undefined;
  };
}

/**
 * Returns two lines of a stack, after the frames of the kit. Call it only for a message, because reading a stack reads source maps.
 *
 * @param frames number of calls of the kit between the application and the error.
 */
export function callSiteOf({ stack = "" }: Error, frames: number): string {
  return stack.split("\n").slice(frames + 1, frames + 3).map((line) => line.trim()).join(" ");
}

/** Whether a timer that was set at this call site keeps the app's process alive. */
export const keepsAlive = (callSite: Error | undefined): boolean => !callSite || !unreffed.has(callSite);

function replace(owner: object, name: string, value: unknown): () => void {
  const own = Object.getOwnPropertyDescriptor(owner, name);
  Object.defineProperty(owner, name, { value, configurable: true, writable: true, enumerable: own?.enumerable ?? false });
  return () => {
    if (own) Object.defineProperty(owner, name, own);
    else delete (owner as Record<string, unknown>)[name]; // Removes the own property, so that the one of the prototype is visible again.
  };
}
