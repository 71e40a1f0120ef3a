import { ENVELOPE_KINDS, type EnvelopeKind } from "./envelope-kind.ts";

/** A number of each kind: the last that a node has given. */
export type EnvelopeNumbers = Readonly<Record<EnvelopeKind, number>>;

/** Nodes that are remembered, each by the numbers it had when this node first heard of it, and by those that have arrived. */
const MAX_NODES = 10_000;

const none = (): Record<EnvelopeKind, number> =>
  Object.fromEntries(ENVELOPE_KINDS.map((kind) => [kind, 0])) as Record<EnvelopeKind, number>; // Of all kinds.

/**
 * Tells new envelopes from copies of old ones, without a clock. A node numbers what it sends, and each of its numbers arrives once and
 * grows. A node states which numbers it had when it first heard of this one, whose name nobody could know before it started: what has
 * a greater number was sent while this node ran.
 */
export class ReplayGuard {
  readonly #node: string;
  readonly #own = none();
  /** The last of its own that have arrived. */
  readonly #returned = none();
  /** The last number of each kind that has arrived, by node; of those that have stated theirs. */
  readonly #arrived = new Map<string, Record<EnvelopeKind, number>>();
  /** The last control of nodes, known or not. */
  readonly #controlled = new Map<string, number>();
  readonly #met = new Map<string, EnvelopeNumbers>();

  constructor(node: string) {
    this.#node = node;
  }

  /** The number of what is sent next. */
  next(kind: EnvelopeKind): number {
    return ++this.#own[kind];
  }

  /** Whether the node has stated its numbers. */
  knows(node: string): boolean {
    return node === this.#node || this.#arrived.has(node);
  }

  /** The numbers that this node had when it first heard of another one, which is now at the latest. */
  meet(node: string): EnvelopeNumbers {
    const numbers = this.#met.get(node) ?? { ...this.#own };
    remember(this.#met, node, numbers);
    return numbers;
  }

  /** Another node has stated the numbers that it had when it first heard of this one. */
  learn(node: string, stated: EnvelopeNumbers): void {
    const arrived = this.#arrived.get(node) ?? none();
    for (const kind of ENVELOPE_KINDS) arrived[kind] = Math.max(arrived[kind], stated[kind]);
    remember(this.#arrived, node, arrived);
  }

  /** Whether it is new: takes its number, which is taken once. `null` of a node that has not stated its numbers. */
  take(kind: EnvelopeKind, node: string, number: number): boolean | null {
    if (kind === "control") {
      if (number <= (this.#controlled.get(node) ?? 0)) return false;
      remember(this.#controlled, node, number);
      return true;
    }
    const arrived = node === this.#node ? this.#returned : this.#arrived.get(node);
    if (!arrived) return null;
    if (number <= arrived[kind]) return false;
    arrived[kind] = number;
    if (arrived !== this.#returned) remember(this.#arrived, node, arrived);
    return true;
  }
}

/** Keeps those used last. */
function remember<Value>(map: Map<string, Value>, node: string, value: Value): void {
  map.delete(node);
  map.set(node, value);
  if (map.size <= MAX_NODES) return;
  for (const oldest of map.keys()) return void map.delete(oldest);
}
