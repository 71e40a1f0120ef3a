/** The nodes of relays, as they were last heard of. */
export class RelayNodes {
  readonly #relays = new Map<string, string>();
  /** By relay: when it was last heard of, in ms of the monotonic clock. */
  readonly #heard = new Map<string, number>();

  /** @param now the monotonic clock, in ms. */
  heard(relay: string, node: string, now: number): void {
    this.#heard.set(relay, now);
    if (this.#relays.get(node) === relay) return;
    this.#drop(relay); // It has started anew.
    this.#relays.set(node, relay);
  }

  /** The relay of the node; `undefined` if none has said so. */
  relayOf(node: string): string | undefined {
    return this.#relays.get(node);
  }

  /** The node of the relay, as it was last heard of; `undefined` if it never was. */
  nodeOf(relay: string): string | undefined {
    for (const [node, of] of this.#relays) if (of === relay) return node;
    return undefined;
  }

  /** Those of the relays that were not heard of since then, in ms of the monotonic clock. */
  silent(relays: readonly string[], since: number): string[] {
    return relays.filter((relay) => (this.#heard.get(relay) ?? -Infinity) < since);
  }

  forget(relay: string): void {
    this.#heard.delete(relay);
    this.#drop(relay);
  }

  #drop(relay: string): void {
    for (const [node, of] of this.#relays) if (of === relay) this.#relays.delete(node);
  }
}
