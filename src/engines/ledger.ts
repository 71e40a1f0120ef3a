import type { Position } from "../engine.ts";

/** What is looked at of a publication as a history has it. */
export interface LedgerEntry {
  readonly offset: number;
  readonly node: string;
  /** Grows with each publication of the node. */
  readonly number: number;
  /** When its node sealed it, and when the broker took it, in ms of the broker's clock. */
  readonly sealed: number;
  readonly taken: number;
}

/** How far the times of one publication may be apart, in ms: two looks at the same clock, which may have been set meanwhile. */
const MAX_APART = 60_000;

/** What an entry is: `missing` where something else may have stood in its place. */
export type Verdict = "genuine" | "replayed" | "stale" | "missing";

/**
 * Which publications stand in the history of one channel, from the oldest that was kept when it was begun. The numbers of a node grow
 * along a history, so what has no greater number than one of the same node before it is a copy.
 */
export class Ledger {
  readonly epoch: string;
  /** What stands at offsets: the publication, or why it is none. */
  readonly #entries = new Map<number, string>();
  readonly #numbers = new Map<string, number>();
  #offset = 0;
  #sealed = -Infinity;

  constructor(epoch: string) {
    this.epoch = epoch;
  }

  /** Up to where it goes. */
  get offset(): number {
    return this.#offset;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Looks at the next entry of a page. */
  look(entry: LedgerEntry): Verdict {
    const { offset, node, number, sealed, taken } = entry;
    const name = `${number} ${node}`;
    const known = this.#entries.get(offset);
    if (known === "replayed" || known === "stale") return known;
    if (known !== undefined) return known === name ? "genuine" : "missing";
    if (offset <= this.#offset) return "missing";
    this.#offset = offset;
    const isCopy = number <= (this.#numbers.get(node) ?? 0);
    const isStale = Math.abs(sealed - taken) > MAX_APART || sealed < this.#sealed - MAX_APART;
    const verdict = isCopy ? "replayed" : isStale ? "stale" : "genuine";
    this.#entries.set(offset, verdict === "genuine" ? name : verdict);
    if (verdict !== "genuine") return verdict;
    this.#numbers.set(node, number);
    this.#sealed = Math.max(this.#sealed, sealed);
    return "genuine";
  }

  /** The history is known up to there. */
  reach({ offset }: Position): void {
    this.#offset = Math.max(this.#offset, offset);
  }

  /** Forgets the oldest entries, and no node's number. @param size entries that are kept. */
  trim(size: number): void {
    for (const offset of this.#entries.keys()) {
      if (this.#entries.size <= size) return;
      this.#entries.delete(offset);
    }
  }
}

/** What is known of a history when it is asked. */
export interface LedgerPage {
  readonly position: Position;
  readonly entries: readonly LedgerEntry[];
  readonly isComplete: boolean;
  /** Whether more follow. @default {false} */
  readonly hasMore?: boolean;
}

/** Entries of all ledgers. */
const MAX_ENTRIES = 100_000;

/** The ledgers of the channels whose histories were read, those used last. */
export class Ledgers {
  readonly #ledgers = new Map<string, Ledger>();

  /**
   * Looks at the entries of a page. Of a history that is not known yet all is read first, and then what is new.
   *
   * @param after what the page follows; `null` for the last ones.
   * @param size publications that are kept.
   * @param read reads all after a position, or all.
   */
  async judge(
    channel: string,
    { position, entries, hasMore = false }: LedgerPage,
    after: Position | null,
    size: number,
    read: (after: Position | null) => Promise<LedgerPage>,
  ): Promise<Verdict[]> {
    const last = entries.at(-1);
    if (!last) return [];
    const { epoch } = position;
    let ledger = this.#ledgers.get(channel);
    if (ledger?.epoch !== epoch) ledger = undefined;
    if (ledger && (after?.offset ?? last.offset) > ledger.offset) {
      const rest = await read({ epoch, offset: ledger.offset });
      if (rest.isComplete && rest.position.epoch === epoch) record(ledger, rest);
      else ledger = undefined;
    }
    if (!ledger) {
      const all = await read(null);
      // It has gone meanwhile.
      if (all.position.epoch !== epoch) return entries.map(() => "missing");
      record(ledger = new Ledger(epoch), all);
    }
    const known = ledger;
    const verdicts = entries.map((entry) => known.look(entry));
    if (!hasMore) ledger.reach(position);
    ledger.trim(size);
    this.#keep(channel, ledger);
    return verdicts;
  }

  #keep(channel: string, ledger: Ledger): void {
    this.#ledgers.delete(channel);
    this.#ledgers.set(channel, ledger);
    let size = 0;
    for (const { size: entries } of this.#ledgers.values()) size += entries;
    for (const [oldest, { size: entries }] of this.#ledgers) {
      if (size <= MAX_ENTRIES || this.#ledgers.size === 1) return;
      this.#ledgers.delete(oldest);
      size -= entries;
    }
  }
}

function record(ledger: Ledger, { position, entries }: LedgerPage): void {
  for (const entry of entries) ledger.look(entry);
  ledger.reach(position);
}
