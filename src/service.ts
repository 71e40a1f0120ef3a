import type { Listener } from "./bus.ts";
import type { WebSocketController } from "./controller.ts";
import { getWebSocketController } from "./default-controller.ts";
import type { BroadcastFilter } from "./broadcast.ts";
import type { WebSocketEvents } from "./events.ts";
import type { WebSocketMessage } from "./protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/**
 * What an application uses: listen, broadcast, see who is there. A thin facade, the same on every runtime.
 *
 * @example
 * ```ts
 * const service = new WebSocketService();
 * service.on("message", ({ client, message }) => client.send({ type: "echo", message }));
 * service.broadcast({ type: "news", text: "Hello" }, { role: "editor" });
 * ```
 */
export class WebSocketService {
  readonly #controller: WebSocketController;

  /**
   * Speaks for a controller.
   *
   * @param controller @default the one made by `createWebSocketController()`
   * @throws {WebSocketError} SERVICE_UNAVAILABLE when none is passed and none was made.
   */
  constructor(controller: WebSocketController = getWebSocketController()) {
    this.#controller = controller;
  }

  /** Calls back at each such event: see {@link WebSocketController.on}. */
  on<Event extends keyof WebSocketEvents>(event: Event, callback: Listener<WebSocketEvents[Event]>): void {
    this.#controller.on(event, callback);
  }

  /** Removes this one callback: see {@link WebSocketController.off}. */
  off<Event extends keyof WebSocketEvents>(event: Event, callback: Listener<WebSocketEvents[Event]>): void {
    this.#controller.off(event, callback);
  }

  /** Sends to every client, or to those the filter matches: see {@link WebSocketController.broadcast}. */
  broadcast(message: string | WebSocketMessage, filter?: BroadcastFilter): void {
    void this.#controller.broadcast(message, filter);
  }

  /** The clients of this node: see {@link WebSocketController.clients}. */
  clients(): Set<WebSocketClient> {
    return this.#controller.clients();
  }
}
