import { systemClock } from "../base/clock.ts";

/** Time between two measurements, in ms. */
const PERIOD = 100;

/**
 * Measures by how much a timer is late, in seconds: the time that a message may wait before it is handled. Returns the end of it.
 *
 * Not measured on Workers: a pending timer prevents hibernation.
 */
export function measureDelay(record: (seconds: number) => void): () => void {
  if ("WebSocketPair" in globalThis) return () => {};
  let timer: unknown;
  const wait = () => {
    const dueAt = systemClock.monotonic() + PERIOD;
    timer = systemClock.setTimeout(() => {
      record(Math.max(0, systemClock.monotonic() - dueAt) / 1000);
      wait();
    }, PERIOD);
  };
  wait();
  return () => systemClock.clearTimeout(timer);
}
