import type { CloseCause } from "../protocol/close.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** How an authentication ended; `limited`: too many from its address have failed, and `authenticate` was not called. */
export type AuthenticationOutcome = "accepted" | "refused" | "limited" | "failed";

/** Receives the events of one controller for `noroshi/otel`. A method throws only what the function that it calls has thrown. */
export interface Observer {
  /** A connection was created, or restored from hibernation. */
  opened(client: WebSocketClient): void;
  /** A connection was closed. */
  closed(client: WebSocketClient, cause: CloseCause): void;
  /** Credentials were verified. */
  authenticated(outcome: AuthenticationOutcome): void;
  /** A message came in that the rate limit accepts. `null`: it could not be decoded. */
  received(type: string | null): void;
  /** Calls a handler, and returns what it returns. */
  handle(request: WebSocketMessage, call: () => unknown): unknown;
  /** Publishes to a channel, and returns what that returns. */
  publish<Result>(call: () => Result): Result;
  /** A subscription was to continue from a position; whether it has received all since. */
  recovered(isComplete: boolean): void;
  /** It was removed. */
  end(): void;
}

/** The observer of a controller, which all parts of the controller read. */
export class Observed {
  /** Message types that have a handler. */
  readonly types: Set<string> = new Set();
  #observer: Observer | undefined;

  /** Absent: nothing is measured. */
  get observer(): Observer | undefined {
    return this.#observer;
  }

  /** Installs an observer. Returns a function that removes it. @throws {TypeError} if there is one already. */
  install(create: () => Observer): () => void {
    if (this.#observer) throw new TypeError("Cannot observe the controller: it is observed already, end that first");
    const observer = this.#observer = create();
    return () => {
      if (this.#observer !== observer) return;
      this.#observer = undefined;
      observer.end();
    };
  }
}
