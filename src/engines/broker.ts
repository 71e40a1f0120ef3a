import type { Awaitable, EngineStatus, HistoryOptions, Position } from "../engine.ts";
import { WebSocketError } from "../errors.ts";

/** An envelope as it lies in the history of a channel. */
export interface BrokerEntry {
  readonly position: Position;
  readonly envelope: string;
  /** When the broker took it, in ms of its clock. */
  readonly time: number;
}

/** What a broker's history says: as {@link HistoryPage}, with envelopes that nobody has opened yet. */
export interface BrokerPage {
  readonly position: Position;
  readonly entries: readonly BrokerEntry[];
  readonly isComplete: boolean;
  readonly hasMore?: boolean;
}

/** What a session tells of: nothing of it is to be believed before its envelope is opened. */
export interface BrokerListener {
  /** Something was published. @param previous the offset of the publication before it, as far as the broker knows. */
  live(channel: string, envelope: string, position: Position | null, previous: number): void;
  /** The history has gone on by something that is no publication. */
  mark(channel: string, position: Position, previous: number): void;
  /** A node has sent something to all. */
  message(envelope: string): void;
  /** A member of a channel came, changed or left. */
  member(channel: string, envelope: string): void;
  /** The connection is of no use any more. Called once. */
  ended(error: unknown): void;
  /** Something that is no envelope arrived. */
  malformed(): void;
}

/** One connection to a broker. It does not connect again: there is another session then. Every call may reject. */
export interface BrokerSession {
  /** What separates this application from others at the broker: its namespace, and whatever else does. */
  readonly place: string;
  /** The broker's clock, in ms: when it was last looked at, and what has passed here since. */
  now(): number;
  /** Resolves when everything that is published from now on reaches the listener. */
  listen(channels: readonly string[]): Promise<void>;
  unlisten(channels: readonly string[]): Promise<void>;
  /**
   * Appends and publishes, in one step. Without a history it ends the one that the channel has on other nodes, which lacks it then.
   *
   * @param known where the channel has been for certain, as for the next ones.
   */
  publish(channel: string, envelope: string, history: HistoryOptions | null, known?: Position): Promise<Position | null>;
  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
    known?: Position,
  ): Promise<BrokerPage>;
  /** No position of the channel's history is good any more, up to this one. */
  endHistory(channel: string, upTo: Position): Promise<void>;
  /** Where these channels stand, and keeps their positions alive; `null` for one that has none any more, or has gone back. */
  tops(
    channels: readonly string[],
    histories: readonly HistoryOptions[],
    known: readonly (Position | undefined)[],
  ): Promise<(Position | null)[]>;
  send(envelope: string): Promise<void>;
  /** Sends an order, and keeps it. @param number of this node's orders. */
  keep(envelope: string, number: number): Promise<void>;
  /** The orders since then, of those that are kept. @param since ms of the broker's clock. */
  kept(since: number): Promise<string[]>;
  /** This node is alive. Whether it was known to be, and tells the other end of the session so that a deaf one is noticed. */
  beat(): Promise<boolean>;
  /** The nodes whose lease is good. */
  nodes(): Promise<string[]>;
  /** Keeps the envelope as the user's on this node, and tells of it. */
  join(channel: string, user: string, envelope: string): Promise<void>;
  /** Forgets the one of this node, and tells of it. @param isLast whether nobody else of this node is in the channel. */
  leave(channel: string, user: string, envelope: string, isLast: boolean): Promise<void>;
  /** The envelopes of those on nodes whose lease is good. */
  members(channel: string): Promise<string[]>;
  /** The envelopes of those on this node, in all channels, as far as the broker has any. */
  ownMembers(): Promise<{ readonly channel: string; readonly envelope: string }[]>;
  /** This node is none any more. */
  retire(): Promise<void>;
  close(): void;
}

/** How a session is to behave. */
export interface SessionOptions {
  readonly node: string;
  readonly namespace: string;
  /** How long a node is alive without a beat, in ms. */
  readonly lease: number;
  /** How long a position is to outlive the ttl of its channel, in ms, for those who are subscribed: until the next look at it. */
  readonly slack: number;
  /** In ms. */
  readonly timeout: number;
  now(): number;
}

/** Connects to a broker. */
export interface Broker {
  readonly name: string;
  /** @throws {TypeError} where the broker cannot keep such a history. */
  check?(history: HistoryOptions): void;
  /** Whether `previous`, as a session says it, is the offset. @default they are equal */
  follows?(offset: number, previous: number): boolean;
  /** Rejects when there is no connection within the timeout. */
  connect(listener: BrokerListener, options: SessionOptions): Promise<BrokerSession>;
}

/** Goes on with a value at once where it is there, so that what needs no signature costs no turn. */
export function then<Value, Result>(value: Awaitable<Value>, next: (value: Value) => Awaitable<Result>): Awaitable<Result> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** Runs steps one after the other: at once while none has to be waited for. */
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

/** The items, so many at a time. */
export function* inBatches<Item>(items: readonly Item[], size: number): Generator<Item[]> {
  for (let first = 0; first < items.length; first += size) yield items.slice(first, first + size);
}

export function unavailable(action: string, state: string, cause?: unknown): WebSocketError {
  const options = cause === undefined ? {} : { cause };
  return new WebSocketError("engine", "ENGINE_UNAVAILABLE", `Cannot ${action}: ${state}, try again later`, options);
}

export function statusText(status: EngineStatus): string {
  return status === "closed" ? "closed" : status === "connecting" ? "not connected yet" : "away";
}
