import type { WebSocketMessage } from "../protocol/protocol.ts";
import { withoutUnnamed } from "./dispose.ts";
import { ClientError } from "./error.ts";
import { createInput } from "./stream-input.ts";

/** Options of {@link BareClient.stream}. */
export interface StreamOptions<Input = unknown> {
  /** Cancels the stream when aborted. The iteration and the result then reject with its reason. */
  signal?: AbortSignal;
  /**
   * Sent to the handler item by item, as fast as it reads. The iteration ends when the handler reads no more, and with the stream. What it
   * throws ends the input, and is thrown by the stream unless the handler answers all the same.
   */
  input?: AsyncIterable<Input>;
}

/** Options of {@link BareClient.attach}. */
export interface AttachOptions extends Pick<StreamOptions, "signal"> {
  /** The {@link ClientStream.offset} after which to begin. @default {0} */
  after?: number;
}

/** A running stream of the user. */
export interface StreamInfo {
  /** For {@link BareClient.attach}. */
  id: string;
  /** The message type. */
  type: string;
  /** The name that the server has given it. */
  key?: string;
}

/** An answer in parts. Iterate over it: the server sends more as you read, and ends a stream that nobody reads. */
export interface ClientStream<Item = unknown, Result = unknown> extends AsyncIterable<Item> {
  /**
   * The result, once all items were sent. Ignoring it is safe.
   *
   * @throws {ClientError} the server's code, CANCELLED, SLOW_CONSUMER, DISCONNECTED, or another code of {@link BareClient.request}.
   */
  readonly result: Promise<Result>;
  /** The name of a resumable stream, for {@link BareClient.attach}; `undefined`: another one. Never rejects. */
  readonly id: Promise<string | undefined>;
  /** The number of the last item that was read, in a resumable stream; 0: none. */
  readonly offset: number;
  /** Asks the handler to stop, and ends the iteration. A `break` and `return()` do the same. */
  cancel(): void;
}

type Reader = [resolve: (result: IteratorResult<unknown, undefined>) => void, reject: (error: unknown) => void];

/** The streams of a client. */
export interface Streams {
  /**
   * @param request sends the request, and settles with the end of the stream. With an `id` it resumes the stream.
   * @param id of a stream that is resumed.
   */
  start(
    uid: string,
    request: (id?: string, after?: number) => Promise<WebSocketMessage>,
    options: AttachOptions & StreamOptions,
    id?: string,
  ): ClientStream;
  /** Takes an item, or a message about the input. Returns whether it is of a stream. */
  receive(message: WebSocketMessage): boolean;
  /** Sends what the server accepts now. */
  flush(): void;
  /** The connection is lost. */
  lost(): void;
}

/**
 * @param offer sends a text if the server accepts it now. Returns whether it is settled: sent, or refused with an error.
 * @param drop rejects a request that was not sent yet, and returns whether there is one.
 */
export function createStreams(
  offer: (text: string, refused: (error: unknown) => void) => boolean,
  drop: (uid: string, error: unknown) => boolean,
  report: (error: unknown) => void,
): Streams {
  const open = new Map<unknown, (message: WebSocketMessage) => void>();
  /** The last credit, or the cancellation, that could not be sent yet. */
  const due = new Map<string, string>();
  /** Each offers an item of input that could not be sent yet. */
  const waiting = new Set<() => void>();

  const send = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const attempt = () => {
        if (!offer(text, reject)) return waiting.add(attempt);
        waiting.delete(attempt);
        resolve();
      };
      attempt();
    });

  return {
    start(uid, request, { signal, input, after = 0 }, id) {
      const queue: WebSocketMessage[] = [];
      const readers: Reader[] = [];
      /** Items of the message that was taken from the queue last. */
      let items: unknown[] = [];
      /** Its offset, and that of the one before. */
      let taken = after;
      let before = after;
      /** Of the last item that was read: sent back when the next is asked for. */
      let credit: unknown;
      let end: { error: unknown } | undefined;
      let name: (id?: string) => void;
      let failed: unknown[] = [];
      const source = input && createInput(input, uid, send, (...failure) => failed = failure, report);

      const tell = (type: string, name?: string) => {
        const text = JSON.stringify({ type: `stream.${type}`, ...(name ? { id: name } : { uid, credit }) });
        credit = undefined;
        if (!offer(text, report)) due.set(name ? text : uid, text);
      };

      /** Hands items to pending reads, and then the end. */
      const serve = () => {
        while (readers[0]) {
          const message = !items.length && queue.shift();
          if (message) {
            credit = message["credit"] ?? credit;
            before = taken;
            taken = message["offset"] as number ?? 0; // PROTOCOL.md §3.11
            items = message["items"] as unknown[] ?? [message["data"]];
          }
          if (!items.length) {
            if (message) continue;
            if (!end) return;
          }
          const [resolve, reject] = readers.shift()!; // The loop has checked that there is one.
          if (items.length) resolve({ done: false, value: items.shift() });
          else if (end?.error) reject(end.error);
          else resolve({ done: true, value: undefined });
        }
      };

      const finish = (error?: unknown) => {
        source?.stop();
        end ??= { error };
        serve();
      };

      const cancel = (error?: unknown) => {
        if (end) return;
        queue.length = items.length = 0;
        credit = undefined;
        finish(error);
        if (!drop(uid, error ?? new ClientError("CANCELLED", "Cancelled"))) tell("cancel");
        // The `uid` of a resumable stream may not have arrived on this connection.
        if (id) tell("cancel", id);
      };

      /** Sends the request, and resumes the stream after each lost connection. */
      const run = async (): Promise<unknown> => {
        for (;;) {
          try {
            return (await request(id, taken)).data;
          } catch (error) {
            if (!id || end || (error as ClientError).code !== "DISCONNECTED") throw error;
            queue.length = 0;
            credit = undefined;
          }
        }
      };

      const abort = () => cancel(signal!.reason); // Called by the signal only.
      signal?.addEventListener("abort", abort);
      const named = new Promise<string | undefined>((resolve) => name = resolve);
      if (id) name!(id);
      const result = run().catch((error) => {
        const [cause, item] = failed;
        // The handler has failed with the input, and not of something later (PROTOCOL.md §3.14).
        throw item && error.details?.item === item ? cause : error;
      });
      const done = (error?: unknown) => {
        open.delete(uid);
        signal?.removeEventListener("abort", abort);
        name();
        finish(error);
      };
      open.set(uid, (message) => {
        const { type, status, item, bytes } = message;
        if (type === "stream.credit") source?.grant(item as number, bytes as number); // Only compared.
        if (type === "stream.cancel") source?.stop();
        if (status === "open") id = message["id"] as string; // PROTOCOL.md §3.11
        else if (status && !end) queue.push(message);
        if (status) name(id);
        serve();
      });
      result.then(() => done(), done);
      return withoutUnnamed({
        result,
        id: named,
        get offset() {
          return items.length ? before : taken;
        },
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
      const { status = "next", uid } = message;
      const take = (status === "next" || status === "open") && open.get(uid);
      if (take) take(message);
      return !!take;
    },
    flush() {
      for (const [key, text] of due) if (offer(text, report)) due.delete(key);
      for (const attempt of waiting) attempt();
    },
    lost() {
      for (const [key, text] of due) if (key !== text) due.delete(key);
      waiting.clear();
    },
  };
}
