/** A server of `node:http` in the process of the test, on Node and on Deno. */
import { once } from "node:events";
import type { Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { after } from "node:test";
import { until } from "./waiting.ts";

/** By server: the connections that have not told of their end. */
const connections = new WeakMap<Server, Set<Socket>>();

/** Listens, ends with the test, and resolves with the port. */
export async function listen(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  connections.set(server, sockets);
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port; // It listens on TCP.
}

/** Resolves when a server that {@link listen} has started has so many connections open. All listeners know of the end of the others. */
export async function openConnections(server: Server, count: number): Promise<void> {
  const sockets = connections.get(server)!; // It listens.
  await until(() => sockets.size === count, () => ({ open: sockets.size }));
}

/** A TCP client that keeps its side open when the server ends its own. */
export class Stubborn {
  readonly socket: Socket;
  #text = "";
  #wake: () => void = () => {};

  constructor(port: number, ...bytes: string[]) {
    this.socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    this.socket.on("error", () => {}); // "close" follows.
    this.socket.on("data", (data: Buffer) => {
      this.#text += data;
      this.#wake();
    });
    this.socket.on("close", () => this.#wake());
    for (const each of bytes) this.socket.write(each);
  }

  /** Resolves with all that has come once that matches, or the connection is closed. */
  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.#text) && !this.socket.closed) await new Promise<void>((resolve) => this.#wake = resolve);
    return this.#text;
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }
}

/** The bytes of a request. */
export function requestOf(method: string, path: string, headers: Record<string, string>, body = ""): string {
  const lines = Object.entries({ Host: "localhost", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
}

/** The headers of an opening handshake. */
export const OPENING: Record<string, string> = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
};
