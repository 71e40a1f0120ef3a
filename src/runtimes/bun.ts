import { ABNORMAL } from "../close.ts";
import type { Connection } from "../connection.ts";
import type { Frame } from "../frame.ts";
import { afterTurn, type Batch, BATCHING, Outbox, type Writer } from "../outbox.ts";
import { OPEN, type Publisher, type Transport } from "../transport.ts";
import type { Acceptance, Runtime } from "./runtime.ts";

/** The part of Bun's server that is used, so that the file checks without Bun's types. */
interface BunServer {
  upgrade(request: Request, options: { data: SocketData; headers: Headers }): boolean;
  requestIP(request: Request): { address: string } | null;
  /** Sends to every socket that has subscribed to the topic. 0: nobody has. */
  publish(topic: string, data: string): number;
}

/** The part of Bun's server-side socket that is used. */
export interface BunSocket {
  readonly data: SocketData;
  readonly readyState: number;
  getBufferedAmount(): number;
  sendText(data: string): number;
  /** Has what the callback sends written at once. */
  cork(callback: () => void): void;
  close(code?: number, reason?: string): void;
  ping(): number;
  subscribe(topic: string): void;
  unsubscribe(topic: string): void;
  terminate(): void;
}

/** What Bun keeps with a socket, and tells what happens to it: a socket and its connection are found from each other by this alone. */
export interface SocketData {
  opened(socket: BunSocket): void;
  received(message: string | Uint8Array): void;
  showedLife(): void;
  ended(code: number, reason: string): void;
}

const outbox = new Outbox();

/** The header of a frame (RFC 6455 §5.2), which Bun's own count includes. */
const MAX_HEADER_BYTES = 10;

/** Bun writes a larger publication for one socket after the other, and at once. */
const MAX_PUBLISHED_BYTES = 16_000;

/** What sockets were handed, in bytes that only ever grow. */
const bytes = {
  /** To any socket, by whichever way. */
  handedOver: 0,
  /** By topics, which have it until the turn ends: no socket's own count includes it before. */
  published: 0,
  /** What of it the topics have let go of. */
  settled: 0,
};

/**
 * The topics of one server. They encode and copy a message once for all, where a corked write does for each client: 0.38 instead of 0.48 s of
 * CPU a million deliveries with 16 broadcasts under way, and 4.3 instead of 4.8 with one at a time.
 */
class BunPublisher implements Publisher {
  readonly #server: BunServer;

  constructor(server: BunServer) {
    this.#server = server;
  }

  get handedOver(): number {
    return bytes.handedOver;
  }

  publish(topic: string, frame: Frame): boolean {
    // What waits for the end of the turn was sent before.
    if (!outbox.isEmpty || frame.bytes > MAX_PUBLISHED_BYTES || this.#server.publish(topic, frame.text) === 0) return false;
    const { bytes: size } = frame;
    bytes.handedOver += size + MAX_HEADER_BYTES;
    if (bytes.published === bytes.settled) settleLater();
    bytes.published += size + MAX_HEADER_BYTES;
    return true;
  }
}

/** How long it may take to see that topics have let go of something, in ms: looking after each publication to ten took a tenth of its cost. */
const SETTLE_TIME = 10;

/** Topics let go when the event loop goes round, which need not be before the next `setImmediate`, but is before the one after that. */
function settleLater(): void {
  setTimeout(() => {
    const { published } = bytes;
    afterTurn(() =>
      afterTurn(() => {
        bytes.settled = published;
        if (published < bytes.published) settleLater();
      })
    );
  }, SETTLE_TIME);
}

const publishers = new WeakMap<BunServer, BunPublisher>();

function publisherOf(server: BunServer): BunPublisher {
  let publisher = publishers.get(server);
  if (!publisher) publishers.set(server, publisher = new BunPublisher(server));
  return publisher;
}

/** Bun is calling back with what this one's socket has sent, and has it corked: what is sent to it meanwhile is one write in any case. */
let reading: BunTransport | undefined;

class BunTransport implements SocketData, Transport, Writer {
  /** From when it opens: nothing is asked of it before. */
  socket!: BunSocket;
  batch: Batch | undefined;
  readonly publisher: Publisher;
  readonly #batching: boolean;
  #open: Acceptance["open"] | undefined;
  #connection: Connection | undefined;
  /** What the socket held when the turn's first frame was taken. */
  #buffered = 0;
  /** What had been published when this socket was last written to, and was handed that first. */
  #caughtUp = 0;

  constructor(publisher: Publisher, { protocol, open }: Acceptance) {
    this.publisher = publisher;
    this.#batching = protocol === BATCHING;
    this.#open = open;
  }

  opened(socket: BunSocket): void {
    this.socket = socket;
    this.#connection = this.#open?.(this);
    this.#open = undefined; // The closure holds the request; an idle connection must not.
  }

  received(message: string | Uint8Array): void {
    // Nor may answers wait for the end of the turn: Bun answers a close frame that was read with the message before it.
    reading = this;
    this.#connection?.message(message);
    reading = undefined;
  }

  showedLife(): void {
    this.#connection?.heard();
  }

  ended(code: number, reason: string): void {
    // Bun calls this inside close(); elsewhere a close is never reported before close() returned.
    // What it says of an abrupt end is its own words, not the peer's.
    const abrupt = code === ABNORMAL;
    queueMicrotask(() => this.#connection?.closed(code, abrupt ? "" : reason, !abrupt));
  }

  get readyState(): number {
    // Looked at when the first frame of the turn was taken, and again when they are written.
    return this.batch ? OPEN : this.socket.readyState;
  }

  get bufferedAmount(): number {
    return this.batch ? this.#buffered + this.batch.bytes : this.socket.getBufferedAmount() + this.#published;
  }

  /** What the topics may have for it. */
  get #published(): number {
    return bytes.published - Math.max(bytes.settled, this.#caughtUp);
  }

  send(frame: Frame): boolean {
    bytes.handedOver += 3 * frame.text.length + MAX_HEADER_BYTES; // UTF-8 takes no more.
    if (reading !== this) {
      if (!this.batch) this.#buffered = this.bufferedAmount;
      outbox.push(this, frame);
      return true;
    }
    if (this.batch) this.write();
    this.#caughtUp = bytes.published;
    return this.socket.sendText(frame.text) !== 0;
  }

  write(): void {
    const { batch, socket } = this;
    if (!batch) {
      // Whatever is sent has Bun hand over what was published before it.
      if (this.#published > 0) socket.ping();
      this.#caughtUp = bytes.published;
      return;
    }
    this.batch = undefined;
    if (socket.readyState !== OPEN) return;
    this.#caughtUp = bytes.published;
    if (batch.count === 1) return this.#send(batch.frame!.text);
    socket.cork(() => {
      if (this.#batching) { for (const text of batch.texts()) this.#send(text); }
      else for (const { text } of batch.frames()) this.#send(text);
    });
  }

  #send(text: string): void {
    // 0: dropped, with the socket still open. −1: backpressure, but it is kept.
    if (this.socket.sendText(text) === 0) this.#connection?.dropped();
  }

  join(topic: string): void {
    this.socket.subscribe(topic);
  }

  leave(topic: string): void {
    this.socket.unsubscribe(topic);
  }

  close(code: number, reason: string): void {
    if (this.batch) this.write();
    this.socket.close(code, reason);
  }

  ping(): void {
    this.socket.ping();
  }

  terminate(): void {
    this.socket.terminate();
  }
}

/** The handler object Bun takes beside `fetch`. */
export interface BunWebSocketHandler {
  readonly idleTimeout: number;
  readonly sendPings: boolean;
  readonly backpressureLimit: number;
  open(socket: BunSocket): void;
  message(socket: BunSocket, data: string | Uint8Array): void;
  ping(socket: BunSocket): void;
  pong(socket: BunSocket): void;
  close(socket: BunSocket, code: number, reason: string): void;
}

/**
 * What Bun calls for each socket: `export default { fetch: app.fetch, websocket }`. One serves any number of controllers.
 */
export const websocket: BunWebSocketHandler = {
  // The heartbeat is the controller's: Bun's own does not find a mute peer that is written to (oven-sh/bun#39255).
  idleTimeout: 0,
  sendPings: false,
  // None: beyond it, 16 MiB by default, Bun drops what is sent and does not tell of what is published. The limit is the controller's.
  backpressureLimit: 0,
  open: (socket) => socket.data.opened(socket),
  message: ({ data }, message) => data.received(message),
  ping: ({ data }) => data.showedLife(),
  pong: ({ data }) => data.showedLife(),
  close: ({ data }, code, reason) => data.ended(code, reason),
};

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
      return bun.upgrade(request, { data: new BunTransport(publisherOf(bun), acceptance), headers }) ? new Response(null) : null;
    },
  };
}
