import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { HOST } from "./runtimes/runtime.ts";

/** The TCP connections of a `node:http` server, for it to end those that are idle when it stops. */
export class HttpConnections {
  /** With the newest response of each; `null` before the first. */
  readonly #open = new Map<Socket, ServerResponse | typeof UPGRADING | null>();
  #isDraining = false;

  constructor(server: Server) {
    const open = this.#open;
    function forget(this: Socket) {
      open.delete(this);
    }
    server.on("connection", (socket: Socket) => {
      if (this.#isDraining) return void socket.destroy();
      open.set(socket, null);
      socket.once("close", forget);
    });
    // Before the one that answers, which may do so at once.
    server.prependListener("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
      if (!open.has(socket)) return; // It is closed already.
      // An upgrade has the response that `attachWebSocket` made for it: only `destroy` ends its connection from now on.
      if (HOST in response) return void open.set(socket, UPGRADING);
      open.set(socket, response);
      if (this.#isDraining) this.#endAfter(socket, response);
    });
  }

  /**
   * Ends each connection: at once if it has no request under way, else after its response. Node ends neither those that have sent no
   * request yet, such as a browser's preconnected ones, nor those that send one after the other.
   */
  drain(): void {
    this.#isDraining = true;
    for (const [socket, response] of this.#open) {
      if (response === UPGRADING) continue;
      if (response && !response.writableFinished) this.#endAfter(socket, response);
      else socket.destroy();
    }
  }

  /** Ends all of them. */
  destroy(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  #endAfter(socket: Socket, response: ServerResponse): void {
    response.shouldKeepAlive = false; // Says `Connection: close`, if the head is still to be sent.
    response.once("close", () => {
      // Not if the client has pipelined another.
      if (this.#open.get(socket) === response) socket.destroySoon();
    });
  }
}

const UPGRADING = Symbol("upgrading");
