import type { WebSocketClient } from "./websocket-client.ts";

/** The clients whose requests have a handler under way, and how many. */
export class Running {
  readonly #counts = new Map<WebSocketClient, number>();

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
}
