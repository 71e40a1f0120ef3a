import type { Listener } from "../base/bus.ts";
import type { Contract, MessageFrom } from "../protocol/contract-types.ts";
import type { WebSocketController } from "./controller.ts";
import { getWebSocketController } from "./default-controller.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import type { WebSocketEvents } from "../application/events.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/**
 * The facade an application uses to listen, broadcast and list clients, the same on every runtime.
 *
 * @example
 * ```ts
 * const service = new WebSocketService();
 * service.on("message", ({ client, message }) => client.send({ type: "echo", message }));
 * service.broadcast({ type: "news", text: "Hello" }, { role: "editor" });
 * ```
 */
export class WebSocketService<C = Contract> {
  readonly #controller: WebSocketController<C>;

  /**
   * Wraps a controller.
   *
   * @param controller @default the one created by `createWebSocketController()`
   * @throws {WebSocketError} SERVICE_UNAVAILABLE if none is passed and none was created.
   */
  constructor(controller: WebSocketController<C> = getWebSocketController<C>()) {
    this.#controller = controller;
  }

  /** Adds an event listener: see {@link WebSocketController.on}. */
  on<Event extends keyof WebSocketEvents>(event: Event, callback: Listener<WebSocketEvents<C>[Event]>): void {
    this.#controller.on(event, callback);
  }

  /** Removes an event listener: see {@link WebSocketController.off}. */
  off<Event extends keyof WebSocketEvents>(event: Event, callback: Listener<WebSocketEvents<C>[Event]>): void {
    this.#controller.off(event, callback);
  }

  /** Sends a message to every client, or to those that the filter matches: see {@link WebSocketController.broadcast}. */
  broadcast(message: string | MessageFrom<C>, filter?: BroadcastFilter): void {
    void this.#controller.broadcast(message, filter);
  }

  /** The clients of this node: see {@link WebSocketController.clients}. */
  clients(): Set<WebSocketClient<C>> {
    return this.#controller.clients();
  }
}
