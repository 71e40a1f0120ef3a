import { WebSocketController } from "./controller.ts";
import { describeCopies } from "../base/copies.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketControllerOptions } from "../application/options.ts";

let installed: WebSocketController | undefined;

/**
 * Creates the default controller, which `new WebSocketService()` uses until the controller is closed.
 *
 * @throws {TypeError} for invalid options, or while another default controller is open.
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
 * Returns the default controller. Each copy of the package in a process has its own.
 *
 * @throws {WebSocketError} SERVICE_UNAVAILABLE if none was created, or it is closed.
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
