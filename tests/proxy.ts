import { connect, createServer, type Socket } from "node:net";

/** A TCP proxy before a server, so that a test decides about the network: it delays, holds back, swallows and cuts. */
export class Proxy {
  readonly port: number;
  /** ms before what comes is passed on, in both directions. */
  delay = 0;
  /** Connections that are open on the client's side. */
  get size(): number {
    return this.#pairs.size;
  }
  /** How many there ever were at once. */
  most = 0;
  /** Refuses connections that come in. */
  isDown = false;
  readonly #pairs: Map<Socket, Socket>;
  readonly #close: () => void;

  private constructor(port: number, pairs: Map<Socket, Socket>, close: () => void) {
    this.port = port;
    this.#pairs = pairs;
    this.#close = close;
  }

  static async open(target: number): Promise<Proxy> {
    const pairs = new Map<Socket, Socket>();
    const swallowing = new WeakSet<Socket>();
    /** Those of a black hole outlive their other half. */
    const all = new Set<Socket>();
    const server = createServer((client) => {
      client.on("error", () => {});
      if (proxy.isDown) return client.destroy();
      const upstream = connect({ port: target, host: "127.0.0.1" });
      upstream.on("error", () => {});
      pairs.set(client, upstream);
      for (const socket of [client, upstream]) all.add(socket.on("close", () => all.delete(socket)));
      proxy.most = Math.max(proxy.most, pairs.size);
      for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
        from.on("data", (data) => {
          const pass = () => {
            if (!swallowing.has(client) && !to.destroyed) to.write(data);
          };
          if (proxy.delay > 0) setTimeout(pass, proxy.delay);
          else pass();
        });
        from.on("close", () => {
          pairs.delete(client);
          if (!swallowing.has(client)) to.destroy();
        });
      }
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("The proxy has no port");
    const proxy = new Proxy(address.port, pairs, () => {
      for (const socket of all) socket.destroy();
      server.close();
    });
    proxy.#swallowing = swallowing;
    return proxy;
  }
  #swallowing = new WeakSet<Socket>();

  /** From here on nothing passes any more on the connections that are open, and nothing says so. */
  blackHole(): void {
    for (const client of this.#pairs.keys()) this.#swallowing.add(client);
  }

  /** Ends the connections that are open without a word. */
  cut(): void {
    for (const [client, upstream] of this.#pairs) {
      client.destroy();
      upstream.destroy();
    }
  }

  close(): void {
    this.blackHole();
    this.#close();
  }
}
