import type { ErrorMessage } from "./errors.ts";
import { byteLength } from "./bytes.ts";
import { encode, type WebSocketMessage } from "./protocol.ts";

/** An encoded outbound message: encoded once for all its recipients. */
export class Frame {
  /** The text of the frame. */
  readonly text: string;
  /** Whether the text is one JSON value, which may be batched in an array. A string from the application need not be. */
  readonly isJson: boolean;
  /** Whether several clients may receive it, so that {@link encoded} is worth keeping. */
  isShared: boolean;
  /** The frame as a runtime writes it, cached for the next recipient. */
  encoded: Uint8Array | undefined = undefined;
  #bytes: number;

  /** Creates a frame. @param bytes UTF-8 bytes of the text. @default {-1} computed when needed */
  constructor(text: string, isJson: boolean, bytes = -1, isShared = true) {
    this.text = text;
    this.isJson = isJson;
    this.isShared = isShared;
    this.#bytes = bytes;
  }

  /** Encodes a message. @throws {TypeError} for a message that JSON cannot represent: see {@link encode}. */
  static of(message: string | WebSocketMessage | ErrorMessage): Frame {
    return new Frame(encode(message), typeof message !== "string");
  }

  /** UTF-8 bytes of the text. */
  get bytes(): number {
    if (this.#bytes < 0) this.#bytes = byteLength(this.text);
    return this.#bytes;
  }
}

/** A frame that differs from another only at its end, such as in its `uid`: the common beginning is encoded once. */
export class SuffixedFrame extends Frame {
  /** The other frame, a JSON object. Its text without the last brace is the common beginning. */
  readonly base: Frame;
  /** The text after the common beginning. */
  readonly suffix: string;

  constructor(base: Frame, body: string, suffix: string) {
    super(body + suffix, true, base.bytes - 1 + byteLength(suffix), false);
    this.base = base;
    this.suffix = suffix;
  }
}
