import { byteLength } from "../protocol/bytes.ts";
import { ABNORMAL, answerCloseCode, NO_STATUS } from "../protocol/close.ts";
import { CLOSED, CLOSING, OPEN } from "../delivery/transport.ts";
import { Link } from "./link.ts";
import type { Turns } from "./turns.ts";

/** Data of a message, text or binary. */
export type Data = string | ArrayBuffer | ArrayBufferView;

/** Receives the events of the client's end of a connection. */
export interface ClientListener {
  message(data: string): void;
  /** The server has sent a close frame. {@link Wire.answerClose} answers it. */
  closing(code: number, reason: string): void;
  closed(code: number, reason: string, wasClean: boolean): void;
  /** A protocol ping, which {@link Wire.pong} answers. */
  ping(number: number | undefined): void;
  pong(): void;
}

/** Receives the events of the server's end of a connection. */
export interface ServerListener {
  message(data: Data): void;
  closed(code: number, reason: string, wasClean: boolean): void;
  /** A protocol ping or pong. */
  heard(pong: boolean, number?: number): void;
}

/** Called with each frame when the client sends or receives it. */
export type Recorder = (direction: ">" | "<", frame: string | { readonly close: number; readonly reason: string }) => void;

/** One WebSocket connection in memory after the upgrade: the state of both ends, and a link in each direction. */
export class Wire {
  /** `readyState` of the client's end and the server's. */
  clientState: number = OPEN;
  serverState: number = OPEN;
  /** Absent after the server's process has ended. */
  server: ServerListener | undefined;
  readonly #client: ClientListener;
  readonly #toServer: Link;
  readonly #toClient: Link;
  readonly #turns: Turns;
  readonly #record: Recorder;
  readonly #over: (wire: Wire) => void;
  /** Whether nothing arrives any more, which neither end notices. */
  #isLost = false;
  /** Whether the client has received a close frame. */
  #isClosing = false;

  /** @param over called when both ends are closed. */
  constructor(turns: Turns, client: ClientListener, record: Recorder, over: (wire: Wire) => void) {
    this.#turns = turns;
    this.#client = client;
    this.#record = record;
    this.#over = over;
    this.#toServer = new Link(turns);
    this.#toClient = new Link(turns);
  }

  get isOver(): boolean {
    return this.clientState === CLOSED && (this.serverState === CLOSED || this.server === undefined);
  }

  /** Whether nothing arrives any more, which neither end has noticed. */
  get isLost(): boolean {
    return this.#isLost && !this.isOver;
  }

  // The client's end

  /** Calls `callback` before anything that the server sends arrives. */
  opened(callback: () => void): void {
    this.#toClient.send(callback);
  }

  sendToServer(data: Data): void {
    if (this.clientState !== OPEN) return; // After a close, `send` of a browser does nothing, too.
    this.#record(">", typeof data === "string" ? data : `<${data.byteLength} bytes>`);
    this.#toServer.send(() => this.server?.message(data), typeof data === "string" ? byteLength(data) : data.byteLength);
  }

  /** Starts the closing handshake. */
  closeFromClient(code: number = NO_STATUS, reason = ""): void {
    if (this.clientState !== OPEN) return;
    if (this.#isClosing) return this.answerClose(code, reason);
    this.clientState = CLOSING;
    this.#sendClose(code, reason);
  }

  /** Answers the server's close frame, after which the connection is over. */
  answerClose(code: number, reason: string): void {
    if (this.clientState === CLOSED) return;
    if (this.clientState === OPEN) this.#sendClose(code, reason);
    this.#closeClient(code, reason, true);
  }

  ping(): void {
    this.#toServer.send(() => {
      this.server?.heard(false);
      this.#toClient.send(() => this.#client.pong());
    });
  }

  pong(number: number | undefined): void {
    this.#toServer.send(() => this.server?.heard(true, number));
  }

  // The server's end

  /** Bytes that the client has not read. */
  get bufferedBytes(): number {
    return this.#toClient.bufferedBytes;
  }

  sendToClient(text: string): void {
    if (this.serverState !== OPEN) return;
    this.#toClient.send(() => {
      if (this.clientState === CLOSED) return;
      this.#record("<", text);
      this.#client.message(text);
    }, byteLength(text));
  }

  closeFromServer(code: number, reason: string): void {
    if (this.serverState !== OPEN) return;
    this.serverState = CLOSING;
    this.#toClient.send(() => this.#clientReceivesClose(code, reason));
  }

  pingClient(number: number | undefined): void {
    if (this.serverState === OPEN) this.#toClient.send(() => this.#client.ping(number));
  }

  /** Stops reading until {@link resume}. */
  pause(): void {
    this.#toServer.hold();
  }

  resume(): void {
    this.#toServer.release();
  }

  get isPaused(): boolean {
    return this.#toServer.isHeld;
  }

  // The network

  /** Stops the client from reading until {@link unstall}: what the server sends stays in its buffers. */
  stall(): void {
    this.#toClient.hold();
  }

  unstall(): void {
    this.#toClient.release();
  }

  /** Whether the client receives nothing, because it is stalled or the network loses everything. */
  get isStuck(): boolean {
    return this.#isLost || this.#toClient.isHeld;
  }

  /** Ends the connection without a closing handshake: both ends see 1006. */
  reset(): void {
    this.#end();
    this.#turns.post(() => {
      this.#closeServer(ABNORMAL, "", false);
      this.#closeClient(ABNORMAL, "", false);
    });
  }

  /** Loses everything from now on, without notifying either end. */
  lose(): void {
    this.#isLost = true;
    this.#end();
  }

  /** One end drops the connection. The other end notices, unless the network loses everything. */
  terminate(end: "client" | "server"): void {
    if (!this.#isLost) return this.reset();
    this.#turns.post(() => end === "client" ? this.#closeClient(ABNORMAL, "", false) : this.#closeServer(ABNORMAL, "", false));
  }

  /** Called when the server's process has ended. */
  abandon(): void {
    this.server = undefined;
    this.serverState = CLOSED;
    if (this.clientState === CLOSED) this.#over(this);
    else this.reset();
  }

  #sendClose(code: number, reason: string): void {
    this.#record(">", { close: code, reason });
    this.#toServer.send(() => {
      if (this.serverState === OPEN) {
        this.serverState = CLOSING;
        this.#toClient.send(() => this.#clientReceivesClose(code === NO_STATUS ? NO_STATUS : answerCloseCode(code), reason));
      }
      this.#closeServer(code, reason, true);
    });
  }

  #clientReceivesClose(code: number, reason: string): void {
    if (this.clientState === CLOSED) return;
    this.#record("<", { close: code, reason });
    this.#isClosing = true;
    // The client has sent its close frame already, so the handshake is done.
    if (this.clientState === CLOSING) this.#closeClient(code, reason, true);
    else this.#client.closing(code, reason);
  }

  #closeClient(code: number, reason: string, wasClean: boolean): void {
    if (this.clientState === CLOSED) return;
    this.clientState = CLOSED;
    if (!wasClean) this.#record("<", { close: code, reason });
    this.#client.closed(code, reason, wasClean);
    if (this.isOver) this.#over(this);
  }

  #closeServer(code: number, reason: string, wasClean: boolean): void {
    if (this.serverState === CLOSED) return;
    this.serverState = CLOSED;
    this.server?.closed(code, reason, wasClean);
    if (this.isOver) this.#over(this);
  }

  #end(): void {
    this.#toServer.end();
    this.#toClient.end();
  }
}
