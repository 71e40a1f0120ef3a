/**
 * Streams for the client: answers in parts, requests with an input in parts, and their resumption. A separate entry, because not every page
 * needs them.
 *
 * @example
 * ```ts
 * import { createClient } from "noroshi/client";
 * import { streams } from "noroshi/client/streams";
 *
 * const client = createClient("wss://example.com/websocket", { streams });
 * for await (const token of client.stream("ask", { prompt: "Hi" })) console.log(token);
 * ```
 *
 * @module
 */
import type { Contract, ItemOf, ReplyOf, StreamType } from "../protocol/contract-types.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { StreamArguments } from "./contract.ts";
import { withoutUnnamed } from "./dispose.ts";
import { ClientError } from "./error.ts";
import { createReading } from "./reading.ts";
import type { AttachOptions, ClientStream, StreamInfo, StreamOptions, Streams, StreamsHost } from "./stream.ts";
import { createInput } from "./stream-input.ts";

export type { AttachOptions, ClientStream, StreamInfo, StreamOptions, Streams, StreamsFactory, StreamsHost } from "./stream.ts";

/** What the option `streams` adds to a client. */
export interface Streaming<C = Contract> {
  /**
   * Sends a request whose answer, or whose `input`, is in parts. A `break` out of the loop cancels it. After a lost connection, a stream that
   * the server declares `resumable` continues where it was; the iteration of any other throws `DISCONNECTED`.
   */
  stream<Type extends StreamType<C>>(
    type: Type,
    ...[payload, options]: StreamArguments<C, Type>
  ): ClientStream<ItemOf<C, Type>, ReplyOf<C, Type>>;

  /**
   * Attaches to a running stream that the server declares `resumable`, such as from another tab or after a reload.
   *
   * @throws {ClientError} STREAM_LOST, from the iteration and the result, if the user has no such stream or it is no longer kept.
   */
  attach<Type extends StreamType<C>>(id: string, options?: AttachOptions): ClientStream<ItemOf<C, Type>, ReplyOf<C, Type>>;

  /** Lists the running `resumable` streams of the user, on all nodes. @throws {ClientError} as `request` of the client */
  streams(): Promise<StreamInfo[]>;
}

/** Maximum number of messages that wait to be read. A correct server sends at most 64 items ahead (PROTOCOL.md §3.9). */
const MAX_WAITING = 10_000;

/** Pass it as the option `streams` of {@link createClient}, which adds the methods of {@link Streaming} to the client. */
export function streams({ nextUid, request, offer, drop, report }: StreamsHost): Streams {
  const open = new Map<unknown, (message: WebSocketMessage) => void>();
  /** Messages that could not be sent yet: for each stream its latest credit or cancellation, and an item of its input. */
  const due = new Map<string, { attempt(): boolean; isLasting: boolean }>();

  /**
   * Resolves when the text was sent.
   *
   * @param key a later text with the same key replaces a waiting one.
   * @param isLasting whether it may be sent on a later connection.
   */
  const send = (text: string, key: string, isLasting = false) =>
    new Promise<void>((resolve, reject) => {
      const attempt = () => {
        const isSettled = offer(text, reject);
        if (isSettled) resolve();
        return isSettled;
      };
      if (!attempt()) due.set(key, { attempt, isLasting });
    });

  /** @param id the id of a stream to resume. */
  const start = (
    type: string,
    payload: object | undefined,
    { signal, input, after = 0 }: AttachOptions & StreamOptions = {},
    id?: string,
  ): ClientStream => {
    const uid = nextUid();
    const queue: WebSocketMessage[] = [];
    /** Unread items of the message that was last taken from the queue. */
    let items: unknown[] = [];
    /** Offset of that message, and of the previous one. */
    let lastOffset = after;
    let previousOffset = after;
    /** Credit of the last item that was read. It is sent when the next one is requested. */
    let credit: unknown;
    let resolveId: (id?: string) => void;
    /** The error of the input, and the number of the message that ends it. */
    let failed: unknown[] = [];
    const sendInput = (text: string) => send(text, `${uid} input`);
    const source = input && createInput(input, uid, sendInput, (...failure) => failed = failure, report);

    const sendControl = (type: string, streamId?: string) => {
      const text = JSON.stringify({ type: `stream.${type}`, ...(streamId ? { id: streamId } : { uid, credit }) });
      credit = undefined;
      send(text, streamId ?? uid, !!streamId).catch(report);
    };

    const nextItem = () => {
      while (!items.length) {
        const message = queue.shift();
        if (!message) return;
        credit = message["credit"] ?? credit;
        previousOffset = lastOffset;
        lastOffset = message["offset"] as number ?? 0; // PROTOCOL.md §3.11
        items = message["items"] as unknown[] ?? [message["data"]];
      }
      return { value: items.shift() };
    };

    const cancel = (error?: unknown) => {
      if (reading.hasEnded) return;
      queue.length = items.length = 0;
      credit = undefined;
      finish(error);
      if (!drop(uid, error ?? new ClientError("CANCELLED", "Cancelled"))) sendControl("cancel");
      // The `uid` of a resumable stream may not have arrived on this connection.
      if (id) sendControl("cancel", id);
    };

    const reading = createReading(nextItem, cancel);

    const finish = (error?: unknown) => {
      source?.stop();
      reading.end(error);
    };

    /** Sends the request, and resumes the stream after each lost connection. */
    const run = async (): Promise<unknown> => {
      const options = { timeout: 0, ...(signal && { signal }) };
      for (;;) {
        try {
          return (await (id
            ? request("stream.resume", { id, after: lastOffset }, options, uid)
            : request(type, payload, options, uid))).data;
        } catch (error) {
          if (!id || reading.hasEnded || (error as ClientError).code !== "DISCONNECTED") throw error;
          queue.length = 0;
          credit = undefined;
        }
      }
    };

    const abort = () => cancel(signal!.reason); // Called by the signal only.
    signal?.addEventListener("abort", abort);
    const knownId = new Promise<string | undefined>((resolve) => resolveId = resolve);
    if (id) resolveId!(id);
    const result = run().catch((error) => {
      const [cause, item] = failed;
      // If the handler has failed because of the error of the input, that error is thrown (PROTOCOL.md §3.14).
      throw item && error.details?.item === item ? cause : error;
    });
    const done = (error?: unknown) => {
      open.delete(uid);
      signal?.removeEventListener("abort", abort);
      resolveId();
      finish(error);
    };
    open.set(uid, (message) => {
      const { type, status, item, bytes } = message;
      if (type === "stream.credit") source?.grant(item as number, bytes as number); // Only compared.
      if (type === "stream.cancel") source?.stop();
      if (status === "open") id = message["id"] as string; // PROTOCOL.md §3.11
      else if (status && !reading.hasEnded && queue.push(message) > MAX_WAITING) {
        cancel(new ClientError("SLOW_CONSUMER", "Too many items wait"));
      }
      if (status) resolveId(id);
      reading.serve();
    });
    result.then(() => done(), done);
    return withoutUnnamed({
      result,
      id: knownId,
      get offset() {
        return items.length ? previousOffset : lastOffset;
      },
      cancel: () => cancel(),
      [Symbol.asyncIterator]: () =>
        reading.iterate(() => {
          if (credit && !reading.hasEnded) sendControl("credit");
        }),
    });
  };

  const methods: Streaming = {
    stream: (type, payload, options) => start(type, payload, options),
    attach: (id, options) => start("", {}, options, id) as ClientStream<never, never>, // The contract exists in types only.
    streams: () => request("stream.list", {}).then(({ data }) => data as StreamInfo[]), // PROTOCOL.md §3.12
  };

  return {
    methods,
    receive(message) {
      const { status = "next", uid } = message;
      const take = (status === "next" || status === "open") && open.get(uid);
      if (take) take(message);
      return !!take;
    },
    flush() {
      for (const [key, { attempt }] of due) if (attempt()) due.delete(key);
    },
    lost() {
      for (const [key, { isLasting }] of due) if (!isLasting) due.delete(key);
    },
  };
}
