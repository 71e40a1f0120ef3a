import type { Authenticator } from "../application/authentication.ts";
import type { Bus } from "../base/bus.ts";
import type { Deadlines } from "../base/clock.ts";
import type { Close } from "./state.ts";
import type { CloseCause } from "../protocol/close.ts";
import type { Connection } from "./connection.ts";
import type { Delivery } from "../delivery/delivery.ts";
import type { WebSocketEvents } from "../application/events.ts";
import type { Extension } from "../application/extension.ts";
import type { Handlers } from "../application/handlers.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { Observed } from "../application/observer.ts";
import type { ResolvedOptions } from "../application/options.ts";
import type { OutboundChecks } from "../application/outbound.ts";
import type { RateGate } from "./rate-gate.ts";
import type { Refusals } from "../application/refusals.ts";
import type { Revocations } from "./revocations.ts";
import type { Sender } from "./sender.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** Messages between nodes for optional features, such as the inspector. */
export interface NodeMessages {
  /** The name of this node; reading it starts the engine. */
  readonly node: string;
  /** Whether messages of other nodes are authenticated, or there are never other nodes. */
  readonly isSigned: boolean;
  /** Sends a message to the listeners of this name on the other nodes, to each at most once. A failure is reported. */
  send(name: string, text: string): void;
  /** Listens to messages of the other nodes. Returns a function that removes the listener. @throws {TypeError} if the name has one already. */
  listen(name: string, listener: (text: string) => void): () => void;
}

/** Counts of connections since the start. */
export interface CountedConnections {
  readonly opened: number;
  readonly closedBy: Readonly<Record<CloseCause, number>>;
}

/** The streams of a controller, for a drain and for metrics. */
export interface StreamsOfClients {
  /** Number of items sent since the start. */
  readonly items: number;
  /** Whether a generator runs here that clients of other nodes can read. */
  readonly isShared: boolean;
  /** Number of streams that the client reads, and how many of them it can continue on another node. */
  of(client: WebSocketClient): { readonly all: number; readonly portable: number };
  /** Ends the streams of the client with SERVICE_UNAVAILABLE, because the node is stopping. */
  end(client: WebSocketClient): void;
}

/** What all connections of a controller share. */
export interface ConnectionHost {
  readonly options: ResolvedOptions;
  readonly authenticator: Authenticator;
  readonly bus: Bus<WebSocketEvents>;
  readonly deadlines: Deadlines;
  readonly delivery: Pick<Delivery, "add" | "remove" | "published">;
  /** Absent if the controller has no channels. */
  readonly extension: Extension | undefined;
  readonly handlers: Handlers;
  /** Absent if the heartbeat is off. */
  readonly heartbeat: Heartbeat | undefined;
  readonly observed: Observed;
  /** Absent if messages to clients are not checked against a contract. */
  readonly outbound: OutboundChecks | undefined;
  /** Absent if messages are not limited. */
  readonly rateGate: RateGate | undefined;
  readonly refusals: Refusals;
  readonly revocations: Revocations;
  readonly sender: Sender;
  readonly nodes: NodeMessages;
  readonly streams: StreamsOfClients;
  /** Counts of connections over HTTP. */
  readonly overHttp: CountedConnections;
  /** The wall clock, in ms. */
  now(): number;
  /** The monotonic clock, in ms. */
  monotonic(): number;
  report(error: unknown, client?: WebSocketClient): void;
  /** Lists the client and delivers to it, or indexes it again after its accountability changed. */
  admit(connection: Connection): void;
  /** Stops delivery to the client, which stays listed. */
  suspend(connection: Connection): void;
  /** Removes the client from the list. @param mayReturn whether it may reconnect. */
  dismiss(connection: Connection, mayReturn: boolean, close: Close): void;
}
