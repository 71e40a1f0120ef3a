import type { HistoryPage, Position, Publication } from "../engine.ts";

/** A publication with a position in the history. */
export type PositionedPublication = Publication & { readonly position: Position };

/** An entry of a history that has a position but no publication. */
export interface Mark {
  readonly position: Position;
}

/** What a {@link GapDetector} needs from its subscription. */
export interface GapDetectorHost {
  /** Whether an entry with this `previous`, as the broker reports it, follows the offset directly. */
  follows(offset: number, previous: number): boolean;
  /** Reads one page of the history after a position. @param isNext whether the previous page ended at this position. */
  read(after: Position, isNext: boolean): Promise<HistoryPage>;
  deliver(publication: Publication): void;
  /** Called when publications up to this position are lost. */
  gap(position: Position): void;
  /** Called when a publication arrived that is not in the history. */
  unknown(): void;
  /** Called when the history could not be read. */
  failed(error: unknown): void;
}

/** Maximum number of publications queued while the history is read. Further ones are read from the history. */
const MAX_WAITING = 1_000;

/**
 * Delivers each publication of a channel once and in order, although the broker may lose or repeat some. Missing ones are read from
 * the history. If the history lacks them, a gap is reported.
 */
export class GapDetector {
  readonly #host: GapDetectorHost;
  /** Position of the last publication delivered; `undefined` before `start`. */
  #position: Position | undefined;
  #waiting: { publication: PositionedPublication | Mark; previous: number }[] = [];
  #isReading = false;
  #reading: Promise<void> | undefined;
  /** Offset of the last publication delivered live. A later one at or below it is a duplicate, or the history was set back. */
  #received = 0;
  /** Whether publications are missing that have not been read yet. */
  #isBehind = false;
  #stopped = false;

  constructor(host: GapDetectorHost) {
    this.#host = host;
  }

  /** Delivers everything after this position. */
  start(position: Position): void {
    this.#position = position;
    if (this.#acceptWaiting(0)) void this.#read();
  }

  stop(): void {
    this.#stopped = true;
    this.#waiting = [];
  }

  /** Handles a live entry. @param previous the offset of the previous entry, as the broker reports it. */
  receive(publication: PositionedPublication | Mark, previous: number): void {
    if (this.#stopped) return;
    if (!this.#position || this.#isReading) {
      if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ publication, previous });
      else this.#isBehind = true;
    } else if (!this.#accept(publication, previous)) {
      this.#waiting.push({ publication, previous });
      void this.#read();
    }
  }

  get position(): Position | undefined {
    return this.#position;
  }

  /** Resolves when the read under way is over; `undefined` if there is none. */
  get reading(): Promise<void> | undefined {
    return this.#isReading ? this.#reading : undefined;
  }

  /**
   * Reads the history if its end shows that publications were lost, in transit or in the store.
   *
   * @param latest the end of the history; `null` if the history was lost.
   * @param before {@link position} at the time of the request. A history that ends earlier was set back.
   */
  check(latest: Position | null, before?: Position): void {
    const position = this.#position;
    if (!position || this.#isReading || this.#stopped) return;
    const hasGoneBack = latest && before && latest.epoch === before.epoch && latest.offset < before.offset;
    if (this.#isBehind || !latest || latest.epoch !== position.epoch || latest.offset > position.offset || hasGoneBack) {
      void this.#read();
    }
  }

  /** Reads what follows the position, after a reconnect. A read under way is repeated, because it may have begun before the reconnect. */
  resume(): Promise<void> {
    if (this.#position && !this.#isReading && !this.#stopped) return this.#read();
    this.#isBehind ||= this.#isReading;
    return Promise.resolve();
  }

  /** Delivers the entry if it is the next one, and ignores a duplicate. Returns `false` if the history has to be read first. */
  #accept(publication: PositionedPublication | Mark, previous: number): boolean {
    const { epoch, offset } = publication.position;
    const position = this.#position!; // Set by `start`.
    if (epoch !== position.epoch) return false;
    // An offset past `#received` was delivered by a read. At or below it, the history may have been set back, and is read.
    if (offset <= position.offset) return offset === position.offset || offset > this.#received;
    if (!this.#host.follows(position.offset, previous) || this.#isBehind) return false;
    this.#position = publication.position;
    this.#received = offset;
    if ("event" in publication) this.#host.deliver(publication);
    return true;
  }

  #read(): Promise<void> {
    this.#isReading = true;
    return this.#reading = this.#readAll();
  }

  async #readAll(): Promise<void> {
    try {
      for (let isMissing = true, isNext = false; isMissing && !this.#stopped;) {
        // Publications that arrived before the request are in the answer, unless the history lacks them.
        const known = this.#waiting.length;
        this.#isBehind = false;
        const { position, publications, isComplete, hasMore = false } = await this.#host.read(this.#position!, isNext); // Set by `start`, as below.
        for (const publication of isComplete ? publications : []) if (!this.#stopped) this.#host.deliver(publication);
        if (this.#stopped) return;
        isNext = isComplete && hasMore;
        this.#position = isNext ? publications.at(-1)!.position! : position; // With `hasMore`, there is a last one.
        if (isNext) continue;
        if (!isComplete) {
          this.#received = 0;
          this.#host.gap(position);
        }
        isMissing = this.#acceptWaiting(known);
      }
    } catch (error) {
      // The next check or the next session reads again.
      this.#isBehind = true;
      this.#waiting = [];
      this.#host.failed(error);
    } finally {
      this.#isReading = false;
    }
  }

  /** Delivers the waiting entries. @returns whether the history has to be read again. */
  #acceptWaiting(known: number): boolean {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const [number, { publication, previous }] of waiting.entries()) {
      if (this.#accept(publication, previous)) continue;
      const { epoch, offset } = publication.position;
      const position = this.#position!; // Set by `start`.
      if (number < known && epoch === position.epoch && offset <= position.offset) continue; // Delivered by the read.
      if (number >= known) {
        this.#waiting = waiting.slice(number);
        return true;
      }
      this.#host.unknown();
    }
    return this.#isBehind;
  }
}
