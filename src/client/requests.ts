import type { WebSocketMessage } from "../protocol/protocol.ts";
import { encode } from "./encode.ts";
import { ClientError, errorOf } from "./error.ts";
import { checkMs } from "./options.ts";
import type { Outbox, Waiting } from "./outbox.ts";
import type { ClientClock } from "./platform.ts";

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

interface Pending extends Waiting {
  readonly idempotent: boolean | undefined;
  settle(message: WebSocketMessage): void;
}

/** Requests without a reply yet, by `uid`. */
export class Requests {
  readonly #clock: ClientClock;
  readonly #outbox: Outbox;
  readonly #pending = new Map<unknown, Pending>();
  /** Requests that {@link retry} has queued again. */
  #refused: Pending[] = [];

  constructor(clock: ClientClock, outbox: Outbox) {
    this.#clock = clock;
    this.#outbox = outbox;
  }

  /** @param transmit sends the message or queues it */
  add(
    message: WebSocketMessage,
    options: RequestOptions & { timeout: number },
    transmit: (item: Waiting) => void,
  ): Promise<WebSocketMessage> {
    const { timeout, signal, idempotent } = options;
    checkMs('Cannot request: option "timeout"', timeout);
    return new Promise((resolve, reject) => {
      const text = encode(message);
      const done = () => {
        this.#pending.delete(message.uid);
        this.#outbox.delete(item);
        this.#clock.clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const failed = (error: unknown) => {
        done();
        reject(error);
      };
      // Polyfilled signals, as in React Native, have no reason.
      const abort = () => failed(signal?.reason ?? new ClientError("ABORTED", "Aborted"));
      const timeOut = () => failed(this.#outbox.unsent(item) ?? new ClientError("TIMEOUT", `No answer within ${timeout} ms`));
      const timer = timeout && this.#clock.setTimeout(timeOut, timeout);
      const item: Pending = {
        text,
        idempotent,
        failed,
        settle(answer) {
          if (answer["status"] !== "ok") return failed(errorOf(answer));
          done();
          resolve(answer);
        },
      };
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
      this.#pending.set(message.uid, item);
      transmit(item);
    });
  }

  /** Rejects a request that was not sent yet. Returns whether there is one. */
  drop(uid: unknown, error: unknown): boolean {
    const pending = this.#pending.get(uid);
    if (!pending || !this.#outbox.has(pending)) return false;
    pending.failed(error as ClientError); // Rejects with anything.
    return true;
  }

  /** Settles the request that the message answers. Returns whether there is one. */
  settle(message: WebSocketMessage): boolean {
    const pending = this.#pending.get(message.uid);
    if (!pending || message["status"] === undefined) return false;
    pending.settle(message);
    return true;
  }

  /** Queues a request again that the server refused unread because the token had expired. */
  retry(uid: unknown): boolean {
    const pending = this.#pending.get(uid);
    if (pending) {
      // Several may be refused, one by one: they keep their order.
      this.#refused = [...this.#refused.filter((item) => this.#outbox.has(item)), pending];
      this.#outbox.restore(this.#refused);
    }
    return !!pending;
  }

  /**
   * The connection is lost. The server may have handled what was sent, so only idempotent requests are queued again.
   *
   * @param wasDrained whether the server has handled no request without answering it (PROTOCOL.md §6), so that all are
   */
  lost(error: ClientError, mayRetry: boolean, wasDrained: boolean): void {
    const retried: Pending[] = [];
    for (const item of [...this.#pending.values()]) {
      if (this.#outbox.has(item)) continue;
      item.wasSent ||= !wasDrained;
      if ((item.idempotent || wasDrained) && mayRetry) retried.push(item);
      else item.failed(error);
    }
    this.#outbox.restore(retried);
  }
}
