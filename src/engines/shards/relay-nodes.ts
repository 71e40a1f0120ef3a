import { type CallRelay, forwardCall, type RelayAnswer } from "./shards.ts";

/** What {@link RelayNodes} needs from its engine. */
export interface RelayNodesHost {
  readonly callRelay: CallRelay;
  /** The monotonic clock, in ms. */
  now(): number;
  /** Called with each answer. */
  answered(answer: RelayAnswer): void;
}

/** Silence after which a relay is queried, in ms. */
const LIVENESS_TIMEOUT = 60_000;

/** Time that each relay has to answer a query, in ms. */
const QUERY_TIMEOUT = 2_000;

/** The node of each relay, as of its last call or answer. */
export class RelayNodes {
  readonly #host: RelayNodesHost;
  /** By node: its relay. */
  readonly #relays = new Map<string, string>();
  /** By relay: when it last called or answered, in ms of the monotonic clock. */
  readonly #lastSeen = new Map<string, number>();

  constructor(host: RelayNodesHost) {
    this.#host = host;
  }

  update(relay: string, node: string): void {
    this.#lastSeen.set(relay, this.#host.now());
    if (this.#relays.get(node) === relay) return;
    this.#drop(relay); // A relay that was restarted has another node.
    this.#relays.set(node, relay);
  }

  /** The relay of a node, or `undefined` if it is unknown. */
  relayOf(node: string): string | undefined {
    return this.#relays.get(node);
  }

  /**
   * Queries relays for their nodes, without idle ones. A relay that does not answer may have clients: its last known node is returned, or
   * else the name of its object.
   */
  async query(relays: readonly string[]): Promise<string[]> {
    const call = { run: "", number: 0, items: [], isLate: false, timeout: QUERY_TIMEOUT };
    const answer = await forwardCall(relays, call, this.#host.callRelay);
    const silent = answer.failed.map((relay) => this.#nodeOf(relay) ?? relay);
    this.#host.answered(answer);
    return [...answer.nodes.filter(({ isIdle }) => !isIdle).map(({ node }) => node), ...silent];
  }

  /** Queries relays that were silent for {@link LIVENESS_TIMEOUT}. A relay that was restarted without its connections then starts, and removes its members. */
  async querySilent(relays: readonly string[]): Promise<void> {
    const since = this.#host.now() - LIVENESS_TIMEOUT;
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
