import type { AnswerStore } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** Stored in place of an answer that is not kept. */
export const LOST: string = JSON.stringify({ isLost: true });

/** Maximum number of answers, and of their characters. */
const [MAX_ANSWERS, MAX_LENGTH] = [100_000, 2 ** 25];

/** Answers in the memory of this node. When they are too long together, the longer ones are replaced: a few users must not fill it. */
export class MemoryAnswerStore implements AnswerStore {
  /** In the order of their expiry. */
  readonly #answers = new Map<string, { readonly text: string; readonly until: number }>();
  #length = 0;
  #now: () => number = () => 0;

  /** The same store, by this wall clock in ms. */
  at(now: () => number): this {
    this.#now = now;
    return this;
  }

  /** @throws {WebSocketError} LIMIT_EXCEEDED when the store is full: a request whose answer is forgotten would be handled again. */
  claim(key: string, text: string, ttl: number): string | null {
    for (const [oldest, { until }] of this.#answers) {
      if (until > this.#now()) break;
      this.#delete(oldest);
    }
    const known = this.#answers.get(key);
    if (known) return known.text;
    if (this.#answers.size >= MAX_ANSWERS) {
      throw new WebSocketError("server", "LIMIT_EXCEEDED", "Too many answers are kept, try again later");
    }
    this.settle(key, text, ttl);
    return null;
  }

  settle(key: string, text: string, ttl: number): void {
    this.#delete(key);
    this.#answers.set(key, { text, until: this.#now() + ttl });
    this.#length += key.length + text.length;
    if (this.#length > MAX_LENGTH) this.#shorten();
  }

  /** Replaces the oldest of those that are not shorter than the average, until half of the room is free. */
  #shorten(): void {
    const average = this.#length / this.#answers.size;
    for (const [key, { text, until }] of this.#answers) {
      if (this.#length <= MAX_LENGTH / 2) return;
      if (key.length + text.length < average) continue;
      this.#answers.set(key, { text: LOST, until });
      this.#length -= text.length - LOST.length;
    }
  }

  #delete(key: string): void {
    const known = this.#answers.get(key);
    if (known && this.#answers.delete(key)) this.#length -= key.length + known.text.length;
  }
}
