import type { WebSocketMessage } from "../protocol.ts";
import type { ClientError } from "./error.ts";
import { type CloseInfo, type Failure, readFailure } from "./failure.ts";
import { readFrame } from "./frames.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { ClientClock, WebSocketConstructor, WebSocketLike } from "./platform.ts";

/** How long the other side may take to answer a close, in ms. */
const CLOSE_PATIENCE = 2_000;

/** What a connection needs of the client. */
export interface ConnectionHost {
  readonly WebSocket: WebSocketConstructor;
  readonly clock: ClientClock;
  /** ms. */
  readonly heartbeat: number;
  /** Characters. */
  readonly maxFrame: number;
  opened(): void;
  received(message: WebSocketMessage): void;
  /** Told once. */
  ended(close: CloseInfo): void;
  /** What asks for a sign of life. */
  ping(): WebSocketMessage;
  readonly invalid: (error: ClientError) => void;
}

/** One WebSocket from its opening to its end, with the pings that notice when it is dead. */
export class Connection {
  /** Resolves when nothing is left of it, or the other side did not answer the close. */
  readonly gone: Promise<void>;
  readonly #host: ConnectionHost;
  readonly #socket: WebSocketLike;
  /** Starts once the other side may be asked. */
  readonly heartbeat: Heartbeat;
  #resolveGone!: () => void; // Assigned in the constructor, by a promise.
  /** Whether the WebSocket was ever open. */
  wasOpened = false;
  #over = false;
  #failure: Failure = { reason: "" };

  /** @throws what the constructor of the WebSocket throws: for a bad address, or a token that is no subprotocol. */
  constructor(host: ConnectionHost, url: string, protocols: string[]) {
    this.#host = host;
    const socket = this.#socket = new host.WebSocket(url, protocols);
    const ping = () => this.send(JSON.stringify(host.ping()));
    this.heartbeat = new Heartbeat(host.clock, host.heartbeat, ping, () => this.end(1006, "No answer"));
    socket.onopen = () => {
      this.wasOpened = true;
      if (!this.#over) host.opened();
    };
    socket.onmessage = ({ data }: { data: unknown }) => this.#read(data);
    // A close follows. Without a listener `ws` would throw.
    socket.onerror = (event) => void (this.#failure = readFailure(event));
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
      socket.onclose = ({ code, reason, wasClean }: CloseInfo) => {
        resolve();
        // Some say 0, or nothing at all, where there was no close frame.
        const close = { ...this.#failure, code: code || 1006, wasClean: !!wasClean };
        if (!this.#over) this.#stop(reason ? { ...close, reason } : close);
      };
    });
  }

  send(text: string): void {
    // After a close, browsers drop it in silence and some others throw.
    if (this.#socket.readyState === 1) this.#socket.send(text);
  }

  /**
   * Ends it for the client at once: what still comes is not read, and the other side is not waited for, since it may be dead. With 1006
   * it is not told, where the platform can do without.
   *
   * @param told the code for the other side.
   */
  end(code: number, reason: string, told = 4000): void {
    if (this.#over) return;
    this.#over = true;
    const socket = this.#socket;
    if (code === 1006 && socket.terminate) socket.terminate();
    else {
      try {
        // Browsers send 1000 and 3000 to 4999 only, and no reason of more than 123 bytes.
        socket.close(told, reason.slice(0, 40));
      } catch {
        socket.close();
      }
    }
    const { clock } = this.#host;
    const timer = clock.setTimeout(() => {
      socket.terminate?.();
      this.#resolveGone();
    }, CLOSE_PATIENCE);
    void this.gone.then(() => clock.clearTimeout(timer));
    // As it ends for the client it was told to, or it is dead.
    this.#stop({ code, reason, wasClean: code === told });
  }

  #stop(close: CloseInfo): void {
    this.#over = true; // A listener may look.
    this.heartbeat.stop();
    this.#host.ended(close);
  }

  #read(data: unknown): void {
    if (this.#over) return;
    this.heartbeat.heard();
    if (typeof data === "string" && data.length > this.#host.maxFrame) {
      return this.end(1009, "Message too big");
    }
    for (const message of readFrame(data, this.#host.invalid)) {
      // What came before it may have ended the connection.
      if (!this.#over) this.#host.received(message);
    }
  }
}
