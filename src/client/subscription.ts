import type { WebSocketMessage } from "../protocol/protocol.ts";
import { disposeBy, type Disposes } from "./dispose.ts";
import { guard } from "./emitter.ts";
import { encode } from "./encode.ts";
import type { ClientError } from "./error.ts";

/** A position in a channel's history. */
export interface Position {
  /** Identifies the history; a new epoch means that the old one is gone. */
  epoch: string;
  /** Offset of the last publication received. */
  offset: number;
}

/** A member of a channel. */
export interface Member<Data = unknown> {
  /** The user's id, or `uid:<id>` for an anonymous connection. */
  user: string;
  /** What the channel reveals about the member. */
  data?: Data;
}

/** First item of a subscription, and the first after a gap. */
export interface SubscriptionInit<Snapshot = unknown> {
  /** `init` is no publication but the starting point. */
  event: "init";
  /** The channel's snapshot, if it has one. */
  data: Snapshot;
  /** Absent the first time. `false` after a gap: discard the state and start from `data`. */
  recovered?: false;
}

/** A publication. */
export interface Publication<Event extends string = string, Data = unknown> {
  /** Name of the event. */
  event: Event;
  /** What was published. */
  data: Data;
  /** Offset in the channel's history, if it has one. */
  offset?: number;
}

/** A change of a channel's members. */
export interface PresenceChange<Data = unknown> {
  /** `init` lists all members. `join` of a present member means that its data has changed. */
  event: "init" | "join" | "leave";
  /** The members that changed. */
  members: Member<Data>[];
  /** All members after the change. */
  present: Member<Data>[];
}

/** Options and callbacks of a subscription. Callbacks may be async; what they throw or reject with becomes an `error` event. */
export interface SubscribeOptions<Init = SubscriptionInit, Event = Publication, Data = unknown, Query = Record<string, unknown>> {
  /** Receive publications of this event only. */
  event?: string;
  /** Passed to the channel's snapshot. */
  query?: Query;
  /** Position to resume from, such as one saved before a page reload. */
  recover?: Position;
  /** Whether to receive presence; implied by `onPresence`. @default {false} */
  presence?: boolean;
  /** This member's data as others see it, if the channel accepts it from clients: at most 1,024 bytes of JSON. */
  data?: Data;
  /** Maximum number of items queued for iteration; `0` means the default. @default {1_000} */
  buffer?: number;
  /** Called at the start, and after each gap. */
  onInit?: (init: Init) => unknown;
  /** Called for each publication. */
  onEvent?: (event: Event) => unknown;
  /** Called when the members change. */
  onPresence?: (change: PresenceChange<Data>) => unknown;
  /** Called when publications may have been missed, before `onInit`. */
  onGap?: () => unknown;
  /** Called when the server refuses or ends the subscription, or the client is closed without you; then `connect()` resumes it. */
  onError?: (error: ClientError) => unknown;
}

/** A subscription to a channel: iterate over it or pass callbacks. It survives reconnects; `using` ends it with its block. */
export type Subscription<Item = SubscriptionInit | Publication, Data = unknown> = OpenSubscription<Item, Data> & Disposes;

/** {@link Subscription} without `using`. */
export interface OpenSubscription<Item = SubscriptionInit | Publication, Data = unknown> extends AsyncIterable<Item> {
  /** The channel's name. */
  readonly channel: string;
  /** Current position in the channel's history, if it has one. */
  readonly position: Position | undefined;
  /** Current members, with the option `presence`. */
  readonly present: Member<Data>[];
  /** Ends the subscription and its iteration. */
  unsubscribe(): void;
}

/** What a subscription needs from {@link Subscriptions}. */
export interface ClientSubscriptionHost {
  /** Queues its `subscribe` message. */
  ask(subscription: ClientSubscription): void;
  remove(subscription: ClientSubscription): void;
  /** Interrupts it if the client is closed. */
  check(subscription: ClientSubscription): void;
  /** Reports what a callback threw. */
  report(error: unknown): void;
}

/** Settles a pending `next()`. */
type Reader = [resolve: (result: IteratorResult<Item, undefined>) => void, reject: (error: ClientError) => void];

type Item = SubscriptionInit | Publication;

/** One subscription, with its recovery after lost connections, lost messages and a slow iterator. */
export class ClientSubscription implements OpenSubscription {
  readonly channel: string;
  readonly uid: string;
  readonly options: SubscribeOptions;
  position: Position | undefined;
  /** The server has answered `subscribe` on this connection. */
  isLive = false;
  /** Consecutive transient errors; sets the backoff. */
  failures = 0;
  /** For the next try after a transient error. */
  timer: unknown;
  readonly #host: ClientSubscriptionHost;
  readonly #request: string;
  /** Set when the server filters by event. */
  readonly #event: string | undefined;
  readonly #members = new Map<string, Member>();
  /** An `init` has come, so the next one that is not a recovery marks a gap. */
  #hasBegun = false;
  #keepsItems: boolean;
  /** The queue is full: publications are discarded until it has been read, then recovered from `position`. */
  #isBehind = false;
  readonly #queue: Item[] = [];
  readonly #readers: Reader[] = [];
  /** An iterator exists; a second one would steal its items. */
  #hasIterator = false;
  #end: { error: ClientError | undefined } | undefined;

  constructor(host: ClientSubscriptionHost, channel: string, uid: string, options: SubscribeOptions) {
    this.#host = host;
    this.channel = channel;
    this.uid = uid;
    this.options = options;
    const { event, query, data, presence, recover, onInit, onEvent, onPresence } = options;
    // Encoded here, so that invalid options throw in `subscribe()` and not while other messages are sent.
    this.#request = encode({
      type: "subscribe",
      channel,
      uid,
      event, // JSON drops undefined fields.
      query,
      data,
      presence: presence || onPresence ? true : undefined,
    });
    this.#event = event;
    this.position = recover && JSON.parse(encode(recover));
    this.#hasBegun = !!recover;
    disposeBy(this, () => this.unsubscribe());
    // With callbacks nobody is expected to iterate, so nothing is queued until somebody does.
    this.#keepsItems = !(onInit || onEvent || onPresence);
  }

  /** The `subscribe` message, with the current position. */
  get text(): string {
    const { position } = this;
    return position ? `${this.#request.slice(0, -1)},"recover":${JSON.stringify(position)}}` : this.#request;
  }

  get present(): Member[] {
    return [...this.#members.values()];
  }

  /** Whether everything up to a position has arrived. Always true with an event filter, whose offsets have holes. */
  isAt({ epoch, offset }: Position): boolean {
    const { position } = this;
    if (!position || !this.isLive || this.#isBehind || this.#event) return true;
    return epoch === position.epoch && offset <= position.offset;
  }

  /** Handles a message of the subscription. */
  receive(message: WebSocketMessage): void {
    const { type, event, members } = message;
    if (type === "presence") this.#changePresence(event, members);
    else if (event === "init") this.#begin(message);
    else if (typeof event === "string" && this.#hasBegun) this.#publication(event, message);
  }

  /** Ends the subscription; iterators receive the error, if any. */
  end(error?: ClientError): void {
    if (this.#end) return;
    if (error) this.#call(this.options.onError, error);
    this.#end = { error };
    this.isLive = false;
    this.#serve();
  }

  /** The client is closed: an iteration fails, since it would wait forever; callbacks stay. Returns whether the subscription remains. */
  interrupt(error: ClientError): boolean {
    if (this.#keepsItems) this.end(error);
    else this.#call(this.options.onError, error);
    return !this.#end;
  }

  unsubscribe(): void {
    if (this.#end) return;
    this.#queue.length = 0;
    this.end();
    this.#host.remove(this);
  }

  // Not a generator: its `return()` would wait for the pending `next()`.
  [Symbol.asyncIterator](): AsyncIterableIterator<Item, undefined> {
    if (this.#hasIterator && !this.#end) {
      throw new TypeError("Cannot iterate: another loop does, subscribe again");
    }
    this.#hasIterator = this.#keepsItems = true;
    this.#host.check(this);
    return {
      next: () =>
        new Promise((...reader) => {
          this.#readers.push(reader);
          this.#serve();
        }),
      return: () => {
        this.unsubscribe();
        return Promise.resolve({ done: true, value: undefined });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #begin({ data, epoch, offset, recovered }: WebSocketMessage): void {
    this.isLive = true;
    this.failures = 0;
    // The missed publications follow; those already known are dropped by their offset.
    if (recovered === true && this.position) return;
    this.position = typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : undefined;
    const isGap = this.#hasBegun;
    this.#hasBegun = true;
    // Items still queued predate the snapshot; the `init` queued behind them marks the gap.
    if (isGap) this.#call(this.options.onGap);
    this.#isBehind = false;
    const init: SubscriptionInit = { event: "init", data, ...(isGap && { recovered: false }) };
    this.#call(this.options.onInit, init);
    this.#push(init);
  }

  #publication(event: string, { data, offset }: WebSocketMessage): void {
    if (this.#isBehind) return;
    const { position } = this;
    const place = typeof offset === "number" ? { offset } : undefined;
    if (position && place && place.offset <= position.offset) return;
    this.#isBehind = this.#queue.length >= (this.options.buffer || 1_000);
    if (this.#isBehind) return;
    if (position) this.position = { ...position, ...place };
    const publication: Publication = { event, data, ...place };
    this.#call(this.options.onEvent, publication);
    this.#push(publication);
  }

  #push(item: Item): void {
    if (this.#keepsItems && !this.#end) this.#queue.push(item);
    this.#serve();
  }

  /** Hands queued items to pending reads. */
  #serve(): void {
    while (this.#readers.length > 0) {
      const value = this.#queue.shift();
      if (this.#isBehind && this.#queue.length === 0) {
        this.#isBehind = false;
        this.#host.ask(this);
      }
      if (!value && !this.#end) return;
      const [resolve, reject] = this.#readers.shift()!; // The loop has checked that there is one.
      if (value) resolve({ done: false, value });
      else if (this.#end?.error) reject(this.#end.error);
      else resolve({ done: true, value: undefined });
    }
  }

  #changePresence(event: unknown, members: unknown): void {
    if (!Array.isArray(members) || !isChange(event)) return;
    const changed = members.filter((member): member is Member => typeof member?.user === "string");
    if (event === "init") this.#members.clear();
    for (const member of changed) {
      if (event === "leave") this.#members.delete(member.user);
      else this.#members.set(member.user, member);
    }
    this.#call(this.options.onPresence, { event, members: changed, present: this.present });
  }

  #call<Args extends unknown[]>(callback: ((...args: Args) => unknown) | undefined, ...args: Args): void {
    if (callback && !this.#end) guard(() => callback(...args), this.#host.report);
  }
}

const isChange = (event: unknown): event is PresenceChange["event"] => /^(init|join|leave)$/.test(event as string);
