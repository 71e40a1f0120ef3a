import { CloseCode } from "../close.ts";
import { type BunServer, type BunSocket, BunTransport, NO_HANDLER, SOCKET, type SocketData } from "./bun-transport.ts";
import type { Acceptance, Runtime } from "./runtime.ts";

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
    pong: (socket, data) => isOurs(socket) ? socket.data.showedLife() : other.pong?.(socket as never, data as never) as void,
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

/** Bun's own upgrade, or `null` on another runtime. `env` is the server, as Bun passes it, or `{ server }`. */
export function bunRuntime(env: unknown): Runtime | null {
  if (typeof (globalThis as { Bun?: unknown }).Bun === "undefined" || typeof env !== "object" || env === null) return null;
  const server = ("server" in env ? env.server : env) as Partial<BunServer> | undefined;
  if (typeof server?.upgrade !== "function" || typeof server.requestIP !== "function") return null;
  const bun = server as BunServer; // Both methods were just seen to be there.
  return {
    ip: (request) => bun.requestIP(request)?.address ?? null,
    accept(request: Request, acceptance: Acceptance): Response | null {
      const { protocol, headers } = acceptance;
      // Bun echoes the first subprotocol offered, a bearer token among them, unless the header is there; empty is none.
      headers.set("sec-websocket-protocol", protocol ?? "");
      // Bun writes the response itself; what the route returns is not looked at.
      return bun.upgrade(request, { data: new BunTransport(bun, acceptance), headers }) ? new Response(null) : null;
    },
  };
}
