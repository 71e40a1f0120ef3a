/** One GET that asks for a WebSocket on a `node:http` server: who answers it, and the handshake when a route of ours does. */
import { type IncomingMessage, type OutgoingHttpHeader, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { pipeline, Readable } from "node:stream";
import { WebSocketServer } from "ws";
import type { Connections } from "../connections.ts";
import { attach, FlushingWebSocket, LINGER } from "./node-transport.ts";
import { type Acceptance, HOST, type Host } from "./runtime.ts";

/** Anything with Hono's `fetch`. */
export interface FetchApp {
  fetch(request: Request, env?: unknown): Response | Promise<Response>;
}

/** An app whose WebSocket routes a server carries. Without `app` they are those that its `request` listeners reach. */
export interface AttachedApp {
  readonly app: FetchApp | undefined;
  readonly connections: Connections;
}

/** On the response that stands for the acceptance; Hono copies a response whose headers change, so its identity says nothing. */
const ACCEPTED = "noroshi-accepted";

/** Its status, which no application answers with: Hono copies the headers of a response to the one that a middleware sets in its place. */
const ACCEPTED_STATUS = 299;

/**
 * No client and no proxy sends as many headers; Node lets 2,000 through, and Deno, which sorts those of a Request for 190 ms, has no limit but
 * their bytes.
 */
const MAX_HEADERS = 256;

/** Statuses of listeners that have no such route: the attached app is asked next. Every other status is their answer. */
const NO_ROUTE: ReadonlySet<number> = new Set([404, 405, 426, 501]);

/** One pass of the request through the server's listeners, or through an app. */
class Pass {
  readonly host: Host;
  /** A route of ours was asked. */
  isOurs = false;
  acceptance: Acceptance | undefined;
  #isOver = false;

  constructor(incoming: IncomingMessage, connections: Connections) {
    const runtime = {
      ip: () => incoming.socket.remoteAddress ?? null,
      accept: (_request: Request, acceptance: Acceptance) => this.#accept(incoming, acceptance),
    };
    const asked = () => {
      this.isOurs = true;
      return runtime;
    };
    this.host = {
      connections,
      get runtime() {
        return asked();
      },
    };
  }

  #accept({ socket }: IncomingMessage, acceptance: Acceptance): Response | null {
    // Over: another answer has left, such as that of Hono's `timeout()`.
    if (this.#isOver || this.acceptance || socket.destroyed) return null;
    this.acceptance = acceptance;
    return new Response(null, { status: ACCEPTED_STATUS, headers: { [ACCEPTED]: "1" } }); // A Response cannot be a 101 here.
  }

  /** The pass has its answer: whether that is the acceptance. Any other undoes it. */
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
 * A response that is written once it is known whose the request is. Until then it keeps what it is given, within its high-water mark, as
 * Node does with one whose turn on a pipelined connection has not come.
 */
class HeldResponse extends ServerResponse {
  #resolveHead: () => void = () => {};
  /** Resolves when the head is written, or when there will be none. */
  readonly answered: Promise<void> = new Promise((resolve) => this.#resolveHead = resolve);
  readonly #pass: Pass | undefined;
  sent: Headers = new Headers();
  /** The head is that of our acceptance. */
  isAcceptance = false;

  constructor(incoming: IncomingMessage, pass?: Pass) {
    super(incoming);
    this.#pass = pass;
    this.shouldKeepAlive = false; // No parser reads this connection any more.
    this.on("error", () => {}); // Node reports writes after the end here.
  }

  // Node writes an implicit head through it as well.
  override writeHead(status: number, ...rest: unknown[]): this {
    this.sent = headersOf(this, rest.at(-1));
    this.isAcceptance = this.#pass?.end(status, this.sent) ?? false;
    if (this.sent.has(ACCEPTED)) {
      // A middleware made another response of the acceptance, whose headers it copied.
      this.sent.delete(ACCEPTED);
      for (const name of this.getHeaderNames()) this.removeHeader(name);
      this.setHeaders(this.sent);
      super.writeHead(status);
    } else super.writeHead(status, ...rest as [never]); // The overloads of Node's own, whose arguments these are.
    this.#resolveHead();
    return this;
  }

  override destroy(error?: Error): this {
    this.#resolveHead();
    return super.destroy(error);
  }

  /** Nobody will read it: whoever writes it is told as by a client that went away. */
  drop(): void {
    if (this.socket || this.destroyed) return;
    this.destroy();
    this.emit("close");
  }

  /** Writes it to the socket, and ends that after it. */
  release(socket: Socket): void {
    if (this.destroyed && !this.headersSent) return void socket.destroy();
    // Node's server does these two for the sockets that it still parses.
    socket.on("drain", () => this.emit("drain"));
    socket.once("end", () => socket.end());
    this.once("finish", () => linger(socket));
    this.assignSocket(socket);
    socket.resume(); // Or nothing tells that the client has gone.
  }
}

/** A GET that asks for a WebSocket. Its socket has an `error` listener. */
export class NodeUpgrade {
  readonly #incoming: IncomingMessage;
  readonly #socket: Socket;
  readonly #head: Buffer;
  readonly #url: string | undefined;
  readonly #written: number;
  #pass: Pass | undefined;
  #held: HeldResponse | undefined;

  constructor(incoming: IncomingMessage, socket: Socket, head: Buffer) {
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

  /** Somebody else writes to the socket or reads it, or it is closed. */
  get isTaken(): boolean {
    return isTaken(this.#socket, this.#written);
  }

  /**
   * Passes the request through the server's own `request` listeners, as any GET, so that whatever guards the app guards its WebSocket
   * routes. Only where these have no such route are the apps asked.
   *
   * @param request emits the request to the listeners; `undefined` without any
   * @param claiming the apps that have a WebSocket route at this path
   * @param unclaimed resolves when other `upgrade` listeners have had their time; what no route of ours handled waits for it
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
    if (held?.isAcceptance) return this.#upgrade(this.#pass!, held.sent); // Set by the pass.
    if (this.isTaken) return held?.drop();
    if (this.#pass?.isOurs) return held?.release(this.#socket);
    let isClaimed = false;
    this.#incoming.url = this.#url; // Listeners such as Vite's and Express' rewrite it on their way.
    for (const attached of apps) {
      const { app, connections } = attached;
      if (!app) continue;
      const isClaiming = claiming(attached);
      isClaimed ||= isClaiming;
      if (held && !NO_ROUTE.has(held.statusCode) && !(isClaiming && held.statusCode < 300)) continue;
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
    // node-server passes the response as `c.env.outgoing`, and that is where the route finds it.
    Object.assign(held, { [HOST]: pass.host });
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
      const response: unknown = await app.fetch(request, { incoming: this.#incoming, [HOST]: pass.host });
      if (isResponse(response)) return { pass, response };
    } catch {
      // Hono's error handler has been asked already, so all that is left is an answer.
    }
    return { pass, response: new Response("Internal Server Error", { status: 500 }) };
  }

  /** Carries out what was accepted; every other end gives the place back. */
  #upgrade({ acceptance }: Pass, headers: Headers): void {
    if (!acceptance || this.isTaken) return acceptance?.abandoned();
    let isOpen = false;
    this.#socket.off("close", this.#onClose); // An open connection keeps nothing of its request.
    responseHeaders.set(this.#incoming, merge(acceptance.headers, headers));
    chosenProtocol.set(this.#incoming, acceptance.protocol);
    webSocketServer(acceptance.maxPayload).handleUpgrade(this.#incoming, this.#socket, this.#head, (ws) => {
      isOpen = true;
      attach(ws as FlushingWebSocket, this.#socket, acceptance); // The class that the server was given.
    });
    // ws calls back before it returns, or has refused the handshake.
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
    if (response.body) pipeline(Readable.fromWeb(response.body as never), outgoing, () => {}); // Node's type of the global's stream.
    else outgoing.end();
  }
}

/** Not by `instanceof`: `@hono/node-server` has a Response of its own. What an app that is not Hono returns may be anything. */
function isResponse(value: unknown): value is Response {
  const { status, headers } = Object(value) as Partial<Response>;
  return typeof status === "number" && typeof headers?.has === "function";
}

/** Whether somebody writes to the socket or reads it, or it is closed. `written` is what was written before the request. */
export function isTaken(socket: Socket, written: number): boolean {
  return socket.destroyed || socket.bytesWritten > written || socket.writableLength > 0 || socket.writableEnded || isRead(socket);
}

function isRead(socket: Socket): boolean {
  return socket.listenerCount("data") > 0 || socket.listenerCount("readable") > 0;
}

/** Ends a socket that another listener has ended on its side only, as @hono/node-ws does with every upgrade that is not its own. */
export function endUnread(socket: Socket): void {
  if (socket.writableEnded && !isRead(socket)) linger(socket);
}

/** Ends the socket after its answer, whatever the peer does. */
function linger(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), LINGER);
  socket.once("close", () => clearTimeout(timer));
  socket.end();
  socket.resume(); // What is left unread would turn the end into a reset, and hide the peer's.
}

/** The content of another route goes to nobody. */
function discard({ body }: Response): void {
  body?.cancel().catch(() => {}); // The stream's own error: nobody waits for what it reads.
}

// Read by the two callbacks of ws, which are told no more than the request.
const responseHeaders = new WeakMap<IncomingMessage, Headers>();
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
    for (const [name, value] of responseHeaders.get(request) ?? []) lines.push(`${name}: ${value}`);
  });
  servers.set(maxPayload, server);
  return server;
}

/** Headers that the handshake itself writes, or that speak of a body that a 101 has not. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  ACCEPTED,
  "connection",
  "content-length",
  "content-type",
  "keep-alive",
  "set-cookie", // Several may stand there: they are appended below.
  "transfer-encoding",
  "upgrade",
]);

/** The headers of the 101: those that middleware set before the route, and after it. */
function merge(before: Headers, after: Headers): Headers {
  const headers = new Headers(before);
  for (const [name, value] of after) {
    if (!OWN_HEADERS.has(name) && !name.startsWith("sec-websocket-")) headers.set(name, value);
  }
  for (const cookie of after.getSetCookie()) headers.append("set-cookie", cookie);
  return headers;
}

/** The headers of a response: those set on it, and those given with its head. */
function headersOf(response: ServerResponse, given: unknown): Headers {
  const headers = new Headers();
  const add = (name: string, value: OutgoingHttpHeader) => {
    for (const each of Array.isArray(value) ? value : [value]) headers.append(name, String(each));
  };
  for (const name of response.getHeaderNames()) add(name, response.getHeader(name) ?? []);
  // node:http takes an object, pairs, or names and values in turn.
  const pairs = !given || typeof given !== "object" ? [] : Array.isArray(given) ? pairsOf(given) : Object.entries(given);
  for (const [name] of pairs) headers.delete(name);
  for (const [name, value] of pairs) if (value !== undefined) add(name, value);
  return headers;
}

function pairsOf(list: unknown[]): [string, OutgoingHttpHeader][] {
  if (Array.isArray(list[0])) return list as [string, OutgoingHttpHeader][]; // What node:http takes, which has taken it.
  return Array.from({ length: list.length / 2 }, (_, i) => [String(list[2 * i]), list[2 * i + 1] as OutgoingHttpHeader]); // As above.
}

/** The request as Hono takes it, or `null` for a target or Host that is no URL. */
export function toRequest({ url = "/", method = "GET", headers, rawHeaders, socket }: IncomingMessage): Request | null {
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
