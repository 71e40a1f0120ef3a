import type { IncomingMessage, Server } from "node:http";
import type { AddressInfo } from "node:net";
import { checkMs } from "./clock.ts";
import { CloseCode } from "./close.ts";
import { Connections } from "./connections.ts";
import { guard } from "./guard.ts";
import { HttpConnections } from "./http-connections.ts";
import { logRecord } from "./log.ts";
import { websocket } from "./runtimes/bun.ts";
import { HOST, type Host, startRoutes } from "./runtimes/runtime.ts";
import { closeOnTermination } from "./termination.ts";

/** Anything with Hono's `fetch`. */
export interface ServableApp {
  fetch(request: Request, env?: unknown): Response | Promise<Response>;
}

/** Options of {@link serve}. */
export interface ServeOptions {
  /** The port; `0` takes a free one. @default {3000} */
  port?: number;
  /** The address to listen at. @default {"0.0.0.0"} */
  hostname?: string;
  /** Stops the server when it aborts, as {@link RunningServer.close} does. */
  signal?: AbortSignal;
  /** Called with the address once the server listens; `false` prints nothing. @default prints `Listening on http://…` */
  onListen?: ((server: { url: string; port: number }) => void) | false;
  /** The longest {@link RunningServer.close} waits for clients and requests under way before it ends them, in ms. @default {10_000} */
  drainTimeout?: number;
  /**
   * On SIGINT and SIGTERM closes this server and every other of the process, then exits with 0. A second signal exits at once.
   * @default {true}
   */
  handleSignals?: boolean;
}

/** A server that listens. */
export interface RunningServer {
  /** Where it listens, such as `http://localhost:3000/`. */
  readonly url: string;
  readonly port: number;
  /**
   * Takes no more connections, ends the idle ones, closes the clients of this server with 1001, and resolves when they are gone and the
   * requests under way are answered.
   */
  close(): Promise<void>;
}

/** One runtime's server, listening. */
interface Listening {
  port: number;
  /** Every open WebSocket connection that came through it. */
  connections: Connections;
  /** Stops listening, ends what is idle, and resolves when nothing is under way. */
  stop(): Promise<void>;
  /** Ends what is under way, as far as the runtime can. */
  kill(): void;
}

/**
 * Starts the app on Bun, Deno or Node, its WebSocket routes included. On Deno and Node the packages `ws` and `@hono/node-server`
 * must be installed.
 *
 * @example
 * ```ts
 * const server = await serve(app, { port: 3000 });
 * ```
 */
export async function serve(app: ServableApp, options: ServeOptions = {}): Promise<RunningServer> {
  const { port = 3000, hostname = "0.0.0.0", signal, onListen, drainTimeout = 10_000, handleSignals = true } = options;
  if (drainTimeout !== 0) checkMs('Cannot serve: option "drainTimeout"', drainTimeout);
  const listening = await listener()(app, port, hostname);
  startRoutes(app);

  let forget = () => {};
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => closed ??= drain(listening, drainTimeout).finally(() => forget());
  const log = (error: unknown) => console.error(logRecord(error));
  const onAbort = () => guard(close, log);

  const named = hostname === "0.0.0.0" || hostname === "::" ? "localhost" : hostname;
  const server = {
    url: `http://${named.includes(":") ? `[${named}]` : named}:${listening.port}/`,
    port: listening.port,
    close,
  };
  const keepRunning = closeOnTermination({ handlesSignals: handleSignals, close });
  forget = () => {
    keepRunning();
    signal?.removeEventListener("abort", onAbort);
  };
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) await close();
  if (closed || onListen === false) return server;
  let told: unknown;
  try {
    told = (onListen ?? (({ url }) => console.log(`Listening on ${url}`)))(server);
  } catch (error) {
    await close();
    throw error;
  }
  // It serves by now, and nobody waits for what is asynchronous in it.
  guard(() => told, log);
  return server;
}

async function drain(listening: Listening, timeout: number): Promise<void> {
  const drained = Promise.all([listening.connections.closeAll(CloseCode.GOING_AWAY, "Going away"), listening.stop()]);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, timeout));
  await Promise.race([drained, late]);
  clearTimeout(timer);
  listening.kill();
}

function listener(): (app: ServableApp, port: number, hostname: string) => Promise<Listening> {
  return "Bun" in globalThis ? listenBun : listenNode;
}

/** The longest a connection may take for the head of a request, in ms. Bun cuts it after as long. */
const HEADERS_TIMEOUT = 10_000;

/** How often `node:http` looks for those that take longer, in ms. */
const CHECK_PERIOD = 2_000;

/**
 * `@hono/node-server` and `ws` over `node:http`, on Deno too: its own upgrade cannot merge frames (a burst costs ten times as much),
 * has no way to end a peer that does not answer, and keeps the descriptor of a client that was reset during the handshake for good.
 * What that costs: a plain request takes twice as long there as with `Deno.serve(app.fetch)`.
 */
async function listenNode(app: ServableApp, port: number, hostname: string): Promise<Listening> {
  const [{ createAdaptorServer }, { attachWebSocket }, { once }] = await Promise.all([
    import("@hono/node-server"),
    import("./runtimes/node.ts"),
    import("node:events"),
  ]);
  const isDeno = "Deno" in globalThis;
  const fetch = (request: Request, env: NodeEnv) => app.fetch(request, isDeno ? withRemoteAddr(env) : env);
  const server = createAdaptorServer({
    fetch: (request, env) => fetch(request, env as NodeEnv), // HTTP/1 unless told.
    serverOptions: { headersTimeout: HEADERS_TIMEOUT, connectionsCheckingInterval: CHECK_PERIOD },
  }) as Server; // As above.
  const http = new HttpConnections(server);
  const { connections } = attachWebSocket(server); // The app is what its listener reaches.
  server.listen(port, hostname);
  await once(server, "listening"); // Rejects with the reason when the address is taken.
  const stopAccepting = isDeno ? keepAccepting(server) : () => {};
  return {
    port: (server.address() as AddressInfo).port, // It listens on TCP, so this is no pipe's name.
    connections,
    stop: () =>
      new Promise((resolve) => {
        stopAccepting();
        server.close(() => resolve());
        http.drain();
      }),
    kill: () => http.destroy(),
  };
}

/** What `@hono/node-server` and our upgrade pass beside a request. */
interface NodeEnv {
  readonly incoming: IncomingMessage;
  remoteAddr?: { transport: "tcp"; hostname: string | undefined; port: number | undefined };
}

/** Adds what `Deno.serve` passes: `getConnInfo` of `hono/deno` reads it. */
function withRemoteAddr(env: NodeEnv): NodeEnv {
  const { remoteAddress: hostname, remotePort: port } = env.incoming.socket;
  env.remoteAddr = { transport: "tcp", hostname, port };
  return env;
}

/** ms between two calls that let Deno accept again. */
const ACCEPT_PERIOD = 500;

/**
 * Out of file descriptors Deno 2.9 stops accepting in silence and for good, where Node goes on once there are some. Its handle accepts again
 * when it is told to listen again, which costs less than a microsecond. Returns the way to stop.
 */
function keepAccepting(server: Server): () => void {
  const { _handle: handle } = server as unknown as { _handle?: { listen?(backlog: number): number } }; // Of net.Server, on Deno as on Node.
  const timer = setInterval(() => handle?.listen?.(BACKLOG), ACCEPT_PERIOD);
  timer.unref();
  return () => clearInterval(timer);
}

/** What `listen` takes when it is not told: Node's default. */
const BACKLOG = 511;

/** The part of Bun's server that is used. */
interface BunServer {
  readonly port: number;
  /** With the quiet responses and the half bodies. */
  readonly pendingRequests: number;
  readonly pendingWebSockets: number;
  /** Sets the seconds of silence after which the connection of the request is ended. */
  timeout(request: Request, seconds: number): void;
  reload(options: BunServeOptions): void;
  stop(closeActive: boolean): Promise<void>;
}

interface BunServeOptions {
  port: number;
  hostname: string;
  websocket: typeof websocket & { readonly maxPayloadLength: number };
  fetch(request: Request, server: BunServer): Response | Promise<Response>;
}

/** The longest silence Bun allows on a connection, in seconds. */
const MAX_IDLE_TIME = 255;

/** `maxPayload` of a controller that does not say otherwise. */
const MAX_PAYLOAD = 65_536;

/** ms between two looks for requests under way: Bun does not report the last one. */
const DRAIN_PERIOD = 20;

function listenBun(app: ServableApp, port: number, hostname: string): Promise<Listening> {
  // listener() saw it.
  const { Bun } = globalThis as unknown as { Bun: { serve(options: BunServeOptions): BunServer } };
  const connections = new Connections();
  let maxPayloadLength = MAX_PAYLOAD;
  let isDraining = false;
  // Bun has one limit for all sockets of a server, and keeps that much of an unfinished message of each.
  const allowPayload = (bytes: number) => {
    if (bytes <= maxPayloadLength || isDraining) return;
    maxPayloadLength = bytes;
    server.reload(options());
  };
  const host: Host = { connections, allowPayload };
  const finish = (response: Response) => {
    // Bun ends the connection either way, but does not say so.
    if (isDraining) response.headers.set("connection", "close");
    return response;
  };
  const options = (): BunServeOptions => ({
    port,
    hostname,
    websocket: { ...websocket, maxPayloadLength },
    fetch(request, server) {
      // A connection without a request is ended after 10 s, by Bun's default; a response may be quiet for longer.
      server.timeout(request, MAX_IDLE_TIME);
      // hono/bun finds the server under `server` too.
      const response = app.fetch(request, { server, request, [HOST]: host });
      return response instanceof Promise ? response.then(finish) : finish(response);
    },
  });
  const server = Bun.serve(options());
  return Promise.resolve({
    port: server.port,
    connections,
    async stop() {
      isDraining = true;
      let isStopped = false;
      const stopped = server.stop(false).then(() => isStopped = true);
      // It waits for a connection that has sent half a request as well, which this does not.
      while (!isStopped && server.pendingRequests + server.pendingWebSockets > 0) {
        await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, DRAIN_PERIOD))]);
      }
      await server.stop(true);
    },
    kill: () => void server.stop(true),
  });
}
