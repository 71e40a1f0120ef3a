/** The optional package `ws`. It is imported when the first app is attached, so that the error can say what to install. */
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
 * @param action verb for the error message, such as `attach`
 * @param packages all packages that the action needs
 * @throws {Error} with the command that installs the packages.
 */
export async function loadWs(action: string, packages: readonly string[]): Promise<Ws> {
  try { // Within `try`, a bundler that does not find the package only warns.
    // @ts-types="npm:@types/ws@^8.18.2"
    const { WebSocket, WebSocketServer }: Ws = await import("ws");
    if (!WebSocketServer) throw new SyntaxError("'ws' is older than 8: it has no WebSocketServer");
    return { WebSocket, WebSocketServer };
  } catch (error) {
    throw missingPackage(action, packages, error);
  }
}
