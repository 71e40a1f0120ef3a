import type { Contract } from "../protocol/contract-types.ts";
import { WebSocketController } from "./controller.ts";
import { describeCopies } from "../base/copies.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketControllerOptions } from "../application/options.ts";

let installed: WebSocketController<unknown> | undefined;

/**
 * Creates the default controller, which `new WebSocketService()` uses until the controller is closed.
 *
 * @throws {TypeError} for invalid options, or while another default controller is open.
 */
export function createWebSocketController<C = Contract>(options: WebSocketControllerOptions<C> = {}): WebSocketController<C> {
  if (installed && !installed.isClosed) {
    throw new TypeError(
      "Cannot create the controller: one is installed already, close() it first or make another with new WebSocketController()",
    );
  }
  const controller = new WebSocketController<C>(options);
  installed = controller;
  return controller;
}

/**
 * Returns the default controller. Each copy of the package in a process has its own.
 *
 * @throws {WebSocketError} SERVICE_UNAVAILABLE if none was created, or it is closed.
 */
export function getWebSocketController<C = Contract>(): WebSocketController<C> {
  // The contract exists in types only; the caller names the one that the controller was created with.
  if (installed && !installed.isClosed) return installed as WebSocketController<C>;
  throw new WebSocketError(
    "server",
    "SERVICE_UNAVAILABLE",
    "Cannot find the controller: call createWebSocketController() first, or pass one to new WebSocketService(controller)" +
      describeCopies(),
  );
}
