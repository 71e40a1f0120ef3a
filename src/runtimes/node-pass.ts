/** One run of a WebSocket request through the listeners of a `node:http` server or through an app, and its response. */
import type { IncomingMessage, OutgoingHttpHeader, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Connections } from "../connection/connections.ts";
import { LINGER } from "./node-transport.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "./runtime.ts";

// Not imported, so that a bundle for a Worker starts without the module.
// deno-lint-ignore no-process-global -- as above
const http: typeof import("node:http") = process.getBuiltinModule("node:http");

/** Marks the response of an accepted upgrade. It is a header, because Hono copies a response when its headers change. */
export const ACCEPTED = "noroshi-accepted";

/** Headers of the response of an accepted upgrade. */
const ACCEPTED_HEADERS = Object.freeze({ [ACCEPTED]: "1" });

/**
 * Status of the response of an accepted upgrade. The header is not enough: Hono copies it to a response that replaces this one.
 */
const ACCEPTED_STATUS = 299;

/** One run of the request through the server's listeners or through an app. The upgrade route finds it as its {@link Host}. */
export class Pass implements Host, Runtime {
  readonly connections: Connections;
  /** Whether the request reached an upgrade route. */
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

  /** Ends the pass. Returns whether the response is that of the accepted upgrade; any other response abandons the upgrade. */
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
 * A response that is not written before it is known whether it answers the request. Until then it buffers up to its high-water
 * mark, as Node does with a pipelined response.
 */
export class HeldResponse extends http.ServerResponse {
  #isAnswered = false;
  #whenAnswered: (() => void) | undefined;
  readonly pass: Pass | undefined;
  /** Headers of the response of an accepted upgrade. Absent: only the mark. */
  sent: Headers | undefined;
  /** Whether this is the response of an accepted upgrade. It is not written, because ws writes the 101. */
  isAcceptance = false;

  constructor(incoming: IncomingMessage, pass?: Pass) {
    super(incoming);
    this.pass = pass;
    this.shouldKeepAlive = false; // The HTTP parser no longer reads this connection.
    this.on("error", ignore); // Node emits it for a write after the end.
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
    // The common case: `@hono/node-server` passes on the headers object of an unchanged response.
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

  /** Writes a head without the mark, which Hono copied to it from the response that it replaces. */
  #writeUnmarked(status: number, sent: Headers | undefined): void {
    sent?.delete(ACCEPTED);
    for (const name of this.getHeaderNames()) this.removeHeader(name);
    if (sent) this.setHeaders(sent);
    super.writeHead(status);
  }

  override end(...rest: unknown[]): this {
    if (!this.isAcceptance) return super.end(...rest as []); // The arguments are Node's own.
    this.finished = true; // Listeners read it to see whether the request was answered.
    return this;
  }

  override destroy(error?: Error): this {
    this.#answer();
    return super.destroy(error);
  }

  /** Discards the response. For its writer, the client has disconnected. */
  drop(): void {
    if (this.socket || this.destroyed) return;
    this.destroy();
    this.emit("close");
  }

  /** Writes the response to the socket, then ends the socket. */
  release(socket: Socket): void {
    if (this.destroyed && !this.headersSent) return void socket.destroy();
    // Node's server does this only for sockets that its parser still reads.
    socket.on("drain", () => this.emit("drain"));
    socket.once("end", () => socket.end());
    this.once("finish", () => linger(socket));
    this.assignSocket(socket);
    socket.resume(); // Otherwise `end` is not emitted.
  }
}

// Outside the class, because TypeScript allows no getter for a symbol, or for a property of the base class.
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

/** Ends the socket after its response, and destroys it after {@link LINGER} if the peer keeps its side open. */
export function linger(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), LINGER);
  socket.once("close", () => clearTimeout(timer));
  socket.end();
  socket.resume(); // Unread data would turn the end into a reset, and delay the peer's `end`.
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
  if (Array.isArray(list[0])) return list as [string, OutgoingHttpHeader][]; // Node accepts no other lists.
  return Array.from({ length: list.length / 2 }, (_, i) => [String(list[2 * i]), list[2 * i + 1] as OutgoingHttpHeader]); // As above.
}
