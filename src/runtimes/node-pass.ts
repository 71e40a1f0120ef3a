/** One pass of a WebSocket request through the listeners of a `node:http` server or through an app, and the response it ends with. */
import type { IncomingMessage, OutgoingHttpHeader, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Connections } from "../connection/connections.ts";
import { LINGER } from "./node-transport.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "./runtime.ts";

// Not imported: a bundle for a Worker, which has no such module, would not start.
// deno-lint-ignore no-process-global -- as above
const http: typeof import("node:http") = process.getBuiltinModule("node:http");

/** Marks the response of an accepted upgrade. A header, because Hono copies a response whose headers change. */
export const ACCEPTED = "noroshi-accepted";

/** The headers of that response. */
const ACCEPTED_HEADERS = Object.freeze({ [ACCEPTED]: "1" });

/** Status of that response, unused by applications. Needed too: Hono copies the header to a response that replaces it. */
const ACCEPTED_STATUS = 299;

/** One pass of the request through the server's listeners or through an app. The upgrade route finds it as its host. */
export class Pass implements Host, Runtime {
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
    return new Response(null, { status: ACCEPTED_STATUS, headers: ACCEPTED_HEADERS }); // The constructor refuses 101.
  }

  /** Ends the pass with a response. Returns whether it is the acceptance; any other response undoes that. */
  end(status: number, isMarked: boolean): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    if (this.acceptance && status === ACCEPTED_STATUS && isMarked) return true;
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
export class HeldResponse extends http.ServerResponse {
  #isAnswered = false;
  #whenAnswered: (() => void) | undefined;
  readonly pass: Pass | undefined;
  /** Headers of an acceptance. Absent: none but its mark. */
  sent: Headers | undefined;
  /** Whether the head is that of our acceptance. It is not written: ws writes the 101. */
  isAcceptance = false;

  constructor(incoming: IncomingMessage, pass?: Pass) {
    super(incoming);
    this.pass = pass;
    this.shouldKeepAlive = false; // The HTTP parser has released this connection.
    this.on("error", ignore); // Node reports writes after the end here.
  }

  /** Resolves once the head is written, or the response is destroyed; `undefined` if it is already. */
  get answered(): Promise<void> | undefined {
    return this.#isAnswered ? undefined : new Promise((resolve) => this.#whenAnswered = resolve);
  }

  #answer(): void {
    this.#isAnswered = true;
    this.#whenAnswered?.();
  }

  // Node also writes an implicit head through this method.
  override writeHead(status: number, ...rest: unknown[]): this {
    if (this.isAcceptance) return this;
    const given = rest.at(-1);
    // Nearly always: `@hono/node-server` passes on the headers of a response that nothing has changed.
    const isBare = given === ACCEPTED_HEADERS && this.getHeaderNames().length === 0;
    const sent = isBare ? undefined : headersOf(this, given);
    const isMarked = sent?.has(ACCEPTED) ?? true;
    this.isAcceptance = this.pass?.end(status, isMarked) ?? false;
    if (this.isAcceptance) {
      this.sent = sent;
      this.statusCode = status;
    } else if (isMarked) this.#writeUnmarked(status, sent);
    else super.writeHead(status, ...rest as [never]); // The arguments are Node's own.
    this.#answer();
    return this;
  }

  /** Writes a head that has the mark without being an acceptance: Hono copies the headers of one that middleware replaces. */
  #writeUnmarked(status: number, sent: Headers | undefined): void {
    sent?.delete(ACCEPTED);
    for (const name of this.getHeaderNames()) this.removeHeader(name);
    if (sent) this.setHeaders(sent);
    super.writeHead(status);
  }

  override end(...rest: unknown[]): this {
    if (!this.isAcceptance) return super.end(...rest as []); // The arguments are Node's own.
    this.finished = true; // As of any response: listeners look whether the request was answered.
    return this;
  }

  override destroy(error?: Error): this {
    this.#answer();
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

// Not in the class: declarations cannot have a getter for a symbol, or where the types of Node have a property.
Object.defineProperties(HeldResponse.prototype, {
  headersSent: {
    configurable: true,
    get(this: HeldResponse): boolean {
      return this.isAcceptance || Reflect.get(http.ServerResponse.prototype, "headersSent", this);
    },
  },
  // `@hono/node-server` passes the response as `c.env.outgoing`, where the route finds the host.
  [HOST]: {
    get(this: HeldResponse): Pass | undefined {
      return this.pass;
    },
  },
});

/** Ends the socket after its answer, even if the peer keeps its side open. */
export function linger(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), LINGER);
  socket.once("close", () => clearTimeout(timer));
  socket.end();
  socket.resume(); // Unread data would turn the end into a reset, and hide the peer's end.
}

function ignore(): void {}

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
