import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** A way to a broker that can swallow everything, as a network does that drops packets: neither side is told. */
export class Proxy {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isFrozen = false;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as { port: number }).port; // Of a TCP server.
  }

  static async to(port: number): Promise<Proxy> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = new Proxy(server);
    server.on("connection", (near) => proxy.#join(near, connect(port, "127.0.0.1")));
    return proxy;
  }

  /** From now on nothing arrives at either side; what connects is not answered. */
  freeze(): void {
    this.#isFrozen = true;
  }

  /** What connects from now on gets through. Connections of before stay mute. */
  thaw(): void {
    this.#isFrozen = false;
    for (const socket of this.#sockets) socket.removeAllListeners("data").resume();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  #join(near: Socket, far: Socket): void {
    for (const [from, to] of [[near, far], [far, near]] as const) {
      this.#sockets.add(from);
      from.on("data", (bytes) => {
        if (!this.#isFrozen) to.write(bytes);
      });
      from.on("error", () => {}); // Its close follows.
      from.on("close", () => {
        this.#sockets.delete(from);
        if (!this.#isFrozen) to.destroy();
      });
    }
  }
}
