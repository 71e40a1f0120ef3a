import type { HistoryOptions, HistoryPage, Position, Publication, PublicationContent } from "./engine.ts";

/** What a channel takes of which nothing is kept but its position, in bytes. */
export const HISTORY_BYTES = 400;

/** What one publication takes beside its text, in bytes: the object, its position and its place in the list. */
const ENTRY_BYTES = 160;

interface Entry extends Publication {
  readonly position: Position;
  /** When it is kept no longer, in ms. */
  readonly until: number;
}

/** The last publications of one channel, in memory. */
export class History {
  readonly #epoch: string;
  /** The oldest first; those before `#first` are gone. A list, for `shift()` of 1,000 costs as much as the publication. */
  #entries: Entry[] = [];
  #first = 0;
  #offset = 0;
  /** About what it takes, in bytes. */
  bytes: number = HISTORY_BYTES;
  /** When the last position is forgotten, in ms. */
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

  /** @param now ms, as for the other methods. */
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

  /** Gives up the oldest publication; `false` when there is none. */
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

  /** Gives up what is too old. */
  expire(now: number): void {
    for (let oldest = this.#entries[this.#first]; oldest && oldest.until <= now; oldest = this.#entries[this.#first]) {
      this.shift();
    }
  }

  /** @param maxBytes of a page since a position, unless its first publication alone has more. */
  read(after: Position | null, limit: number, maxBytes: number, now: number): HistoryPage {
    this.expire(now);
    const { position, size } = this;
    if (!after) return { position, publications: this.#page(Math.min(size, limit), Infinity), isComplete: true };
    const missed = position.offset - after.offset;
    // A fraction of an offset would be given a part.
    const isComplete = after.epoch === position.epoch && Number.isSafeInteger(after.offset) && missed >= 0 &&
      missed <= Math.min(size, limit);
    if (!isComplete) return { position, publications: [], isComplete };
    const publications = this.#page(missed, maxBytes);
    return { position, publications, isComplete, ...(publications.length < missed && { hasMore: true }) };
  }

  /** The first of the last so many. */
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

// A character takes at most two bytes.
const bytesOf = ({ event, data }: PublicationContent): number => ENTRY_BYTES + 2 * (event.length + data.length);
