import type { CloseCause } from "../protocol/close.ts";
import type { DescribedRefusal, RefusalReason } from "./refusals.ts";
import type { LogLevel, LogRecord } from "./log.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** Outcome of an authentication; `limited`: too many attempts of the address have failed, and `authenticate` was not called. */
export type AuthenticationOutcome = "accepted" | "refused" | "limited" | "failed";

/** A publication on its way to the engine. */
export interface Publishing {
  readonly channel: string;
  /** The name that the channel is declared with, such as `room:*`. */
  readonly declared: string;
  readonly event: string;
  /** The `traceparent` of the client's message, unchecked; `null`: it has none; `undefined`: the application publishes. */
  readonly parent: unknown;
  /** Set by an observer: the span that other nodes continue. */
  traceparent?: string;
}

/** A publication of any node that this one delivers to its subscribers. */
export interface Delivering extends Pick<Publishing, "channel" | "declared" | "event"> {
  /** `traceparent` of the span that published it, unchecked. */
  readonly traceparent: string;
  readonly subscriptions: number;
}

/** The close frame of the side that closed first. */
export interface ClosedBy {
  readonly code: number;
  readonly reason: string;
}

/** Receives the events of one controller. A method throws only what the function that it calls has thrown. */
export interface Observer {
  /** A connection was created, or restored from hibernation. */
  opened?(client: WebSocketClient): void;
  /** A connection was closed. */
  closed?(client: WebSocketClient, cause: CloseCause, close: ClosedBy): void;
  /** An upgrade or an `auth` message was refused. `describe` is absent if there are no details. */
  refused?(reason: RefusalReason, describe?: () => DescribedRefusal, client?: WebSocketClient): void;
  /** An authentication has ended. */
  authenticated?(outcome: AuthenticationOutcome): void;
  /** A message arrived that the rate limit accepts. Without a message, the type is `null`: it could not be decoded. */
  received?(type: string | null, client: WebSocketClient, message?: WebSocketMessage): void;
  /** Calls a handler, and returns what it returns. */
  handle?(request: WebSocketMessage, client: WebSocketClient, call: () => unknown): unknown;
  /** Sends the stream that {@link handle} has returned. The promise settles when all is sent. */
  stream?(request: WebSocketMessage, client: WebSocketClient, send: () => Promise<unknown>): Promise<unknown>;
  /** Returns a function that calls `call` in the context of now, such as for the next part of an answer. */
  bind?<Result>(call: () => Result): () => Result;
  /** Calls `call`, which publishes to a channel, and returns its result. */
  publish?<Result>(publishing: Publishing, call: () => Result): Result;
  /** Delivers a publication that a span has published. */
  deliver?(delivering: Delivering, call: () => void): void;
  /** A subscription asked to recover from a position. @param isComplete whether it receives every publication since. */
  recovered?(isComplete: boolean): void;
  /** An error was reported: the application's, the engine's or that of a socket. */
  reported?(error: unknown, client?: WebSocketClient): void;
  /** A record was logged. */
  logged?(level: LogLevel, record: LogRecord, message: string): void;
  /** The observer was removed. */
  end?(): void;
}

/** Combines observers into one. The first one is the outermost: its wrapper is called first. */
export function combine(observers: readonly Observer[]): Observer | undefined {
  if (observers.length < 2) return observers[0];
  /** Wraps the call with all observers. */
  const around = <Call extends () => unknown>(call: Call, wrap: (observer: Observer, next: Call) => Call): ReturnType<Call> =>
    observers.reduceRight((next, observer) => wrap(observer, next), call)() as ReturnType<Call>; // Each returns what the call does.
  return {
    opened: (client) => observers.forEach((each) => each.opened?.(client)),
    closed: (client, cause, close) => observers.forEach((each) => each.closed?.(client, cause, close)),
    refused: (...refusal) => observers.forEach((each) => each.refused?.(...refusal)),
    authenticated: (outcome) => observers.forEach((each) => each.authenticated?.(outcome)),
    received: (type, client, message) => observers.forEach((each) => each.received?.(type, client, message)),
    handle: (request, client, call) =>
      around(call, (each, next) => each.handle ? () => each.handle!(request, client, next) : next),
    stream: (request, client, send) =>
      around(send, (each, next) => each.stream ? () => each.stream!(request, client, next) : next),
    bind: (call) => observers.reduce((next, each) => each.bind?.(next) ?? next, call),
    publish: (publishing, call) => around(call, (each, next) => each.publish ? () => each.publish!(publishing, next) : next),
    deliver: (delivering, call) => around(call, (each, next) => each.deliver ? () => each.deliver!(delivering, next) : next),
    reported: (error, client) => observers.forEach((each) => each.reported?.(error, client)),
    recovered: (isComplete) => observers.forEach((each) => each.recovered?.(isComplete)),
    logged: (level, record, message) => observers.forEach((each) => each.logged?.(level, record, message)),
    end: () => observers.forEach((each) => each.end?.()),
  };
}

/** The observers of a controller, which all parts of the controller read. */
export class Observed {
  /** Message types that have a handler. */
  readonly types: Set<string> = new Set();
  readonly #installed = new Map<string, Observer>();
  #observer: Observer | undefined;

  /** All observers as one. Absent: nothing is measured. */
  get observer(): Observer | undefined {
    return this.#observer;
  }

  /**
   * Installs an observer. Returns a function that removes it.
   *
   * @param name of the observer, such as `OpenTelemetry`. @throws {TypeError} if one of this name is installed.
   */
  install(name: string, create: () => Observer): () => void {
    if (this.#installed.has(name)) {
      throw new TypeError(`Cannot observe the controller: ${name} observes it already, end that first`);
    }
    const observer = create();
    this.#installed.set(name, observer);
    this.#update();
    return () => {
      if (this.#installed.get(name) !== observer) return;
      this.#installed.delete(name);
      this.#update();
      observer.end?.();
    };
  }

  #update(): void {
    this.#observer = combine([...this.#installed.values()]);
  }
}
