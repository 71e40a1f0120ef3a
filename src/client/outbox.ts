import { ClientError } from "./error.ts";
import type { ClientClock } from "./platform.ts";

/** What waits for a connection. */
export interface Waiting {
  readonly text: string;
  /** It was handed to the socket. */
  sent?(): void;
  /** It will not be. */
  failed(error: ClientError): void;
  /** It was handed to a connection that was lost, and may have been handled. */
  wasSent?: boolean;
  /** For its expiry. Written by {@link Outbox} only. */
  timer?: unknown;
}

/** What was sent while there was no connection, in order, no more and no longer than may be. */
export class Outbox {
  readonly #clock: ClientClock;
  readonly #limits: { maxMessages: number; maxAge: number };
  readonly #why: () => ClientError | undefined;
  #waiting = new Set<Waiting>();

  /** @param why there is no connection; `undefined` where there is one. */
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

  /** Why one that waits was never sent; `undefined` where it was, or does not wait. */
  unsent(item: Waiting): ClientError | undefined {
    if (!this.has(item) || item.wasSent) return undefined;
    return this.#why() ?? new ClientError("TIMEOUT", "Not sent in time: the server asks to wait");
  }

  /** @param expires whether it has no timeout of its own. */
  add(item: Waiting, expires: boolean): void {
    // Where there is a connection, the server takes them one after the other.
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

  /** Puts back what was sent already and may have been lost, before all that was not: it does not count. */
  restore(items: Waiting[]): void {
    this.#waiting = new Set([...items, ...this.#waiting]);
  }

  delete(item: Waiting): void {
    this.#waiting.delete(item);
    this.#clock.clearTimeout(item.timer);
  }

  /** Hands all on, in order, for as long as there is somebody to take them. */
  flush(take: (item: Waiting) => boolean): void {
    for (const item of this.#waiting) {
      if (!take(item)) return;
      this.delete(item);
      item.sent?.();
    }
  }

  /** @param lost for what was sent before. */
  fail(error: ClientError, lost: ClientError): void {
    for (const item of [...this.#waiting]) {
      this.delete(item);
      item.failed(item.wasSent ? lost : error);
    }
  }
}
