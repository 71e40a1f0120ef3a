import type { ClientKey } from "./client-key.ts";
import type { Contract } from "../protocol/contract-types.ts";
import type { Deadlines } from "../base/clock.ts";
import type { Delivery } from "../delivery/delivery.ts";
import type { Engine, EngineHost, HistoryOptions, Position } from "../engines/engine.ts";
import type { Observed } from "./observer.ts";
import type { OutboundChecks } from "./outbound.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** The extension point of the controller, which the channels use: it follows every client. Its methods must not throw. */
export interface Extension extends Pick<EngineHost, "published" | "gap" | "present"> {
  /** The message types that it handles and answers itself. */
  readonly types: readonly string[];
  /** Maximum subscriptions of one client. */
  maxSubscriptions(): number;
  /** The histories that the engine must be able to keep. */
  readonly histories: readonly HistoryOptions[];
  /**
   * Called once, with the option `contract`, before the extension is installed.
   *
   * @throws {TypeError} for a schema that cannot be run.
   */
  declare(contract: Contract): void;
  handle(client: WebSocketClient, message: WebSocketMessage): void;
  /** The client was admitted, or its user, role or other rights have changed. */
  admitted(client: WebSocketClient): void;
  /** The client was restored from hibernation, admitted or with expired credentials. */
  restored(client: WebSocketClient): void;
  /** The buffer of a slow client, for which messages were dropped, has room again. */
  readable(client: WebSocketClient): void;
  /** Nothing may be sent to the client: its credentials have expired, or it is closing. */
  suspended(client: WebSocketClient): void;
  /** @param mayReturn whether the client may reconnect. */
  closed(client: WebSocketClient, mayReturn: boolean): void;
  /** Whether the client has publications without an answer. */
  isBusy(client: WebSocketClient): boolean;
  /** Resolves when no client has a subscription and no member is in its grace period; at once if there are no other nodes. */
  settled(): Promise<void>;
  /** How long {@link settled} can take after the last client has disconnected, in ms. */
  grace(): number;
  /** Number of the client's subscriptions. */
  subscriptionsOf(client: WebSocketClient): number;
  /** Whether the broker that {@link settled} needs is unavailable. */
  isBrokerUnavailable(): boolean;
  /** The positions of the client's subscriptions for a `pong`, if any. */
  positions(client: WebSocketClient): Record<string, Position> | undefined;
  /** Counts open channels and subscriptions. */
  stats(): { readonly channels: number; readonly subscriptions: number };
}

/** The rate limit, for requests that cost more than their own message. */
export interface RequestLimit {
  /**
   * Charges for `count` fetches. Returns 0, or the ms to wait: then nothing was charged, and the extension answers the request.
   */
  ask(client: WebSocketClient, count: number): number;
  /** Charges for bytes sent in an answer. They delay the next {@link ask}, but no other messages. */
  spend(client: WebSocketClient, bytes: number): void;
}

/** What an extension receives from the controller. */
export interface ExtensionHost {
  /** The engine of the controller. The first read of this property starts it. */
  readonly engine: Engine;
  readonly deadlines: Deadlines;
  readonly delivery: Delivery;
  /** Limit of one call of the application, in ms. */
  readonly timeout: number;
  readonly maxBufferedBytes: number;
  /** Absent: no rate limit. */
  readonly rateGate: RequestLimit | undefined;
  /** Returns the key of a client; clients with the same key share one limit. */
  readonly keyOf: ClientKey;
  /** The monotonic clock, in ms. */
  monotonic(): number;
  /** The wall clock, in ms. */
  now(): number;
  report(error: unknown, client?: WebSocketClient): void;
  /** Absent: messages to clients are not checked against a contract. */
  readonly outbound: OutboundChecks | undefined;
  readonly observed: Observed;
}
