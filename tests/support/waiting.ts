import { clearInterval, setImmediate, setInterval, setTimeout } from "node:timers";
import { inspect } from "node:util";

/** A promise that the test settles, to stall a step for as long as a race needs. (Node 20 has no `Promise.withResolvers`.) */
export class Stall<T = void> {
  resolve!: (value: T) => void;
  reject!: (reason: unknown) => void;
  readonly promise = new Promise<T>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
}

/** One turn of the event loop: by then every microtask that could run has run. */
export function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/**
 * The longest that a test waits for one thing, in seconds: then it fails with what it has seen. Its own limit ends it without a word.
 */
const HANGS = 150;

/** A second of a machine that stands still for minutes counts as one. */
const SECOND = 1_000;

/** Polls of {@link until} without a pause, and the pause after those, in ms. Who waits for another process lets it have the machine. */
const POLLS = 50;
const PAUSE = 2;

/**
 * Resolves when the condition holds, which is checked again and again.
 *
 * @param seen for the error of a test that hangs.
 */
export async function until(condition: () => boolean | Promise<boolean>, seen: () => unknown = () => ({})): Promise<void> {
  let isOver = false;
  const polling = async () => {
    for (let polls = 0; !await condition() && !isOver; polls++) {
      await (polls < POLLS ? turn() : new Promise<void>((resolve) => void setTimeout(resolve, PAUSE)));
    }
  };
  try {
    await inTime(condition, seen, polling());
  } finally {
    isOver = true;
  }
}

/** Waits as the promise does. Rejects with what was seen when that takes too long. @param what is waited for. */
export async function inTime<Value>(what: unknown, seen: () => unknown, promise: Promise<Value>): Promise<Value> {
  let stop = () => {};
  const late = new Promise<never>((_, reject) => stop = countdown(() => reject(hangs(what, seen()))));
  try {
    return await Promise.race([promise, late]);
  } finally {
    stop();
  }
}

/** Calls back after the seconds of {@link HANGS}, unless what it returns was called before. */
function countdown(late: () => void): () => void {
  let seconds = 0;
  const timer = setInterval(() => {
    if (++seconds === HANGS) late();
  }, SECOND);
  return () => clearInterval(timer);
}

function hangs(what: unknown, seen: unknown): Error {
  const text = inspect(seen, { depth: 6, maxArrayLength: 20, maxStringLength: 400, breakLength: 130 });
  return new Error(`${HANGS} s were not enough for ${what}: ${text}`);
}
