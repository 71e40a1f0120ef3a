import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** A TCP proxy before a server, so that a test decides about the network: it delays, holds back, swallows and cuts. */
export class Proxy {
  readonly port: number;
  /** The server's port. Connections that are open keep theirs. */
  target: number;
  /** ms before what comes is passed on, in both directions. */
  delay = 0;
  /** How many connections there ever were at once. */
  most = 0;
  /** Refuses connections that come in. */
  isDown = false;
  readonly #server: Server;
  /** By the client's half: those of which one half is open. */
  readonly #pairs = new Map<Socket, Socket>();
  /** Of these nothing passes any more; one half outlives the other. */
  readonly #swallowing = new WeakSet<Socket>();
  #isFrozen = false;

  private constructor(target: number, server: Server) {
    this.target = target;
    this.#server = server;
    this.port = (server.address() as { port: number }).port; // Of a TCP server.
  }

  static async open(target: number): Promise<Proxy> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = new Proxy(target, server);
    server.on("connection", (client) => proxy.#join(client));
    return proxy;
  }

  /**
   * From here on nothing passes any more on the connections that are open, and nothing says so.
   *
   * @param ports only on those that come from these.
   */
  blackHole(ports?: ReadonlySet<number>): void {
    for (const client of this.#pairs.keys()) {
      if (!ports || ports.has(client.remotePort ?? 0)) this.#swallowing.add(client);
    }
  }

  /** As a black hole, and what connects is not answered either. */
  freeze(): void {
    this.#isFrozen = true;
    this.blackHole();
  }

  /** What connects from now on gets through. Connections of before stay mute, and the server learns which of them the client has ended. */
  thaw(): void {
    this.#isFrozen = false;
    for (const [client, upstream] of this.#pairs) if (client.destroyed) upstream.destroy();
  }

  /** Ends the connections that are open without a word. */
  cut(): void {
    for (const [client, upstream] of this.#pairs) {
      client.destroy();
      upstream.destroy();
    }
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #join(client: Socket): void {
    client.on("error", () => {}); // Its close follows.
    if (this.isDown) return void client.destroy();
    const upstream = connect(this.target, "127.0.0.1");
    upstream.on("error", () => {});
    this.#pairs.set(client, upstream);
    if (this.#isFrozen) this.#swallowing.add(client);
    this.most = Math.max(this.most, this.#pairs.size);
    for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
      from.on("data", (data) => {
        const pass = () => {
          if (!this.#swallowing.has(client) && !to.destroyed) to.write(data);
        };
        if (this.delay > 0) setTimeout(pass, this.delay);
        else pass();
      });
      from.on("close", () => {
        if (!this.#swallowing.has(client)) to.destroy();
        if (to.destroyed) this.#pairs.delete(client);
      });
    }
  }
}
