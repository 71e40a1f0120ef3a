import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { HOST, UPGRADED } from "../runtimes/runtime.ts";

/** Tracks the TCP connections of a `node:http` server until they become WebSockets, so that idle ones can be ended. */
export class HttpConnections {
  /** The latest response of each connection; `null` before the first. */
  readonly #open = new Map<Socket, ServerResponse | typeof UPGRADING | null>();
  readonly #server: Server;
  #isDraining = false;
  #isStopped = false;

  constructor(server: Server) {
    this.#server = server;
    const open = this.#open;
    function forget(this: Socket) {
      open.delete(this);
    }
    server.on("connection", (socket: Socket) => {
      if (this.#isStopped) return void socket.destroy();
      open.set(socket, null);
      socket.on("close", forget); // `once` would allocate a wrapper for each socket.
    });
    // Prepended: the app's listener may answer at once.
    server.prependListener("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
      if (!open.has(socket)) return; // Already closed.
      // `attachWebSocket` made this response for an upgrade.
      if (HOST in response) return void open.set(socket, UPGRADING);
      open.set(socket, response);
      if (this.#isDraining) this.#endAfter(socket, response);
    });
    server.on(UPGRADED, (socket: Socket) => {
      open.delete(socket);
      socket.off("close", forget);
    });
  }

  /**
   * Ends idle connections at once, and the others after their response. `Server.close` of Node leaves two kinds open: those that
   * have not sent a request, such as a browser's preconnects, and those that keep sending requests.
   */
  drain(): void {
    this.#isDraining = true;
    for (const [socket, response] of this.#open) {
      if (response === UPGRADING) continue;
      if (response && !response.writableFinished) this.#endAfter(socket, response);
      else socket.destroy();
    }
  }

  /**
   * As {@link drain}. Also ends each new connection at once, and after `bodyTimeout` ms those whose request has not arrived
   * whole.
   */
  stop(bodyTimeout: number): void {
    this.#isStopped = true;
    this.drain();
    const timer = setTimeout(() => {
      for (const [socket, response] of this.#open) {
        if (response && response !== UPGRADING && !response.req.complete) socket.destroy();
      }
    }, bodyTimeout);
    timer.unref();
    this.#server.once("close", () => clearTimeout(timer));
  }

  /** Ends all connections at once. */
  destroy(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  #endAfter(socket: Socket, response: ServerResponse): void {
    response.shouldKeepAlive = false; // Sends `Connection: close` unless the head is already sent.
    response.once("close", () => {
      // Not if the client has pipelined another request.
      if (this.#open.get(socket) === response) socket.destroySoon();
    });
  }
}

const UPGRADING = Symbol("upgrading");
