import type { Awaitable, HistoryOptions, HistoryPage, Position } from "../engine.ts";
import type { BrokerPage } from "./broker.ts";
import type { DropReason, Opened } from "./envelope.ts";
import { type LedgerEntry, Ledgers } from "./ledger.ts";

/** What a reader needs of its engine. */
export interface HistoryReaderHost {
  readonly isSigned: boolean;
  /** Asks the broker. */
  page(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
  ): Promise<BrokerPage>;
  open(channel: string, envelope: string): Awaitable<Opened | null>;
  dropped(reason: DropReason): void;
}

/** An entry of a history that could be opened. */
interface ReadEntry extends LedgerEntry {
  readonly position: Position;
  readonly event: string;
  readonly body: string;
}

/** Reads histories. Where the nodes sign, copies of publications are left out of them. */
export class HistoryReader {
  readonly #host: HistoryReaderHost;
  readonly #ledgers = new Ledgers();
  /** Histories are read as a whole one after the other: each may take megabytes. */
  #reading: Promise<unknown> = Promise.resolve();

  constructor(host: HistoryReaderHost) {
    this.#host = host;
  }

  /** What follows a position, or the last ones. */
  async read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
  ): Promise<HistoryPage> {
    const isPlace = !after || (Number.isSafeInteger(after.offset) && after.offset >= 0);
    const page = await this.#host.page(channel, history, isPlace ? after : null, isPlace ? limit : 0, maxBytes);
    const entries = await this.#open(channel, page);
    const { position } = page;
    const { genuine, isMissing } = await this.#select(channel, history, after, page, entries);
    // Copies have taken the places of others.
    if (!after && genuine.length < entries.length && limit < history.size) {
      const all = await this.read(channel, history, null, history.size, Infinity);
      return { ...all, publications: limit > 0 ? all.publications.slice(-limit) : [] };
    }
    const publications = genuine.map(({ event, body, position }) => ({ event, data: body, position }));
    // One that cannot be opened is missing, whatever the reason: those after it are not all.
    if (isMissing || entries.length < page.entries.length) {
      return { position, publications: after ? [] : publications, isComplete: false, hasUnreadable: true };
    }
    const last = page.entries.at(-1);
    // All of them are copies: who reads on goes by the last publication.
    if (page.hasMore && last && publications.length === 0) {
      return await this.read(channel, history, last.position, Infinity, maxBytes);
    }
    return { position, publications, isComplete: isPlace && page.isComplete, ...(page.hasMore && { hasMore: true }) };
  }

  /** Leaves copies out: each is of a publication that stands there, or has stood there, so that nothing is missing for it. */
  async #select(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    { position, isComplete, hasMore = false }: BrokerPage,
    entries: readonly ReadEntry[],
  ): Promise<{ genuine: readonly ReadEntry[]; isMissing: boolean }> {
    const { dropped, isSigned, page } = this.#host;
    if (!isSigned) return { genuine: entries, isMissing: false };
    const read = (after: Position | null) => {
      const whole = this.#reading.then(async () => {
        const all = await page(channel, history, after, history.size, Infinity);
        return { ...all, entries: await this.#open(channel, all) };
      });
      this.#reading = whole.catch(() => {});
      return whole;
    };
    const part = { position, entries, isComplete, hasMore };
    const verdicts = await this.#ledgers.judge(channel, part, after, history.size, read);
    for (const verdict of verdicts) if (verdict === "replayed" || verdict === "stale") dropped(verdict);
    return {
      genuine: entries.filter((_, number) => verdicts[number] === "genuine"),
      isMissing: verdicts.some((verdict) => verdict === "missing" || verdict === "stale"),
    };
  }

  async #open(channel: string, { entries }: BrokerPage): Promise<ReadEntry[]> {
    const all: ReadEntry[] = [];
    for (const { position, envelope, time: taken } of entries) {
      const opened = await this.#host.open(channel, envelope);
      if (!opened) continue;
      const { node, number, time: sealed, event, body } = opened;
      all.push({ offset: position.offset, node, number, sealed, taken, position, event, body });
    }
    return all;
  }
}
