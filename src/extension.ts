import type { ClientKey } from "./client-key.ts";
import type { Deadlines } from "./clock.ts";
import type { Delivery } from "./delivery.ts";
import type { Engine, EngineHost, HistoryOptions, Position } from "./engine.ts";
import type { WebSocketMessage } from "./protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** What is built on the connections and has to follow them: the channels. Told of each in turn, so nothing of it may throw. */
export interface Extension extends Pick<EngineHost, "published" | "gap" | "present"> {
  /** The message types that are its own. It answers them itself. */
  readonly types: readonly string[];
  /** Subscriptions that one client may have. */
  maxSubscriptions(): number;
  /** What it wants kept. */
  readonly histories: readonly HistoryOptions[];
  take(client: WebSocketClient, message: WebSocketMessage): void;
  /** The client was let in, or it is another or has other rights than before. */
  admitted(client: WebSocketClient): void;
  /** The client came back from hibernation, let in or with its credentials expired. */
  restored(client: WebSocketClient): void;
  /** A client that had missed messages can be sent some again. */
  readable(client: WebSocketClient): void;
  /** The client is not to be sent anything, for its credentials have expired or it is being closed. */
  suspended(client: WebSocketClient): void;
  /** @param hasLeft whether it is not expected back. */
  closed(client: WebSocketClient, hasLeft: boolean): void;
  /** What a `pong` tells this client, where there is anything. */
  positions(client: WebSocketClient): Record<string, Position> | undefined;
}

/** The rate limit, for requests that cost more than their own message. */
export interface RequestLimit {
  /** Charges so many things to fetch. Returns 0, or the ms to wait: then nothing was charged, and the extension answers the request. */
  ask(client: WebSocketClient, count: number): number;
  /** Charges bytes that are sent in answer: {@link ask} waits until they are paid for, other messages need not. */
  spend(client: WebSocketClient, bytes: number): void;
}

/** What the extension is given of the controller. */
export interface ExtensionHost {
  /** Started when it is first asked for. */
  readonly engine: Engine;
  readonly deadlines: Deadlines;
  readonly delivery: Delivery;
  /** The longest time one call of the application may take, in ms. */
  readonly timeout: number;
  readonly maxBufferedBytes: number;
  /** Absent: messages are not limited. */
  readonly rateGate: RequestLimit | undefined;
  /** Names the clients that are counted together. */
  readonly keyOf: ClientKey;
  /** The monotonic clock, in ms. */
  monotonic(): number;
  /** The wall clock, in ms. */
  now(): number;
  report(error: unknown, client?: WebSocketClient): void;
}
