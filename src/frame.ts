import type { ErrorMessage } from "./errors.ts";
import { byteLength } from "./bytes.ts";
import { encode, type WebSocketMessage } from "./protocol.ts";

/** A message on its way out: encoded once, however many clients receive it. */
export class Frame {
  readonly text: string;
  /** Whether it is one JSON value, which may stand in an array with others. A string that an application passed need not be. */
  readonly isJson: boolean;
  /** Whether several clients may receive it, so that its encoded form is worth keeping. */
  isShared: boolean;
  /** The frame as a runtime writes it, kept for the next recipient. */
  encoded: Uint8Array | undefined = undefined;
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

/** A frame that differs from another only in its end: the common beginning is encoded once. */
export class EndedFrame extends Frame {
  /** The other frame, a JSON object, whose text without the last brace is the beginning. */
  readonly base: Frame;
  /** The text after the beginning. */
  readonly end: string;

  constructor(base: Frame, body: string, end: string) {
    super(body + end, true, base.bytes - 1 + byteLength(end), false);
    this.base = base;
    this.end = end;
  }
}
