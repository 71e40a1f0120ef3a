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

  /** Bytes that wait because the link is held. Otherwise 0, because they are read in the next turn. */
  get bufferedBytes(): number {
    return this.#isHeld ? this.#bytes : 0;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** Sends an item, which is lost after {@link end}. */
  send(deliver: () => void, bytes = 0): void {
    if (this.#hasEnded) return;
    this.#waiting.push({ deliver, bytes });
    this.#bytes += bytes;
    this.#schedule();
  }

  /** Delivers nothing until {@link release}. */
  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#schedule();
  }

  /** Drops waiting items and those that are sent from now on. */
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
      // Items that are sent meanwhile wait for the next turn. Each delivery may hold or end the link.
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
