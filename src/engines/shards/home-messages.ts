import type { EngineHost } from "../engine.ts";
import type { HomeStore } from "./home-store.ts";
import type { RelayNodes } from "./relay-nodes.ts";
import { type Item, receiveMessage } from "./shards.ts";

/** The name under which the home object stores its own members and orders, beside those of relays. */
export const OWN = "";

/** What {@link HomeMessages} needs from its engine. */
export interface HomeMessagesHost {
  readonly store: HomeStore;
  readonly nodes: RelayNodes;
  /** The host of the engine, after its start. */
  host(): EngineHost;
  /** Sends an item to relays. */
  push(item: Item, relays: Iterable<string>): void;
}

/** Messages and orders between nodes, which pass through the home object. */
export class HomeMessages {
  readonly #engine: HomeMessagesHost;

  constructor(engine: HomeMessagesHost) {
    this.#engine = engine;
  }

  /** Sends a message to one node, or to all but the sender. @param sender a relay, or {@link OWN}. */
  send(sender: string, text: string, to?: string, isOrder = false): void {
    const { nodes, push } = this.#engine;
    const host = this.#engine.host();
    if (to === host.node) return host.received(text);
    const relay = to !== undefined && nodes.relayOf(to);
    if (relay) return push({ type: "message", text }, [relay]);
    if (sender !== OWN) host.received(text);
    push({ type: "message", text, isOrder }, this.#allBut(sender));
  }

  /** Sends an order to all nodes but the sender, and stores it until all relays have received it. */
  order(sender: string, text: string): void {
    const { store, host } = this.#engine;
    // Without another relay there is nobody to send it to again.
    if (this.#allBut(sender).length > 0) store.storeOrder({ text, at: host().now(), sender });
    this.send(sender, text, undefined, true);
  }

  /** Sends orders again that relays may not have received before the previous run ended. */
  resendOrders(): void {
    const { store, push } = this.#engine;
    const host = this.#engine.host();
    for (const { item, sender } of store.orders(host.now())) {
      push(item, this.#allBut(sender));
      receiveMessage(host, item);
    }
  }

  #allBut(sender: string): string[] {
    return [...this.#engine.store.relays.keys()].filter((relay) => relay !== sender);
  }
}
