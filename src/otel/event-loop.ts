import { unref } from "../base/clock.ts";

/** Time between two measurements, in ms. */
const PERIOD = 100;

/** Kept, because a test may replace them: a virtual time has no delay, and would count the timer as a leak. */
const { setTimeout, clearTimeout, performance } = globalThis;
const now = performance.now.bind(performance);

/**
 * Measures by how much a timer is late, in seconds: the time that a message may wait before it is handled. Returns the end of it.
 *
 * Not measured on Workers: a pending timer prevents hibernation.
 */
export function measureDelay(record: (seconds: number) => void): () => void {
  if ("WebSocketPair" in globalThis) return () => {};
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = () => {
    const dueAt = now() + PERIOD;
    timer = setTimeout(() => {
      record(Math.max(0, now() - dueAt) / 1000);
      wait();
    }, PERIOD);
    unref(timer);
  };
  wait();
  return () => clearTimeout(timer);
}
