import type { Frame } from "../protocol/frame.ts";

/** The subprotocol whose clients accept several messages in one frame, as a JSON array (PROTOCOL.md 1.6). */
export const BATCHING = "noroshi.v1";

/** The largest array, in bytes, unless one message alone is larger. */
const MAX_ARRAY_BYTES = 65_536;

/** The frames of one client in one turn of the event loop. */
export type Batch = SharedBatch | ClientBatch;

/**
 * Frames that several clients receive: a list linked from its end, so that all clients with the same frames hold the same object.
 * The first frame for one client alone copies the list into a {@link ClientBatch}.
 */
export class SharedBatch {
  readonly isShared = true;
  /** The newest frame. Absent in the empty batch that a turn begins with. */
  readonly last: Frame | undefined;
  readonly count: number;
  /** UTF-8 bytes of all frames. */
  readonly bytes: number;
  /** All frames as a runtime writes them, encoded for the first client and kept for the others. */
  encoded: Uint8Array | undefined = undefined;
  readonly #previous: SharedBatch | undefined;
  #next: SharedBatch | undefined;
  #frames: readonly Frame[] | undefined;
  #texts: readonly string[] | undefined;

  constructor(previous?: SharedBatch, frame?: Frame) {
    this.#previous = previous;
    this.last = frame;
    this.count = previous && frame ? previous.count + 1 : 0;
    this.bytes = previous && frame ? previous.bytes + frame.bytes : 0;
  }

  /** The batch with one more frame: the same object for every client that holds this batch. */
  with(frame: Frame): Batch {
    if (!frame.isShared) return new ClientBatch(this, frame);
    if (this.#next?.last !== frame) this.#next = new SharedBatch(this, frame);
    return this.#next;
  }

  /** In the order they were sent. */
  frames(): readonly Frame[] {
    if (this.#frames) return this.#frames;
    const frames = this.last ? [this.last] : [];
    for (let batch = this.#previous; batch?.last; batch = batch.#previous) frames.push(batch.last);
    return this.#frames = frames.reverse();
  }

  /** The frames as few texts, for clients of {@link BATCHING}. */
  texts(): readonly string[] {
    return this.#texts ??= joinedTexts(this.frames());
  }
}

/** A batch with at least one frame for this client alone. */
export class ClientBatch {
  readonly isShared = false;
  readonly #frames: Frame[];
  bytes: number;

  constructor(before: SharedBatch, frame: Frame) {
    this.#frames = [...before.frames(), frame];
    this.bytes = before.bytes + frame.bytes;
  }

  get last(): Frame | undefined {
    return this.#frames.at(-1);
  }

  get count(): number {
    return this.#frames.length;
  }

  with(frame: Frame): this {
    this.#frames.push(frame);
    this.bytes += frame.bytes;
    return this;
  }

  /** In the order they were sent. */
  frames(): readonly Frame[] {
    return this.#frames;
  }

  /** The frames as few texts, for clients of {@link BATCHING}. */
  texts(): readonly string[] {
    return joinedTexts(this.#frames);
  }
}

/** JSON frames joined into arrays; a string that an application passed need not be JSON, and stays alone. */
function joinedTexts(frames: readonly Frame[]): string[] {
  const texts: string[] = [];
  let array: string[] = [];
  let bytes = 0;
  const endArray = () => {
    if (array.length > 0) texts.push(array.length === 1 ? array[0]! : `[${array.join(",")}]`);
    array = [];
    bytes = 0;
  };
  for (const frame of frames) {
    if (!frame.isJson || bytes + frame.bytes > MAX_ARRAY_BYTES) endArray();
    if (frame.isJson) {
      array.push(frame.text);
      bytes += frame.bytes;
    } else texts.push(frame.text);
  }
  endArray();
  return texts;
}
