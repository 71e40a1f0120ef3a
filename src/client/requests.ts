import type { MessageUid } from "../protocol/errors.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { encode } from "./encode.ts";
import { ClientError, errorOf, isUnread } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { createTimer } from "./platform.ts";

/** Options of {@link BareClient.request}. */
export interface RequestOptions {
  /** Time limit for the reply, in ms; `0` for none. @default the client's `requestTimeout` */
  timeout?: number;
  /** Rejects the request when aborted. The server may still handle it. */
  signal?: AbortSignal;
  /**
   * Whether to send the request again after a lost connection, with the same `uid`. A server with `answerOnce()` handles it at most once
   * within its window, and repeats the first answer, or answers with `OUTCOME_UNKNOWN`. With any other server, it must be safe to handle
   * twice.
   *
   * @default {false}
   */
  idempotent?: boolean;
}

/** Options of {@link BareClient.publish}. */
export interface PublishOptions extends RequestOptions {
  /**
   * Publishes at most once, and makes the request `idempotent`: another publication of the user to the channel with the same id, of 1 to
   * 64 characters, within the server's `idWindow` (default: five minutes) publishes nothing and resolves with the same position. Use a
   * random id, such as `crypto.randomUUID()`, because all anonymous clients share one scope.
   */
  id?: string;
}

/** A message that is not sent yet, or a request that is not answered yet. */
interface Pending {
  readonly text: string;
  /** Absent unless it is a request. */
  readonly uid: MessageUid | undefined;
  readonly idempotent: boolean | undefined;
  /** Called with the answer to a request; for any other message, when it was sent. */
  settle(answer?: WebSocketMessage): void;
  fail(error: unknown): void;
  /** Whether it was sent on a connection that was lost, so that the server may have handled it. */
  wasSent?: boolean;
}

/** A client's queue of messages that cannot be sent yet, which is bounded in number and age, and its requests without an answer. */
export interface Requests {
  /**
   * Sends a message, or queues it. Resolves with the answer; without a `uid`, when the socket has accepted it.
   *
   * @throws {TypeError} as a rejection, for a message that JSON cannot encode
   */
  add(message: object, uid: MessageUid | undefined, options: RequestOptions & { timeout: number }): Promise<WebSocketMessage>;
  /** Rejects a request that was not sent yet. Returns whether there was one. */
  drop(uid: unknown, error: unknown): boolean;
  /** Settles the request that the message answers, or queues it again if the server has not handled it. Returns whether there was one. */
  settle(message: WebSocketMessage): boolean;
  /** Sends in order until the server accepts no more. */
  flush(): void;
  /**
   * Called when the connection is lost. The server may have handled what was sent, so only idempotent requests are queued again.
   *
   * @param wasDrained whether the server has answered all requests that it handled (PROTOCOL.md §6), so that the others are queued again.
   * @param whyClosed error for messages that were not sent, if the client is closed.
   */
  lost(error: ClientError, mayRetry: boolean, wasDrained: boolean, whyClosed: ClientError | undefined): void;
}

/**
 * @param offer sends a text if the server accepts it now. Returns whether it was sent, or refused with an error.
 * @param whyUnsent returns why the client is not connected; `undefined` if it is.
 */
export function createRequests(
  { clock, outbox: { maxMessages } }: ResolvedOptions,
  offer: (text: string, refused: (error: ClientError) => void) => boolean,
  whyUnsent: () => ClientError | undefined,
): Requests {
  /** All messages that are not settled, in the order of `add`: requests by `uid`, others by a symbol. */
  const pending = new Map<unknown, Pending>();
  /** The messages that were not sent, in the same order. */
  let queue = new Set<Pending>();

  /** Sorts the queue after requests were queued again. */
  const sort = () => queue = new Set([...pending.values()].filter((item) => queue.has(item)));

  return {
    add: (message, uid, { timeout, signal, idempotent }) =>
      new Promise((resolve, reject) => {
        const text = encode(message);
        const key = uid ?? Symbol();
        const timer = createTimer(clock);
        const done = () => {
          timer();
          pending.delete(key);
          queue.delete(item);
          signal?.removeEventListener("abort", abort);
        };
        const item: Pending = {
          text,
          uid,
          idempotent,
          settle(answer) {
            done();
            resolve(answer!); // A request is settled by an answer only.
          },
          fail(error) {
            done();
            reject(error);
          },
        };
        // Polyfilled signals, as in React Native, have no reason.
        const abort = () => item.fail(signal?.reason ?? new ClientError("ABORTED", "Aborted"));
        if (signal?.aborted) return abort();
        signal?.addEventListener("abort", abort);
        pending.set(key, item);
        // Queued messages go first.
        if (queue.size || !offer(text, item.fail)) {
          // The limit does not apply while the client is connected, when the queue is sent as fast as the server accepts.
          if (whyUnsent() && queue.size >= maxMessages) {
            return item.fail(new ClientError("OUTBOX_FULL", "Cannot send: too many messages wait"));
          }
          queue.add(item);
        } else if (!uid) item.settle();
        const expired = () =>
          item.fail(
            queue.has(item) && !item.wasSent
              ? whyUnsent() ?? new ClientError(uid ? "TIMEOUT" : "OUTBOX_EXPIRED", "Not sent in time: told to wait")
              : new ClientError("TIMEOUT", `No answer within ${timeout} ms`),
          );
        if (timeout && pending.has(key)) timer(expired, timeout);
      }),
    drop(uid, error) {
      const item = pending.get(uid)!; // Each item in the queue is pending, too.
      const isQueued = queue.has(item);
      if (isQueued) item.fail(error);
      return isQueued;
    },
    settle(message) {
      const item = pending.get(message.uid);
      const { status } = message;
      if (!item || status === undefined) return false;
      if (isUnread(message)) {
        queue.add(item);
        sort();
      } else if (status === "ok") item.settle(message);
      else item.fail(errorOf(message));
      return true;
    },
    flush() {
      for (const item of queue) {
        if (!offer(item.text, item.fail)) return;
        queue.delete(item);
        if (!item.uid) item.settle();
      }
    },
    lost(error, mayRetry, wasDrained, whyClosed) {
      for (const item of [...pending.values()]) {
        if (queue.has(item)) continue;
        item.wasSent ||= !wasDrained;
        if ((item.idempotent || wasDrained) && mayRetry) queue.add(item);
        else item.fail(error);
      }
      sort();
      if (whyClosed) { for (const item of [...queue]) item.fail(item.wasSent ? error : whyClosed); }
    },
  };
}
