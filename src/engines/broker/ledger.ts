import type { Position } from "../engine.ts";
import { SingleUseNodes } from "./single-use-nodes.ts";

/** The fields of a stored publication that show whether it is a replayed copy. */
export interface LedgerEntry {
  readonly offset: number;
  readonly node: string;
  /** Increases with each publication of the node. */
  readonly number: number;
  /** When its node sealed it, and when the broker stored it, in ms of the broker's clock. */
  readonly sealedAt: number;
  readonly storedAt: number;
}

/** Maximum difference between `sealedAt` and `storedAt`, in ms. Both are by the broker's clock, which may be adjusted in between. */
const MAX_DIFFERENCE = 60_000;

/**
 * What an entry is: a publication (`genuine`), a copy (`replayed`), sealed long before it was stored (`stale`), or possibly a replacement of
 * another entry (`missing`).
 */
export type Verdict = "genuine" | "replayed" | "stale" | "missing";

/**
 * The publications recorded from the history of one channel. The numbers of a node increase along a history, so an entry is a copy if its
 * number is not greater than that of an earlier entry of the same node.
 */
export class Ledger {
  readonly epoch: string;
  /** By offset: number and node of a publication, or the verdict on another entry. */
  readonly #entries = new Map<number, string>();
  /** By node: its highest number. */
  readonly #numbers = new Map<string, number>();
  readonly #singleUse = new SingleUseNodes();
  #offset = 0;
  /** The latest {@link LedgerEntry.sealedAt} of a publication. */
  #sealedAt = -Infinity;

  constructor(epoch: string) {
    this.epoch = epoch;
  }

  /** The offset up to which the history is recorded. */
  get offset(): number {
    return this.#offset;
  }

  /** Number of recorded entries and single-use nodes. */
  get size(): number {
    return this.#entries.size + this.#singleUse.size;
  }

  /** Judges an entry, and records it if it is new. */
  judge(entry: LedgerEntry): Verdict {
    const { offset, node, number } = entry;
    const name = `${number} ${node}`;
    const known = this.#entries.get(offset);
    if (known === "replayed" || known === "stale") return known;
    if (known !== undefined) return known === name ? "genuine" : "missing";
    if (offset <= this.#offset) return "missing";
    this.#offset = offset;
    const verdict = SingleUseNodes.has(node)
      ? this.#singleUse.judge(node, entry.sealedAt, entry.storedAt)
      : this.#judgeInOrder(entry);
    this.#entries.set(offset, verdict === "genuine" ? name : verdict);
    return verdict;
  }

  #judgeInOrder({ node, number, sealedAt, storedAt }: LedgerEntry): "genuine" | "replayed" | "stale" {
    if (number <= (this.#numbers.get(node) ?? 0)) return "replayed";
    if (Math.abs(sealedAt - storedAt) > MAX_DIFFERENCE || sealedAt < this.#sealedAt - MAX_DIFFERENCE) return "stale";
    this.#numbers.set(node, number);
    this.#sealedAt = Math.max(this.#sealedAt, sealedAt);
    return "genuine";
  }

  /** Marks the history as recorded up to this position. */
  recordUpTo({ offset }: Position): void {
    this.#offset = Math.max(this.#offset, offset);
  }

  /** Deletes the oldest entries, but not the numbers of nodes. @param size number of entries to keep. */
  trim(size: number): void {
    for (const offset of this.#entries.keys()) {
      if (this.#entries.size <= size) return;
      this.#entries.delete(offset);
    }
  }
}

/** The part of a history page that a ledger needs. */
export interface LedgerPage {
  readonly position: Position;
  readonly entries: readonly LedgerEntry[];
  readonly isComplete: boolean;
  /** Whether more follow. @default {false} */
  readonly hasMore?: boolean;
}

/** Maximum number of entries in all ledgers together. */
const MAX_ENTRIES = 100_000;

/** The ledgers of the channels whose histories were read most recently. */
export class Ledgers {
  readonly #ledgers = new Map<string, Ledger>();
  #reading: Promise<unknown> = Promise.resolve();

  /**
   * Judges the entries of a page. Before that, it reads the part of the history that is not recorded yet.
   *
   * @param after the position that the page follows; `null` for the last publications.
   * @param size the history's `size`.
   * @param read reads everything after a position, or with `null` the whole history.
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
    const from = after?.offset ?? last.offset;
    const recorded = this.#find(channel, position.epoch);
    const ledger = recorded && from <= recorded.offset
      ? recorded
      : await this.#inTurn(() => this.#record(channel, position.epoch, from, read));
    // Another history was begun during the read.
    if (!ledger) return entries.map(() => "missing");
    const verdicts = entries.map((entry) => ledger.judge(entry));
    if (!hasMore) ledger.recordUpTo(position);
    ledger.trim(size);
    this.#remember(channel, ledger);
    return verdicts;
  }

  #find(channel: string, epoch: string): Ledger | undefined {
    const ledger = this.#ledgers.get(channel);
    return ledger?.epoch === epoch ? ledger : undefined;
  }

  /** Records the history up to an offset, unless another call has done so while this one waited. */
  async #record(
    channel: string,
    epoch: string,
    from: number,
    read: (after: Position | null) => Promise<LedgerPage>,
  ): Promise<Ledger | undefined> {
    const known = this.#find(channel, epoch);
    if (known && from <= known.offset) return known;
    if (known) {
      const rest = await read({ epoch, offset: known.offset });
      if (rest.isComplete && rest.position.epoch === epoch) return record(known, rest);
    }
    const all = await read(null);
    if (all.position.epoch !== epoch) return undefined;
    const ledger = record(new Ledger(epoch), all);
    this.#remember(channel, ledger);
    return ledger;
  }

  /** One read at a time, because each may take megabytes of memory. */
  #inTurn<Answer>(read: () => Promise<Answer>): Promise<Answer> {
    const answer = this.#reading.then(read);
    this.#reading = answer.catch(() => {}); // Only the caller gets the error; the next read runs anyway.
    return answer;
  }

  #remember(channel: string, ledger: Ledger): void {
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

function record(ledger: Ledger, { position, entries }: LedgerPage): Ledger {
  for (const entry of entries) ledger.judge(entry);
  ledger.recordUpTo(position);
  return ledger;
}
