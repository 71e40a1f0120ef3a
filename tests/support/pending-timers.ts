/** Runs a test with the number of timers of at least a delay that were set meanwhile, and have neither fired nor been cleared. */
export async function countTimers(test: (pending: (delay: number) => number) => Promise<void>): Promise<void> {
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
    await test((delay) => [...delays.values()].filter((each) => each >= delay).length);
  } finally {
    globalThis.setTimeout = set;
    globalThis.clearTimeout = clear;
    for (const handle of delays.keys()) clear(handle as number); // As `set` has returned it.
  }
}
