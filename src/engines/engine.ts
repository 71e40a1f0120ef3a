/** Engines store histories and members, and connect the nodes. */
import type { Deadlines } from "../base/clock.ts";

/** A value or a promise of it. An engine in this process returns the value directly. */
export type Awaitable<Value> = Value | Promise<Value>;

/** A position in the history of a channel. Offsets of different epochs cannot be compared. */
export interface Position {
  /** Identifies the history that the offset belongs to. It changes when the history is lost. */
  readonly epoch: string;
  /** Grows with each publication, by any amount; 0 is before the first. */
  readonly offset: number;
}

/** How many publications of a channel are kept, and how long. */
export interface HistoryOptions {
  /** Maximum number of publications kept. */
  readonly size: number;
  /** Time in ms that a publication is kept, and that a position stays valid after the last publication. */
  readonly ttl: number;
}

/** An event to publish. The data is encoded as JSON once, on the node that publishes it. */
export interface PublicationContent {
  /** Event name of 1 to 64 characters. */
  readonly event: string;
  /** Data as JSON text. */
  readonly data: string;
  /** `traceparent` (W3C Trace Context) of the span that publishes. An engine may leave it out in `published`, which ends the trace. */
  readonly traceparent?: string;
}

/** Publishes at most once within a window. */
export interface PublishOnce {
  /** Identifies the publication in its channel. */
  readonly id: string;
  /** Minimum time in ms for which the engine recognizes the id. */
  readonly window: number;
}

/** A published event. */
export interface Publication extends PublicationContent {
  /** Position in the history; `null` if the channel has none. */
  readonly position: Position | null;
}

/** Approximate size of one history page, in bytes. */
export const PAGE_BYTES = 131_072;

/** One page of a history. */
export interface HistoryPage {
  /** Current end of the history. */
  readonly position: Position;
  /** Oldest first. */
  readonly publications: readonly Publication[];
  /**
   * Whether no publication since the requested position is missing: it is of this epoch and not ahead, and all publications after
   * it are kept and within the limit.
   */
  readonly isComplete: boolean;
  /** Whether more publications follow that did not fit into the page. @default {false} */
  readonly hasMore?: boolean;
  /** Whether this node could not open some publications; then the page is not complete. @default {false} */
  readonly hasUnreadable?: boolean;
}

/** A member of a channel: one user, over all its connections and nodes. */
export interface Member {
  /** User id, or `uid:<id>` for a connection without a user. */
  readonly user: string;
  /** Data as JSON text. */
  readonly data?: string;
}

/** `connecting` at first, `ready` once usable, `unavailable` while the broker is unavailable. The engine reconnects by itself. */
export type EngineStatus = "connecting" | "ready" | "unavailable" | "closed";

/** The node that an engine belongs to, with the callbacks that the engine calls. */
export interface EngineHost {
  /** Unique name of this start of the node: the option `node` and a random part. Up to 64 letters, digits, `_` and `-`. */
  readonly node: string;
  /** The wall clock, in ms. */
  now(): number;
  /** Deadlines of the engine. The node uses one timer for all deadlines. */
  readonly deadlines: Deadlines;
  /** Whether the node only publishes and sends, as a publisher: it subscribes to nothing and has no members. @default {false} */
  readonly onlySends?: boolean;
  /** Receives the publications of subscribed channels, in order, each once. */
  published(channel: string, publication: Publication): void;
  /**
   * Reports that publications of the channel may have been lost in transit to this node. Its subscriptions then catch up.
   *
   * @param position from which on `published` is called again. Absent without a history, or if it is the last published position.
   */
  gap(channel: string, position?: Position): void;
  /** Reports members of a subscribed channel that joined, have new data, or left, over all nodes. */
  present(channel: string, joined: readonly Member[], left: readonly string[]): void;
  /**
   * Receives a message from another node.
   *
   * @param age time in ms since an order was sent that is delivered late. Absent for other messages.
   */
  received(message: string, age?: number): void;
  /** Reports a change of {@link Engine.status}. */
  status(status: EngineStatus): void;
  /** Reports an error of background work. */
  report(error: unknown): void;
}

/** Stores the subscriptions of hibernating connections, each as JSON text. */
export interface SubscriptionKeeper {
  /**
   * Stores a subscription, or replaces it.
   *
   * @param uid `uid` of the client.
   * @param name unique among the subscriptions of the client.
   */
  save(uid: string, name: string, subscription: string): void;
  /** Returns the subscriptions of the client, in the order in which they were first saved. */
  load(uid: string): string[];
  /** Deletes one subscription of the client, or all without `name`. */
  delete(uid: string, name?: string): void;
}

/** Stores short texts that all nodes share, such as answers to requests. */
export interface AnswerStore {
  /** Stores the text under the key for `ttl` ms, unless one is stored. Resolves with the stored one, or `null`. */
  claim(key: string, text: string, ttl: number): Awaitable<string | null>;
  /** Replaces the text under the key, for `ttl` ms. */
  settle(key: string, text: string, ttl: number): Awaitable<void>;
}

/**
 * Stores histories and members, and connects the nodes. The default is {@link MemoryEngine}, for one node.
 *
 * Any method may throw or reject with a `WebSocketError` of code `ENGINE_UNAVAILABLE`, whether or not the call has taken effect.
 */
export interface Engine {
  /** Whether the engine can be used now. */
  readonly status: EngineStatus;
  /** Whether there are never other nodes, so that messages to them need not be sent. @default {false} */
  readonly isAlone?: boolean;
  /** Whether messages from other nodes are authenticated. Orders to end connections are accepted only then. @default {false} */
  readonly isSigned?: boolean;
  /** Whether {@link publish} takes a transaction of the application. @default {false} */
  readonly hasTransactions?: boolean;
  /** The last known live nodes, used while the engine is unavailable. @default none */
  readonly lastNodes?: readonly string[];
  /** Stores subscriptions during hibernation. If absent, clients are closed with 1012 when they return. */
  readonly keeper?: SubscriptionKeeper;
  /** Stores answers to requests. If absent, each node has its own, in memory. */
  readonly answers?: AnswerStore;
  /** The largest history that the engine can keep. Read before {@link start}. @default no limit */
  readonly maxHistory?: HistoryOptions | undefined;
  /**
   * Checks the history of each declared channel. May be called before {@link start}.
   *
   * @throws {TypeError} if the engine cannot keep such a history.
   */
  check?(history: HistoryOptions): void;
  /** Starts the engine. Called once, before all other methods but {@link check}. */
  start(host: EngineHost): void;
  /**
   * Sends a message to the other nodes, to each at most once. Resolves when it was sent, which may be before it is received.
   *
   * @param to the only node that needs it. An engine may ignore this and send it to all.
   */
  send(message: string, to?: string): Awaitable<void>;
  /**
   * Sends an order to the other nodes. A disconnected node receives it when it is connected again. If this node is disconnected, the call
   * rejects and the order is sent later.
   *
   * @default {@link send}
   */
  order?(message: string): Awaitable<void>;
  /** Lists the live nodes by {@link EngineHost.node}, including this one. A killed node stays in the list for a while. */
  nodes(): Awaitable<readonly string[]>;
  /**
   * Subscribes this node to the channel. Resolves with a position after which no publication is missed; `null` without a history.
   * `published` may be called before it resolves. After a failure the channel is not subscribed. Not called again for a subscribed
   * channel before {@link unsubscribe}.
   */
  subscribe(channel: string, history: HistoryOptions | null): Awaitable<Position | null>;
  /** Unsubscribes this node from the channel. */
  unsubscribe(channel: string): void;
  /**
   * Appends to the history and publishes, atomically. Resolves with the position; `null` without a history.
   *
   * @param once publishes nothing if the channel has a publication with this id, and resolves with the position of that one. The id is
   * stored in the same step.
   * @param transaction publishes if and when it commits, and resolves with `null` before. Only with {@link hasTransactions}.
   */
  publish(
    channel: string,
    content: PublicationContent,
    history: HistoryOptions | null,
    once?: PublishOnce,
    transaction?: unknown,
  ): Awaitable<Position | null>;
  /**
   * Reads the publications since a position, or the latest ones if `after` is `null`.
   *
   * @param limit maximum number of publications. If more follow `after`, the page is empty and not complete. Pass `Infinity` if
   * `after` is the end of a previous page; then only the publications on this page have to be checked for completeness.
   * @param maxBytes approximate size of a page after a position, in bytes; it has at least one publication. @default {Infinity}
   */
  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes?: number,
  ): Awaitable<HistoryPage>;
  /** Adds a member on this node, or changes its data. It stays until {@link leave} or the end of the node. */
  join(channel: string, member: Member): Awaitable<void>;
  /** Removes the user from this node. */
  leave(channel: string, user: string): Awaitable<void>;
  /** Lists the members on all nodes. */
  members(channel: string): Awaitable<readonly Member[]>;
  /** Releases all resources and removes the members of this node. */
  close(): Awaitable<void>;
}
