import type { Streamable } from "../application/call.ts";

/** What a stream reads. */
export interface Source {
  /** Reads the next item, or the result. */
  next(): PromiseLike<IteratorResult<unknown>>;
  /** Ends the source before its end. */
  return?(): unknown;
}

/** Opens what a handler returned. @throws what its own code throws. */
export function openSource(streamable: Streamable): Source {
  if (!("getReader" in streamable)) return streamable[Symbol.asyncIterator]();
  // Its iterator would wait for a pending read before it ends.
  const reader = streamable.getReader();
  return { next: () => reader.read() as Promise<IteratorResult<unknown>>, return: () => reader.cancel() };
}
