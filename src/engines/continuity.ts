import type { HistoryPage, Position, Publication } from "../engine.ts";

/** A publication with its place. */
export type Placed = Publication & { readonly position: Position };

/** A place at which there is no publication. */
export interface Mark {
  readonly position: Position;
}

export interface ContinuityHost {
  /** Whether nothing lies between an offset and what has another one before it, as the broker says. */
  follows(offset: number, previous: number): boolean;
  /** What follows a position, a page of it. @param isNext the page before it ended there. */
  read(after: Position, isNext: boolean): Promise<HistoryPage>;
  published(publication: Publication): void;
  /** What follows cannot be had up to the position. */
  gap(position: Position): void;
  /** One was told of that the history does not know. */
  unknown(): void;
  failed(error: unknown): void;
}

/** Publications that wait while the history is read: what is more is found in the history. */
const MAX_WAITING = 1_000;

/**
 * Turns what a broker tells of, of which some may be lost or come twice, into each publication once and in order: what is missing is
 * read from the history, and where that cannot be, it is said.
 */
export class Continuity {
  readonly #host: ContinuityHost;
  /** The last publication told of. */
  #position: Position | undefined;
  #waiting: { publication: Placed | Mark; previous: number }[] = [];
  #isReading = false;
  /** The last one of this history that arrived by itself: what is below it and arrives now is a copy, or of a history that went back. */
  #received = 0;
  /** Something is known to be missing that could not be read. */
  #isBehind = false;
  #stopped = false;

  constructor(host: ContinuityHost) {
    this.#host = host;
  }

  /** Everything after this position is to be told of. */
  start(position: Position): void {
    this.#position = position;
    if (this.#takeWaiting(0)) void this.#read();
  }

  stop(): void {
    this.#stopped = true;
    this.#waiting = [];
  }

  /** @param previous the offset of the publication before it. */
  receive(publication: Placed | Mark, previous: number): void {
    if (this.#stopped) return;
    if (!this.#position || this.#isReading) {
      if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ publication, previous });
      else this.#isBehind = true;
    } else if (!this.#take(publication, previous)) {
      this.#waiting.push({ publication, previous });
      void this.#read();
    }
  }

  get position(): Position | undefined {
    return this.#position;
  }

  /**
   * The history ends there: a lost tail is noticed, here or in the history. `null` when it is another history.
   *
   * @param asked the position when the broker was asked: a history that ends before it has gone back.
   */
  check(top: Position | null, asked?: Position): void {
    const position = this.#position;
    if (!position || this.#isReading || this.#stopped) return;
    const hasGoneBack = top && asked && top.epoch === asked.epoch && top.offset < asked.offset;
    if (this.#isBehind || !top || top.epoch !== position.epoch || top.offset > position.offset || hasGoneBack) void this.#read();
  }

  /** Anything may have been lost: looks what there is. */
  resume(): Promise<void> {
    return this.#position && !this.#isReading && !this.#stopped ? this.#read() : Promise.resolve();
  }

  /** Tells of it if it is the next one; `false` when something is missing before it. */
  #take(publication: Placed | Mark, previous: number): boolean {
    const { epoch, offset } = publication.position;
    const position = this.#position!; // Set by `start`.
    if (epoch !== position.epoch) return false;
    // It has been told of, unless the history has gone back: the history decides.
    if (offset <= position.offset) return offset === position.offset || offset > this.#received;
    if (!this.#host.follows(position.offset, previous) || this.#isBehind) return false;
    this.#position = publication.position;
    this.#received = offset;
    if ("event" in publication) this.#host.published(publication);
    return true;
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    try {
      for (let isMissing = true, isNext = false; isMissing && !this.#stopped;) {
        // What is here before the history is asked is in it, or nowhere.
        const known = this.#waiting.length;
        this.#isBehind = false;
        const { position, publications, isComplete, hasMore = false } = await this.#host.read(this.#position!, isNext); // Set by `start`.
        for (const publication of isComplete ? publications : []) if (!this.#stopped) this.#host.published(publication);
        if (this.#stopped) return;
        isNext = isComplete && hasMore;
        this.#position = isNext ? publications.at(-1)!.position! : position; // Those of a history have one.
        if (isNext) continue;
        if (!isComplete) {
          this.#received = 0;
          this.#host.gap(position);
        }
        isMissing = this.#takeWaiting(known);
      }
    } catch (error) {
      // It is tried again at the next check, or when there is another session.
      this.#isBehind = true;
      this.#waiting = [];
      this.#host.failed(error);
    } finally {
      this.#isReading = false;
    }
  }

  /** Tells of what waits. Whether something is missing then. */
  #takeWaiting(known: number): boolean {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const [number, { publication, previous }] of waiting.entries()) {
      if (this.#take(publication, previous)) continue;
      const { epoch, offset } = publication.position;
      const position = this.#position!; // Set by `start`.
      if (number < known && epoch === position.epoch && offset <= position.offset) continue; // It is in what was read.
      if (number >= known) {
        this.#waiting = waiting.slice(number);
        return true;
      }
      this.#host.unknown();
    }
    return this.#isBehind;
  }
}
