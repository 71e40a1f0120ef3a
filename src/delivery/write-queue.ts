import type { Frame } from "../protocol/frame.ts";
import { afterTurn, SLICE_MS } from "../base/turn.ts";

/** The subprotocol whose clients accept several messages in one frame, as a JSON array (PROTOCOL.md 1.6). */
export const BATCHING = "noroshi.v1";

/** Maximum size of an array in bytes, unless a single message is larger. */
const MAX_ARRAY_BYTES = 65_536;

/** A socket that writes all frames of a turn at once. */
export interface Writer {
  /** Frames that wait for the end of the turn. The queue adds to them, and {@link write} takes them. */
  batch: Batch | undefined;
  /** Writes the waiting frames, if any. */
  write(): void;
}

/** Number of writers between two checks of the time. */
const CHECK_EVERY = 64;

/**
 * Keeps the frames of one turn of the event loop, and writes those of each client at once when the turn ends: with 16 broadcasts under way,
 * a write for each frame takes twenty times the CPU on Node. No frame waits for a timer. Writing that takes longer than {@link SLICE_MS}
 * continues in the next turn.
 */
export class WriteQueue {
  readonly #defer: (callback: () => void) => void;
  #empty = new SharedBatch();
  #waiting: Writer[] = [];

  /** @param defer calls back when the turn ends. @default {@link afterTurn} */
  constructor(defer: (callback: () => void) => void = afterTurn) {
    this.#defer = defer;
  }

  /** Whether no frame waits. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  push(writer: Writer, frame: Frame): void {
    if (!writer.batch && this.#waiting.push(writer) === 1) this.#defer(this.#writeAll);
    writer.batch = (writer.batch ?? this.#empty).with(frame);
  }

  readonly #writeAll = (): void => {
    const waiting = this.#waiting;
    // Releases the batches of this turn.
    this.#empty = new SharedBatch();
    const until = waiting.length > CHECK_EVERY ? performance.now() + SLICE_MS : Infinity;
    for (let i = 0; i < waiting.length; i++) {
      if (i % CHECK_EVERY === 0 && i > 0 && performance.now() > until) return this.#keep(waiting.slice(i));
      try {
        waiting[i]!.write();
      } catch (error) {
        // One broken socket must not stop the others.
        this.#keep(waiting.slice(i + 1));
        throw error;
      }
    }
    this.#waiting = [];
  };

  #keep(waiting: Writer[]): void {
    this.#waiting = waiting;
    if (waiting.length > 0) this.#defer(this.#writeAll);
  }
}

/** The frames of one client in one turn of the event loop. */
export type Batch = SharedBatch | ClientBatch;

/**
 * Frames that several clients receive. A list that is linked from its end, so that all clients with the same frames share one object.
 * A frame for one client alone copies the list into a {@link ClientBatch}.
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

  /** Returns the batch with one more frame: the same object for every client of this batch, if the frame is shared. */
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

/** Joins JSON frames into arrays. A string of the application may not be JSON, and stays separate. */
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
