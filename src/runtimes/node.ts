/**
 * WebSocket routes on a server of `node:http` or `node:https`. Needs the package `ws`: `npm install ws`, or `deno add npm:ws`.
 *
 * @module
 */
import type { EventEmitter } from "node:events";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { Connections } from "../connection/connections.ts";
import { consoleLogger, errorRecord } from "../application/log.ts";
import type { FetchApp } from "./node-request.ts";
import type { AttachedApp, NodeUpgrade } from "./node-upgrade.ts";
import { startRoutes, UPGRADED } from "./runtime.ts";
import { loadWs, type Ws } from "./ws.ts";

export type { FetchApp };

/** An app attached to a server. */
export interface AttachedWebSocket {
  /**
   * Open connections that came through this server.
   *
   * @internal
   */
  readonly connections: Connections;
  /** Stops accepting upgrades. Open connections stay open. */
  detach(): void;
}

/** The part of `http.Server` and `https.Server` that {@link attachWebSocket} uses. */
export type UpgradableServer = Pick<EventEmitter, "on" | "off" | "emit" | "listenerCount">;

/**
 * Adds WebSocket routes to an `http.Server`: the server that `serve` of `@hono/node-server` returns, or your own.
 *
 * An upgrade passes through the server's own `request` listeners, like the same request without `Upgrade`. So middleware runs as
 * for any request, protects the WebSocket routes, and its headers are set on the 101. `app` is tried next if the listeners belong
 * to another framework: they answer 404, 405, 426 or 501, or they answer 2xx on a path where `app` has `controller.upgrade`, or
 * may have it because `app` is a bare `{ fetch }`. Without `app`, only routes behind the listeners are upgraded.
 *
 * On a server with other `upgrade` listeners, `app` receives upgrades of its WebSocket routes. Any other upgrade goes to those
 * listeners first. If none takes it within a second, it is answered like a plain request. Pass the Hono app rather than `{ fetch
 * }` if you can: its routes can be read without calling it.
 *
 * The package `ws` is loaded when the first app is attached. If it is missing, the process ends with an unhandled rejection that
 * names the command to install it.
 *
 * @throws {TypeError} when `server` is not a server of `node:http` or `node:https`.
 *
 * @example
 * ```ts
 * const server = serve({ fetch: app.fetch, port: 3000 }); // from @hono/node-server
 * attachWebSocket(server, app);
 * ```
 */
export function attachWebSocket(server: UpgradableServer, app?: FetchApp): AttachedWebSocket {
  const { emit } = Object(server) as Partial<UpgradableServer>; // Plain JavaScript may pass anything.
  if (typeof emit !== "function") throw new TypeError(`Cannot attach: ${NO_SERVER}`);
  const attached: AttachedApp = { app, connections: new Connections() };
  const upgrades = upgradesOf(server);
  upgrades.add(attached);
  if (app) whenListening(server, () => startRoutes(app));
  return { connections: attached.connections, detach: () => upgrades.delete(attached) };
}

const NO_SERVER =
  "the first argument is not a server of node:http. Pass what createServer, or serve of @hono/node-server, returns. " +
  'Bun.serve takes websocket of "noroshi/bun" instead, and Deno.serve needs neither';

function whenListening(server: UpgradableServer & { readonly listening?: boolean }, start: () => void): void {
  if (server.listening) return start();
  const listening = () => {
    server.off("listening", listening);
    start();
  };
  server.on("listening", listening);
}

/** Property of a server with its {@link Upgrades}. `Symbol.for`, so that all copies of the package share it. */
const UPGRADES: unique symbol = Symbol.for("noroshi.upgrades") as never; // `Symbol.for` returns a plain symbol.

function upgradesOf(server: UpgradableServer & { [UPGRADES]?: Upgrades }): Upgrades {
  return server[UPGRADES] ??= new Upgrades(server);
}

/** Time for another `upgrade` listener to take a socket, in ms. */
const UNCLAIMED_TIMEOUT = 1_000;

/** Token of a cleartext upgrade to HTTP/2, which Java's HttpClient and `curl --http2` send. No `upgrade` listener supports it. */
const HTTP2 = "h2c";

/** Arguments of the `upgrade` event. The socket of an HTTP/1 server is a net.Socket. */
type UpgradeArguments = [incoming: IncomingMessage, socket: Socket, head: Buffer];

/** Modules that only a server of `node:http` needs. */
type LoadedNode = typeof import("./node-upgrade.ts") & { readonly ws: Ws };

/** Handles each upgrade request of a server before any other `upgrade` listener. */
class Upgrades {
  /** Loaded with the first app, so that a missing package is an error that says what to install. */
  #node: LoadedNode | undefined;
  readonly #loading: Promise<void>;
  readonly #server: UpgradableServer & { shouldUpgradeCallback?: (incoming: IncomingMessage) => boolean };
  readonly #emit: UpgradableServer["emit"];
  readonly #shouldUpgrade: ((incoming: IncomingMessage) => boolean) | undefined;
  /** Newest first, because after a hot reload the new app must win. */
  #attached: AttachedApp[] = [];

  constructor(server: UpgradableServer) {
    this.#server = server;
    this.#emit = server.emit;
    this.#loading = this.#load();
    // Wraps `emit`, because a listener cannot hide an event from others: @hono/node-ws answers every upgrade, and engine.io ends
    // each after a second.
    server.emit = (event, ...args) => {
      if (event !== "upgrade" || this.#attached.length === 0) return this.#emit.call(server, event, ...args);
      this.#handleUpgrade(...args as UpgradeArguments); // The event's arguments in node:http.
      return true;
    };
    // Node 24.9 and Deno ask this whether to take a request from the HTTP parser. Earlier versions of Node do so with every
    // upgrade while there is a listener.
    this.#shouldUpgrade = this.#server.shouldUpgradeCallback;
    if (!this.#shouldUpgrade) return;
    const shouldUpgrade = this.#shouldUpgrade;
    this.#server.shouldUpgradeCallback = (incoming) =>
      shouldUpgrade.call(server, incoming) &&
      (this.#attached.length === 0 || isWebSocket(incoming) || !this.#isHttp(incoming));
  }

  async #load(): Promise<void> {
    const ws = await loadWs("attach", ["ws"]);
    this.#node = { ...await import("./node-upgrade.ts"), ws };
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

  /** Whether an upgrade to another protocol is treated as plain HTTP: without other listeners, for h2c, and with a body. */
  #isHttp(incoming: IncomingMessage): boolean {
    const { headers } = incoming;
    return !this.#hasOthers || tokensOf(headers.upgrade).includes(HTTP2) || Number(headers["content-length"] ?? 0) > 0 ||
      headers["transfer-encoding"] !== undefined;
  }

  readonly #opened = (socket: Socket): void => {
    socket.off("error", ignore); // ws has its own listener. A second one takes 64 bytes.
    this.#emit.call(this.#server, UPGRADED, socket);
  };

  #handleUpgrade(incoming: IncomingMessage, socket: Socket, head: Buffer): void {
    // Until the socket is a WebSocket: a reset emits `error`, which without a listener ends the process.
    if (socket.listenerCount("error", ignore) === 0) socket.on("error", ignore);
    if (socket.destroyed) return;
    if (!this.#node) {
      // The request waits: nothing reads the socket meanwhile.
      this.#loading.then(() => void this.#server.emit("upgrade", incoming, socket, head), (error) => fail(socket, error));
    } else if (isWebSocket(incoming)) this.#upgrade(this.#node, incoming, socket, head);
    else this.#handleOther(this.#node, incoming, socket, head);
  }

  /** Handles an upgrade to a WebSocket. */
  #upgrade({ endUnread, NodeUpgrade, ws }: LoadedNode, incoming: IncomingMessage, socket: Socket, head: Buffer): void {
    const apps = this.#attached;
    const upgrade = new NodeUpgrade(ws, this.#opened, incoming, socket, head);
    if (!this.#hasOthers || apps.some((each) => upgrade.isClaimedBy(each))) return this.#run(upgrade, socket, apps);
    this.#emit.call(this.#server, "upgrade", incoming, socket, head);
    const late = afterOtherListeners();
    setImmediate(() => {
      if (!upgrade.isTaken) this.#run(upgrade, socket, apps, late); // By then most async listeners, which need no I/O, have taken the socket.
    });
    void late.then(() => endUnread(socket));
  }

  #run(upgrade: NodeUpgrade, socket: Socket, apps: readonly AttachedApp[], unclaimed?: Promise<void>): void {
    // A `request` listener that throws would end the process.
    try {
      upgrade.run(this.#server, apps, unclaimed)?.catch((error) => fail(socket, error));
    } catch (error) {
      fail(socket, error);
    }
  }

  /** Handles an upgrade to another protocol, which another listener may take. */
  #handleOther({ endUnread, isTaken, replay }: LoadedNode, ...args: UpgradeArguments): void {
    if (this.#isHttp(args[0])) return replay(this.#server, ...args);
    const [, socket] = args;
    const written = socket.bytesWritten;
    this.#emit.call(this.#server, "upgrade", ...args);
    void afterOtherListeners().then(() => isTaken(socket, written) ? endUnread(socket) : replay(this.#server, ...args));
  }
}

function fail(socket: Socket, error: unknown): void {
  consoleLogger().error(...errorRecord(error));
  socket.destroy();
}

/** Resolves after {@link UNCLAIMED_TIMEOUT}. The timer does not keep the process alive. */
function afterOtherListeners(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, UNCLAIMED_TIMEOUT).unref());
}

/** Makes Node emit `upgrade`, which it does only for a listener. The wrapped `emit` does the work. */
function listen(): void {}

function ignore(): void {}

function isWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && (headers.upgrade === "websocket" || tokensOf(headers.upgrade).includes("websocket"));
}

function tokensOf(header: string | undefined): string[] {
  return header ? header.toLowerCase().split(",").map((token) => token.trim()) : [];
}
