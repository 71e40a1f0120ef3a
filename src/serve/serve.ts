/**
 * Starts a Hono app with its WebSocket routes on Bun, Deno or Node, and stops it gracefully. A Durable Object starts with
 * `noroshi/cloudflare`.
 *
 * @module
 */
import type { IncomingMessage, Server } from "node:http";
import type { AddressInfo } from "node:net";
import { CloseCode } from "../protocol/close.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { type DrainOptions, type DrainResult, resolveDrain } from "../controller/drain.ts";
import { guard } from "../base/guard.ts";
import { WRITE_OBJECT } from "../controller/upgrade-refusal.ts";
import { HttpConnections } from "./http-connections.ts";
import { listenBun } from "./listen-bun.ts";
import type { Listening, ServableApp } from "./listening.ts";
import { consoleLogger, errorRecord } from "../application/log.ts";
import { isCount, isFunction } from "../application/option-checks.ts";
import { missingPackage } from "../base/missing-package.ts";
import { HOST, type Host, routesOf, startRoutes } from "../runtimes/runtime.ts";
import { loadWs } from "../runtimes/ws.ts";
import { drainOnTermination } from "./termination.ts";

export type { ServableApp };

/** Options of {@link serve}. */
export interface ServeOptions {
  /** Port to listen on; `0` picks a free one. @default {3000} */
  port?: number;
  /** Address to listen on. @default {"0.0.0.0"} */
  hostname?: string;
  /** Closes the server on abort, like {@link RunningServer.close}. */
  signal?: AbortSignal;
  /** Called once the server listens; `false` prints nothing. @default prints `Listening on http://…` */
  onListen?: ((server: { url: string; port: number }) => void) | false;
  /**
   * Options of `controller.drain()`, with times in ms, for SIGINT, SIGTERM and {@link RunningServer.drain}. `timeout` also limits
   * {@link RunningServer.close}.
   *
   * @default {{ window: 0, timeout: 10_000 }}
   */
  drain?: Omit<DrainOptions, "stop">;
  /**
   * Whether SIGINT and SIGTERM drain all servers of the process and then exit: with 0 if every drain was clean, else with 1. A
   * second signal exits at once, with 130 or 143.
   *
   * @default {true}
   */
  handleSignals?: boolean;
}

/** A running server. */
export interface RunningServer {
  /** Address of the server, such as `http://localhost:3000/`. */
  readonly url: string;
  /** Port that the server listens on. */
  readonly port: number;
  /**
   * Stops accepting connections, ends idle ones and closes the server's clients with 1001. Resolves once the clients have
   * disconnected and open requests are answered, or after `drain.timeout`. The controllers stay open.
   */
  close(): Promise<void>;
  /** Drains and ends the server and its controllers as SIGTERM does, but not the process. */
  drain(): Promise<DrainResult>;
}

/**
 * Starts the app with its WebSocket routes on Bun, Deno or Node. Deno and Node need the packages `ws` and `@hono/node-server`.
 *
 * Rejects with a TypeError for an unknown option or a value out of range. Also rejects if the address is taken, if `onListen`
 * throws, in a Worker, and if a package is missing; the message names the command that installs it.
 *
 * @example
 * ```ts
 * const server = await serve(app, { port: 3000 });
 * ```
 */
export async function serve(app: ServableApp, options: ServeOptions = {}): Promise<RunningServer> {
  const { port = 3000, hostname = "0.0.0.0", signal, onListen, handleSignals = true } = options;
  checkServe(options);
  const drainOptions = resolveDrain('Cannot serve: option "drain": ', options.drain ?? {});
  const listening = await listener()(app, port, hostname);
  let forget = () => {};
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => closed ??= closeServer(listening, drainOptions.timeout).finally(() => forget());
  try {
    startRoutes(app);
  } catch (error) {
    await close();
    throw error;
  }
  let drained: Promise<DrainResult> | undefined;
  const drain = (): Promise<DrainResult> => drained ??= drainServer(listening, app, drainOptions).finally(() => forget());
  const log = (error: unknown) => consoleLogger().error(...errorRecord(error));
  const onAbort = () => guard(close, log);

  const named = hostname === "0.0.0.0" || hostname === "::" ? "localhost" : hostname;
  const server = {
    url: `http://${named.includes(":") ? `[${named}]` : named}:${listening.port}/`,
    port: listening.port,
    close,
    drain,
  };
  const unregister = drainOnTermination({ handlesSignals: handleSignals, close: drain });
  forget = () => {
    unregister();
    signal?.removeEventListener("abort", onAbort);
  };
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) await close();
  if (closed || onListen === false) return server;
  let result: unknown;
  try {
    result = (onListen ?? (({ url }) => console.log(`Listening on ${url}`)))(server);
  } catch (error) {
    await close();
    throw error;
  }
  // The server is up already, so a later rejection is logged.
  guard(() => result, log);
  return server;
}

/** For each option its check, and the remedy in the error message. */
const CHECKS: { readonly [Name in keyof ServeOptions]-?: readonly [(value: unknown) => boolean, string] } = {
  port: [(value) => isCount(value) && (value as number) <= 65_535, "a whole number from 0 to 65535, such as 3000"],
  hostname: [(value) => typeof value === "string" && value !== "", 'an address, such as "127.0.0.1"'],
  signal: [(value) => value instanceof EventTarget, "an AbortSignal"],
  onListen: [(value) => value === false || isFunction(value), "a function or false"],
  drain: [() => true, ""], // See `resolveDrain`.
  handleSignals: [(value) => typeof value === "boolean", "true or false"],
};

/** Options under the names that other servers give them. */
const RENAMED: Readonly<Record<string, string>> = { drainTimeout: "drain: { timeout }", host: "hostname" };

/** @throws {TypeError} for an unknown option or a value out of range. */
function checkServe(options: ServeOptions): void {
  for (const [name, value] of Object.entries(options)) {
    const check = Object.hasOwn(CHECKS, name) ? CHECKS[name as keyof ServeOptions] : undefined;
    if (!check && Object.hasOwn(RENAMED, name)) {
      throw new TypeError(`Cannot serve: write "${RENAMED[name]}" in place of "${name}"`);
    }
    if (!check) throw new TypeError(`Cannot serve: unknown option "${name}", use one of ${Object.keys(CHECKS).join(", ")}`);
    if (value !== undefined && !check[0](value)) throw new TypeError(`Cannot serve: option "${name}" must be ${check[1]}`);
  }
}

async function closeServer(listening: Listening, timeout: number): Promise<void> {
  const closing = Promise.all([
    listening.connections.closeAll(CloseCode.GOING_AWAY, "Going away"),
    listening.stop(bodyTimeout(timeout)),
  ]);
  await settledIn(timeout, closing);
  listening.kill();
}

/** Maximum time for the rest of a request's body while the server stops, in ms. */
const BODY_TIMEOUT = 10_000;

/** @param remaining time within which the server should stop, in ms. */
const bodyTimeout = (remaining: number): number => Math.min(BODY_TIMEOUT, remaining / 2);

/** Time for the controllers to end after `timeout`, in ms. */
const LAST_WAIT = 1_000;

/**
 * Drains the controllers. The server stops once the last client has disconnected, and before the engines close: requests in
 * progress may use them.
 */
async function drainServer(
  listening: Listening,
  app: ServableApp,
  options: DrainOptions & { timeout: number },
): Promise<DrainResult> {
  listening.drain();
  const { connections } = listening;
  const end = performance.now() + options.timeout;
  let stopped: Promise<void> | undefined;
  const stop = () => stopped ??= connections.emptied().then(() => listening.stop(bodyTimeout(end - performance.now())));
  const stopping = settledIn(options.timeout, stop().then(() => true));
  stopping.catch(() => {}); // Awaited below, unless a controller has reported it.
  const drained: Promise<DrainResult | undefined>[] = [];
  const drain = (each: object) => {
    const controller = each as Pick<WebSocketController, "close"> & Partial<Pick<WebSocketController, "drain">>; // Of any version.
    const result = controller.drain ? controller.drain({ ...options, stop }) : controller.close().then(() => NOTHING_DRAINED);
    drained.push(settledIn(options.timeout + LAST_WAIT, result));
  };
  for (const { controller } of routesOf(app)) connections.controllers.add(controller);
  for (const controller of [...connections.controllers]) drain(controller);
  // The controller of a handler that calls `upgrade` is unknown until a request reaches the handler.
  connections.onReached = drain;
  let sum = NOTHING_DRAINED;
  for (let at = 0; at < drained.length; at++) sum = sumOf(sum, await drained[at]);
  // The drain of a controller includes this stop. Without a controller, requests in progress are awaited here.
  const isStopped = sum.isClean && await stopping === true;
  listening.kill();
  return { ...sum, isClean: isStopped };
}

/** @param result absent: the drain took too long. */
const sumOf = (sum: DrainResult, result: DrainResult = { closed: 0, cut: 0, isClean: false }): DrainResult => ({
  closed: sum.closed + result.closed,
  cut: sum.cut + result.cut,
  isClean: sum.isClean && result.isClean,
});

const NOTHING_DRAINED: DrainResult = { closed: 0, cut: 0, isClean: true };

/** Resolves as the promise does, but after `ms` with `undefined`. */
async function settledIn<Value>(ms: number, promise: Promise<Value>): Promise<Value | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), ms));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Globals that tell one runtime from another. */
interface Runtimes {
  readonly Bun?: object;
  readonly Deno?: object;
  readonly process?: { readonly versions?: { readonly node?: string } };
  /** Of Workers. */
  readonly WebSocketPair?: object;
}

function listener(): (app: ServableApp, port: number, hostname: string) => Promise<Listening> {
  const { Bun, Deno, process, WebSocketPair } = globalThis as unknown as Runtimes;
  if (Bun) return listenBun;
  // A Worker may have the `process` of Node too.
  if (!WebSocketPair && (Deno || process?.versions?.node)) return listenNode;
  throw new Error(
    `Cannot serve: only Bun, Deno and Node start servers. On Cloudflare the app runs in a Durable Object. ${WRITE_OBJECT}`,
  );
}

/** Maximum time to receive the head of a request, in ms. Bun has the same limit. */
const HEADERS_TIMEOUT = 10_000;

/** How often `node:http` checks {@link HEADERS_TIMEOUT}, in ms. */
const CHECK_PERIOD = 2_000;

/**
 * Serves over `node:http` with `@hono/node-server` and `ws`, on Deno too. Deno's own upgrade cannot merge frames (a burst costs
 * ten times as much), cannot terminate an unresponsive peer, and leaks the descriptor of a client that resets during the
 * handshake. The price: a plain request takes twice as long as with `Deno.serve(app.fetch)`.
 */
async function listenNode(app: ServableApp, port: number, hostname: string): Promise<Listening> {
  const [{ createAdaptorServer }, { attachWebSocket }, { default: { once } }] = await load();
  const isDeno = "Deno" in globalThis;
  const fetch = (request: Request, env: NodeEnv) => app.fetch(request, isDeno ? withRemoteAddr(env) : env);
  const server = createAdaptorServer({
    fetch(request, env) {
      (env as NodeEnv)[HOST] = host; // Without an upgrade too: the server closes the connections of `noroshi/http`.
      return fetch(request, env as NodeEnv);
    },
    serverOptions: { headersTimeout: HEADERS_TIMEOUT, connectionsCheckingInterval: CHECK_PERIOD },
  }) as Server; // HTTP/1 by default.
  const http = new HttpConnections(server);
  const { connections } = attachWebSocket(server); // Upgrades reach the app by the server's own listener.
  const host: Host = { connections };
  server.listen(port, hostname);
  await once(server, "listening"); // Rejects if the address is taken.
  const stopAccepting = isDeno ? keepAccepting(server) : () => {};
  return {
    port: (server.address() as AddressInfo).port, // A TCP server, not a pipe.
    connections,
    drain: () => http.drain(),
    stop: (bodyTimeout) =>
      new Promise((resolve) => {
        stopAccepting();
        server.close(() => resolve());
        http.stop(bodyTimeout);
      }),
    kill() {
      http.destroy();
      for (const { transport } of [...connections]) transport.terminate();
    },
  };
}

/** Packages that a server of `node:http` needs. */
const PACKAGES = ["ws", "@hono/node-server"];

/**
 * Imports what only servers of `node:http` need. Before the server listens, because later its clients may take every file descriptor, and
 * Node 20 and Deno cache an import that fails.
 */
async function load() {
  try { // As in `loadWs`.
    return await Promise.all([
      import("@hono/node-server"),
      import("../runtimes/node.ts"),
      import("node:events"),
      // For `attachWebSocket`.
      loadWs("serve", PACKAGES),
      import("../runtimes/node-upgrade.ts"),
    ]);
  } catch (error) {
    throw missingPackage("serve", PACKAGES, error);
  }
}

/** The `env` that `@hono/node-server` and our upgrade pass with a request. */
interface NodeEnv {
  readonly incoming: IncomingMessage;
  [HOST]?: Host;
  remoteAddr?: { transport: "tcp"; hostname: string | undefined; port: number | undefined };
}

/** Adds the `remoteAddr` of `Deno.serve`, which `getConnInfo` of `hono/deno` reads. */
function withRemoteAddr(env: NodeEnv): NodeEnv {
  const { remoteAddress: hostname, remotePort: port } = env.incoming.socket;
  env.remoteAddr = { transport: "tcp", hostname, port };
  return env;
}

/** How often Deno's listener is re-armed, in ms. */
const ACCEPT_PERIOD = 500;

/**
 * Deno 2.9 silently stops accepting for good when it runs out of file descriptors; Node resumes once some are free. Calling
 * `listen` on the handle again resumes Deno, and costs less than 1 µs. Returns a function that stops this.
 */
function keepAccepting(server: Server): () => void {
  const { _handle: handle } = server as unknown as { _handle?: { listen?(backlog: number): number } }; // Of net.Server.
  const timer = setInterval(() => handle?.listen?.(BACKLOG), ACCEPT_PERIOD);
  timer.unref();
  return () => clearInterval(timer);
}

/** Node's default backlog. */
const BACKLOG = 511;
