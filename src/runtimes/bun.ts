import { ABNORMAL } from "../close.ts";
import type { Connection } from "../connection.ts";
import type { Frame } from "../frame.ts";
import { type Batch, BATCHING, Outbox, type Writer } from "../outbox.ts";
import { OPEN, type Transport } from "../transport.ts";
import type { Acceptance, Runtime } from "./runtime.ts";

/** The part of Bun's server that is used, so that the file checks without Bun's types. */
interface BunServer {
  upgrade(request: Request, options: { data: SocketData; headers: Headers }): boolean;
  requestIP(request: Request): { address: string } | null;
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
  terminate(): void;
}

/** What a socket carries: how its connection starts, then the connection. */
export interface SocketData {
  open: ((transport: Transport) => Connection) | null;
  connection: Connection | null;
  transport: BunTransport | null;
  readonly protocol: string | null;
}

const outbox = new Outbox();

class BunTransport implements Transport, Writer {
  readonly socket: BunSocket;
  batch: Batch | undefined;
  /** Bun is calling back with what this socket has sent, and has it corked: what is sent to it meanwhile is one write in any case. */
  isReading = false;
  /** What Bun held when the turn's first frame was taken. */
  #buffered = 0;

  readonly #batching: boolean;

  constructor(socket: BunSocket, protocol: string | null) {
    this.socket = socket;
    this.#batching = protocol === BATCHING;
  }

  get readyState(): number {
    // Looked at when the first frame of the turn was taken, and again when they are written.
    return this.batch ? OPEN : this.socket.readyState;
  }

  get bufferedAmount(): number {
    return this.batch ? this.#buffered + this.batch.bytes : this.socket.getBufferedAmount();
  }

  send(frame: Frame): boolean {
    if (!this.isReading) {
      if (!this.batch) this.#buffered = this.socket.getBufferedAmount();
      outbox.push(this, frame);
      return true;
    }
    this.write();
    return this.socket.sendText(frame.text) !== 0;
  }

  write(): void {
    const { batch, socket } = this;
    if (!batch) return;
    this.batch = undefined;
    if (socket.readyState !== OPEN) return;
    if (batch.count === 1) return this.#send(batch.frame!.text);
    // Topics would cost less for clients without arrays, 0.32 instead of 0.45 s of CPU a million deliveries with 16 broadcasts under way (a send
    // for each: 5), but Bun does not tell who of a topic is slow.
    socket.cork(() => {
      if (this.#batching) { for (const text of batch.texts()) this.#send(text); }
      else for (const { text } of batch.frames()) this.#send(text);
    });
  }

  #send(text: string): void {
    // 0: dropped, with the socket still open. −1: backpressure, but it is kept.
    if (this.socket.sendText(text) === 0) this.socket.data.connection?.dropped();
  }

  close(code: number, reason: string): void {
    this.write();
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
  open(socket) {
    const { data } = socket;
    const transport = data.transport = new BunTransport(socket, data.protocol);
    data.connection = data.open?.(transport) ?? null;
    data.open = null; // The closure holds the request; an idle connection must not.
  },
  message({ data }, message) {
    const { transport, connection } = data;
    if (!transport || !connection) return;
    // Nor may answers wait for the end of the turn: Bun answers a close frame that was read with the message before it.
    transport.isReading = true;
    connection.message(message);
    transport.isReading = false;
  },
  ping({ data }) {
    data.connection?.heard();
  },
  pong({ data }) {
    data.connection?.heard();
  },
  close({ data }, code, reason) {
    // Bun calls this inside close(); elsewhere a close is never reported before close() returned.
    // What it says of an abrupt end is its own words, not the peer's.
    const abrupt = code === ABNORMAL;
    queueMicrotask(() => data.connection?.closed(code, abrupt ? "" : reason, !abrupt));
  },
};

/** Bun's own upgrade, or `null` on another runtime. `env` is the server, as Bun passes it, or `{ server }`. */
export function bunRuntime(env: unknown): Runtime | null {
  if (typeof (globalThis as { Bun?: unknown }).Bun === "undefined" || typeof env !== "object" || env === null) return null;
  const server = ("server" in env ? env.server : env) as Partial<BunServer> | undefined;
  if (typeof server?.upgrade !== "function" || typeof server.requestIP !== "function") return null;
  const bun = server as BunServer; // Both methods were just seen to be there.
  return {
    ip: (request) => bun.requestIP(request)?.address ?? null,
    accept(request: Request, { protocol, headers, open }: Acceptance): Response | null {
      // Bun echoes the first subprotocol offered, a bearer token among them, unless the header is there; empty is none.
      headers.set("sec-websocket-protocol", protocol ?? "");
      // Bun writes the response itself; what the route returns is not looked at.
      return bun.upgrade(request, { data: { open, protocol, connection: null, transport: null }, headers })
        ? new Response(null)
        : null;
    },
  };
}
