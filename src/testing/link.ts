import type { Turns } from "./turns.ts";

interface Item {
  readonly deliver: () => void;
  readonly bytes: number;
}

/** One direction of a connection in memory. It delivers in order, each item in a later turn. */
export class Link {
  readonly #turns: Turns;
  #waiting: Item[] = [];
  #bytes = 0;
  #isPosted = false;
  #isHeld = false;
  #hasEnded = false;

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  /** Bytes that wait because the reader does not read. Everything else is read in the next turn, and counts as read. */
  get bufferedBytes(): number {
    return this.#isHeld ? this.#bytes : 0;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** Sends. After the end it is lost. */
  send(deliver: () => void, bytes = 0): void {
    if (this.#hasEnded) return;
    this.#waiting.push({ deliver, bytes });
    this.#bytes += bytes;
    this.#schedule();
  }

  /** Keeps what is sent until {@link release}. */
  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#schedule();
  }

  /** Loses what waits, and what is sent from now on. */
  end(): void {
    this.#hasEnded = true;
    this.#waiting = [];
    this.#bytes = 0;
  }

  #schedule(): void {
    if (this.#isPosted || this.#isHeld || this.#waiting.length === 0) return;
    this.#isPosted = true;
    this.#turns.post(() => this.#deliver());
  }

  #deliver(): void {
    this.#isPosted = false;
    try {
      // What is sent meanwhile waits for the next turn. Any delivery may hold the link, or end it.
      for (let count = this.#waiting.length; count > 0 && !this.#isHeld; count--) {
        const item = this.#waiting.shift();
        if (!item) return;
        this.#bytes -= item.bytes;
        item.deliver();
      }
    } finally {
      this.#schedule();
    }
  }
}
