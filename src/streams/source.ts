import type { Streamable } from "../application/call.ts";
import type { Observer } from "../application/observer.ts";

/** What a stream reads. */
export interface Source {
  /** Reads the next item, or the result. */
  next(): PromiseLike<IteratorResult<unknown>>;
  /** Ends the source before its end. */
  return?(): unknown;
}

/** A message of a stream whose fields are encoded already. */
export class Part {
  readonly status: "open" | "next";
  /** JSON, without braces. */
  readonly fields: string;

  constructor(status: "open" | "next", fields: string) {
    this.status = status;
    this.fields = fields;
  }
}

/**
 * Opens what a handler returned.
 *
 * @param observer keeps the context of this call for all that is read: anything may be running when the next item is.
 * @throws what its own code throws.
 */
export function openSource(streamable: Streamable, observer?: Observer): Source {
  const source = open(streamable);
  if (!observer?.bind) return source;
  const next = observer.bind(() => source.next());
  return { next, ...(source.return && { return: observer.bind(() => source.return!()) }) }; // As checked.
}

function open(streamable: Streamable): Source {
  if (!("getReader" in streamable)) return streamable[Symbol.asyncIterator]();
  // Its iterator would wait for a pending read before it ends.
  const reader = streamable.getReader();
  return { next: () => reader.read() as Promise<IteratorResult<unknown>>, return: () => reader.cancel() };
}
