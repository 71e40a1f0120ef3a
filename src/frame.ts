import type { ErrorMessage } from "./errors.ts";
import { byteLength, encode, type WebSocketMessage } from "./protocol.ts";

/** A message on its way out: encoded once, however many receive it. */
export class Frame {
  readonly text: string;
  /** Whether it is one JSON value, which may stand in an array with others. What an application passes as a string need not be. */
  readonly isJson: boolean;
  /** What a runtime made of it, kept for the next recipient. */
  encoded: unknown = undefined;
  #bytes = -1;

  constructor(text: string, isJson: boolean) {
    this.text = text;
    this.isJson = isJson;
  }

  /** @throws {TypeError} for what JSON cannot hold: see {@link encode}. */
  static of(message: string | WebSocketMessage | ErrorMessage): Frame {
    return new Frame(encode(message), typeof message !== "string");
  }

  /** UTF-8 bytes of the text. */
  get bytes(): number {
    if (this.#bytes < 0) this.#bytes = byteLength(this.text);
    return this.#bytes;
  }
}
