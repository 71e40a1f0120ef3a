/** Maximum number of items that a client has not processed. */
const MAX_ITEMS = 64;

/** An item that was sent with a credit, which the client sends back. */
interface Mark {
  readonly items: number;
  readonly bytes: number;
}

const START: Mark = { items: 0, bytes: 0 };

/** How far a stream is ahead of its client: up to 64 items, or a number of bytes (PROTOCOL.md §3.9). */
export class CreditWindow {
  readonly #maxBytes: number;
  #sent = START;
  /** What the client has processed. */
  #read = START;
  /** Credits that have not come back, oldest first. */
  #marks: Mark[] = [];

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether another item may be sent. */
  get isOpen(): boolean {
    return this.#sent.items - this.#read.items < MAX_ITEMS && this.#sent.bytes - this.#read.bytes < this.#maxBytes;
  }

  /** Counts an item. Returns the credit to send with it: with the one that fills half of the window. */
  add(bytes: number): number | undefined {
    const sent = this.#sent = { items: this.#sent.items + 1, bytes: this.#sent.bytes + bytes };
    const last = this.#marks.at(-1) ?? this.#read;
    if (sent.items - last.items < MAX_ITEMS / 2 && sent.bytes - last.bytes < this.#maxBytes / 2) return undefined;
    this.#marks.push(sent);
    return sent.items;
  }

  /** Takes a credit back, and those before it. Returns whether it was asked for. */
  restore(credit: number): boolean {
    const index = this.#marks.findIndex(({ items }) => items === credit);
    if (index < 0) return false;
    this.#read = this.#marks[index]!; // `findIndex` has found it.
    this.#marks = this.#marks.slice(index + 1);
    return true;
  }
}
