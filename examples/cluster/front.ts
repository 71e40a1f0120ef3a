import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as wait } from "node:timers/promises";

/** How often the nodes are asked whether they are ready, in ms. */
const PERIOD = 500;

/** How long they may take to answer, in ms. */
const TIMEOUT = 1_000;

interface Target {
  readonly port: number;
  isReady: boolean;
}

/**
 * What clients connect to: each connection goes to the next node that is ready, as bytes, so that WebSockets need nothing of their own.
 * In production this is a load balancer. One that speaks HTTP adds `X-Forwarded-For`, which the option `clientIp: 1` reads; behind this
 * one all clients have the same address.
 */
export class Front {
  readonly #nodes: readonly Target[];
  readonly #server = createServer({ noDelay: true }, (client) => this.#accept(client));
  readonly #clients = new Set<Socket>();
  /** A page opens some connections for its files before its WebSocket: with one turn for both, that might always get to the same node. */
  readonly #turns = { request: 0, upgrade: 0 };

  /** @param ports of the nodes, on this machine. */
  constructor(ports: readonly number[]) {
    this.#nodes = ports.map((port) => ({ port, isReady: false }));
  }

  /** Listens once all nodes are ready. Returns the port. */
  async listen(port: number, hostname: string): Promise<number> {
    for (;;) {
      await this.#look();
      if (this.#nodes.every(({ isReady }) => isReady)) break;
      await wait(PERIOD / 5);
    }
    setInterval(() => void this.#look(), PERIOD).unref();
    this.#server.listen(port, hostname);
    await once(this.#server, "listening");
    return (this.#server.address() as AddressInfo).port; // It listens on TCP, so this is no pipe's name.
  }

  close(): void {
    this.#server.close();
    for (const client of this.#clients) client.destroy();
  }

  async #look(): Promise<void> {
    await Promise.all(this.#nodes.map(async (node) => {
      const asked = fetch(`http://127.0.0.1:${node.port}/healthz`, { method: "HEAD", signal: AbortSignal.timeout(TIMEOUT) });
      node.isReady = await asked.then(({ ok }) => ok, () => false);
    }));
  }

  #accept(client: Socket): void {
    this.#clients.add(client);
    client.on("close", () => this.#clients.delete(client));
    client.on("error", () => client.destroy());
    client.once("data", (head: Uint8Array) => {
      client.pause();
      client.unshift(head);
      void this.#serve(client, /\r\nupgrade:/i.test(String(head)) ? "upgrade" : "request");
    });
  }

  async #serve(client: Socket, kind: "request" | "upgrade"): Promise<void> {
    const node = await this.#reach(this.#turns[kind]++);
    if (!node) return void client.end("HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\r\n");
    if (client.destroyed) return void node.destroy();
    client.on("close", () => node.destroy());
    // When a node is killed, its clients are told by the end of their connection, after all it has sent.
    node.on("error", () => client.end());
    client.pipe(node).pipe(client);
  }

  /** A connection to the next node. Nothing was sent yet, so another one can be tried; one that is not ready is better than none. */
  async #reach(turn: number): Promise<Socket | undefined> {
    const inTurn = this.#nodes.map((_, index) => this.#nodes[(turn + index) % this.#nodes.length]!); // Within its length.
    for (const { port } of [...inTurn.filter(({ isReady }) => isReady), ...inTurn.filter(({ isReady }) => !isReady)]) {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      try {
        await once(socket, "connect");
        return socket;
      } catch {
        // It is down, and is found to be so before it is asked the next time.
      }
    }
  }
}
