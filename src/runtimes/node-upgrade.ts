/** One GET for a WebSocket on a `node:http` server: finds the listener or app that answers it, and carries out the handshake. */
import type { EventEmitter } from "node:events";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
// @ts-types="npm:@types/ws@^8.18.2"
import type { WebSocketServer } from "ws";
import type { Connections } from "../connection/connections.ts";
import { ACCEPTED, HeldResponse, linger, Pass } from "./node-pass.ts";
import { attach, linked, type LinkedWebSocket } from "./node-transport.ts";
import { type FetchApp, hasRoute, toRequest } from "./node-request.ts";
import { HOST } from "./runtime.ts";
import type { Ws } from "./ws.ts";

// Not imported, so that a bundle for a Worker starts without the modules.
// deno-lint-ignore no-process-global -- as above
const [http, { pipeline, Readable }] = [process.getBuiltinModule("node:http"), process.getBuiltinModule("node:stream")];

/** An app attached to a server. Without `app`, the server's `request` listeners reach the routes. */
export interface AttachedApp {
  readonly app: FetchApp | undefined;
  readonly connections: Connections;
}

/**
 * Maximum number of headers. Clients and proxies send fewer. Node allows 2,000. Deno limits only their bytes, and sorts 1,000
 * headers of a Request in 190 ms.
 */
const MAX_HEADERS = 256;

/** Statuses of listeners without a route for the request. The attached app is tried next. Any other status is the response. */
const NO_ROUTE: ReadonlySet<number> = new Set([404, 405, 426, 501]);

/** The upgrade of one GET request. Its socket must have an `error` listener. */
export class NodeUpgrade {
  readonly #ws: Ws;
  readonly #opened: (socket: Socket) => void;
  readonly #incoming: IncomingMessage;
  readonly #socket: Socket;
  readonly #head: Buffer;
  readonly #url: string | undefined;
  readonly #written: number;
  #pass: Pass | undefined;
  #held: HeldResponse | undefined;
  #onClose: (() => void) | undefined;

  /** @param opened called when the socket has become a WebSocket. */
  constructor(ws: Ws, opened: (socket: Socket) => void, incoming: IncomingMessage, socket: Socket, head: Buffer) {
    this.#ws = ws;
    this.#opened = opened;
    this.#incoming = incoming;
    this.#socket = socket;
    this.#head = head;
    this.#url = incoming.url;
    this.#written = socket.bytesWritten;
  }

  /** Whether the app has a WebSocket route at this path. */
  isClaimedBy({ app }: AttachedApp): boolean {
    return app !== undefined && hasRoute(app, this.#incoming);
  }

  /** Whether another listener reads or writes the socket, or the socket is closed. */
  get isTaken(): boolean {
    return isTaken(this.#socket, this.#written);
  }

  /**
   * Passes the request through the server's own `request` listeners, like any GET, so that middleware of the app also protects
   * its WebSocket routes. The attached apps are tried only if the listeners have no such route.
   *
   * @param unclaimed resolves when the time for other `upgrade` listeners is over. Requests that reached no upgrade route wait
   * for it.
   * @returns `undefined` if a listener accepted the upgrade synchronously, which is the common case.
   */
  run(
    server: Pick<EventEmitter, "emit" | "listenerCount">,
    apps: readonly AttachedApp[],
    unclaimed: Promise<void> | undefined,
  ): Promise<void> | undefined {
    if (this.#incoming.rawHeaders.length > 2 * MAX_HEADERS) {
      return this.#refuseHeaders(apps.some((each) => this.isClaimedBy(each)) ? undefined : unclaimed);
    }
    const first = apps.length > 1 ? apps.find((each) => this.isClaimedBy(each)) ?? apps[0] : apps[0];
    const held = server.listenerCount("request") > 0 ? this.#askListeners(server, first!.connections) : undefined;
    if (held?.isAcceptance) return void this.#upgrade(this.#pass!, held.sent); // Set by `#askListeners`.
    this.#onClose = () => {
      this.#pass?.abandon();
      this.#held?.drop();
    };
    this.#socket.on("close", this.#onClose);
    return this.#wait(held, apps, unclaimed);
  }

  async #refuseHeaders(unclaimed: Promise<void> | undefined): Promise<void> {
    await unclaimed;
    if (!this.isTaken) this.#answer(new Response("Too many headers", { status: 431 }));
  }

  /** Waits for the response of the listeners, if there are any, and then tries the apps. */
  async #wait(
    held: HeldResponse | undefined,
    apps: readonly AttachedApp[],
    unclaimed: Promise<void> | undefined,
  ): Promise<void> {
    await held?.answered;
    if (held && !held.isAcceptance) this.#pass!.abandon(); // The response may have been destroyed without a head.
    if (held?.isAcceptance) return this.#upgrade(this.#pass!, held.sent); // As above.
    if (this.isTaken) return held?.drop();
    if (this.#pass?.isOurs) return held?.release(this.#socket);
    let isClaimed = false;
    this.#incoming.url = this.#url; // Listeners such as Vite's and Express' rewrite it.
    for (const attached of apps) {
      const { app, connections } = attached;
      if (!app) continue;
      const isClaiming = this.isClaimedBy(attached);
      isClaimed ||= isClaiming;
      // Vite responds to every path with a page, so a 2xx is not final if the app may have the route. A bare `fetch` may.
      const mayHaveRoute = isClaiming || !("router" in app);
      if (held && !NO_ROUTE.has(held.statusCode) && !(mayHaveRoute && held.statusCode < 300)) continue;
      const { pass, response } = await this.#askApp(app, connections);
      if (pass.end(response.status, response.headers.has(ACCEPTED))) {
        held?.drop();
        return this.#upgrade(pass, response.headers);
      }
      const isRefusal = response.status >= 300 && response.status !== 404;
      if (!this.isTaken && (pass.isOurs || isRefusal && (isClaiming || !held))) {
        if (!pass.isOurs && !isClaiming) await unclaimed;
        held?.drop();
        return this.isTaken ? discard(response) : this.#answer(response);
      }
      discard(response);
    }
    if (!isClaimed) await unclaimed;
    if (this.isTaken) held?.drop();
    else if (held) held.release(this.#socket);
    else this.#answer(new Response(null, { status: 404 }));
  }

  #askListeners(server: Pick<EventEmitter, "emit">, connections: Connections): HeldResponse {
    const pass = this.#pass = new Pass(this.#incoming, connections);
    const held = this.#held = new HeldResponse(this.#incoming, pass);
    server.emit("request", this.#incoming, held);
    return held;
  }

  async #askApp(app: FetchApp, connections: Connections): Promise<{ pass: Pass; response: Response }> {
    const pass = this.#pass = new Pass(this.#incoming, connections);
    const request = toRequest(this.#incoming);
    if (!request) return { pass, response: new Response("Bad Request", { status: 400 }) };
    try {
      const response: unknown = await app.fetch(request, { incoming: this.#incoming, [HOST]: pass });
      if (isResponse(response)) return { pass, response };
    } catch {
      // Hono's error handler has already run, so only the response is left.
    }
    return { pass, response: new Response("Internal Server Error", { status: 500 }) };
  }

  /** Carries out an accepted upgrade, or releases its slot. */
  #upgrade({ acceptance }: Pass, headers: Headers | undefined): void {
    if (!acceptance || this.isTaken) return acceptance?.abandoned();
    let isOpen = false;
    if (this.#onClose) this.#socket.off("close", this.#onClose); // It would keep the request in memory.
    upgrading = { headers: merge(acceptance.headers, headers), protocol: acceptance.protocol };
    webSocketServer(this.#ws, acceptance.maxPayload).handleUpgrade(this.#incoming, this.#socket, this.#head, (ws) => {
      isOpen = true;
      attach(ws as LinkedWebSocket, this.#socket, acceptance); // `webSocketServer` sets this class.
    });
    upgrading = undefined;
    // ws calls back before it returns, unless it refuses the handshake.
    if (isOpen) return this.#opened(this.#socket);
    acceptance.abandoned();
    linger(this.#socket);
  }

  #answer(response: Response): void {
    const outgoing = new HeldResponse(this.#incoming);
    outgoing.statusCode = response.status;
    outgoing.setHeaders(response.headers);
    outgoing.removeHeader(ACCEPTED);
    outgoing.release(this.#socket);
    if (response.body) pipeline(Readable.fromWeb(response.body as never), outgoing, () => {}); // Node has its own type.
    else outgoing.end();
  }
}

/** No `instanceof`, because `@hono/node-server` has its own Response. An app that is not Hono may return any value. */
function isResponse(value: unknown): value is Response {
  const { status, headers } = Object(value) as Partial<Response>;
  return typeof status === "number" && typeof headers?.has === "function";
}

/** See {@link NodeUpgrade.isTaken}. @param written the socket's `bytesWritten` before the request */
export function isTaken(socket: Socket, written: number): boolean {
  return socket.destroyed || socket.bytesWritten > written || socket.writableLength > 0 || socket.writableEnded || isRead(socket);
}

function isRead(socket: Socket): boolean {
  return socket.listenerCount("data") > 0 || socket.listenerCount("readable") > 0;
}

/** Ends a socket that another listener has half-closed. `@hono/node-ws` half-closes every upgrade that is not its own. */
export function endUnread(socket: Socket): void {
  if (socket.writableEnded && !isRead(socket)) linger(socket);
}

/**
 * Returns the socket to the HTTP parser, which reads the request again, without `Upgrade`, and then the rest of the connection.
 */
export function replay(
  server: object,
  { method, url, httpVersion, rawHeaders }: IncomingMessage,
  socket: Socket,
  head: Buffer,
): void {
  const lines = [`${method} ${url} HTTP/${httpVersion}`];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]!.toLowerCase() !== "upgrade") lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
  }
  socket.unshift(Buffer.concat([Buffer.from([...lines, "", ""].join("\r\n"), "latin1"), head]));
  // The connection listener of `http.Server` and `https.Server`. It is undocumented, but exists in every version. Emitting
  // `connection` instead would count the socket twice.
  (http as unknown as { _connectionListener(this: object, socket: Socket): void })._connectionListener.call(server, socket);
}

/** Cancels the body of an unused response. */
function discard({ body }: Response): void {
  body?.cancel().catch(() => {}); // An error of the stream does not matter any more.
}

/** The upgrade in progress, for the two callbacks below, which ws calls synchronously. */
let upgrading: { readonly headers: Headers | undefined; readonly protocol: string | null } | undefined;

const servers = new Map<number, WebSocketServer>();

/** Returns the server for a limit: ws has one `maxPayload` per server. */
function webSocketServer({ WebSocket, WebSocketServer }: Ws, maxPayload: number): WebSocketServer {
  let server = servers.get(maxPayload);
  if (server) return server;
  server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload,
    perMessageDeflate: false,
    WebSocket: linked(WebSocket),
    // By default ws answers with the first subprotocol offered, which may be a bearer token.
    handleProtocols: () => upgrading?.protocol ?? false,
  });
  server.on("headers", (lines) => {
    for (const [name, value] of upgrading?.headers ?? []) lines.push(`${name}: ${value}`);
  });
  servers.set(maxPayload, server);
  return server;
}

/** Headers of the handshake itself, and those that describe a body, which a 101 does not have. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  ACCEPTED,
  "connection",
  "content-length",
  "content-type",
  "keep-alive",
  "set-cookie", // Appended below: there may be several.
  "transfer-encoding",
  "upgrade",
]);

/** Headers of the 101: those that middleware set before the route, and after it. */
function merge(before: Headers | undefined, after: Headers | undefined): Headers | undefined {
  if (!after) return before;
  const headers = new Headers(before);
  for (const [name, value] of after) {
    if (!OWN_HEADERS.has(name) && !name.startsWith("sec-websocket-")) headers.set(name, value);
  }
  for (const cookie of after.getSetCookie()) headers.append("set-cookie", cookie);
  return headers;
}
