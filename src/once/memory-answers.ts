import type { AnswerStore } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** Maximum number of answers, and of their characters. */
const [MAX_ANSWERS, MAX_LENGTH] = [100_000, 2 ** 25];

/** Answers in the memory of this node. */
export class MemoryAnswers implements AnswerStore {
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
    if (this.#answers.size >= MAX_ANSWERS || this.#length >= MAX_LENGTH) {
      throw new WebSocketError("server", "LIMIT_EXCEEDED", "Too many answers are kept, try again later");
    }
    this.settle(key, text, ttl);
    return null;
  }

  settle(key: string, text: string, ttl: number): void {
    this.#delete(key);
    this.#answers.set(key, { text, until: this.#now() + ttl });
    this.#length += key.length + text.length;
  }

  #delete(key: string): void {
    const known = this.#answers.get(key);
    if (known && this.#answers.delete(key)) this.#length -= key.length + known.text.length;
  }
}
