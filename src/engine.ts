import type { Deadlines } from "./clock.ts";

/** A value, or the promise of one: an engine in this process answers at once. */
export type Awaitable<Value> = Value | Promise<Value>;

/** A place in the history of a channel. Offsets of two epochs cannot be compared. */
export interface Position {
  /** Names the history that the offset counts in; another one after what was kept has been lost. */
  readonly epoch: string;
  /** Grows from one publication to the next, by any amount; 0 is before the first. */
  readonly offset: number;
}

/** How much of a channel is kept. */
export interface HistoryOptions {
  /** Publications kept. */
  readonly size: number;
  /** How long one is kept, in ms, and how long a position outlives the last of them. */
  readonly ttl: number;
}

/** What is published: the data as JSON, encoded once where it was published. */
export interface PublicationContent {
  /** What happened: 1 to 64 characters. */
  readonly event: string;
  /** JSON text. */
  readonly data: string;
}

/** What was published. */
export interface Publication extends PublicationContent {
  /** Where it stands in the history, where the channel has one. */
  readonly position: Position | null;
}

/** Bytes of one page of a history, about. */
export const PAGE_BYTES = 131_072;

/** What a history says. */
export interface HistoryPage {
  /** Where the history ends now. */
  readonly position: Position;
  /** The oldest first. */
  readonly publications: readonly Publication[];
  /** Whether nothing is missing since the position asked for: it is of this epoch, is not ahead, and nothing after it is gone or past the limit. */
  readonly isComplete: boolean;
  /** Whether more follow, after the last of these, that the page had no room for. @default {false} */
  readonly hasMore?: boolean;
  /** Whether some could not be opened by this node: then it is not complete. @default {false} */
  readonly hasUnreadable?: boolean;
}

/** Someone who is in a channel, with however many connections on however many nodes. */
export interface Member {
  /** The user's id, or `uid:<id>` of a connection without a user. */
  readonly user: string;
  /** JSON text. */
  readonly data?: string;
}

/** `ready` once it can be used, `connecting` at first, `unavailable` while what is behind it is away; it comes back by itself. */
export type EngineStatus = "connecting" | "ready" | "unavailable" | "closed";

/** What an engine tells its node. */
export interface EngineHost {
  /** Another one each time the node starts: the option `node`, and random. Up to 64 letters, digits, `_` and `-`. */
  readonly node: string;
  /** The wall clock, in ms. */
  now(): number;
  /** What the engine has to do at a time: one timer serves a whole node. */
  readonly deadlines: Deadlines;
  /** Something was published to a channel that this node is subscribed to: in order, each once. */
  published(channel: string, publication: Publication): void;
  /**
   * Publications of the channel may have been lost on their way to this node: who is subscribed is to be caught up.
   *
   * @param position after which it is told of publications again, where the channel has a history and it is not what was last told of.
   */
  gap(channel: string, position?: Position): void;
  /** Members came (or have other data), or left, over all nodes; of channels that this node is subscribed to. */
  present(channel: string, joined: readonly Member[], left: readonly string[]): void;
  /**
   * Another node has sent this.
   *
   * @param age of an order that comes late: how long ago it was given, in ms. Absent: just now.
   */
  received(message: string, age?: number): void;
  /** The status has changed. */
  status(status: EngineStatus): void;
  /** Something failed that nobody waits for. */
  report(error: unknown): void;
}

/** Keeps what the subscriptions of a connection are while it hibernates, each as JSON text. */
export interface SubscriptionKeeper {
  /**
   * @param uid of the client.
   * @param name tells the subscription from the client's others.
   */
  save(uid: string, name: string, subscription: string): void;
  /** Those of the client, in the order they came. */
  load(uid: string): string[];
  /** One of the client's, or all. */
  delete(uid: string, name?: string): void;
}

/**
 * Keeps what outlives a connection — histories, and who is where — and joins nodes. The one in this process' memory is the default.
 *
 * Any method may throw or reject with a `WebSocketError` of code `ENGINE_UNAVAILABLE`: then nothing is certain to have happened.
 */
export interface Engine {
  /** Whether it can be used now. */
  readonly status: EngineStatus;
  /** Whether there are never other nodes, so that nothing need be sent to them. @default false */
  readonly isAlone?: boolean;
  /** Whether what comes from other nodes is known to be theirs: orders to end connections are taken only then. @default false */
  readonly isSigned?: boolean;
  /** The nodes that were alive when they were last asked for, where the engine is away. @default none are known */
  readonly lastNodes?: readonly string[];
  /** Where connections hibernate: keeps their subscriptions. */
  readonly keeper?: SubscriptionKeeper;
  /**
   * Asked about each history that is declared, perhaps before the start.
   *
   * @throws {TypeError} where it cannot keep such a history.
   */
  check?(history: HistoryOptions): void;
  /** Called once, before anything else that acts. */
  start(host: EngineHost): void;
  /** Hands a message to the other nodes, to each at most once. Resolves when it is on its way. */
  send(message: string): Awaitable<void>;
  /**
   * Hands an order to the other nodes, and keeps it for those that are cut off, which carry it out when they are back. Where this node
   * is, it rejects and does so later. @default {@link send}
   */
  order?(message: string): Awaitable<void>;
  /** The nodes that are alive, this one included, as {@link EngineHost.node} names them. One that was killed is among them for a while. */
  nodes(): Awaitable<readonly string[]>;
  /**
   * This node wants to hear of the channel. Nothing that is published after the position is missed, and it may be told of before this
   * resolves; `null` without a history. Called again only after {@link unsubscribe}, or when it failed: then nothing is subscribed to.
   */
  subscribe(channel: string, history: HistoryOptions | null): Awaitable<Position | null>;
  /** This node does not want to hear of the channel any more. */
  unsubscribe(channel: string): void;
  /** Appends to the history and publishes, as one step. Resolves with its position. */
  publish(channel: string, content: PublicationContent, history: HistoryOptions | null): Awaitable<Position | null>;
  /**
   * The publications since a position, or without one the last.
   *
   * @param limit of the last ones, how many. Of those since a position, how many there may be: where there are more none is given. With
   * `Infinity` the position is where a page ended, and only what follows on this page need be known to be there.
   * @param maxBytes of a page since a position, about, unless its first publication alone has more. @default {Infinity}
   */
  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes?: number,
  ): Awaitable<HistoryPage>;
  /** The member is on this node, or has other data. As long as the node lives. */
  join(channel: string, member: Member): Awaitable<void>;
  /** The user is not on this node any more. */
  leave(channel: string, user: string): Awaitable<void>;
  /** Those on all nodes. */
  members(channel: string): Awaitable<readonly Member[]>;
  /** Lets go of what it holds; members that are on this node are not any more. */
  close(): Awaitable<void>;
}
