/** One GET for a WebSocket on a `node:http` server: finds the listener or app that answers it, and carries out the handshake. */
import type { IncomingMessage, OutgoingHttpHeader, ServerResponse } from "node:http";
import type { Socket } from "node:net";
// @ts-types="npm:@types/ws@^8.18.2"
import type { WebSocketServer } from "ws";
import type { Connections } from "../connection/connections.ts";
import { attach, flushing, type FlushingWebSocket, LINGER } from "./node-transport.ts";
import { type FetchApp, toRequest } from "./node-request.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "./runtime.ts";
import type { Ws } from "./ws.ts";

// Not imported: a bundle for a Worker, which has no such modules, would not start.
// deno-lint-ignore no-process-global -- as above
const [http, { pipeline, Readable }] = [process.getBuiltinModule("node:http"), process.getBuiltinModule("node:stream")];

/** An app attached to a server. Without `app`, the server's `request` listeners reach the routes. */
export interface AttachedApp {
  readonly app: FetchApp | undefined;
  readonly connections: Connections;
}

/** Marks the response of an accepted upgrade. A header, because Hono copies a response whose headers change. */
const ACCEPTED = "noroshi-accepted";

/** Status of that response, unused by applications. Needed too: Hono copies the header to a response that replaces it. */
const ACCEPTED_STATUS = 299;

/**
 * Maximum number of headers; clients and proxies send fewer. Node allows 2,000. Deno limits only their bytes, and takes 190 ms to
 * sort 1,000 headers of a Request.
 */
const MAX_HEADERS = 256;

/** Statuses of listeners that have no such route: the attached app is asked next. Any other status is the answer. */
const NO_ROUTE: ReadonlySet<number> = new Set([404, 405, 426, 501]);

/** One pass of the request through the server's listeners or through an app. The upgrade route finds it as its host. */
class Pass implements Host, Runtime {
  readonly connections: Connections;
  /** Whether a route of ours was reached. */
  isOurs = false;
  acceptance: Acceptance | undefined;
  readonly #incoming: IncomingMessage;
  #isOver = false;

  constructor(incoming: IncomingMessage, connections: Connections) {
    this.#incoming = incoming;
    this.connections = connections;
  }

  get runtime(): Runtime {
    this.isOurs = true;
    return this;
  }

  ip(): string | null {
    return this.#incoming.socket.remoteAddress ?? null;
  }

  accept(_request: Request, acceptance: Acceptance): Response | null {
    // Another response may have been sent before, such as that of Hono's `timeout()`.
    if (this.#isOver || this.acceptance || this.#incoming.socket.destroyed) return null;
    this.acceptance = acceptance;
    return new Response(null, { status: ACCEPTED_STATUS, headers: { [ACCEPTED]: "1" } }); // The constructor refuses 101.
  }

  /** Ends the pass with a response. Returns whether it is the acceptance; any other response undoes that. */
  end(status: number, headers: Headers): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    if (this.acceptance && status === ACCEPTED_STATUS && headers.has(ACCEPTED)) return true;
    this.abandon();
    return false;
  }

  abandon(): void {
    this.#isOver = true;
    this.acceptance?.abandoned();
  }
}

/**
 * A response that is written only once the owner of the request is known. Until then it buffers up to its high-water mark, like a
 * pipelined response of Node before its turn.
 */
class HeldResponse extends http.ServerResponse {
  #resolveHead: () => void = () => {};
  /** Resolves once the head is written, or the response is destroyed. */
  readonly answered: Promise<void> = new Promise((resolve) => this.#resolveHead = resolve);
  readonly #pass: Pass | undefined;
  sent: Headers = new Headers();
  /** Whether the head is that of our acceptance. */
  isAcceptance = false;

  constructor(incoming: IncomingMessage, pass?: Pass) {
    super(incoming);
    this.#pass = pass;
    this.shouldKeepAlive = false; // The HTTP parser has released this connection.
    this.on("error", () => {}); // Node reports writes after the end here.
  }

  // Node also writes an implicit head through this method.
  override writeHead(status: number, ...rest: unknown[]): this {
    this.sent = headersOf(this, rest.at(-1));
    this.isAcceptance = this.#pass?.end(status, this.sent) ?? false;
    if (this.sent.has(ACCEPTED)) {
      // Middleware has replaced the acceptance, and Hono has copied its headers.
      this.sent.delete(ACCEPTED);
      for (const name of this.getHeaderNames()) this.removeHeader(name);
      this.setHeaders(this.sent);
      super.writeHead(status);
    } else super.writeHead(status, ...rest as [never]); // The arguments are Node's own.
    this.#resolveHead();
    return this;
  }

  override destroy(error?: Error): this {
    this.#resolveHead();
    return super.destroy(error);
  }

  /** Discards the response. Its writer sees a client that went away. */
  drop(): void {
    if (this.socket || this.destroyed) return;
    this.destroy();
    this.emit("close");
  }

  /** Writes the response to the socket, then ends the socket. */
  release(socket: Socket): void {
    if (this.destroyed && !this.headersSent) return void socket.destroy();
    // Node's server does both only for sockets that it still parses.
    socket.on("drain", () => this.emit("drain"));
    socket.once("end", () => socket.end());
    this.once("finish", () => linger(socket));
    this.assignSocket(socket);
    socket.resume(); // Otherwise the end of the client is not reported.
  }
}

/** One GET that requests a WebSocket. Its socket must have an `error` listener. */
export class NodeUpgrade {
  readonly #ws: Ws;
  readonly #incoming: IncomingMessage;
  readonly #socket: Socket;
  readonly #head: Buffer;
  readonly #url: string | undefined;
  readonly #written: number;
  #pass: Pass | undefined;
  #held: HeldResponse | undefined;

  constructor(ws: Ws, incoming: IncomingMessage, socket: Socket, head: Buffer) {
    this.#ws = ws;
    this.#incoming = incoming;
    this.#socket = socket;
    this.#head = head;
    this.#url = incoming.url;
    this.#written = socket.bytesWritten;
    socket.once("close", this.#onClose);
  }

  readonly #onClose = (): void => {
    this.#pass?.abandon();
    this.#held?.drop();
  };

  /** Whether someone else reads or writes the socket, or it is closed. */
  get isTaken(): boolean {
    return isTaken(this.#socket, this.#written);
  }

  /**
   * Passes the request through the server's own `request` listeners, like any GET, so that guards of the app also guard its
   * WebSocket routes. The apps are asked only if the listeners have no such route.
   *
   * @param request emits the request to the listeners; `undefined` if there are none
   * @param claiming whether an app has a WebSocket route at this path
   * @param unclaimed resolves when other `upgrade` listeners have had their time; a request that no route of ours handled waits
   * for it
   */
  async run(
    request: ((response: ServerResponse) => void) | undefined,
    apps: readonly AttachedApp[],
    claiming: (app: AttachedApp) => boolean,
    unclaimed: Promise<void> | undefined,
  ): Promise<void> {
    if (this.#incoming.rawHeaders.length > 2 * MAX_HEADERS) {
      if (!apps.some(claiming)) await unclaimed;
      if (!this.isTaken) this.#answer(new Response("Too many headers", { status: 431 }));
      return;
    }
    const held = request && await this.#askListeners(request, (apps.find(claiming) ?? apps[0])!.connections);
    if (held?.isAcceptance) return this.#upgrade(this.#pass!, held.sent); // The pass has set it.
    if (this.isTaken) return held?.drop();
    if (this.#pass?.isOurs) return held?.release(this.#socket);
    let isClaimed = false;
    this.#incoming.url = this.#url; // Listeners such as Vite's and Express' rewrite it.
    for (const attached of apps) {
      const { app, connections } = attached;
      if (!app) continue;
      const isClaiming = claiming(attached);
      isClaimed ||= isClaiming;
      // The page that Vite answers on every path is no answer to a WebSocket. The routes of a bare `fetch` cannot be seen.
      const mayHaveRoute = isClaiming || !("router" in app);
      if (held && !NO_ROUTE.has(held.statusCode) && !(mayHaveRoute && held.statusCode < 300)) continue;
      const { pass, response } = await this.#askApp(app, connections);
      if (pass.end(response.status, response.headers)) {
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

  async #askListeners(request: (response: ServerResponse) => void, connections: Connections): Promise<HeldResponse> {
    const pass = this.#pass = new Pass(this.#incoming, connections);
    const held = this.#held = new HeldResponse(this.#incoming, pass);
    // `@hono/node-server` passes the response as `c.env.outgoing`, where the route finds the host.
    Object.assign(held, { [HOST]: pass });
    request(held);
    await held.answered;
    if (!held.isAcceptance) pass.abandon(); // Destroyed without a head.
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
      // Hono's error handler has already run, so only an answer is left.
    }
    return { pass, response: new Response("Internal Server Error", { status: 500 }) };
  }

  /** Carries out an accepted upgrade. Any other end releases the slot. */
  #upgrade({ acceptance }: Pass, headers: Headers): void {
    if (!acceptance || this.isTaken) return acceptance?.abandoned();
    let isOpen = false;
    this.#socket.off("close", this.#onClose); // An open connection keeps nothing of its request.
    responseHeaders.set(this.#incoming, merge(acceptance.headers, headers));
    chosenProtocol.set(this.#incoming, acceptance.protocol);
    webSocketServer(this.#ws, acceptance.maxPayload).handleUpgrade(this.#incoming, this.#socket, this.#head, (ws) => {
      isOpen = true;
      attach(ws as FlushingWebSocket, this.#socket, acceptance); // The server creates this class.
    });
    // ws calls back before it returns, unless it refuses the handshake.
    if (isOpen) return;
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

/** Not by `instanceof`: `@hono/node-server` has its own Response. An app that is not Hono may return any value. */
function isResponse(value: unknown): value is Response {
  const { status, headers } = Object(value) as Partial<Response>;
  return typeof status === "number" && typeof headers?.has === "function";
}

/** Whether someone else reads or writes the socket, or it is closed. `written` is its `bytesWritten` before the request. */
export function isTaken(socket: Socket, written: number): boolean {
  return socket.destroyed || socket.bytesWritten > written || socket.writableLength > 0 || socket.writableEnded || isRead(socket);
}

function isRead(socket: Socket): boolean {
  return socket.listenerCount("data") > 0 || socket.listenerCount("readable") > 0;
}

/** Ends a socket that another listener has half-closed, as @hono/node-ws does with every upgrade that is not its own. */
export function endUnread(socket: Socket): void {
  if (socket.writableEnded && !isRead(socket)) linger(socket);
}

/** Ends the socket after its answer, even if the peer keeps its side open. */
function linger(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), LINGER);
  socket.once("close", () => clearTimeout(timer));
  socket.end();
  socket.resume(); // Unread data would turn the end into a reset, and hide the peer's end.
}

/**
 * Lets the HTTP parser read the request again without `Upgrade`, and then the rest of the connection: body, chunks, keep-alive.
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
  // The connection listener of `http.Server` and `https.Server`. Emitting their event would count the socket twice.
  // Undocumented, in every version.
  (http as unknown as { _connectionListener(this: object, socket: Socket): void })._connectionListener.call(server, socket);
}

/** Cancels the body of an unused response. */
function discard({ body }: Response): void {
  body?.cancel().catch(() => {}); // The stream's own error.
}

// For the two callbacks of ws, which receive only the request.
const responseHeaders = new WeakMap<IncomingMessage, Headers>();
const chosenProtocol = new WeakMap<IncomingMessage, string | null>();

const servers = new Map<number, WebSocketServer>();

/** Returns a server per limit: ws has one `maxPayload` for each server. */
function webSocketServer({ WebSocket, WebSocketServer }: Ws, maxPayload: number): WebSocketServer {
  let server = servers.get(maxPayload);
  if (server) return server;
  server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload,
    perMessageDeflate: false,
    WebSocket: flushing(WebSocket),
    // By default ws answers with the first subprotocol offered, which may be a bearer token.
    handleProtocols: (_offered, request) => chosenProtocol.get(request) ?? false,
  });
  server.on("headers", (lines, request) => {
    for (const [name, value] of responseHeaders.get(request) ?? []) lines.push(`${name}: ${value}`);
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
function merge(before: Headers, after: Headers): Headers {
  const headers = new Headers(before);
  for (const [name, value] of after) {
    if (!OWN_HEADERS.has(name) && !name.startsWith("sec-websocket-")) headers.set(name, value);
  }
  for (const cookie of after.getSetCookie()) headers.append("set-cookie", cookie);
  return headers;
}

/** Headers of a response: those set on it, and those passed with its head. */
function headersOf(response: ServerResponse, given: unknown): Headers {
  const headers = new Headers();
  const add = (name: string, value: OutgoingHttpHeader) => {
    for (const each of Array.isArray(value) ? value : [value]) headers.append(name, String(each));
  };
  for (const name of response.getHeaderNames()) add(name, response.getHeader(name) ?? []);
  // node:http accepts an object, pairs, or a flat list of names and values.
  const pairs = !given || typeof given !== "object" ? [] : Array.isArray(given) ? pairsOf(given) : Object.entries(given);
  for (const [name] of pairs) headers.delete(name);
  for (const [name, value] of pairs) if (value !== undefined) add(name, value);
  return headers;
}

function pairsOf(list: unknown[]): [string, OutgoingHttpHeader][] {
  if (Array.isArray(list[0])) return list as [string, OutgoingHttpHeader][]; // node:http has accepted it.
  return Array.from({ length: list.length / 2 }, (_, i) => [String(list[2 * i]), list[2 * i + 1] as OutgoingHttpHeader]); // As above.
}
