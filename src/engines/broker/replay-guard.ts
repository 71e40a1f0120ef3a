import { ENVELOPE_KINDS, type EnvelopeKind } from "./envelope-kind.ts";
import { SingleUseNodes } from "./single-use-nodes.ts";

/** A node's last number of each kind of envelope. */
export type EnvelopeNumbers = Readonly<Record<EnvelopeKind, number>>;

/**
 * Size of the anti-replay window (RFC 4303, section 3.4.3): numbers further below the highest one are refused. The broker may deliver
 * envelopes out of order that a node sent at the same time.
 */
const WINDOW = 256;

/** Maximum number of nodes whose numbers are kept. */
const MAX_NODES = 10_000;

const ofEach = <Value>(value: () => Value): Record<EnvelopeKind, Value> =>
  Object.fromEntries(ENVELOPE_KINDS.map((kind) => [kind, value()])) as Record<EnvelopeKind, Value>; // All kinds are present.

/** The anti-replay window for envelopes of one kind from one node. */
class ReplayWindow {
  readonly #seen = new Set<number>();
  #newest = 0;
  #floor = 0;

  /** Refuses numbers up to this one, which were sent before this node started. */
  startAfter(floor: number): void {
    this.#floor = Math.max(this.#floor, floor);
  }

  /** Records a number. Returns `false` if it is not new. */
  accept(number: number): boolean {
    if (number <= this.#floor || number <= this.#newest - WINDOW || this.#seen.has(number)) return false;
    this.#seen.add(number);
    this.#newest = Math.max(this.#newest, number);
    if (this.#seen.size > 2 * WINDOW) {
      for (const seen of this.#seen) if (seen <= this.#newest - WINDOW) this.#seen.delete(seen);
    }
    return true;
  }
}

/**
 * Distinguishes new envelopes from replayed copies, without a clock. A node numbers its envelopes, and each number is accepted once. To
 * refuse copies from before this node started, other nodes state the numbers that they had when they first heard of it. Node names are
 * random, so envelopes with higher numbers were sent after this node started.
 */
export class ReplayGuard {
  /** Nodes that send one envelope only. */
  readonly singleUse: SingleUseNodes = new SingleUseNodes();
  readonly #node: string;
  /** This node's last numbers. */
  readonly #own = ofEach(() => 0);
  /** For envelopes of this node, which the broker delivers to it, too. */
  readonly #returned = ofEach(() => new ReplayWindow());
  /** By node that has stated its numbers. */
  readonly #received = new Map<string, Record<EnvelopeKind, ReplayWindow>>();
  /** By node, whether or not it has stated its numbers: the last number of a control message. */
  readonly #lastControl = new Map<string, number>();
  /** By other node: this node's numbers when it first heard of it. */
  readonly #statedTo = new Map<string, EnvelopeNumbers>();

  constructor(node: string) {
    this.#node = node;
  }

  /** Returns the number for the next envelope of a kind. */
  next(kind: EnvelopeKind): number {
    return ++this.#own[kind];
  }

  /** Whether the node has stated its numbers. */
  knows(node: string): boolean {
    return node === this.#node || this.#received.has(node);
  }

  /** Returns this node's numbers at the time when it first heard of another node: now, unless there was an earlier call for it. */
  meet(node: string): EnvelopeNumbers {
    const numbers = this.#statedTo.get(node) ?? { ...this.#own };
    remember(this.#statedTo, node, numbers);
    return numbers;
  }

  /** Records the numbers that another node has stated. */
  learn(node: string, stated: EnvelopeNumbers): void {
    const received = this.#received.get(node) ?? ofEach(() => new ReplayWindow());
    for (const kind of ENVELOPE_KINDS) received[kind].startAfter(stated[kind]);
    remember(this.#received, node, received);
  }

  /** Records a received number. Returns `false` for a copy, `null` if the node has not stated its numbers. */
  accept(kind: EnvelopeKind, node: string, number: number): boolean | null {
    if (kind === "control") {
      if (number <= (this.#lastControl.get(node) ?? 0)) return false;
      remember(this.#lastControl, node, number);
      return true;
    }
    const received = node === this.#node ? this.#returned : this.#received.get(node);
    if (!received) return null;
    if (!received[kind].accept(number)) return false;
    if (received !== this.#returned) remember(this.#received, node, received);
    return true;
  }
}

/** Sets a value, and deletes the least recently used one beyond the limit. */
function remember<Value>(map: Map<string, Value>, node: string, value: Value): void {
  map.delete(node);
  map.set(node, value);
  if (map.size <= MAX_NODES) return;
  for (const oldest of map.keys()) return void map.delete(oldest);
}
