/** A server of `node:http` in the process of the test, on Node and on Deno. */
import { once } from "node:events";
import type { Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { after } from "node:test";
import { until } from "./waiting.ts";

/** Listens, ends with the test, and resolves with the port. */
export async function listen(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port; // It listens on TCP.
}

/** Resolves when the server has so many connections open. */
export async function openConnections(server: Server, count: number): Promise<void> {
  const open = () => new Promise<number>((resolve) => server.getConnections((_error, open) => resolve(open)));
  let last = 0;
  await until(async () => (last = await open()) === count, () => ({ open: last }));
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
