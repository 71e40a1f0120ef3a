import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** Answers a message that is not handled, if it has to be answered. Returns whether it is not handled. */
type Refuse = (message: WebSocketMessage) => boolean;

/** The clients whose requests have a handler under way, and how many. */
export class Running {
  readonly #counts = new Map<WebSocketClient, number>();
  /** What refuses the messages of a client that is about to be closed. Created by the first one. */
  #refusals: WeakMap<WebSocketClient, Refuse> | undefined;

  /** Number of the client's handlers under way. */
  of(client: WebSocketClient): number {
    return this.#counts.get(client) ?? 0;
  }

  /** A handler has started. Returns a function to call when it has answered. */
  begin(client: WebSocketClient): () => void {
    this.#counts.set(client, (this.#counts.get(client) ?? 0) + 1);
    return () => {
      const count = this.#counts.get(client)! - 1; // Set above.
      if (count > 0) this.#counts.set(client, count);
      else this.#counts.delete(client);
    };
  }

  /** Starts nothing more for the client but what `refuse` does not refuse. */
  stop(client: WebSocketClient, refuse: Refuse): void {
    (this.#refusals ??= new WeakMap()).set(client, refuse);
  }

  /** Whether the message is not handled, because its client was stopped. */
  refuses(client: WebSocketClient, message: WebSocketMessage): boolean {
    return this.#refusals?.get(client)?.(message) ?? false;
  }
}
