/** What the engines over a broker share: signed envelopes, order, presence, history and reconnection. */
import type { AnswerStore, Awaitable, EngineStatus, HistoryOptions, Position, PublishOnce } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";

/** An envelope in the history of a channel. */
export interface BrokerEntry {
  readonly position: Position;
  readonly envelope: string;
  /** When the broker stored it, in ms of its clock. */
  readonly time: number;
}

/** One page of a broker's history: a {@link HistoryPage} with unopened envelopes. */
export interface BrokerPage {
  readonly position: Position;
  readonly entries: readonly BrokerEntry[];
  readonly isComplete: boolean;
  readonly hasMore?: boolean;
}

/** The orders that a broker has stored since a time. */
export interface StoredOrders {
  readonly envelopes: readonly string[];
  /** Whether these are all. `false` if the store is full, so that the broker may have deleted older ones. */
  readonly isWhole: boolean;
}

/** Receives what a session reads from the broker. Envelopes are unverified until they are opened. */
export interface BrokerListener {
  /**
   * A publication arrived.
   *
   * @param position `null` without a history.
   * @param previous offset of the previous entry; see {@link Broker.follows}.
   */
  live(channel: string, envelope: string, position: Position | null, previous: number): void;
  /** The history has a new entry that is not a publication. */
  mark(channel: string, position: Position, previous: number): void;
  /** A node sent something to all nodes. */
  message(envelope: string): void;
  /** A member joined, changed its data or left. */
  member(channel: string, envelope: string): void;
  /** The session can no longer be used. May be called more than once. */
  ended(error: unknown): void;
  /** Something arrived that is not an envelope. */
  malformed(): void;
}

/**
 * Makes the envelope of a publication. Called again for each retry, because numbers must increase along a history and later publications
 * may have been stored meanwhile. `await` the result only if it is a promise, or later calls overtake this one.
 */
export type Seal = () => Awaitable<string>;

/** One connection to a broker. It never reconnects: `Reconnection` opens another session. Every call may reject. */
export interface BrokerSession {
  /** Identifies the application at the broker: its namespace, with the database and key prefix of Redis or the schema of PostgreSQL. */
  readonly fullNamespace: string;
  /** Stores envelopes of answers. */
  readonly answers: {
    readonly [Method in keyof AnswerStore]: (
      ...args: Parameters<AnswerStore[Method]>
    ) => Promise<Awaited<ReturnType<AnswerStore[Method]>>>;
  };
  /** The broker's clock, in ms: its time when last read, plus the local time since. */
  now(): number;
  /** Subscribes to channels. Resolves when everything published from now on reaches the listener. */
  listen(channels: readonly string[]): Promise<void>;
  unlisten(channels: readonly string[]): Promise<void>;
  /**
   * Appends to the history and publishes, in one step. Without a history, ends the one that other nodes may keep of the channel, because
   * it lacks this publication.
   *
   * @param known a position that the channel has had. A broker that is behind it has lost data. The same in `read` and `latestPositions`.
   * @param once as in {@link Engine.publish}.
   */
  publish(
    channel: string,
    seal: Seal,
    history: HistoryOptions | null,
    known?: Position,
    once?: PublishOnce,
  ): Promise<Position | null>;
  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
    known?: Position,
  ): Promise<BrokerPage>;
  /** Invalidates the positions of the channel's history, at least up to this one. */
  endHistory(channel: string, upTo: Position): Promise<void>;
  /** Renews the histories, and returns the latest position of each; `null` for one that was lost or is behind its `known` position. */
  latestPositions(
    channels: readonly string[],
    histories: readonly HistoryOptions[],
    known: readonly (Position | undefined)[],
  ): Promise<(Position | null)[]>;
  /** Sends an envelope to all nodes. */
  send(envelope: string): Promise<void>;
  /** Sends an order to all nodes and stores it. @param number counts this node's orders, from 0. */
  storeOrder(envelope: string, number: number): Promise<void>;
  /** Reads the stored orders. @param since ms of the broker's clock. */
  storedOrders(since: number): Promise<StoredOrders>;
  /**
   * Renews this node's lease, and checks that the connection works and that the broker has lost nothing. Resolves with `false` if the lease
   * had expired or the members have to be announced again.
   */
  heartbeat(): Promise<boolean>;
  /** Names of the nodes whose lease is valid. */
  nodes(): Promise<string[]>;
  /** Stores the envelope of a user on this node, and publishes it. */
  join(channel: string, user: string, envelope: string): Promise<void>;
  /** Deletes the stored envelope of a user on this node, and publishes this one. @param isLast whether this node has no other member of the channel. */
  leave(channel: string, user: string, envelope: string, isLast: boolean): Promise<void>;
  /** The stored envelopes of members on nodes whose lease is valid. */
  members(channel: string): Promise<string[]>;
  /** The stored envelopes of this node's members in all channels. */
  ownMembers(): Promise<{ readonly channel: string; readonly envelope: string }[]>;
  /** Ends this node's lease. */
  retire(): Promise<void>;
  close(): void;
}

/** What a {@link BrokerSession} needs from its engine. */
export interface SessionOptions {
  readonly node: string;
  readonly namespace: string;
  /** Time after its last heartbeat at which a node counts as dead, in ms. */
  readonly lease: number;
  /** Time for which a history stays after its `ttl`, in ms, so that the next checks of subscribed nodes can renew it. */
  readonly slack: number;
  /** Silence after which the broker counts as unavailable, in ms. */
  readonly timeout: number;
  /** Whether the node only sends: it receives nothing, and other nodes do not list it. */
  readonly onlySends?: boolean;
  /** The wall clock, in ms. */
  now(): number;
  /** The positions up to which this node has received its channels. */
  positions(): Iterable<Position>;
}

/** Opens sessions with a broker. */
export interface Broker {
  readonly name: string;
  /** The largest history that the broker keeps. @default no limit */
  readonly maxHistory?: HistoryOptions;
  /** @throws {TypeError} if the broker cannot keep such a history. */
  check?(history: HistoryOptions): void;
  /** Whether `previous`, as a session reports it, stands for this offset. @default equality */
  follows?(offset: number, previous: number): boolean;
  /** Publishes an envelope if and when a transaction of the application commits. Needs no session. @throws {TypeError} if it is not a transaction. */
  publishIn?(
    transaction: unknown,
    namespace: string,
    channel: string,
    envelope: string,
    history: HistoryOptions | null,
    once?: PublishOnce,
  ): Promise<void>;
  /** Opens a session. @param abandoned aborted if the session is no longer needed or has failed. */
  connect(listener: BrokerListener, options: SessionOptions, abandoned: AbortSignal): Promise<BrokerSession>;
}

/**
 * Like `Promise.then`, but calls back synchronously for a plain value, so that unsigned envelopes take no extra turn. Not named `then`,
 * because `import()` treats a module that exports `then` as a promise.
 */
export function chain<Value, Result>(value: Awaitable<Value>, next: (value: Value) => Awaitable<Result>): Awaitable<Result> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** Runs steps in order, and synchronously if no earlier step is pending. */
export class Sequence {
  #last: Promise<unknown> | undefined;
  readonly #report: (error: unknown) => void;

  constructor(report: (error: unknown) => void) {
    this.#report = report;
  }

  run(step: () => Awaitable<void>): void {
    if (this.#last) return this.#wait(this.#last.then(step));
    try {
      const waiting = step();
      if (waiting instanceof Promise) this.#wait(waiting);
    } catch (error) {
      this.#report(error);
    }
  }

  #wait(step: Promise<void>): void {
    const last = this.#last = step.catch(this.#report).then(() => {
      if (this.#last === last) this.#last = undefined;
    });
  }
}

/** Splits items into arrays of at most `size`. */
export function* inBatches<Item>(items: readonly Item[], size: number): Generator<Item[]> {
  for (let first = 0; first < items.length; first += size) yield items.slice(first, first + size);
}

/** Makes an ENGINE_UNAVAILABLE error. */
export function unavailable(action: string, state: string, cause?: unknown): WebSocketError {
  const options = cause === undefined ? {} : { cause };
  return new WebSocketError("engine", "ENGINE_UNAVAILABLE", `Cannot ${action}: ${state}, try again later`, options);
}

/** Describes a status other than `ready` in an error message. */
export function statusText(status: EngineStatus): string {
  return status === "closed" ? "closed" : status === "connecting" ? "not connected yet" : "away";
}
