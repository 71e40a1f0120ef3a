import { WebSocketController } from "./controller.ts";
import { describeCopies } from "./copies.ts";
import { WebSocketError } from "./errors.ts";
import type { WebSocketControllerOptions } from "./options.ts";

let installed: WebSocketController | undefined;

/**
 * Makes the controller that `new WebSocketService()` finds, until it is closed.
 *
 * @throws {TypeError} for bad options, and while another one is installed: to replace it in silence is a trap.
 */
export function createWebSocketController(options: WebSocketControllerOptions = {}): WebSocketController {
  if (installed && !installed.isClosed) {
    throw new TypeError(
      "Cannot create the controller: one is installed already, close() it first or make another with new WebSocketController()",
    );
  }
  return installed = new WebSocketController(options);
}

/**
 * The controller that {@link createWebSocketController} made. Each copy of the package in a process has its own.
 *
 * @throws {WebSocketError} SERVICE_UNAVAILABLE when there is none.
 */
export function getWebSocketController(): WebSocketController {
  if (installed && !installed.isClosed) return installed;
  throw new WebSocketError(
    "server",
    "SERVICE_UNAVAILABLE",
    "Cannot find the controller: call createWebSocketController() first, or pass one to new WebSocketService(controller)" +
      describeCopies(),
  );
}
