import { afterTurn } from "../base/turn.ts";

/** Bytes that all streams of a node may send in one turn of the event loop: writing them takes some 5 ms. */
const TURN_BYTES = 1_048_576;

/** Cost of an item beside its bytes, in bytes. */
const ITEM_BYTES = 512;

/** Shares the event loop between the streams of a node and everything else. A generator that never awaits would hold it for ever. */
export class Turn {
  #left = TURN_BYTES;
  #waiting: (() => void)[] = [];
  #isScheduled = false;
  /** Items sent since the start. */
  items = 0;

  /** Whether more may be sent in this turn. */
  get isOpen(): boolean {
    return this.#left > 0;
  }

  /** An item was sent to a client. */
  sent(bytes: number): void {
    this.items++;
    this.spend(bytes);
  }

  spend(bytes: number): void {
    this.#left -= bytes + ITEM_BYTES;
    this.#schedule();
  }

  /** Calls back in the next turn, in the order of the calls. */
  next(callback: () => void): void {
    this.#waiting.push(callback);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    afterTurn(() => {
      this.#isScheduled = false;
      this.#left = TURN_BYTES;
      for (const callback of this.#waiting.splice(0)) callback();
    });
  }
}
