import type { BrokerEntry, BrokerPage } from "../engines/broker/broker.ts";
import type { HistoryOptions, Position } from "../engines/engine.ts";

interface Entry extends BrokerEntry {
  /** Offset of the previous entry. */
  readonly previous: number;
}

interface History {
  readonly epoch: string;
  offset: number;
  readonly entries: Entry[];
  /** When the entries expire, in ms of the broker's clock. */
  entriesUntil: number;
  /** When positions expire, in ms of the broker's clock. */
  until: number;
}

/** What a session passes with each request. */
export interface Terms {
  /** A position that the channel is known to have had. A history that is behind it has lost data. */
  readonly known: Position | undefined;
  /** Time for which positions stay after the `ttl`, in ms. */
  readonly slack: number;
  /** Returns the epoch of a new history. */
  epoch(): string;
}

/** Approximate size of an entry without its envelope, in bytes. */
const ENTRY_BYTES = 200;

/** The histories of a broker, with the rules of the Redis scripts (`src/engines/redis/scripts.ts`). */
export class HistoryStore {
  readonly #histories = new Map<string, History>();
  readonly #now: () => number;
  readonly #step: () => number;
  #restored = 0;

  /** @param step returns the difference between two offsets. */
  constructor(now: () => number, step: () => number) {
    this.#now = now;
    this.#step = step;
  }

  /**
   * Returns a function that restores the present state of one channel or of all. A history that loses something gets another epoch, as
   * with Redis and NATS.
   */
  backup(): (channel?: string) => void {
    const copy = (history: History): History => ({ ...history, entries: [...history.entries] });
    const saved = new Map([...this.#histories].map(([channel, history]) => [channel, copy(history)]));
    return (channel) => {
      for (const name of channel === undefined ? new Set([...this.#histories.keys(), ...saved.keys()]) : [channel]) {
        const [now, before] = [this.#histories.get(name), saved.get(name)];
        if (now?.epoch === before?.epoch && now?.offset === before?.offset) continue;
        if (before) this.#histories.set(name, { ...copy(before), epoch: `${before.epoch}.${++this.#restored}` });
        else this.#histories.delete(name);
      }
    };
  }

  append(
    channel: string,
    envelope: string,
    { size, ttl }: HistoryOptions,
    terms: Terms,
  ): { position: Position; previous: number } {
    const history = this.#find(channel, terms) ?? this.#begin(channel, terms);
    const time = this.#now();
    const previous = history.offset;
    history.offset += this.#step();
    const position = { epoch: history.epoch, offset: history.offset };
    history.entries.push({ position, envelope, time, previous });
    if (history.entries.length > size) history.entries.splice(0, history.entries.length - size);
    history.entriesUntil = time + ttl;
    history.until = time + ttl + terms.slack;
    this.#expire(history, ttl);
    return { position, previous };
  }

  read(
    channel: string,
    { size, ttl }: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
    terms: Terms,
  ): BrokerPage {
    const history = this.#find(channel, terms) ?? this.#begin(channel, terms);
    history.until = Math.max(history.until, this.#now() + ttl + terms.slack);
    this.#expire(history, ttl);
    const position = { epoch: history.epoch, offset: history.offset };
    const most = Math.min(limit, size);
    if (!after) return { position, entries: most > 0 ? history.entries.slice(-most) : [], isComplete: true };
    const refused = { position, entries: [], isComplete: false };
    if (after.epoch !== history.epoch || after.offset > history.offset) return refused;
    const page: Entry[] = [];
    let [at, bytes, count, hasMore] = [after.offset, 0, 0, false];
    const first = history.entries.findLastIndex(({ position }) => position.offset <= after.offset) + 1;
    for (const entry of history.entries.slice(first)) {
      if (entry.previous !== at || ++count > most) return refused;
      at = entry.position.offset;
      bytes += entry.envelope.length + ENTRY_BYTES;
      if (!hasMore && (page.length === 0 || bytes <= maxBytes)) page.push(entry);
      // Entries after this page were checked for the first page.
      else if (limit === Infinity) return { position, entries: page, isComplete: true, hasMore: true };
      else hasMore = true;
    }
    return at < history.offset ? refused : { position, entries: page, isComplete: true, hasMore };
  }

  /** Returns the end of the history, and keeps its positions valid for the `ttl` from now on. */
  top(channel: string, { ttl }: HistoryOptions, terms: Terms): Position | null {
    const history = this.#find(channel, terms);
    if (!history) return null;
    history.until = this.#now() + ttl + terms.slack;
    return { epoch: history.epoch, offset: history.offset };
  }

  /** Returns the end of the history, without renewing it. */
  end(channel: string): Position | undefined {
    const history = this.#histories.get(channel);
    return history && { epoch: history.epoch, offset: history.offset };
  }

  /** Whether everything after the position is still in the history. */
  reaches(channel: string, { epoch, offset }: Position): boolean {
    const history = this.#histories.get(channel);
    if (history?.epoch !== epoch) return false;
    return history.offset === offset || (history.entries[0]?.previous ?? Infinity) <= offset;
  }

  /** Ends the history, if it is of this epoch. @param epoch @default any */
  delete(channel: string, epoch?: string): void {
    if (epoch === undefined || this.#histories.get(channel)?.epoch === epoch) this.#histories.delete(channel);
  }

  #find(channel: string, { known }: Terms): History | undefined {
    const history = this.#histories.get(channel);
    if (!history || history.until <= this.#now()) return undefined;
    return known && known.epoch === history.epoch && history.offset < known.offset ? undefined : history;
  }

  #begin(channel: string, terms: Terms): History {
    const history = { epoch: terms.epoch(), offset: 0, entries: [], entriesUntil: Infinity, until: 0 };
    this.#histories.set(channel, history);
    return history;
  }

  #expire(history: History, ttl: number): void {
    const now = this.#now();
    const { entries } = history;
    // Entries are sorted by time.
    const kept = history.entriesUntil <= now ? -1 : entries.findIndex(({ time }) => time > now - ttl);
    if (kept !== 0) entries.splice(0, kept < 0 ? entries.length : kept);
  }
}
