import type { HistoryOptions, HistoryPage, Position, Publication, PublicationContent } from "./engine.ts";

/** Size of a history without publications, in bytes. */
export const HISTORY_BYTES = 400;

/** Overhead of one publication in bytes: the object, its position and its list entry. */
const ENTRY_BYTES = 160;

interface Entry extends Publication {
  readonly position: Position;
  /** Expiry, in ms of the wall clock. */
  readonly until: number;
}

/** The latest publications of one channel, in memory. */
export class History {
  readonly #epoch: string;
  /** Oldest first, from the index {@link #first} on. */
  #entries: Entry[] = [];
  /** Index of the oldest entry. `shift()` on an array of 1,000 entries would take as long as the publication. */
  #first = 0;
  #offset = 0;
  /** Approximate size, in bytes. */
  bytes: number = HISTORY_BYTES;
  /** When the last position expires, in ms of the wall clock. */
  until = 0;

  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  get position(): Position {
    return { epoch: this.#epoch, offset: this.#offset };
  }

  get size(): number {
    return this.#entries.length - this.#first;
  }

  /** @param now the wall clock in ms, also in the other methods. */
  append({ event, data }: PublicationContent, { size, ttl }: HistoryOptions, now: number): Publication & { position: Position } {
    const position = { epoch: this.#epoch, offset: ++this.#offset };
    const entry: Entry = { event, data, position, until: now + ttl };
    this.until = Math.max(this.until, entry.until);
    this.#entries.push(entry);
    this.bytes += bytesOf(entry);
    while (this.size > size) this.shift();
    this.expire(now);
    return entry;
  }

  /** Removes the oldest publication. Returns `false` if there is none. */
  shift(): boolean {
    const entry = this.#entries[this.#first];
    if (!entry) return false;
    this.bytes -= bytesOf(entry);
    if (++this.#first * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
    return true;
  }

  /** Removes expired publications. */
  expire(now: number): void {
    for (let oldest = this.#entries[this.#first]; oldest && oldest.until <= now; oldest = this.#entries[this.#first]) {
      this.shift();
    }
  }

  /** @param maxBytes maximum size of a page after a position, in bytes; it has at least one publication. */
  read(after: Position | null, limit: number, maxBytes: number, now: number): HistoryPage {
    this.expire(now);
    const { position, size } = this;
    if (!after) return { position, publications: this.#page(Math.min(size, limit), Infinity), isComplete: true };
    const missed = position.offset - after.offset;
    // An offset that is not an integer would return too few publications.
    const isComplete = after.epoch === position.epoch && Number.isSafeInteger(after.offset) && missed >= 0 &&
      missed <= Math.min(size, limit);
    if (!isComplete) return { position, publications: [], isComplete };
    const publications = this.#page(missed, maxBytes);
    return { position, publications, isComplete, ...(publications.length < missed && { hasMore: true }) };
  }

  /** The first of the last `count` publications, as many as fit. */
  #page(count: number, maxBytes: number): Publication[] {
    const first = this.#entries.length - count;
    let end = first;
    for (let bytes = 0; end < this.#entries.length; end++) {
      bytes += bytesOf(this.#entries[end]!);
      if (bytes > maxBytes && end > first) break;
    }
    return this.#entries.slice(first, end);
  }
}

// A UTF-16 unit of a JavaScript string takes at most two bytes.
const bytesOf = ({ event, data }: PublicationContent): number => ENTRY_BYTES + 2 * (event.length + data.length);
