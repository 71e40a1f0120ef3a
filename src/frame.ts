import type { ErrorMessage } from "./errors.ts";
import { byteLength } from "./bytes.ts";
import { encode, type WebSocketMessage } from "./protocol.ts";

/** A message on its way out: encoded once, however many receive it. */
export class Frame {
  readonly text: string;
  /** Whether it is one JSON value, which may stand in an array with others. What an application passes as a string need not be. */
  readonly isJson: boolean;
  /** Whether several may be sent it, so that what is made of it is worth keeping. */
  isShared: boolean;
  /** What a runtime made of it, kept for the next recipient. */
  encoded: unknown = undefined;
  #bytes: number;

  /** @param bytes UTF-8 bytes of the text, where that is known. */
  constructor(text: string, isJson: boolean, bytes = -1, isShared = true) {
    this.text = text;
    this.isJson = isJson;
    this.isShared = isShared;
    this.#bytes = bytes;
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

/** One that is another but for its end: most of it is encoded once for all who begin so. */
export class EndedFrame extends Frame {
  /** It begins as this one does, a JSON object, less the last brace. */
  readonly base: Frame;
  /** How it goes on from there. */
  readonly end: string;

  constructor(base: Frame, body: string, end: string) {
    super(body + end, true, base.bytes - 1 + byteLength(end), false);
    this.base = base;
    this.end = end;
  }
}
