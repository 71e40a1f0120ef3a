import type { Connection } from "../connection/connection.ts";
import { StandardTransport } from "../runtimes/standard.ts";
import type { HibernatingSocket } from "../serve/hibernating-transport.ts";
import type { ServerListener, Wire } from "./wire.ts";

/** The server's socket of a connection in memory. */
export class ServerSocket implements HibernatingSocket {
  readonly wire: Wire;
  readonly #hibernates: boolean;
  #attachment: unknown = null;

  /** @param hibernates whether it belongs to a Durable Object, which does not report `bufferedAmount`. */
  constructor(wire: Wire, hibernates: boolean) {
    this.wire = wire;
    this.#hibernates = hibernates;
  }

  get readyState(): number {
    return this.wire.serverState;
  }

  get bufferedAmount(): number {
    return (this.#hibernates ? undefined : this.wire.bufferedBytes) as number; // Checked by `HibernatingTransport`, as in workerd.
  }

  send(text: string): void {
    this.wire.sendToClient(text);
  }

  close(code: number, reason: string): void {
    this.wire.closeFromServer(code, reason);
  }

  serializeAttachment(value: unknown): void {
    this.#attachment = structuredClone(value);
  }

  deserializeAttachment(): unknown {
    return this.#attachment;
  }
}

/** Writes each frame at once, and can do what a socket of Node can. */
export class MemoryTransport extends StandardTransport<ServerSocket> {
  ponged?: (number: number | undefined) => void;

  constructor(socket: ServerSocket) {
    super(socket, null); // Does not join messages into arrays, so that tests see single messages.
  }

  override terminate(): void {
    this.socket.wire.terminate("server");
  }

  ping(number?: number): void {
    this.socket.wire.pingClient(number);
  }

  pause(): void {
    this.socket.wire.pause();
  }

  resume(): void {
    this.socket.wire.resume();
  }

  get isPaused(): boolean {
    return this.socket.wire.isPaused;
  }
}

/** Passes what the socket receives to its connection. */
export function listenerOf(connection: Connection, transport?: MemoryTransport): ServerListener {
  return {
    message: (data) => connection.message(data),
    closed: (code, reason, wasClean) => connection.closed(code, reason, wasClean),
    heard(isPong, number) {
      connection.heard();
      if (isPong) transport?.ponged?.(number);
    },
  };
}
