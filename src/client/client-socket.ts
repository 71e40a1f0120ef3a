import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ClientError } from "./error.ts";
import { type CloseInfo, type Failure, readFailure } from "./failure.ts";
import { readFrame } from "./frames.ts";
import { LivenessProbe } from "./liveness-probe.ts";
import type { ClientClock, WebSocketConstructor, WebSocketLike } from "./platform.ts";

/** How long to wait for the peer's close frame, in ms. */
const CLOSE_PATIENCE = 2_000;

/** What a connection needs from the connector. */
export interface ClientSocketHost {
  readonly WebSocket: WebSocketConstructor;
  readonly clock: ClientClock;
  /** Ping interval in ms. */
  readonly heartbeat: number;
  /** In characters. */
  readonly maxFrame: number;
  opened(): void;
  received(message: WebSocketMessage): void;
  /** Called once. */
  ended(close: CloseInfo): void;
  /** Builds the heartbeat's ping. */
  ping(): WebSocketMessage;
  readonly invalid: (error: ClientError) => void;
}

/** One WebSocket from opening to close, with a heartbeat that detects a dead peer. */
export class ClientSocket {
  /** Resolves when the socket has closed, or the peer did not answer the close in time. */
  readonly gone: Promise<void>;
  readonly #host: ClientSocketHost;
  readonly #socket: WebSocketLike;
  /** Started by the connector when the client is admitted. */
  readonly liveness: LivenessProbe;
  #resolveGone!: () => void; // Assigned in the constructor by the executor of `gone`.
  /** Whether the upgrade succeeded. */
  wasOpened = false;
  #hasEnded = false;
  #failure: Failure = { reason: "" };

  /** @throws what the `WebSocket` constructor throws, such as for an invalid URL or a token that is no valid subprotocol. */
  constructor(host: ClientSocketHost, url: string, protocols: string[]) {
    this.#host = host;
    const socket = this.#socket = new host.WebSocket(url, protocols);
    const ping = () => this.send(JSON.stringify(host.ping()));
    this.liveness = new LivenessProbe(host.clock, host.heartbeat, ping, () => this.end(1006, "No answer"));
    socket.onopen = () => {
      this.wasOpened = true;
      if (!this.#hasEnded) host.opened();
    };
    socket.onmessage = ({ data }: { data: unknown }) => this.#read(data);
    // `onclose` follows. Without a listener `ws` would throw.
    socket.onerror = (event) => void (this.#failure = readFailure(event));
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
      socket.onclose = ({ code, reason, wasClean }: CloseInfo) => {
        resolve();
        // Without a close frame, some platforms report code 0 or no fields at all.
        const close = { ...this.#failure, code: code || 1006, wasClean: !!wasClean };
        if (!this.#hasEnded) this.#stop(reason ? { ...close, reason } : close);
      };
    });
  }

  send(text: string): void {
    // After a close, browsers drop the message silently and some runtimes throw.
    if (this.#socket.readyState === 1) this.#socket.send(text);
  }

  /**
   * Ends the connection at once, without waiting for the peer, which may be dead. Later frames are ignored.
   * With 1006 the socket is terminated without a close frame where the platform supports it.
   *
   * @param sentCode the code of the close frame.
   */
  end(code: number, reason: string, sentCode = 4000): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const socket = this.#socket;
    if (code === 1006 && socket.terminate) socket.terminate();
    else {
      try {
        // Browsers accept only 1000 and 3000 to 4999, and reasons of at most 123 bytes.
        socket.close(sentCode, reason.slice(0, 40));
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
    // Clean only if the peer was sent this very code; otherwise the peer is presumed dead or at fault.
    this.#stop({ code, reason, wasClean: code === sentCode });
  }

  #stop(close: CloseInfo): void {
    this.#hasEnded = true; // Set first: a listener may check it.
    this.liveness.stop();
    this.#host.ended(close);
  }

  #read(data: unknown): void {
    if (this.#hasEnded) return;
    this.liveness.heard();
    if (typeof data === "string" && data.length > this.#host.maxFrame) {
      return this.end(1009, "Message too big");
    }
    for (const message of readFrame(data, this.#host.invalid)) {
      // An earlier message of the frame may have ended the connection.
      if (!this.#hasEnded) this.#host.received(message);
    }
  }
}
