/** A queue of arriving items with an async iterator. */
export interface Reading<Item> {
  /** True after {@link end}. */
  readonly hasEnded: boolean;
  /** Resolves pending reads with items that have arrived. */
  serve(): void;
  /** Call when no more items arrive. Reads return what is left, and then fail with the error, if there is one. */
  end(error?: unknown): void;
  /** @param asked called before each read. */
  iterate(asked?: () => void): AsyncIterableIterator<Item, undefined>;
}

type Reader<Item> = [resolve: (result: IteratorResult<Item, undefined>) => void, reject: (error: unknown) => void];

/**
 * @param take removes and returns the next item, if one has arrived.
 * @param left called when the consumer leaves its loop.
 */
export function createReading<Item>(take: () => { value: Item } | undefined, left: () => void): Reading<Item> {
  const readers: Reader<Item>[] = [];
  let ended: { error: unknown } | undefined;

  const serve = () => {
    while (readers.length) {
      const item = take();
      if (!item && !ended) return;
      const [resolve, reject] = readers.shift()!; // The loop has checked that there is one.
      if (item) resolve({ done: false, ...item });
      else if (ended?.error) reject(ended.error);
      else resolve({ done: true, value: undefined });
    }
  };

  return {
    get hasEnded() {
      return !!ended;
    },
    serve,
    end(error) {
      ended ??= { error };
      serve();
    },
    // Not a generator, whose `return()` would wait for the pending `next()`.
    iterate: (asked) => ({
      next() {
        asked?.();
        return new Promise((...reader) => {
          readers.push(reader);
          serve();
        });
      },
      return() {
        left();
        return Promise.resolve({ done: true, value: undefined });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    }),
  };
}
