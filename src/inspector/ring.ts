/** The latest items, up to a number. */
export class Ring<Item> {
  readonly #size: number;
  #items: Item[] = [];
  #next = 0;

  constructor(size: number) {
    this.#size = size;
  }

  get last(): Item | undefined {
    return this.#items[(this.#next || this.#items.length) - 1];
  }

  /** Adds an item; returns the oldest one in its place, if the ring was full. */
  push(item: Item): Item | undefined {
    const oldest = this.#items[this.#next];
    this.#items[this.#next] = item;
    this.#next = (this.#next + 1) % this.#size;
    return oldest;
  }

  /** Replaces the last item. */
  replaceLast(item: Item): void {
    this.#items[(this.#next || this.#items.length) - 1] = item;
  }

  /** From the oldest to the newest. */
  list(): Item[] {
    return this.#items.length < this.#size
      ? [...this.#items]
      : [...this.#items.slice(this.#next), ...this.#items.slice(0, this.#next)];
  }
}
