import type { HistoryOptions, HistoryPage, Position, Publication } from "../engine.ts";
import { GapDetector, type PositionedPublication } from "../broker/gap-detector.ts";

/** What a channel needs from its relay. */
export interface RelayChannelHost {
  read(after: Position, limit: number): Promise<HistoryPage>;
  published(publication: Publication): void;
  gap(position?: Position): void;
  /** Stores the position up to which everything was delivered. */
  reached(position: Position): void;
  report(error: unknown): void;
}

/** A relay's subscription to one channel. It delivers each publication once and in order, and reads missing ones from the home object. */
export class RelayChannel {
  readonly history: HistoryOptions | null;
  readonly #host: RelayChannelHost;
  readonly #gaps: GapDetector | undefined;
  /** The position that is stored. */
  #stored: Position | undefined;
  /** Whether the last attempt to read what is missing has failed. */
  #hasFailed = false;
  /** Whether it had to recover before it started. */
  #isLate = false;

  constructor(history: HistoryOptions | null, host: RelayChannelHost) {
    this.history = history;
    this.#host = host;
    this.#gaps = history ? this.#follow(history) : undefined;
  }

  /** Delivers everything after this position. @param isStored whether it is that of the storage. */
  start(position: Position | null, isStored: boolean): void {
    if (!position) return;
    if (isStored) this.#stored = position;
    this.#gaps?.start(position);
    if (this.#isLate) this.recover();
    void this.settle();
  }

  stop(): void {
    this.#gaps?.stop();
  }

  receive(publication: Publication, previous: number): void {
    if (publication.position && this.#gaps) this.#gaps.receive(publication as PositionedPublication, previous); // It has a position.
    else this.#host.published(publication);
  }

  /** Items were lost: reads what is missing, or reports a gap where there is no history. */
  recover(): void {
    if (!this.#gaps) return this.#host.gap();
    this.#isLate = !this.#gaps.position;
    void this.#gaps.resume();
  }

  /** Resolves once nothing is being read, and the position is stored. `false`: something is missing still. */
  async settle(): Promise<boolean> {
    const gaps = this.#gaps;
    if (!gaps) return true;
    while (gaps.reading) await gaps.reading;
    const { position } = gaps;
    if (position && (position.epoch !== this.#stored?.epoch || position.offset !== this.#stored.offset)) {
      this.#stored = position;
      this.#host.reached(position);
    }
    return !this.#hasFailed;
  }

  #follow(history: HistoryOptions): GapDetector {
    const host = this.#host;
    return new GapDetector({
      follows: (offset, previous) => offset === previous,
      read: (after, isNext) => {
        this.#hasFailed = false;
        return host.read(after, isNext ? Infinity : history.size);
      },
      deliver: (publication) => host.published(publication),
      gap: (position) => host.gap(position),
      // It was published by a run of the home object whose storage is lost: the epoch is another then, and the gap is reported.
      unknown: () => {},
      failed: (error) => {
        this.#hasFailed = true;
        host.report(error);
      },
    });
  }
}
