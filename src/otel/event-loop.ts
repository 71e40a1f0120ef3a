import { unref } from "../base/clock.ts";

/** Time between two measurements, in ms. */
const PERIOD = 100;

/** Kept, because tests replace the globals by virtual time, which has no delay and counts a pending timer as a leak. */
const { setTimeout, clearTimeout, performance } = globalThis;
const now = performance.now.bind(performance);

/**
 * Measures the delay of the event loop: by how many seconds a timer is late. A message may wait for as long before it is handled.
 * Returns a function that stops it.
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
