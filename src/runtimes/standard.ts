import { type Batch, BATCHING } from "../batch.ts";
import { ABNORMAL, CloseCode } from "../close.ts";
import type { Connection } from "../connection.ts";
import type { Frame } from "../frame.ts";
import { Outbox, type Writer } from "../outbox.ts";
import { OPEN, type Transport } from "../transport.ts";
import type { Acceptance } from "./runtime.ts";

/** What the sockets of Deno, workerd and ws have in common. workerd had no `bufferedAmount` before the runtime of late 2026. */
interface StandardSocket {
  readonly readyState: number;
  readonly bufferedAmount?: number;
  send(data: string): void;
  close(code: number, reason: string): void;
}

/** Of all sockets of the process; each Durable Object has its own. */
const shared = new Outbox();

/**
 * A {@link Transport} over a standard `WebSocket`, or one that is like it. Such a socket writes each frame by itself: where the client takes
 * arrays, what it is sent in one turn goes out as one.
 */
export class StandardTransport<Socket extends StandardSocket = WebSocket> implements Transport, Writer {
  readonly socket: Socket;
  batch: Batch | undefined = undefined;
  /** Absent: the client takes no arrays. */
  readonly #outbox: Outbox | undefined;

  /**
   * @param protocol the subprotocol that was agreed on.
   * @param outbox what its frames wait in. @default one for all sockets of the process
   */
  constructor(socket: Socket, protocol: string | null, outbox: Outbox = shared) {
    this.socket = socket;
    this.#outbox = protocol === BATCHING ? outbox : undefined;
  }

  get readyState(): number {
    return this.socket.readyState;
  }

  get bufferedAmount(): number {
    return (this.socket.bufferedAmount ?? 0) + (this.batch?.bytes ?? 0);
  }

  send(frame: Frame): boolean {
    if (this.#outbox) this.#outbox.push(this, frame);
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

  /** The standard has no way to drop a connection; closing again changes nothing. */
  terminate(): void {}
}

/** Feeds a standard `WebSocket` into a connection that starts when the socket is open. */
export function attach(socket: WebSocket, acceptance: Pick<Acceptance, "protocol" | "open" | "abandoned">): Feed {
  socket.binaryType = "arraybuffer";
  const feed = new Feed(acceptance);
  for (const type of ["open", "message", "error", "close"]) socket.addEventListener(type, feed);
  return feed;
}

/** Hands events on: one object a socket, where a closure for each of them would take more. */
export class Feed {
  /** Until the socket opens: it holds the request, an idle connection must not. */
  #acceptance: Pick<Acceptance, "protocol" | "open" | "abandoned"> | undefined;
  #connection: Connection | undefined;
  #refusal: { code: number; reason: string } | undefined;

  constructor(acceptance: Pick<Acceptance, "protocol" | "open" | "abandoned">) {
    this.#acceptance = acceptance;
  }

  /** Gives the place back, and closes the socket once it is open: no connection starts. */
  refuse(code: number, reason: string): void {
    this.#acceptance?.abandoned();
    this.#acceptance = undefined;
    this.#refusal = { code, reason };
  }

  handleEvent(event: Event): void {
    const connection = this.#connection;
    if (event.type === "open") this.#opened(event.currentTarget as WebSocket); // Only `attach` adds it, to a socket.
    else if (event.type === "message") connection?.message((event as MessageEvent).data);
    else if (event.type === "error") {
      // Deno's own idle detection found the peer dead: the protocol pings are its own there. Whatever else fails is the network's or the
      // peer's doing, and ends in a close like an abrupt end.
      if ((event as ErrorEvent).message.includes("No response from ping frame")) {
        connection?.close(CloseCode.HEARTBEAT_TIMEOUT, "Heartbeat timed out", "heartbeat");
      }
    } else {
      const { code, reason, wasClean } = event as CloseEvent;
      this.#acceptance?.abandoned();
      // Deno says 0 where RFC 6455 §7.1.5 has 1006: no close frame came.
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
