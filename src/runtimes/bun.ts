/**
 * WebSocket routes on Bun: the handler that `Bun.serve` needs beside `fetch`.
 *
 * @module
 */
import { CloseCode } from "../protocol/close.ts";
import { consoleLogger } from "../application/log.ts";
import { type BunServer, type BunSocket, BunTransport, NO_HANDLER, SOCKET, type SocketData } from "./bun-transport.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "./runtime.ts";

export type { BunSocket, SocketData };

/** The `websocket` handler of `Bun.serve`. */
export interface BunWebSocketHandler {
  /** Bun's idle timeout, in s; `0`: off, because the controller has its own heartbeat. */
  readonly idleTimeout: number;
  /** Whether Bun pings by itself. */
  readonly sendPings: boolean;
  /** Maximum number of bytes that Bun buffers for a socket; `0`: no limit. */
  readonly backpressureLimit: number;
  /** A socket opened. */
  open(socket: BunSocket): void;
  /** A message arrived. */
  message(socket: BunSocket, data: string | Uint8Array): void;
  /** A ping frame arrived. */
  ping(socket: BunSocket, data: Uint8Array): void;
  /** A pong frame arrived. */
  pong(socket: BunSocket, data: Uint8Array): void;
  /** The socket can be written to again. */
  drain?(socket: BunSocket): void;
  /** A socket closed. */
  close(socket: BunSocket, code: number, reason: string): void;
}

/** The handler of another library, such as `websocket` of `hono/bun`, or your own. It serves only its own sockets. */
export interface OtherWebSocketHandler {
  /** A socket opened. */
  open?(socket: never): void | Promise<void>;
  /** A message arrived. */
  message?(socket: never, data: never): void | Promise<void>;
  /** A ping frame arrived. */
  ping?(socket: never, data: never): void | Promise<void>;
  /** A pong frame arrived. */
  pong?(socket: never, data: never): void | Promise<void>;
  /** The socket can be written to again. */
  drain?(socket: never): void | Promise<void>;
  /** A socket closed. */
  close?(socket: never, code: number, reason: string): void | Promise<void>;
}

/** Minimum time between two log lines about sockets of other libraries, in ms. */
const LOG_PERIOD = 1_000;

let loggedAt = -Infinity;

/** Closes a socket that has no handler: its client would wait forever. */
function refuse(socket: BunSocket): void {
  socket.close(CloseCode.INTERNAL_ERROR, NO_HANDLER);
  if (performance.now() - loggedAt < LOG_PERIOD) return;
  loggedAt = performance.now();
  consoleLogger().warn(
    { event: "noroshi.socket.unhandled" },
    "Closed a socket that another library upgraded: pass that library's handler too, " +
      'Bun.serve({ websocket: websocketWith(itsHandler) }) with websocketWith of "noroshi/bun"',
  );
}

/** The default for sockets of other libraries. It handles `message` too, because sockets stay open across a server reload. */
const REFUSING: OtherWebSocketHandler = { open: refuse, message: refuse };

/**
 * The handler for `Bun.serve`: `export default { fetch: app.fetch, websocket }`. One handler serves any number of controllers.
 *
 * Sockets that another library upgraded are closed with 1011, which is logged. See {@link websocketWith}.
 */
export const websocket: BunWebSocketHandler = createHandler();

/**
 * Creates a handler for a server that also has sockets of another library. Each socket is handled by the library that upgraded
 * it.
 *
 * Bun has one `idleTimeout` and one `backpressureLimit` for all sockets of a server. Both are off here, as in {@link websocket}.
 *
 * @example
 * ```ts
 * import { websocket } from "hono/bun";
 * import { websocketWith } from "noroshi/bun";
 *
 * export default { fetch: app.fetch, websocket: websocketWith(websocket) };
 * ```
 */
export function websocketWith(other: OtherWebSocketHandler): BunWebSocketHandler {
  return createHandler(other);
}

/** @param other Absent: sockets of other libraries are closed. */
function createHandler(other: OtherWebSocketHandler = REFUSING): BunWebSocketHandler {
  // A socket without our mark belongs to `other`, which makes the `never` casts true.
  return {
    // Off: Bun's does not detect a silent peer that is written to (oven-sh/bun#39255).
    idleTimeout: 0,
    sendPings: false,
    // Off: beyond the limit Bun drops frames, and does not report dropped publications. The controller has its own limit.
    backpressureLimit: 0,
    open: (socket) => isOurs(socket) ? socket.data.opened(socket) : other.open?.(socket as never) as void,
    message: (socket, data) =>
      isOurs(socket) ? socket.data.received(data) : other.message?.(socket as never, data as never) as void,
    ping: (socket, data) => isOurs(socket) ? socket.data.showedLife() : other.ping?.(socket as never, data as never) as void,
    pong: (socket, data) => isOurs(socket) ? socket.data.showedLife(data) : other.pong?.(socket as never, data as never) as void,
    ...(other.drain && { drain: (socket: BunSocket) => isOurs(socket) ? undefined : other.drain?.(socket as never) as void }),
    close(socket, code, reason) {
      if (isOurs(socket)) socket.data.ended(code, reason);
      else return other.close?.(socket as never, code, reason) as void;
    },
  };
}

/** Whether any copy of this package upgraded the socket. Other libraries may store any value as `data`. */
function isOurs({ data }: BunSocket): boolean {
  return (data as unknown as Record<symbol, unknown> | null | undefined)?.[SOCKET] === true;
}

/**
 * Bun's own upgrade of a request; `null` on other runtimes. `env` is Bun's server, or `{ server, request }`.
 *
 * @internal
 */
export function bunRuntime(env: unknown, request: Request): Runtime | null {
  if (typeof (globalThis as { Bun?: unknown }).Bun === "undefined" || typeof env !== "object" || env === null) return null;
  const server = ("server" in env ? env.server : env) as Partial<BunServer> | undefined;
  if (typeof server?.upgrade !== "function" || typeof server.requestIP !== "function") return null;
  const bun = server as BunServer; // Both methods were checked above.
  // Bun upgrades only its own Request. Middleware such as mount() passes a copy.
  const original = "request" in env && env.request instanceof Request ? env.request : request;
  const ip = addressOf(bun, original);
  const { [HOST]: host } = env as { [HOST]?: Host };
  return {
    ip: () => ip,
    accept(_request: Request, acceptance: Acceptance): Response | string | null {
      host?.allowPayload?.(acceptance.maxPayload);
      const transport = new BunTransport(bun, acceptance);
      const fault = upgrade(bun, original, transport, headersOf(original, acceptance), ip !== null);
      // Bun writes the response itself and ignores the returned one.
      if (fault === undefined) return new Response(null);
      acceptance.abandoned();
      return fault;
    },
  };
}

/**
 * Headers of the 101. Without the subprotocol's Bun echoes the first one offered, which may be a bearer token. Empty means none.
 */
function headersOf(request: Request, { protocol, headers }: Acceptance): Headers | undefined {
  if (!headers && !request.headers.has("sec-websocket-protocol")) return undefined;
  const all = headers ?? new Headers();
  all.set("sec-websocket-protocol", protocol ?? "");
  return all;
}

const NO_WEBSOCKET =
  'Cannot upgrade: Bun.serve has no WebSocket handler, pass websocket of "noroshi/bun": export default { fetch: app.fetch, websocket }';

const COPIED_REQUEST =
  "Cannot upgrade: Bun upgrades only the Request that it passed to fetch, and this is another one, as app.mount() makes. " +
  "Use app.route(), or fetch: (request, server) => app.fetch(request, { server, request })";

const OTHER_HANDLER =
  'Cannot serve the socket: Bun.serve has another WebSocket handler, pass websocket of "noroshi/bun", or websocketWith(otherHandler)';

/** `undefined` once the socket is open; `null` if the client has disconnected; otherwise the reason of the failure. */
function upgrade(
  server: BunServer,
  request: Request,
  data: BunTransport,
  headers: Headers | undefined,
  isBunsOwn: boolean,
): string | null | undefined {
  try {
    if (!server.upgrade(request, headers ? { data, headers } : { data })) {
      return isBunsOwn || request.signal.aborted ? null : COPIED_REQUEST;
    }
  } catch (error) {
    // Bun's two errors differ only in their text: no handler, or not a Request of Bun, such as a Proxy.
    return String(error).includes("Request object") ? COPIED_REQUEST : NO_WEBSOCKET;
  }
  // Bun calls `open` before upgrade() returns.
  return data.isOpened ? undefined : OTHER_HANDLER;
}

/** The client's address; `null` for a copied request, for a disconnected client, and on a Unix socket. */
function addressOf(server: BunServer, request: Request): string | null {
  try {
    return server.requestIP(request)?.address ?? null;
  } catch {
    return null; // Bun throws for a copied request. The upgrade reports it.
  }
}
