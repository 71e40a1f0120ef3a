import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** Returns whether to refuse the message, and replies to it if it needs a reply. */
type Refuse = (message: WebSocketMessage) => boolean;

/** Counts the running handlers of each client, and refuses messages of clients that are about to be closed. */
export class Running {
  readonly #counts = new Map<WebSocketClient, number>();
  /** By client that is about to be closed. Created with the first one. */
  #refusals: WeakMap<WebSocketClient, Refuse> | undefined;

  /** Number of the client's running handlers. */
  of(client: WebSocketClient): number {
    return this.#counts.get(client) ?? 0;
  }

  /** Counts a handler that starts. Returns a function to call when it has answered. */
  begin(client: WebSocketClient): () => void {
    this.#counts.set(client, (this.#counts.get(client) ?? 0) + 1);
    return () => {
      const count = this.#counts.get(client)! - 1; // Set above.
      if (count > 0) this.#counts.set(client, count);
      else this.#counts.delete(client);
    };
  }

  /** From now on handles only those messages of the client that `refuse` accepts. */
  stop(client: WebSocketClient, refuse: Refuse): void {
    (this.#refusals ??= new WeakMap()).set(client, refuse);
  }

  /** Whether to refuse the message, because its client was stopped. */
  refuses(client: WebSocketClient, message: WebSocketMessage): boolean {
    return this.#refusals?.get(client)?.(message) ?? false;
  }
}
