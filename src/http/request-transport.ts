import type { Connection } from "../connection/connection.ts";
import { CLOSED, OPEN, type Transport } from "../delivery/transport.ts";
import { CloseCode } from "../protocol/close.ts";
import type { Frame } from "../protocol/frame.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { Acceptance } from "../runtimes/runtime.ts";

/** How a connection was closed before its answer. */
export interface Closed {
  readonly close: { readonly code: number; readonly reason: string };
}

/** The answer to a request, or the close that came before it. */
export type Answer = { readonly message: WebSocketMessage } | Closed;

/** The connection of one HTTP request: it sends one message, and ends with the answer. */
export class RequestTransport implements Transport {
  readonly socket = {};
  readonly isOverHttp: boolean = true;
  readonly bufferedAmount = 0;
  readyState: number = OPEN;
  readonly #connection: Connection;
  #answer: ((answer: Answer) => void) | undefined;
  #closed: Closed | undefined;

  constructor({ open }: Acceptance) {
    this.#connection = open(this);
  }

  get connection(): Connection {
    return this.#connection;
  }

  /** Set when the server has closed the connection. */
  get closed(): Closed | undefined {
    return this.#closed;
  }

  /** Sends the message, and resolves with its answer, whose type is the same, or `server` or `auth` if it was refused unread. */
  request(message: WebSocketMessage): Promise<Answer> {
    return new Promise((resolve) => {
      if (this.#closed) return resolve(this.#closed);
      this.#answer = resolve;
      this.#connection.message(JSON.stringify(message));
    });
  }

  /** Ends the connection. */
  end(): void {
    this.#connection.close(CloseCode.NORMAL, "Answered");
  }

  send({ text, isJson }: Frame): boolean {
    const message = isJson ? JSON.parse(text) as WebSocketMessage : undefined; // Ours, unless it is a string of the application.
    if (message && ["publish", "server", "auth"].includes(message.type)) this.#answer?.({ message });
    return true;
  }

  close(code: number, reason: string): void {
    this.readyState = CLOSED;
    this.#closed = { close: { code, reason } };
    this.#answer?.(this.#closed);
    queueMicrotask(() => this.#connection.closed(code, reason, true)); // As every runtime does, after `close()` has returned.
  }

  terminate(): void {}
}
