/** Runs a test with the number of timers whose delay is in a range, in ms: those set meanwhile that have neither fired nor been cleared. */
export async function countTimers(test: (pending: (from: number, to?: number) => number) => Promise<void>): Promise<void> {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const delays = new Map<unknown, number>();
  const counting = (callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) => {
    const handle = set(() => {
      delays.delete(handle);
      callback(...args);
    }, delay);
    delays.set(handle, delay);
    return handle;
  };
  globalThis.setTimeout = counting as typeof setTimeout; // All but `util.promisify` is there.
  globalThis.clearTimeout = (handle) => {
    delays.delete(handle);
    clear(handle);
  };
  try {
    await test((from, to = Infinity) => [...delays.values()].filter((each) => each >= from && each <= to).length);
  } finally {
    globalThis.setTimeout = set;
    globalThis.clearTimeout = clear;
    for (const handle of delays.keys()) clear(handle as number); // As `set` has returned it.
  }
}
