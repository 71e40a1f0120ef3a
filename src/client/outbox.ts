import { ClientError } from "./error.ts";
import type { ClientClock } from "./platform.ts";

/** A queued message. */
export interface Waiting {
  readonly text: string;
  /** Called when the socket has accepted it. */
  sent?(): void;
  /** Called when it will not be sent, or its connection was lost. */
  failed(error: ClientError): void;
  /** It was sent on a connection that was then lost, so the server may have handled it. */
  wasSent?: boolean;
  /** Expiry timer. Written by {@link Outbox} only. */
  timer?: unknown;
}

/** FIFO queue of messages that cannot be sent yet, bounded in number and age. */
export class Outbox {
  readonly #clock: ClientClock;
  readonly #limits: { maxMessages: number; maxAge: number };
  readonly #why: () => ClientError | undefined;
  #waiting = new Set<Waiting>();

  /** @param why returns why the client is not connected; `undefined` while it is */
  constructor(clock: ClientClock, limits: { maxMessages: number; maxAge: number }, why: () => ClientError | undefined) {
    this.#clock = clock;
    this.#limits = limits;
    this.#why = why;
  }

  get size(): number {
    return this.#waiting.size;
  }

  has(item: Waiting): boolean {
    return this.#waiting.has(item);
  }

  /** Why a queued message was never sent; `undefined` if it was sent or is not queued. */
  unsent(item: Waiting): ClientError | undefined {
    if (!this.has(item) || item.wasSent) return undefined;
    return this.#why() ?? new ClientError("TIMEOUT", "Not sent in time: the server asks to wait");
  }

  /** @param expires whether `maxAge` applies; a request has its own timeout */
  add(item: Waiting, expires: boolean): void {
    // While connected the queue drains at the server's pace, so the limit does not apply.
    if (this.#why() && this.#waiting.size >= this.#limits.maxMessages) {
      return item.failed(new ClientError("OUTBOX_FULL", "Cannot send: too many messages wait"));
    }
    this.#waiting.add(item);
    const { maxAge } = this.#limits;
    if (!expires || !maxAge) return;
    item.timer = this.#clock.setTimeout(() => {
      this.#waiting.delete(item);
      item.failed(this.#why() ?? new ClientError("OUTBOX_EXPIRED", "Cannot send: it waited too long"));
    }, maxAge);
  }

  /** Puts messages that were sent before back at the front. They do not count towards the limit. */
  restore(items: Waiting[]): void {
    this.#waiting = new Set([...items, ...this.#waiting]);
  }

  delete(item: Waiting): void {
    this.#waiting.delete(item);
    this.#clock.clearTimeout(item.timer);
  }

  /** Sends in order until `take` refuses one. */
  flush(take: (item: Waiting) => boolean): void {
    for (const item of this.#waiting) {
      if (!take(item)) return;
      this.delete(item);
      item.sent?.();
    }
  }

  /** @param lost the error for messages that were sent before */
  fail(error: ClientError, lost: ClientError): void {
    for (const item of [...this.#waiting]) {
      this.delete(item);
      item.failed(item.wasSent ? lost : error);
    }
  }
}
