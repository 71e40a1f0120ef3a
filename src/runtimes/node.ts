import type { EventEmitter } from "node:events";
import * as http from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Hono } from "hono";
import { Connections } from "../connections.ts";
import { logRecord } from "../log.ts";
import { type AttachedApp, endUnread, type FetchApp, isTaken, NodeUpgrade, toRequest } from "./node-upgrade.ts";
import { isRoute, startRoutes } from "./runtime.ts";

export type { FetchApp };

/** An attached app: its connections, and the way to detach it. */
export interface AttachedWebSocket {
  /** Every open connection that came through this server. */
  readonly connections: Connections;
  /** Stops upgrading; open connections live on. */
  detach(): void;
}

/** The part of `http.Server`, and of `https.Server`, that {@link attachWebSocket} uses. */
export type UpgradableServer = Pick<EventEmitter, "on" | "off" | "emit" | "listenerCount">;

/**
 * Lets an `http.Server` carry WebSocket routes: the server that `@hono/node-server`'s `serve` returns, or one of your own.
 *
 * An upgrade runs through the server's own `request` listeners, as the same request without `Upgrade` would, so that what guards the
 * app there guards its WebSocket routes. Middleware runs as for any request, and the headers it sets stand on the 101. Where the
 * listeners are another framework's and answer 404, 405, 426 or 501 — or 2xx on a path that `app` has `controller.upgrade` for — `app`
 * is asked next. Without `app`, only what the listeners reach is upgraded.
 *
 * Only what a WebSocket route handled is upgraded. On a server with other `upgrade` listeners the paths of `app`'s WebSocket routes
 * are its own; every other request is theirs first, and is answered as a plain one when nobody has taken it for a second.
 *
 * @example
 * ```ts
 * const server = serve({ fetch: app.fetch, port: 3000 }); // from @hono/node-server
 * attachWebSocket(server, app);
 * ```
 */
export function attachWebSocket(server: UpgradableServer, app?: FetchApp): AttachedWebSocket {
  const attached: AttachedApp = { app, connections: new Connections() };
  const upgrades = upgradesOf(server);
  upgrades.add(attached);
  if (app) whenListening(server, () => startRoutes(app));
  return { connections: attached.connections, detach: () => upgrades.delete(attached) };
}

function whenListening(server: UpgradableServer & { readonly listening?: boolean }, start: () => void): void {
  if (server.listening) return start();
  const listening = () => {
    server.off("listening", listening);
    start();
  };
  server.on("listening", listening);
}

/** Where a server keeps its {@link Upgrades}. Registered, so that two copies of the package share them. */
const UPGRADES: unique symbol = Symbol.for("noroshi.upgrades") as never; // The cast names a unique symbol, which `for` cannot.

function upgradesOf(server: UpgradableServer & { [UPGRADES]?: Upgrades }): Upgrades {
  return server[UPGRADES] ??= new Upgrades(server);
}

/** How long a socket waits for another `upgrade` listener to take it, in ms. */
const UNCLAIMED_TIMEOUT = 1_000;

/** What asks for a cleartext upgrade to HTTP/2, as Java's HttpClient and `curl --http2` do: no `upgrade` listener can speak that. */
const HTTP2 = "h2c";

/** Decides on each upgrade request of a server, before any other `upgrade` listener sees it. */
class Upgrades {
  readonly #server: UpgradableServer & { shouldUpgradeCallback?: (incoming: IncomingMessage) => boolean };
  readonly #emit: UpgradableServer["emit"];
  readonly #shouldUpgrade: ((incoming: IncomingMessage) => boolean) | undefined;
  /** The newest first: after a hot reload it replaces the one before. */
  #attached: AttachedApp[] = [];

  constructor(server: UpgradableServer) {
    this.#server = server;
    this.#emit = server.emit;
    // Listeners cannot keep an event from each other, and @hono/node-ws answers every upgrade, engine.io ends those that wait a second.
    server.emit = (event, ...args) => {
      // The arguments of node:http's event, and a socket of an HTTP/1 server is a net.Socket.
      if (event === "upgrade" && this.#attached.length > 0) return this.#take(...args as [IncomingMessage, Socket, Buffer]);
      return this.#emit.call(server, event, ...args);
    };
    // Node 24.9 and Deno ask before they take a request from the HTTP parser; Node before that takes all while anybody listens.
    this.#shouldUpgrade = this.#server.shouldUpgradeCallback;
    if (!this.#shouldUpgrade) return;
    const shouldUpgrade = this.#shouldUpgrade;
    this.#server.shouldUpgradeCallback = (incoming) =>
      shouldUpgrade.call(server, incoming) &&
      (this.#attached.length === 0 || isWebSocket(incoming) || !this.#isHttp(incoming));
  }

  add(attached: AttachedApp): void {
    if (this.#attached.length === 0) this.#server.on("upgrade", listen);
    this.#attached = [attached, ...this.#attached];
  }

  delete(attached: AttachedApp): void {
    if (!this.#attached.includes(attached)) return;
    this.#attached = this.#attached.filter((each) => each !== attached);
    if (this.#attached.length === 0) this.#server.off("upgrade", listen);
  }

  get #hasOthers(): boolean {
    return this.#server.listenerCount("upgrade") > 1;
  }

  /** Whether a request that asks for no WebSocket is plain HTTP, whoever else listens. One with a body is no upgrade either. */
  #isHttp(incoming: IncomingMessage): boolean {
    const { headers } = incoming;
    return !this.#hasOthers || tokensOf(headers.upgrade).includes(HTTP2) || Number(headers["content-length"] ?? 0) > 0 ||
      headers["transfer-encoding"] !== undefined;
  }

  #take(incoming: IncomingMessage, socket: Socket, head: Buffer): true {
    // From here to its end: a reset is an `error` that may have no other listener, and would end the process.
    if (!socket.listeners("error").includes(ignore)) socket.on("error", ignore);
    if (socket.destroyed) return true;
    const written = socket.bytesWritten;
    const pass = () => this.#emit.call(this.#server, "upgrade", incoming, socket, head);
    if (!isWebSocket(incoming)) {
      const replay = () => this.#replay(incoming, socket, head);
      if (this.#isHttp(incoming)) replay();
      else {
        pass();
        void later().then(() => isTaken(socket, written) ? endUnread(socket) : replay());
      }
      return true;
    }
    const apps = this.#attached;
    const claiming = ({ app }: AttachedApp) => app !== undefined && hasRoute(app, incoming);
    const upgrade = new NodeUpgrade(incoming, socket, head);
    const run = (unclaimed: Promise<void> | undefined) => {
      if (upgrade.isTaken) return;
      const request = this.#server.listenerCount("request") === 0 ? undefined : (response: ServerResponse) => {
        this.#server.emit("request", incoming, response);
      };
      // A `request` listener that throws would end the process.
      upgrade.run(request, apps, claiming, unclaimed).catch((error) => {
        console.error(logRecord(error));
        socket.destroy();
      });
    };
    if (!this.#hasOthers || apps.some(claiming)) run(undefined);
    else {
      pass();
      const late = later();
      setImmediate(run, late); // Most that await do not wait for I/O: they have taken it by then.
      void late.then(() => endUnread(socket));
    }
    return true;
  }

  /** Has the HTTP parser read the request again, as if it had no `Upgrade`, and the rest of the connection: body, chunks, keep-alive. */
  #replay({ method, url, httpVersion, rawHeaders }: IncomingMessage, socket: Socket, head: Buffer): void {
    const lines = [`${method} ${url} HTTP/${httpVersion}`];
    for (let i = 0; i < rawHeaders.length; i += 2) {
      if (rawHeaders[i]!.toLowerCase() !== "upgrade") lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
    }
    socket.unshift(Buffer.concat([Buffer.from([...lines, "", ""].join("\r\n"), "latin1"), head]));
    // What `http.Server` and `https.Server` have on their connections. Their events would count the socket twice.
    (http as unknown as { _connectionListener(this: unknown, socket: Socket): void })._connectionListener.call(
      this.#server,
      socket,
    ); // Undocumented, of every version.
  }
}

/** Resolves when every other listener has had its time. A socket that waits keeps no process from ending. */
function later(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, UNCLAIMED_TIMEOUT).unref());
}

/** Node emits `upgrade` only while somebody listens; what happens then is decided in `emit`. */
function listen(): void {}

function ignore(): void {}

function isWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && tokensOf(headers.upgrade).includes("websocket");
}

function tokensOf(header: string | undefined): string[] {
  return header ? header.toLowerCase().split(",").map((token) => token.trim()) : [];
}

/** Whether the app has `controller.upgrade` itself as a route at this very path; another handler that calls it cannot be told from any. */
function hasRoute(app: FetchApp & Partial<Pick<Hono, "router" | "getPath">>, incoming: IncomingMessage): boolean {
  const { router, getPath } = app;
  const request = router && getPath && toRequest(incoming);
  if (!request) return false;
  try {
    const [matches] = router.match("GET", getPath(request, { env: { incoming } }));
    return matches.some(([[handler, route]]) => !route.path.endsWith("*") && isRoute(handler));
  } catch {
    return false; // The application's own `getPath` threw: it will in `fetch`, which answers 500.
  }
}
