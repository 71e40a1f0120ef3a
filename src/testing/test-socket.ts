import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { MemorySocket, UpgradeResponse } from "./memory-socket.ts";
import type { Data } from "./wire.ts";

/** How a connection has ended. */
export interface TestClose {
  /** The close code; 1006 without a close frame. */
  readonly code: number;
  /** The reason of the close frame, or an empty string. */
  readonly reason: string;
}

/** Thrown when the server has refused the upgrade. */
export class UpgradeRefused extends Error {
  /** The name of the class. */
  override readonly name = "UpgradeRefused";
  /** The HTTP status. */
  readonly status: number;
  /** The headers of the answer. */
  readonly headers: Headers;
  /** The body of the answer. */
  readonly body: string;

  /** Created by the test kit. */
  constructor({ status, headers, body }: UpgradeResponse) {
    super(`The upgrade was answered ${status} ${body}`);
    this.status = status;
    this.headers = headers;
    this.body = body;
  }
}

/** A WebSocket without the protocol of the client: it sends and receives single messages. */
export class TestSocket {
  /** Resolves when the connection has ended. */
  readonly closed: Promise<TestClose>;
  readonly #socket: MemorySocket;
  #received: string[] = [];
  readonly #waiting: { resolve(text: string): void; reject(error: Error): void }[] = [];
  #close: TestClose | undefined;

  /** Created by `t.socket()`. */
  constructor(socket: MemorySocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }: { data: string }) => this.#receive(data);
    this.closed = new Promise((resolve) => {
      socket.onclose = ({ code, reason }: TestClose) => {
        this.#close = { code, reason };
        for (const { reject } of this.#waiting.splice(0)) reject(this.#ended(this.#close));
        resolve(this.#close);
      };
    });
  }

  /** The same values as `WebSocket.readyState`. */
  get readyState(): number {
    return this.#socket.readyState;
  }

  /** The agreed subprotocol, or an empty string. */
  get protocol(): string {
    return this.#socket.protocol;
  }

  /** Headers of the 101 response. */
  get headers(): Headers {
    return this.#socket.response!.headers; // A `TestSocket` is created after the upgrade.
  }

  /** Whether it answers protocol pings, as every WebSocket does. @default {true} */
  set answersPings(answers: boolean) {
    this.#socket.onping = answers ? null : () => {};
  }

  /** Whether it answers the server's close frame, as every WebSocket does. @default {true} */
  set answersClose(answers: boolean) {
    this.#socket.onclosing = answers ? null : () => {};
  }

  /** Sends a message as JSON; a string or binary data as it is. */
  send(message: object | string): void {
    const isData = typeof message === "string" || message instanceof ArrayBuffer || ArrayBuffer.isView(message);
    this.#socket.send(isData ? message as Data : JSON.stringify(message)); // `isData` has checked it.
  }

  /** Resolves with the next message. Rejects if the connection ends before. */
  async next(): Promise<WebSocketMessage> {
    return JSON.parse(await this.text());
  }

  /** Like {@link next}, but resolves with the text. Each message in an array of `noroshi.v1` counts. */
  text(): Promise<string> {
    const text = this.#received.shift();
    if (text !== undefined) return Promise.resolve(text);
    if (this.#close) return Promise.reject(this.#ended(this.#close));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Sends a message, and resolves with the next one that arrives. */
  ask(message: object | string): Promise<WebSocketMessage> {
    this.send(message);
    return this.next();
  }

  /** Closes the connection. Resolves when it has ended. */
  close(code?: number, reason?: string): Promise<TestClose> {
    this.#socket.close(code, reason);
    return this.closed;
  }

  #receive(data: string): void {
    const texts = this.protocol === "noroshi.v1" && data.startsWith("[")
      ? (JSON.parse(data) as unknown[]).map((message) => JSON.stringify(message)) // PROTOCOL.md 1.6: an array of messages.
      : [data];
    for (const text of texts) {
      const waiting = this.#waiting.shift();
      if (waiting) waiting.resolve(text);
      else this.#received.push(text);
    }
  }

  #ended({ code, reason }: TestClose): Error {
    return new Error(`The connection has ended: ${code}${reason && ` ${reason}`}`);
  }
}
