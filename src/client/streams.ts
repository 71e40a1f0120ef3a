import type { WebSocketMessage } from "../protocol/protocol.ts";
import { withoutUnnamed } from "./dispose.ts";
import { ClientError } from "./error.ts";

/** Options of {@link BareClient.stream}. */
export interface StreamOptions {
  /** Cancels the stream when aborted. The iteration and the result then reject with its reason. */
  signal?: AbortSignal;
}

/** An answer in parts. Iterate over it: the server sends more as you read, and ends a stream that nobody reads. */
export interface ClientStream<Item = unknown, Result = unknown> extends AsyncIterable<Item> {
  /**
   * The result, once all items were sent. Ignoring it is safe.
   *
   * @throws {ClientError} the server's code, CANCELLED, SLOW_CONSUMER, DISCONNECTED, or another code of {@link BareClient.request}.
   */
  readonly result: Promise<Result>;
  /** Asks the handler to stop, and ends the iteration. A `break` and `return()` do the same. */
  cancel(): void;
}

type Reader = [resolve: (result: IteratorResult<unknown, undefined>) => void, reject: (error: unknown) => void];

/** The streams of a client. */
export interface Streams {
  /** @param request sends the request, and settles with the end of the stream. */
  start(uid: string, request: () => Promise<WebSocketMessage>, signal?: AbortSignal): ClientStream;
  /** Takes an item. Returns whether it is of a stream. */
  receive(message: WebSocketMessage): boolean;
  /** Sends what the server accepts now. */
  flush(): void;
  /** The connection is lost. */
  lost(): void;
}

/**
 * @param offer sends a text if the server accepts it now, and returns whether it did.
 * @param drop rejects a request that was not sent yet, and returns whether there is one.
 */
export function createStreams(offer: (text: string) => boolean, drop: (uid: string, error: unknown) => boolean): Streams {
  const open = new Map<unknown, (message: WebSocketMessage) => void>();
  /** The last credit, or the cancellation, that could not be sent yet. */
  const due = new Map<string, string>();

  return {
    start(uid, request, signal) {
      const queue: WebSocketMessage[] = [];
      const readers: Reader[] = [];
      /** Of the last item that was read: sent back when the next is asked for. */
      let credit: unknown;
      let end: { error: unknown } | undefined;

      const tell = (type: string) => {
        const text = JSON.stringify({ type: `stream.${type}`, uid, credit });
        credit = undefined;
        if (!offer(text)) due.set(uid, text);
      };

      /** Hands items to pending reads, and then the end. */
      const serve = () => {
        while (readers[0]) {
          const message = queue.shift();
          if (!message && !end) return;
          const [resolve, reject] = readers.shift()!; // The loop has checked that there is one.
          if (message) {
            credit = message["credit"] ?? credit;
            resolve({ done: false, value: message["data"] });
          } else if (end?.error) reject(end.error);
          else resolve({ done: true, value: undefined });
        }
      };

      const finish = (error?: unknown) => {
        end ??= { error };
        serve();
      };

      const cancel = (error?: unknown) => {
        if (end) return;
        queue.length = 0;
        credit = undefined;
        finish(error);
        if (!drop(uid, error ?? new ClientError("CANCELLED", "Cancelled"))) tell("cancel");
      };

      const abort = () => cancel(signal!.reason); // Called by the signal only.
      signal?.addEventListener("abort", abort);
      const result = request().then(({ data }) => data);
      const done = (error?: unknown) => {
        open.delete(uid);
        signal?.removeEventListener("abort", abort);
        finish(error);
      };
      open.set(uid, (message) => {
        if (!end) queue.push(message);
        serve();
      });
      result.then(() => done(), done);
      return withoutUnnamed({
        result,
        cancel: () => cancel(),
        // Not a generator: its `return()` would wait for the pending `next()`.
        [Symbol.asyncIterator]: () => ({
          next: () => {
            if (credit && !end) tell("credit");
            return new Promise((...reader) => {
              readers.push(reader);
              serve();
            });
          },
          return: () => {
            cancel();
            return Promise.resolve({ done: true, value: undefined });
          },
        }),
      });
    },
    receive(message) {
      const take = message["status"] === "next" && open.get(message.uid);
      if (take) take(message);
      return !!take;
    },
    flush() {
      for (const [uid, text] of due) if (offer(text)) due.delete(uid);
    },
    lost() {
      due.clear();
    },
  };
}
