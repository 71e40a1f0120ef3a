import { type CallRelay, passOn, type RelayAnswer } from "./shards.ts";

/** What {@link RelayNodes} need from their engine. */
export interface RelayNodesHost {
  readonly callRelay: CallRelay;
  /** The monotonic clock, in ms. */
  now(): number;
  /** Called with each answer. */
  answered(answer: RelayAnswer): void;
}

/** Time for which a relay counts as alive without an answer, in ms. */
const TRUST = 60_000;

/** How long each relay may take to name its node, in ms. */
const QUERY_TIMEOUT = 2_000;

/** The names of the nodes of relays, as of their last call or answer. */
export class RelayNodes {
  readonly #host: RelayNodesHost;
  readonly #relays = new Map<string, string>();
  /** By relay: when it last called or answered, in ms of the monotonic clock. */
  readonly #lastSeen = new Map<string, number>();

  constructor(host: RelayNodesHost) {
    this.#host = host;
  }

  update(relay: string, node: string): void {
    this.#lastSeen.set(relay, this.#host.now());
    if (this.#relays.get(node) === relay) return;
    this.#drop(relay); // It has started anew.
    this.#relays.set(node, relay);
  }

  /** The relay of the node; `undefined` if it is not known. */
  relayOf(node: string): string | undefined {
    return this.#relays.get(node);
  }

  /**
   * Queries the names of the nodes of relays, and leaves out idle ones. A relay that does not answer may have clients: it is
   * listed by its last known name, else by that of its object.
   */
  async query(relays: readonly string[]): Promise<string[]> {
    const call = { run: "", number: 0, items: [], isLate: false, timeout: QUERY_TIMEOUT };
    const answer = await passOn(relays, call, this.#host.callRelay);
    const silent = answer.failed.map((relay) => this.#nodeOf(relay) ?? relay);
    this.#host.answered(answer);
    return [...answer.nodes.filter(({ isIdle }) => !isIdle).map(({ node }) => node), ...silent];
  }

  /** Queries relays that were silent for a while: one that was restarted without its connections then removes its members. */
  async querySilent(relays: readonly string[]): Promise<void> {
    const since = this.#host.now() - TRUST;
    await this.query(relays.filter((relay) => (this.#lastSeen.get(relay) ?? -Infinity) < since));
  }

  forget(relay: string): void {
    this.#lastSeen.delete(relay);
    this.#drop(relay);
  }

  #nodeOf(relay: string): string | undefined {
    for (const [node, of] of this.#relays) if (of === relay) return node;
    return undefined;
  }

  #drop(relay: string): void {
    for (const [node, of] of this.#relays) if (of === relay) this.#relays.delete(node);
  }
}
