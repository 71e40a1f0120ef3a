import type { EventEmitter } from "node:events";
import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket as NetSocket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import { Connections } from "../connections.ts";
import { attach, FlushingWebSocket } from "./node-transport.ts";
import { type Acceptance, HOST, type Host } from "./runtime.ts";

/** Anything with Hono's `fetch`. */
export interface FetchApp {
  fetch(request: Request, env?: unknown): Response | Promise<Response>;
}

/** An attached app: its connections, and the way to detach it. */
export interface AttachedWebSocket {
  /** Every open connection that came through this server. */
  readonly connections: Connections;
  /** Stops upgrading; open connections live on. */
  detach(): void;
}

/**
 * Lets an `http.Server` carry the app's WebSocket routes, beside whoever answers its plain requests — the server that
 * `@hono/node-server`'s `serve` returns, or one of your own. Middleware runs for the upgrade as for any request, and the
 * headers it sets stand on the 101.
 *
 * @example
 * ```ts
 * const server = serve({ fetch: app.fetch, port: 3000 }); // from @hono/node-server
 * attachWebSocket(server, app);
 * ```
 */
export function attachWebSocket(server: Pick<EventEmitter, "on" | "off" | "listenerCount">, app: FetchApp): AttachedWebSocket {
  const connections = new Connections();
  const onUpgrade = (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    const alone = server.listenerCount("upgrade") === 1;
    upgrade(app, connections, alone, incoming, socket, head).catch(() => {
      // The app's own fetch rejected: Hono's error handler has been asked already, so all that is left is an answer.
      answer(incoming, socket, new Response("Internal Server Error", { status: 500 })).catch(() => socket.destroy());
    });
  };
  server.on("upgrade", onUpgrade);
  return { connections, detach: () => void server.off("upgrade", onUpgrade) };
}

async function upgrade(
  app: FetchApp,
  connections: Connections,
  alone: boolean,
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  // A reset while the app awaits is an `error` that nobody else listens for yet: it would end the process.
  const onError = () => socket.destroy();
  socket.on("error", onError);
  const request = toRequest(incoming);
  if (!request) return await answer(incoming, socket, new Response("Bad Request", { status: 400 }));

  let acceptance: Acceptance | undefined;
  const host: Host = {
    connections,
    runtime: {
      ip: () => incoming.socket.remoteAddress ?? null,
      accept(_request, accepted) {
        acceptance = accepted;
        // The upgrade itself happens below, once middleware has had its say. 101 cannot be made by a Response here.
        return new Response(null);
      },
    },
  };
  const response = await app.fetch(request, { incoming, [HOST]: host });
  if (!acceptance || !response.ok) {
    // Another listener, such as a dev server's, may be waiting for what is not a route of this app.
    if (response.status === 404 && !alone) return void socket.off("error", onError);
    return await answer(incoming, socket, response);
  }
  if (socket.destroyed || !socket.readable) return void socket.destroy();
  const accepted = acceptance;
  const headers = new Headers(accepted.headers);
  for (const [name, value] of response.headers) if (name !== "set-cookie" && name !== "content-type") headers.set(name, value);
  for (const cookie of response.headers.getSetCookie()) headers.append("set-cookie", cookie);
  upgradeHeaders.set(incoming, headers);
  chosenProtocol.set(incoming, accepted.protocol);
  webSocketServer(accepted.maxPayload).handleUpgrade(incoming, socket, head, (ws) => {
    socket.off("error", onError);
    attach(ws as FlushingWebSocket, socket, accepted); // The class that the server was given.
  });
}

// Read by the two callbacks of ws, which are told no more than the request.
const upgradeHeaders = new WeakMap<IncomingMessage, Headers>();
const chosenProtocol = new WeakMap<IncomingMessage, string | null>();

const servers = new Map<number, WebSocketServer>();

/** ws has one limit a server, so controllers with the same limit share one. */
function webSocketServer(maxPayload: number): WebSocketServer {
  let server = servers.get(maxPayload);
  if (server) return server;
  server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload,
    perMessageDeflate: false,
    WebSocket: FlushingWebSocket,
    // ws would answer with the first subprotocol offered, a bearer token among them.
    handleProtocols: (_offered, request) => chosenProtocol.get(request) ?? false,
  });
  server.on("headers", (lines, request) => {
    for (const [name, value] of upgradeHeaders.get(request) ?? []) lines.push(`${name}: ${value}`);
  });
  servers.set(maxPayload, server);
  return server;
}

/** No client and no proxy sends as many headers; Node lets 2,000 through, and Deno has no limit but their bytes. */
const MAX_HEADERS = 256;

/** The request as Hono takes it, or `null` for too many headers, and a target or Host that is no URL. */
function toRequest(incoming: IncomingMessage): Request | null {
  const { url = "/", method = "GET", headers, rawHeaders, socket } = incoming;
  if (rawHeaders.length > 2 * MAX_HEADERS) return null;
  const scheme = "encrypted" in socket ? "https" : "http";
  try {
    const base = `${scheme}://${headers.host ?? "localhost"}`;
    // Put together, not resolved: `//evil.example/` as a reference would name another host than the one that was asked.
    // Only an absolute target (RFC 9112 §3.2.2) replaces the base.
    const target = url.startsWith("/") ? new URL(base + url) : new URL(url, base);
    const request = new Request(target, { method });
    // In place: Deno sorts the headers that a Request is made with, which takes 5 ms for 100 and 190 for 1,000.
    for (let i = 0; i < rawHeaders.length; i += 2) request.headers.append(rawHeaders[i]!, rawHeaders[i + 1]!);
    return request;
  } catch {
    return null; // Answered 400: a target, a Host, a method or a header that the platform's Request does not take.
  }
}

/** Writes a plain response to a socket that asked for an upgrade, and ends it: there is no next request on it. */
async function answer(incoming: IncomingMessage, socket: Duplex, response: Response): Promise<void> {
  if (socket.destroyed) return;
  const outgoing = new ServerResponse(incoming);
  outgoing.shouldKeepAlive = false;
  outgoing.assignSocket(socket as NetSocket); // Typed Duplex, but an HTTP/1 server's socket is a net.Socket.
  outgoing.statusCode = response.status;
  for (const [name, value] of response.headers) if (name !== "set-cookie") outgoing.setHeader(name, value);
  const cookies = response.headers.getSetCookie();
  if (cookies.length > 0) outgoing.setHeader("set-cookie", cookies);
  const body = Buffer.from(await response.arrayBuffer());
  outgoing.setHeader("content-length", body.byteLength);
  outgoing.end(incoming.method === "HEAD" ? undefined : body, () => socket.end());
}
