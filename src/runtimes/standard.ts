import { type Batch, BATCHING, WriteQueue, type Writer } from "../delivery/write-queue.ts";
import { ABNORMAL, CloseCode } from "../protocol/close.ts";
import type { Connection } from "../connection/connection.ts";
import type { Frame } from "../protocol/frame.ts";
import { OPEN, type Transport } from "../delivery/transport.ts";
import type { Acceptance } from "./runtime.ts";

/** The common part of the sockets of Deno, workerd and ws. workerd has `bufferedAmount` from late 2026 on. */
interface StandardSocket {
  readonly readyState: number;
  readonly bufferedAmount?: number;
  send(data: string): void;
  close(code: number, reason: string): void;
}

/** One queue for the process. A Durable Object has its own. */
const shared = new WriteQueue();

/**
 * A {@link Transport} over a standard `WebSocket`, or a socket like it. Such a socket writes each frame separately, so the
 * messages of a turn are sent as one array if the client accepts arrays.
 */
export class StandardTransport<Socket extends StandardSocket = WebSocket> implements Transport, Writer {
  readonly socket: Socket;
  batch: Batch | undefined = undefined;
  /** Absent if the client does not accept arrays. */
  readonly #queue: WriteQueue | undefined;

  /**
   * @param protocol the agreed subprotocol.
   * @param queue holds frames until the end of the turn. @default one queue for all sockets of the process
   */
  constructor(socket: Socket, protocol: string | null, queue: WriteQueue = shared) {
    this.socket = socket;
    this.#queue = protocol === BATCHING ? queue : undefined;
  }

  get readyState(): number {
    return this.socket.readyState;
  }

  get bufferedAmount(): number {
    return (this.socket.bufferedAmount ?? 0) + (this.batch?.bytes ?? 0);
  }

  send(frame: Frame): boolean {
    if (this.#queue) this.#queue.push(this, frame);
    else this.socket.send(frame.text);
    return true;
  }

  write(): void {
    const { batch } = this;
    if (!batch) return;
    this.batch = undefined;
    if (this.socket.readyState !== OPEN) return;
    for (const text of batch.texts()) this.socket.send(text);
  }

  close(code: number, reason: string): void {
    this.write();
    this.socket.close(code, reason);
  }

  /** Does nothing: a standard socket cannot be terminated, and a second close has no effect. */
  terminate(): void {}
}

/** Attaches a standard `WebSocket` to a connection, which starts when the socket opens. */
export function attach(socket: WebSocket, acceptance: Pick<Acceptance, "protocol" | "open" | "abandoned">): Feed {
  socket.binaryType = "arraybuffer";
  const feed = new Feed(acceptance);
  for (const type of ["open", "message", "error", "close"]) socket.addEventListener(type, feed);
  return feed;
}

/** Passes the events of a socket to its connection. One object per socket takes less memory than a closure per event. */
export class Feed {
  /** Cleared when the socket opens, because it refers to the request. */
  #acceptance: Pick<Acceptance, "protocol" | "open" | "abandoned"> | undefined;
  #connection: Connection | undefined;
  #refusal: { code: number; reason: string } | undefined;

  constructor(acceptance: Pick<Acceptance, "protocol" | "open" | "abandoned">) {
    this.#acceptance = acceptance;
  }

  /** Releases the slot, and closes the socket once it is open. No connection starts. */
  refuse(code: number, reason: string): void {
    this.#acceptance?.abandoned();
    this.#acceptance = undefined;
    this.#refusal = { code, reason };
  }

  handleEvent(event: Event): void {
    const connection = this.#connection;
    if (event.type === "open") this.#opened(event.currentTarget as WebSocket); // `attach` listens to sockets only.
    else if (event.type === "message") connection?.message((event as MessageEvent).data);
    else if (event.type === "error") {
      // Deno pings by itself, and reports a missing pong as this error. Any other error is of the network or the peer, and a
      // close event follows.
      if ((event as ErrorEvent).message.includes("No response from ping frame")) {
        connection?.close(CloseCode.HEARTBEAT_TIMEOUT, "Heartbeat timed out", "heartbeat");
      }
    } else {
      const { code, reason, wasClean } = event as CloseEvent;
      this.#acceptance?.abandoned();
      // Deno reports 0 where RFC 6455 §7.1.5 has 1006: no close frame arrived.
      if (code === 0 || !wasClean) connection?.closed(ABNORMAL, "", false);
      else connection?.closed(code, reason, true);
    }
  }

  #opened(socket: WebSocket): void {
    if (this.#refusal) return socket.close(this.#refusal.code, this.#refusal.reason);
    const acceptance = this.#acceptance;
    this.#acceptance = undefined;
    if (acceptance) this.#connection = acceptance.open(new StandardTransport(socket, acceptance.protocol));
  }
}
