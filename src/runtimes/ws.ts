/** The package `ws`, which is optional: imported when a server is attached, so that an error can say what to install. */
// @ts-types="npm:@types/ws@^8.18.2"
import type { WebSocket, WebSocketServer } from "ws";
import { missingPackage } from "../base/missing-package.ts";

/** The part of `ws` in use. */
export interface Ws {
  readonly WebSocket: typeof WebSocket;
  readonly WebSocketServer: typeof WebSocketServer;
}

/**
 * Imports `ws`.
 *
 * @param action what needs it, and all packages that the action needs, for the error
 * @throws {Error} with the command that installs the packages.
 */
export async function loadWs(action: string, packages: readonly string[]): Promise<Ws> {
  try { // Around the import itself: a bundler that does not find the package then warns, and goes on.
    // @ts-types="npm:@types/ws@^8.18.2"
    const { WebSocket, WebSocketServer }: Ws = await import("ws");
    if (!WebSocketServer) throw new SyntaxError("'ws' is older than 8: it has no WebSocketServer");
    return { WebSocket, WebSocketServer };
  } catch (error) {
    throw missingPackage(action, packages, error);
  }
}
