import type { HistoryPage, Position, Publication } from "../engine.ts";

/** A publication with a position in the history. */
export type PositionedPublication = Publication & { readonly position: Position };

/** A position without a publication. */
export interface Mark {
  readonly position: Position;
}

/** What a gap detector needs from its subscription. */
export interface GapDetectorHost {
  /** Whether the entry with this `previous`, as the broker reports it, comes directly after the offset. */
  follows(offset: number, previous: number): boolean;
  /** Reads one page of the history after a position. @param isNext whether the previous page ended at this position. */
  read(after: Position, isNext: boolean): Promise<HistoryPage>;
  deliver(publication: Publication): void;
  /** Publications up to this position are lost. */
  gap(position: Position): void;
  /** A publication arrived that is not in the history. */
  unknown(): void;
  failed(error: unknown): void;
}

/** Maximum number of publications that wait while the history is read. Later ones are read from the history. */
const MAX_WAITING = 1_000;

/**
 * Delivers each publication of a channel once and in order, although the broker may lose or repeat some. Missing ones are read from
 * the history; those that are no longer there are reported as a gap.
 */
export class GapDetector {
  readonly #host: GapDetectorHost;
  /** Position of the last publication delivered; `undefined` before `start`. */
  #position: Position | undefined;
  #waiting: { publication: PositionedPublication | Mark; previous: number }[] = [];
  #isReading = false;
  #reading: Promise<void> | undefined;
  /** Offset of the last publication delivered live. One at or below it is a duplicate, or the history has gone back. */
  #received = 0;
  /** Publications are known to be missing and have not been read yet. */
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

  /** Handles a live entry. @param previous the offset of the entry before it, as the broker reports it. */
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

  /** Resolves when the history has been read; `undefined` while it is not read. */
  get reading(): Promise<void> | undefined {
    return this.#isReading ? this.#reading : undefined;
  }

  /**
   * Reads the history when its end shows that publications were lost, on the way or in the store.
   *
   * @param latest the end of the history; `null` when it no longer continues this one.
   * @param before {@link position} at the time of the request. A history that ends earlier has gone back.
   */
  check(latest: Position | null, before?: Position): void {
    const position = this.#position;
    if (!position || this.#isReading || this.#stopped) return;
    const hasGoneBack = latest && before && latest.epoch === before.epoch && latest.offset < before.offset;
    if (this.#isBehind || !latest || latest.epoch !== position.epoch || latest.offset > position.offset || hasGoneBack) {
      void this.#read();
    }
  }

  /** Reads what follows the position, after a reconnect. A read under way may have begun before the reconnect, and is repeated. */
  resume(): Promise<void> {
    if (this.#position && !this.#isReading && !this.#stopped) return this.#read();
    this.#isBehind ||= this.#isReading;
    return Promise.resolve();
  }

  /** Delivers the entry if it is the next one, and ignores a duplicate. `false` when the history has to be read first. */
  #accept(publication: PositionedPublication | Mark, previous: number): boolean {
    const { epoch, offset } = publication.position;
    const position = this.#position!; // Set by `start`.
    if (epoch !== position.epoch) return false;
    // Delivered already, by a read if it is past `#received`. Otherwise the history may have gone back: read it.
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
        // Publications that arrived before the request must be in the answer, or the history does not have them.
        const known = this.#waiting.length;
        this.#isBehind = false;
        const { position, publications, isComplete, hasMore = false } = await this.#host.read(this.#position!, isNext); // Set by `start`, as below.
        for (const publication of isComplete ? publications : []) if (!this.#stopped) this.#host.deliver(publication);
        if (this.#stopped) return;
        isNext = isComplete && hasMore;
        this.#position = isNext ? publications.at(-1)!.position! : position; // `hasMore`: there is a last one.
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
