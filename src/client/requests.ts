import type { MessageUid } from "../protocol/errors.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { encode } from "./encode.ts";
import { ClientError, errorOf, isUnread } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { createTimer } from "./platform.ts";

/** Options of {@link BareClient.request}. */
export interface RequestOptions {
  /** Time for the reply, in ms; `0` waits forever. @default the client's `requestTimeout` */
  timeout?: number;
  /** Rejects the request when aborted. The server may still handle it. */
  signal?: AbortSignal;
  /**
   * After a lost connection it is sent again with the same `uid`. A server with `answerOnce()` handles it at most once within its window
   * and answers with the first answer, or with `OUTCOME_UNKNOWN`; with any other it must be safe to handle twice. @default {false}
   */
  idempotent?: boolean;
}

/** Options of {@link BareClient.publish}. */
export interface PublishOptions extends RequestOptions {
  /**
   * Publishes at most once, and makes the request `idempotent`: another publication of the user to the channel with the same id, of 1 to
   * 64 characters, within the server's `idWindow` (five minutes) publishes nothing and resolves with the same position. Use a random id,
   * such as `crypto.randomUUID()`: anonymous clients have one scope in common.
   */
  id?: string;
}

/** A message that is not sent yet, or a request that is not answered yet. */
interface Pending {
  readonly text: string;
  /** Of a request. */
  readonly uid: MessageUid | undefined;
  readonly idempotent: boolean | undefined;
  /** A request is settled by its answer, any other message as soon as it is sent. */
  settle(answer?: WebSocketMessage): void;
  fail(error: unknown): void;
  /** It was sent on a connection that was then lost, so the server may have handled it. */
  wasSent?: boolean;
}

/** The messages of a client: a queue of those that cannot be sent yet, bounded in number and age, and the requests without an answer. */
export interface Requests {
  /**
   * Sends a message, or queues it. Resolves with the answer, or, without a `uid`, when the socket has accepted it.
   *
   * @throws {TypeError} as a rejection, for a message that JSON cannot encode
   */
  add(message: object, uid: MessageUid | undefined, options: RequestOptions & { timeout: number }): Promise<WebSocketMessage>;
  /** Rejects a request that was not sent yet. Returns whether there is one. */
  drop(uid: unknown, error: unknown): boolean;
  /** Settles the request that the message answers, or queues it again if the server has not handled it. Returns whether there is one. */
  settle(message: WebSocketMessage): boolean;
  /** Sends in order until the server accepts no more. */
  flush(): void;
  /**
   * The connection is lost. The server may have handled what was sent, so only idempotent requests are queued again.
   *
   * @param wasDrained whether the server answered all requests that it handled (PROTOCOL.md §6): then the others are queued again
   * @param whyClosed why the client is closed, if it is: rejects what was never sent
   */
  lost(error: ClientError, mayRetry: boolean, wasDrained: boolean, whyClosed: ClientError | undefined): void;
}

/**
 * @param offer sends a text if the server accepts it now. Returns whether it is settled: sent, or refused with an error.
 * @param whyUnsent returns why the client is not connected; `undefined` while it is
 */
export function createRequests(
  { clock, outbox: { maxMessages } }: ResolvedOptions,
  offer: (text: string, refused: (error: ClientError) => void) => boolean,
  whyUnsent: () => ClientError | undefined,
): Requests {
  /** All that is not settled, in the order of `add`: a request by its `uid`, any other message by a symbol. */
  const pending = new Map<unknown, Pending>();
  /** What is not sent, in the same order. */
  let queue = new Set<Pending>();

  /** Moves requests that are queued again to their place. */
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
          // While connected the queue drains at the server's pace, so the limit does not apply.
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
