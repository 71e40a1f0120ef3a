import type { HistoryOptions, HistoryPage, Position, Publication } from "../engine.ts";
import { GapDetector, type PositionedPublication } from "../broker/gap-detector.ts";

/** What a {@link RelayChannel} needs from its engine. */
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
  /** The position in the storage. */
  #stored: Position | undefined;
  /** Whether the last attempt to read missing publications has failed. */
  #hasFailed = false;
  /** Whether to recover at the start. */
  #isLate = false;

  constructor(history: HistoryOptions | null, host: RelayChannelHost) {
    this.history = history;
    this.#host = host;
    this.#gaps = history ? this.#follow(history) : undefined;
  }

  /** Begins to deliver the publications after a position. @param isStored whether the storage has this position already. */
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

  /** Reads missing publications from the history, or reports a gap if there is none. */
  recover(): void {
    if (!this.#gaps) return this.#host.gap();
    this.#isLate = !this.#gaps.position;
    void this.#gaps.resume();
  }

  /** Resolves once nothing is being read and the position is stored, with whether everything was read. */
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
      // A publication of a storage that was lost. The epoch differs, so the gap is reported without this.
      unknown: () => {},
      failed: (error) => {
        this.#hasFailed = true;
        host.report(error);
      },
    });
  }
}
