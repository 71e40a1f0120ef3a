import type { Awaitable, HistoryOptions, HistoryPage, Position } from "../engine.ts";
import type { BrokerPage } from "./broker.ts";
import type { DropReason, Opened } from "./envelope.ts";
import { type LedgerEntry, Ledgers } from "./ledger.ts";

/** What {@link HistoryReader} needs from its engine. */
export interface HistoryReaderHost {
  readonly isSigned: boolean;
  /** Reads a page from the broker. */
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

/** An opened entry of a history. */
interface ReadEntry extends LedgerEntry {
  readonly position: Position;
  readonly event: string;
  readonly body: string;
}

/** Reads histories from the broker. If nodes sign, replayed copies of publications are left out. */
export class HistoryReader {
  readonly #host: HistoryReaderHost;
  readonly #ledgers = new Ledgers();

  constructor(host: HistoryReaderHost) {
    this.#host = host;
  }

  /** Reads what follows a position, or the last publications, like `Engine.read`. */
  async read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
  ): Promise<HistoryPage> {
    const isValid = !after || (Number.isSafeInteger(after.offset) && after.offset >= 0);
    const page = await this.#host.page(channel, history, isValid ? after : null, isValid ? limit : 0, maxBytes);
    const entries = await this.#open(channel, page);
    const { position } = page;
    const { genuine, isMissing } = await this.#select(channel, history, after, page, entries);
    // Copies are among the last `limit` entries, so read more to find as many publications.
    if (!after && genuine.length < entries.length && limit < history.size) {
      const all = await this.read(channel, history, null, history.size, Infinity);
      return { ...all, publications: limit > 0 ? all.publications.slice(-limit) : [] };
    }
    const publications = genuine.map(({ event, body, position }) => ({ event, data: body, position }));
    // An entry that cannot be opened counts as missing.
    if (isMissing || entries.length < page.entries.length) {
      return { position, publications: after ? [] : publications, isComplete: false, hasUnreadable: true };
    }
    const last = page.entries.at(-1);
    // The page has only copies. The caller continues after the last publication of a page, so read on until there is one.
    if (page.hasMore && last && publications.length === 0) {
      return await this.read(channel, history, last.position, Infinity, maxBytes);
    }
    return { position, publications, isComplete: isValid && page.isComplete, ...(page.hasMore && { hasMore: true }) };
  }

  /** Removes copies. That makes no gap, because the copied publication is or was in the history itself. */
  async #select(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    { position, isComplete, hasMore = false }: BrokerPage,
    entries: readonly ReadEntry[],
  ): Promise<{ genuine: readonly ReadEntry[]; isMissing: boolean }> {
    const { dropped, isSigned, page } = this.#host;
    if (!isSigned) return { genuine: entries, isMissing: false };
    const read = async (after: Position | null) => {
      const all = await page(channel, history, after, history.size, Infinity);
      return { ...all, entries: await this.#open(channel, all) };
    };
    const part = { position, entries, isComplete, hasMore };
    const verdicts = await this.#ledgers.judge(channel, part, after, history.size, read);
    for (const verdict of verdicts) if (verdict === "replayed" || verdict === "stale") dropped(verdict);
    return {
      genuine: entries.filter((_, index) => verdicts[index] === "genuine"),
      isMissing: verdicts.some((verdict) => verdict === "missing" || verdict === "stale"),
    };
  }

  async #open(channel: string, { entries }: BrokerPage): Promise<ReadEntry[]> {
    const all: ReadEntry[] = [];
    for (const { position, envelope, time: storedAt } of entries) {
      const opened = await this.#host.open(channel, envelope);
      if (!opened) continue;
      const { node, number, time: sealedAt, event, body } = opened;
      all.push({ offset: position.offset, node, number, sealedAt, storedAt, position, event, body });
    }
    return all;
  }
}
