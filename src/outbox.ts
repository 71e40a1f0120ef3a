import type { Frame } from "./frame.ts";

/** The subprotocol whose clients take several messages in one frame, as a JSON array (PROTOCOL.md 1.6). */
export const BATCHING = "noroshi.v1";

/** The largest array, in bytes, unless one message alone is larger. */
const MAX_ARRAY_BYTES = 65_536;

/**
 * The frames that one client is sent in one turn of the event loop, as a chain: clients that are sent the same ones share it. From the first
 * frame on that is not shared the client has a batch of its own, which grows.
 */
export class Batch {
  /** The last one; absent in the chain's beginning. */
  frame: Frame | undefined;
  count: number;
  /** UTF-8 bytes of all frames. */
  bytes: number;
  /** What a runtime made of the whole, kept for the next client. */
  encoded: unknown = undefined;
  readonly #before: Batch | undefined;
  #next: Batch | undefined;
  #frames: Frame[] | undefined;
  #isOwn = false;
  #texts: string[] | undefined;

  constructor(before?: Batch, frame?: Frame) {
    this.#before = before;
    this.frame = frame;
    this.count = before && frame ? before.count + 1 : 0;
    this.bytes = before && frame ? before.bytes + frame.bytes : 0;
  }

  /** The chain with one more frame: the same object for every client that has come so far. */
  with(frame: Frame): Batch {
    if (this.#isOwn) return this.#add(frame);
    if (!frame.isShared) {
      const own = new Batch();
      own.#isOwn = true;
      own.#frames = [...this.frames()];
      own.count = this.count;
      own.bytes = this.bytes;
      return own.#add(frame);
    }
    if (this.#next?.frame !== frame) this.#next = new Batch(this, frame);
    return this.#next;
  }

  /** Whether one client alone has it. */
  get isOwn(): boolean {
    return this.#isOwn;
  }

  #add(frame: Frame): this {
    this.#frames!.push(frame);
    this.frame = frame;
    this.count++;
    this.bytes += frame.bytes;
    return this;
  }

  /** All frames, in the order they were sent. */
  frames(): readonly Frame[] {
    if (this.#frames) return this.#frames;
    const frames: Frame[] = [];
    for (let batch: Batch | undefined = this.#before; batch?.frame; batch = batch.#before) frames.push(batch.frame);
    frames.reverse();
    if (this.frame) frames.push(this.frame);
    return this.#frames = frames;
  }

  /** The frames as few texts, for clients that take arrays: those that are JSON together, the others by themselves. */
  texts(): readonly string[] {
    return this.#texts ??= joined(this.frames());
  }
}

function joined(frames: readonly Frame[]): string[] {
  const texts: string[] = [];
  let array: string[] = [];
  let bytes = 0;
  const end = () => {
    if (array.length > 0) texts.push(array.length === 1 ? array[0]! : `[${array.join(",")}]`);
    array = [];
    bytes = 0;
  };
  for (const frame of frames) {
    if (!frame.isJson || bytes + frame.bytes > MAX_ARRAY_BYTES) end();
    if (frame.isJson) {
      array.push(frame.text);
      bytes += frame.bytes;
    } else texts.push(frame.text);
  }
  end();
  return texts;
}

/** What frames wait for: a socket that writes them all at once. */
export interface Writer {
  /** What waits for the end of the turn. Written by {@link Outbox} and by {@link write}. */
  batch: Batch | undefined;
  /** Writes what waits, if anything does. */
  write(): void;
}

/** Calls back when what has come in together with this has been handled: in the same turn of the event loop where the runtime can. */
export const afterTurn = (callback: () => void): void => {
  // workerd has no setImmediate. Looked up when called: a global of another runtime is no reason not to load there.
  if (typeof setImmediate === "function") setImmediate(callback);
  else setTimeout(callback, 0);
};

/** ms after which inbound messages have their turn again. */
export const SLICE_MS = 5;

/** Writers between two looks at the clock. */
const LOOK_EVERY = 64;

/**
 * Keeps the frames of one turn of the event loop, and has each client's written at once when it ends: a write for each costs twenty
 * times as much when 16 broadcasts are under way (9.3 instead of 0.46 s of CPU a million deliveries on Node). Nothing waits for a timer:
 * what is alone in its turn leaves in that turn. Where there is more to write than {@link SLICE_MS} takes, the rest waits for the next.
 */
export class Outbox {
  readonly #defer: (callback: () => void) => void;
  #first = new Batch();
  #waiting: Writer[] = [];

  /** @param defer calls back when the turn ends. @default {@link afterTurn} */
  constructor(defer: (callback: () => void) => void = afterTurn) {
    this.#defer = defer;
  }

  /** Whether nothing waits. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  push(writer: Writer, frame: Frame): void {
    if (!writer.batch && this.#waiting.push(writer) === 1) this.#defer(this.#end);
    writer.batch = (writer.batch ?? this.#first).with(frame);
  }

  readonly #end = (): void => {
    const waiting = this.#waiting;
    this.#first = new Batch();
    const until = waiting.length > LOOK_EVERY ? performance.now() + SLICE_MS : Infinity;
    for (let i = 0; i < waiting.length; i++) {
      if (i % LOOK_EVERY === 0 && i > 0 && performance.now() > until) {
        return this.#keep(waiting.slice(i));
      }
      try {
        waiting[i]!.write();
      } catch (error) {
        // The others are written to, and the next turn ends like any other.
        this.#keep(waiting.slice(i + 1));
        throw error;
      }
    }
    this.#waiting = [];
  };

  #keep(waiting: Writer[]): void {
    this.#waiting = waiting;
    if (waiting.length > 0) this.#defer(this.#end);
  }
}
