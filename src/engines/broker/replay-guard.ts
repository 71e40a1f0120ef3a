import { ENVELOPE_KINDS, type EnvelopeKind } from "./envelope-kind.ts";
import { SingleUseNodes } from "./single-use-nodes.ts";

/** A node's last number of each kind of envelope. */
export type EnvelopeNumbers = Readonly<Record<EnvelopeKind, number>>;

/**
 * Numbers below the greatest one that may still arrive: the broker may deliver what a node sent at the same time in another order.
 * As the anti-replay window of IPsec (RFC 4303, section 3.4.3).
 */
const WINDOW = 256;

/** Maximum number of nodes remembered. */
const MAX_NODES = 10_000;

const ofEach = <Value>(value: () => Value): Record<EnvelopeKind, Value> =>
  Object.fromEntries(ENVELOPE_KINDS.map((kind) => [kind, value()])) as Record<EnvelopeKind, Value>; // All kinds are present.

/** Numbers of one kind that were received from one node. */
class Received {
  readonly #seen = new Set<number>();
  #top = 0;
  #floor = 0;

  /** Numbers up to this one are older than what this node has to receive. */
  startAfter(floor: number): void {
    this.#floor = Math.max(this.#floor, floor);
  }

  /** Records a number; `false` if it is not new. */
  accept(number: number): boolean {
    if (number <= this.#floor || number <= this.#top - WINDOW || this.#seen.has(number)) return false;
    this.#seen.add(number);
    this.#top = Math.max(this.#top, number);
    if (this.#seen.size > 2 * WINDOW) {
      for (const seen of this.#seen) if (seen <= this.#top - WINDOW) this.#seen.delete(seen);
    }
    return true;
  }
}

/**
 * Distinguishes new envelopes from replayed copies, without a clock. A node numbers its envelopes, and each number is accepted once.
 * The start is known because a node states the numbers it had when it first heard of this one: names of nodes are random, so an
 * envelope with a greater number was sent after this node started.
 */
export class ReplayGuard {
  /** Nodes that send a single envelope, and whether it has arrived. */
  readonly singleUse: SingleUseNodes = new SingleUseNodes();
  readonly #node: string;
  readonly #own = ofEach(() => 0);
  /** The numbers of this node that came back from the broker. */
  readonly #returned = ofEach(() => new Received());
  /** The numbers received, by node. Only nodes that have stated their numbers. */
  readonly #arrived = new Map<string, Record<EnvelopeKind, Received>>();
  /** The last number of a control message received, by node, known or not. */
  readonly #controlled = new Map<string, number>();
  /** This node's numbers when it first heard of another node, by that node. */
  readonly #met = new Map<string, EnvelopeNumbers>();

  constructor(node: string) {
    this.#node = node;
  }

  /** Takes the number for the next envelope of a kind. */
  next(kind: EnvelopeKind): number {
    return ++this.#own[kind];
  }

  /** Whether the node has stated its numbers. */
  knows(node: string): boolean {
    return node === this.#node || this.#arrived.has(node);
  }

  /** This node's numbers at the time when it first heard of another one: now, unless it was met before. */
  meet(node: string): EnvelopeNumbers {
    const numbers = this.#met.get(node) ?? { ...this.#own };
    remember(this.#met, node, numbers);
    return numbers;
  }

  /** Records the numbers that another node has stated. */
  learn(node: string, stated: EnvelopeNumbers): void {
    const arrived = this.#arrived.get(node) ?? ofEach(() => new Received());
    for (const kind of ENVELOPE_KINDS) arrived[kind].startAfter(stated[kind]);
    remember(this.#arrived, node, arrived);
  }

  /** Records a received number. `false` for a copy, `null` when the node has not stated its numbers. */
  accept(kind: EnvelopeKind, node: string, number: number): boolean | null {
    if (kind === "control") {
      if (number <= (this.#controlled.get(node) ?? 0)) return false;
      remember(this.#controlled, node, number);
      return true;
    }
    const arrived = node === this.#node ? this.#returned : this.#arrived.get(node);
    if (!arrived) return null;
    if (!arrived[kind].accept(number)) return false;
    if (arrived !== this.#returned) remember(this.#arrived, node, arrived);
    return true;
  }
}

/** Sets a value and deletes the least recently used one past the limit. */
function remember<Value>(map: Map<string, Value>, node: string, value: Value): void {
  map.delete(node);
  map.set(node, value);
  if (map.size <= MAX_NODES) return;
  for (const oldest of map.keys()) return void map.delete(oldest);
}
