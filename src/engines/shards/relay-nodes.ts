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
const ASK_TIMEOUT = 2_000;

/** The nodes of relays, as they were last heard of. */
export class RelayNodes {
  readonly #host: RelayNodesHost;
  readonly #relays = new Map<string, string>();
  /** By relay: when it was last heard of, in ms of the monotonic clock. */
  readonly #heard = new Map<string, number>();

  constructor(host: RelayNodesHost) {
    this.#host = host;
  }

  heard(relay: string, node: string): void {
    this.#heard.set(relay, this.#host.now());
    if (this.#relays.get(node) === relay) return;
    this.#drop(relay); // It has started anew.
    this.#relays.set(node, relay);
  }

  /** The relay of the node; `undefined` if none has said so. */
  relayOf(node: string): string | undefined {
    return this.#relays.get(node);
  }

  /**
   * Asks relays for the names of their nodes, and leaves out idle ones. A relay that does not answer may have clients: it is
   * listed by its last known name, else by that of its object.
   */
  async ask(relays: readonly string[]): Promise<string[]> {
    const call = { run: "", number: 0, items: [], isLate: false, timeout: ASK_TIMEOUT };
    const answer = await passOn(relays, call, this.#host.callRelay);
    const silent = answer.failed.map((relay) => this.#nodeOf(relay) ?? relay);
    this.#host.answered(answer);
    return [...answer.nodes.filter(({ isIdle }) => !isIdle).map(({ node }) => node), ...silent];
  }

  /** Asks those of the relays that have been silent for a while: one that was restarted without its connections finds that out then. */
  async check(relays: readonly string[]): Promise<void> {
    const since = this.#host.now() - TRUST;
    await this.ask(relays.filter((relay) => (this.#heard.get(relay) ?? -Infinity) < since));
  }

  forget(relay: string): void {
    this.#heard.delete(relay);
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
