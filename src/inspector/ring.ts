/** A ring buffer: the latest items, up to its size. */
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

  /** Adds an item. If the ring is full, replaces and returns the oldest one. */
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

  /** Returns the items, the oldest first. */
  list(): Item[] {
    return this.#items.length < this.#size
      ? [...this.#items]
      : [...this.#items.slice(this.#next), ...this.#items.slice(0, this.#next)];
  }
}
