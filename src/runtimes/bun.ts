import { CloseCode } from "../close.ts";
import { type BunServer, type BunSocket, BunTransport, NO_HANDLER, SOCKET, type SocketData } from "./bun-transport.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "./runtime.ts";

export type { BunSocket, SocketData };

/** The handler object Bun takes beside `fetch`. */
export interface BunWebSocketHandler {
  readonly idleTimeout: number;
  readonly sendPings: boolean;
  readonly backpressureLimit: number;
  open(socket: BunSocket): void;
  message(socket: BunSocket, data: string | Uint8Array): void;
  ping(socket: BunSocket, data: Uint8Array): void;
  pong(socket: BunSocket, data: Uint8Array): void;
  drain?(socket: BunSocket): void;
  close(socket: BunSocket, code: number, reason: string): void;
}

/** The handler object of another library, such as `websocket` of `hono/bun`, or your own. Each knows its own sockets only. */
export interface OtherWebSocketHandler {
  open?(socket: never): void | Promise<void>;
  message?(socket: never, data: never): void | Promise<void>;
  ping?(socket: never, data: never): void | Promise<void>;
  pong?(socket: never, data: never): void | Promise<void>;
  drain?(socket: never): void | Promise<void>;
  close?(socket: never, code: number, reason: string): void | Promise<void>;
}

/** The least time between two lines about sockets of others, in ms. */
const LOG_PERIOD = 1_000;

let loggedAt = -Infinity;

/** Closes a socket that nobody here knows: its client would wait for ever. */
function refuse(socket: BunSocket): void {
  socket.close(CloseCode.INTERNAL_ERROR, NO_HANDLER);
  if (performance.now() - loggedAt < LOG_PERIOD) return;
  loggedAt = performance.now();
  console.error(
    "[noroshi] Closed a socket that another library upgraded: pass that library's handler too, " +
      'Bun.serve({ websocket: websocketWith(itsHandler) }) with websocketWith of "noroshi/bun"',
  );
}

/** For a server that has no other handler. After a reload of the server a socket may be open already. */
const REFUSING: OtherWebSocketHandler = { open: refuse, message: refuse };

/**
 * What Bun calls for each socket: `export default { fetch: app.fetch, websocket }`. One serves any number of controllers. A socket that
 * another library upgraded is closed with 1011, and the log says so: see {@link websocketWith}.
 */
export const websocket: BunWebSocketHandler = createHandler();

/**
 * The handler of a server that has sockets of another library too: each socket goes to the library that upgraded it. Bun has one
 * `idleTimeout` and one `backpressureLimit` for all sockets of a server: both are off, as in {@link websocket}.
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

/** @param other absent: sockets of others are closed. */
function createHandler(other: OtherWebSocketHandler = REFUSING): BunWebSocketHandler {
  // A socket without our mark is one of theirs, which is what `never` stands for.
  return {
    // The heartbeat is the controller's: Bun's own does not find a mute peer that is written to (oven-sh/bun#39255).
    idleTimeout: 0,
    sendPings: false,
    // None: beyond it, 16 MiB by default, Bun drops what is sent and does not tell of what is published. The limit is the controller's.
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

/** Whether this package upgraded it, in whichever copy. Another library keeps what it likes with its sockets. */
function isOurs({ data }: BunSocket): boolean {
  return (data as unknown as Record<symbol, unknown> | null | undefined)?.[SOCKET] === true;
}

/** Bun's own upgrade of a request, or `null` on another runtime. `env` is the server, as Bun passes it, or `{ server, request }`. */
export function bunRuntime(env: unknown, request: Request): Runtime | null {
  if (typeof (globalThis as { Bun?: unknown }).Bun === "undefined" || typeof env !== "object" || env === null) return null;
  const server = ("server" in env ? env.server : env) as Partial<BunServer> | undefined;
  if (typeof server?.upgrade !== "function" || typeof server.requestIP !== "function") return null;
  const bun = server as BunServer; // Both methods were just seen to be there.
  // Middleware may have made a copy of it, as mount() does, which Bun does not upgrade.
  const original = "request" in env && env.request instanceof Request ? env.request : request;
  const ip = addressOf(bun, original);
  const { [HOST]: host } = env as { [HOST]?: Host };
  return {
    ip: () => ip,
    accept(_request: Request, acceptance: Acceptance): Response | string | null {
      const { protocol, headers } = acceptance;
      host?.allowPayload?.(acceptance.maxPayload);
      // Bun echoes the first subprotocol offered, a bearer token among them, unless the header is there; empty is none.
      headers.set("sec-websocket-protocol", protocol ?? "");
      const transport = new BunTransport(bun, acceptance);
      const fault = upgrade(bun, original, transport, headers, ip !== null);
      // Bun writes the response itself; what the route returns is not looked at.
      if (fault === undefined) return new Response(null);
      acceptance.abandoned();
      return fault;
    },
  };
}

const NO_WEBSOCKET =
  'Cannot upgrade: Bun.serve has no WebSocket handler, pass websocket of "noroshi/bun": export default { fetch: app.fetch, websocket }';

const COPIED_REQUEST =
  "Cannot upgrade: Bun upgrades only the Request that it passed to fetch, and this is another one, as app.mount() makes. " +
  "Use app.route(), or fetch: (request, server) => app.fetch(request, { server, request })";

const OTHER_HANDLER =
  'Cannot serve the socket: Bun.serve has another WebSocket handler, pass websocket of "noroshi/bun", or websocketWith(otherHandler)';

/** `undefined` once the socket is open; `null` when nobody waits for it any more; else why it cannot be. */
function upgrade(
  server: BunServer,
  request: Request,
  data: BunTransport,
  headers: Headers,
  isBunsOwn: boolean,
): string | null | undefined {
  try {
    if (!server.upgrade(request, { data, headers })) return isBunsOwn || request.signal.aborted ? null : COPIED_REQUEST;
  } catch (error) {
    // Its two errors differ in their text only: no handler object, and what is no Request to Bun, such as a Proxy of one.
    return String(error).includes("Request object") ? COPIED_REQUEST : NO_WEBSOCKET;
  }
  // Bun calls `open` before upgrade() returns.
  return data.isOpened ? undefined : OTHER_HANDLER;
}

/** `null` for a request that is not Bun's own, one whose client is gone, and over a Unix socket. */
function addressOf(server: BunServer, request: Request): string | null {
  try {
    return server.requestIP(request)?.address ?? null;
  } catch {
    return null; // Bun throws for what is no Request to it; the upgrade says so.
  }
}
