import type { EventEmitter } from "node:events";
import { type IncomingMessage, ServerResponse } from "node:http";
import { Socket as NetSocket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";
import { ABNORMAL, CloseCode } from "../close.ts";
import { Connections } from "../connections.ts";
import { EndedFrame, type Frame } from "../frame.ts";
import { type Batch, Outbox } from "../outbox.ts";
import { DRAINED_BYTES, OPEN } from "../transport.ts";
import { type Acceptance, HOST, type Host } from "./runtime.ts";
import { StandardTransport } from "./standard.ts";

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

const outbox = new Outbox();

/** A socket of ws that tells before it answers a close frame: what waits for the end of the turn must go out first. */
class FlushingWebSocket extends WebSocket {
  beforeClose: (() => void) | undefined;

  override close(code?: number, reason?: string | Buffer): void {
    this.beforeClose?.();
    super.close(code, reason);
  }
}

/** Beyond this many bytes frames are not copied into one buffer but written one by one, which the kernel gathers (writev). */
const MAX_JOINED_BYTES = 65_536;

/** A ping without a payload (RFC 6455 §5.5.2). */
const PING = Buffer.from([0x89, 0]);

/** The longest header of a frame. */
const MAX_HEADER_BYTES = 10;

/** Where what one client alone is sent is put together. Absent while the last one belongs to a socket that has not written all of it. */
let scratch: Buffer | undefined;

/** Small, for it is held by a socket that cannot write. */
const SCRATCH_BYTES = 16_384;

/**
 * ws reads; data frames are written past it, each made once for all its recipients. They keep their order with what ws writes by itself:
 * it has no compression that would make it wait, and before its close frame all is written.
 */
class NodeTransport extends StandardTransport<FlushingWebSocket> {
  readonly #stream: Duplex;
  /** What ws and the stream hold beside the turn's frames; negative until somebody asks. */
  #buffered = -1;
  /** The last write left less than the stream's high-water mark, and no close has begun since. */
  #isDrained = false;

  constructor(socket: FlushingWebSocket, stream: Duplex) {
    super(socket, null); // Merged below the frames, arrays would gain nothing.
    this.#stream = stream;
    socket.beforeClose = () => {
      this.write();
      this.#isDrained = false;
    };
  }

  override get readyState(): number {
    // Looked at again when the turn's frames are written. Of a socket that breaks without a close frame its `close` event tells.
    return this.batch || this.#isDrained ? OPEN : this.socket.readyState;
  }

  override get bufferedAmount(): number {
    if (!this.batch) return this.socket.bufferedAmount;
    if (this.#buffered < 0) this.#buffered = this.socket.bufferedAmount;
    return this.#buffered + this.batch.bytes;
  }

  get isDrained(): boolean {
    return this.#isDrained && !this.batch;
  }

  override send(frame: Frame): boolean {
    if (!this.batch) this.#buffered = -1;
    outbox.push(this, frame);
    return true;
  }

  override write(): void {
    const { batch } = this;
    if (!batch) return;
    this.batch = undefined;
    this.#isDrained = false;
    if (this.socket.readyState !== OPEN) return;
    const stream = this.#stream;
    const size = batch.bytes + batch.count * MAX_HEADER_BYTES;
    if (batch.isOwn && size <= SCRATCH_BYTES) return this.#writeOnce(batch, size);
    if (batch.count === 1) this.#put(bytesOf(batch.frame!));
    else if (batch.bytes <= MAX_JOINED_BYTES) {
      // Set below, for the first client that is sent these frames.
      this.#put(batch.encoded as Buffer ?? (batch.encoded = Buffer.concat(batch.frames().map(bytesOf))));
    } else {
      stream.cork();
      for (const frame of batch.frames()) this.#put(bytesOf(frame));
      stream.uncork();
    }
  }

  /** Writes what only this client is sent: nothing of it is kept. */
  #writeOnce(batch: Batch, size: number): void {
    const stream = this.#stream;
    // The platform's own sockets have left the bytes to the kernel by the time they have none waiting.
    const isPlain = stream.writableLength === 0 && stream.constructor === NetSocket as unknown; // Or TypeScript takes it for no Duplex.
    const target = isPlain ? scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES) : Buffer.allocUnsafe(size);
    let end = 0;
    for (const frame of batch.frames()) end = put(frame, target, end);
    this.#put(target.subarray(0, end));
    if (isPlain && stream.writableLength > 0) scratch = undefined;
  }

  #put(bytes: Buffer): void {
    const stream = this.#stream;
    // A server may have been made with a higher mark.
    this.#isDrained = stream.write(bytes) && stream.writableHighWaterMark <= DRAINED_BYTES;
  }

  ping(): void {
    if (this.socket.readyState === OPEN) this.#put(PING);
  }

  override terminate(): void {
    this.#isDrained = false;
    this.socket.terminate();
  }
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

/** The frame on the wire. */
function bytesOf(frame: Frame): Buffer {
  if (frame.encoded) return frame.encoded as Buffer; // Set below: a frame belongs to one process, whose runtime this is.
  const bytes = Buffer.allocUnsafe(headerBytes(frame.bytes) + frame.bytes);
  put(frame, bytes, 0);
  return frame.encoded = bytes;
}

const headerBytes = (length: number): number => length < 126 ? 2 : length < 65_536 ? 4 : 10;

/** Puts the frame there, whole, unmasked text with the shortest length (RFC 6455 §5.2); returns where it ends. */
function put(frame: Frame, target: Buffer, start: number): number {
  const length = frame.bytes;
  const at = start + headerBytes(length);
  target[start] = 0x81;
  if (length < 126) target[start + 1] = length;
  else if (length < 65_536) {
    target[start + 1] = 126;
    target.writeUInt16BE(length, start + 2);
  } else {
    target[start + 1] = 127;
    target.writeBigUInt64BE(BigInt(length), start + 2);
  }
  if (!(frame instanceof EndedFrame)) return at + target.write(frame.text, at);
  const { base, end } = frame;
  const bytes = bytesOf(base);
  const body = at + bytes.copy(target, at, headerBytes(base.bytes), bytes.length - 1);
  return body + target.write(end, body);
}

/** How ws names a message over `maxPayload`, and one whose length is past 2⁵³. */
const TOO_BIG: ReadonlySet<string> = new Set([
  "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH",
  "WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH",
]);

function attach(ws: FlushingWebSocket, stream: Duplex, { open }: Acceptance): void {
  const connection = open(new NodeTransport(ws, stream));
  ws.on("message", (data: Buffer, isBinary: boolean) => connection.message(isBinary ? data : data.toString()));
  ws.on("ping", () => connection.heard());
  ws.on("pong", () => connection.heard());
  ws.on("error", ({ code }: Error & { code?: string }) => {
    // ws has closed with 1009 by itself; this tells the connection why. Whatever else fails is the network's or the peer's doing,
    // and ends in a close like an abrupt end.
    if (code && TOO_BIG.has(code)) connection.close(CloseCode.MESSAGE_TOO_BIG, "Message too big", "payload");
  });
  ws.on("close", (code: number, reason: Buffer) => {
    connection.closed(code, reason.toString(), code !== ABNORMAL);
  });
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
