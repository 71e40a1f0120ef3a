import { ClientError } from "./error.ts";
import type { ClientClock } from "./platform.ts";

/** What waits for a connection. */
export interface Waiting {
  readonly text: string;
  /** It was handed to the socket. */
  sent?(): void;
  /** It will not be. */
  failed(error: ClientError): void;
  /** For its expiry. Written by {@link Outbox} only. */
  timer?: unknown;
}

/** What was sent while there was no connection, in order, no more and no longer than may be. */
export class Outbox {
  readonly #clock: ClientClock;
  readonly #limits: { maxMessages: number; maxAge: number };
  #waiting = new Set<Waiting>();

  constructor(clock: ClientClock, limits: { maxMessages: number; maxAge: number }) {
    this.#clock = clock;
    this.#limits = limits;
  }

  get size(): number {
    return this.#waiting.size;
  }

  has(item: Waiting): boolean {
    return this.#waiting.has(item);
  }

  /** @param expires whether it has no timeout of its own. */
  add(item: Waiting, expires: boolean): void {
    if (this.#waiting.size >= this.#limits.maxMessages) {
      return item.failed(new ClientError("OUTBOX_FULL", "Cannot send: too many messages wait"));
    }
    this.#waiting.add(item);
    const { maxAge } = this.#limits;
    if (!expires || !maxAge) return;
    item.timer = this.#clock.setTimeout(() => {
      this.#waiting.delete(item);
      item.failed(new ClientError("OUTBOX_EXPIRED", "Cannot send: it waited too long"));
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
  flush(send: (text: string) => boolean): void {
    for (const item of this.#waiting) {
      if (!send(item.text)) return;
      this.delete(item);
      item.sent?.();
    }
  }

  fail(error: ClientError): void {
    for (const item of [...this.#waiting]) {
      this.delete(item);
      item.failed(error);
    }
  }
}
