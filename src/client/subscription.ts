import type { WebSocketMessage } from "../protocol.ts";
import { disposeBy, type Disposes } from "./dispose.ts";
import { guard } from "./emitter.ts";
import { encode } from "./encode.ts";
import type { ClientError } from "./error.ts";

/** A place in the history of a channel. */
export interface Position {
  /** Which history it is. */
  epoch: string;
  /** How far in it. */
  offset: number;
}

/** Who is in a channel. */
export interface Member<Data = unknown> {
  /** The user's id, or `uid:<id>` of a connection that is nobody's. */
  user: string;
  /** What the channel tells of it. */
  data?: Data;
}

/** What a subscription begins with. */
export interface SubscriptionInit<Snapshot = unknown> {
  /** No publication: where the subscription begins. */
  event: "init";
  /** The channel's snapshot, where it has one. */
  data: Snapshot;
  /** Absent at first; `false` where publications have been missed since what came before: begin anew from `data`. */
  recovered?: false;
}

/** Something that was published. */
export interface Publication<Event extends string = string, Data = unknown> {
  /** Which event. */
  event: Event;
  /** What was published. */
  data: Data;
  /** Its place in the channel's history, where there is one. */
  offset?: number;
}

/** Who came or left, or who was there at the beginning. */
export interface PresenceChange<Data = unknown> {
  /** `init`: all who are there. `join` of one who is there says that its data has changed. */
  event: "init" | "join" | "leave";
  /** Whom it is about. */
  members: Member<Data>[];
  /** Who is there now. */
  present: Member<Data>[];
}

/** Options and callbacks of a subscription. A callback may be async; what it throws or rejects with becomes an `error` event. */
export interface SubscribeOptions<Init = SubscriptionInit, Event = Publication, Data = unknown, Query = Record<string, unknown>> {
  /** Only publications of this event. */
  event?: string;
  /** Given to the channel's snapshot. */
  query?: Query;
  /** A position to resume from, such as one kept over a reload. */
  recover?: Position;
  /** Whether to be told who is in the channel; so is who gives `onPresence`. @default {false} */
  presence?: boolean;
  /** What others are told of this member, where the channel takes it from clients: at most 1,024 bytes of JSON. */
  data?: Data;
  /** How many items may wait to be iterated over; `0` is the default. @default {1_000} */
  buffer?: number;
  /** Where it begins, and begins anew after a gap. */
  onInit?: (init: Init) => unknown;
  /** A publication. */
  onEvent?: (event: Event) => unknown;
  /** Who is there has changed. */
  onPresence?: (change: PresenceChange<Data>) => unknown;
  /** Publications may have been missed; `onInit` follows. */
  onGap?: () => unknown;
  /** The server refused it or ended it, and nothing follows; or the client is closed, and it goes on after `connect()`. */
  onError?: (error: ClientError) => unknown;
}

/** A subscription to a channel: iterate over it, or give callbacks. It outlives connections, and ends with the block of a `using`. */
export type Subscription<Item = SubscriptionInit | Publication, Data = unknown> = OpenSubscription<Item, Data> & Disposes;

/** {@link Subscription}, without `using`. */
export interface OpenSubscription<Item = SubscriptionInit | Publication, Data = unknown> extends AsyncIterable<Item> {
  /** The channel it is of. */
  readonly channel: string;
  /** Where in the channel's history it is, where there is one. */
  readonly position: Position | undefined;
  /** Who is there, with the option `presence`. */
  readonly present: Member<Data>[];
  /** Ends it: nothing follows, and an iteration is done. */
  unsubscribe(): void;
}

/** What a subscriber needs of the client. */
export interface SubscriberHost {
  /** Sends its `subscribe`, where there is a connection. */
  ask(subscriber: Subscriber): void;
  remove(subscriber: Subscriber): void;
  /** Has it {@link Subscriber.interrupt interrupted} where the client is closed. */
  check(subscriber: Subscriber): void;
  /** Told what a callback throws. */
  report(error: unknown): void;
}

/** Settles what waits for an item. */
type Reader = [resolve: (result: IteratorResult<Item, undefined>) => void, reject: (error: ClientError) => void];

type Item = SubscriptionInit | Publication;

/** A subscription, and what keeps it whole over lost connections, lost messages and a reader that is slow. */
export class Subscriber implements OpenSubscription {
  readonly channel: string;
  readonly uid: string;
  readonly options: SubscribeOptions;
  position: Position | undefined;
  /** The server has answered on this connection, and sends. */
  isLive = false;
  /** How often in a row the server could not do it. */
  failures = 0;
  /** For asking again. */
  timer: unknown;
  readonly #host: SubscriberHost;
  readonly #request: string;
  /** Only publications of this event come. */
  readonly #event: string | undefined;
  readonly #members = new Map<string, Member>();
  /** There was an `init` before: another one that is no recovery says that something was missed. */
  #hasBegun = false;
  #isRead: boolean;
  /** More came than may wait. What comes is left alone until what waits has been read, and then asked for again. */
  #isBehind = false;
  readonly #queue: Item[] = [];
  readonly #readers: Reader[] = [];
  /** Somebody iterates over it. */
  #hasIterator = false;
  #end: { error: ClientError | undefined } | undefined;

  constructor(host: SubscriberHost, channel: string, uid: string, options: SubscribeOptions) {
    this.#host = host;
    this.channel = channel;
    this.uid = uid;
    this.options = options;
    const { event, query, data, presence, recover, onInit, onEvent, onPresence } = options;
    // Here and not when it is sent, where an exception would hit all that is sent with it.
    this.#request = encode({
      type: "subscribe",
      channel,
      uid,
      event, // JSON leaves out what is undefined.
      query,
      data,
      presence: presence || onPresence ? true : undefined,
    });
    this.#event = event;
    this.position = recover && JSON.parse(encode(recover));
    this.#hasBegun = !!recover;
    disposeBy(this, () => this.unsubscribe());
    // Nobody is likely to iterate who is called back; who does all the same begins then.
    this.#isRead = !(onInit || onEvent || onPresence);
  }

  /** What to send to have it, from where it is. */
  get text(): string {
    const { position } = this;
    return position ? `${this.#request.slice(0, -1)},"recover":${JSON.stringify(position)}}` : this.#request;
  }

  get present(): Member[] {
    return [...this.#members.values()];
  }

  /** Whether all up to a position has come. What filters its events is not told of all. */
  isAt({ epoch, offset }: Position): boolean {
    const { position } = this;
    if (!position || !this.isLive || this.#isBehind || this.#event) return true;
    return epoch === position.epoch && offset <= position.offset;
  }

  /** Takes a message of the subscription. */
  take(message: WebSocketMessage): void {
    const { type, event, members } = message;
    if (type === "presence") this.#changePresence(event, members);
    else if (event === "init") this.#begin(message);
    else if (typeof event === "string" && this.#hasBegun) this.#publication(event, message);
  }

  /** Nothing comes any more; who iterates over it gets the error, if there is one. */
  end(error?: ClientError): void {
    if (this.#end) return;
    if (error) this.#call(this.options.onError, error);
    this.#end = { error };
    this.isLive = false;
    this.#serve();
  }

  /** The client is closed. Whether it may go on: who iterates over it gets the error, for one that only waits would never know. */
  interrupt(error: ClientError): boolean {
    if (this.#isRead) this.end(error);
    else this.#call(this.options.onError, error);
    return !this.#end;
  }

  unsubscribe(): void {
    if (this.#end) return;
    this.#queue.length = 0;
    this.end();
    this.#host.remove(this);
  }

  // No generator: the `return` of one waits for what it awaits.
  [Symbol.asyncIterator](): AsyncIterableIterator<Item, undefined> {
    if (this.#hasIterator && !this.#end) {
      throw new TypeError("Cannot iterate: another loop does, subscribe again");
    }
    this.#hasIterator = this.#isRead = true;
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
    // All that was missed follows, and what of it is known already is left out by its offset.
    if (recovered === true && this.position) return;
    this.position = typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : undefined;
    const isGap = this.#hasBegun;
    this.#hasBegun = true;
    // What waits is older than the snapshot: with it there is one gap more, of which is told.
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
    if (this.#isRead && !this.#end) this.#queue.push(item);
    this.#serve();
  }

  /** Hands what there is to those who wait for it. */
  #serve(): void {
    while (this.#readers.length > 0) {
      const value = this.#queue.shift();
      if (this.#isBehind && this.#queue.length === 0) {
        this.#isBehind = false;
        this.#host.ask(this);
      }
      if (!value && !this.#end) return;
      const [resolve, reject] = this.#readers.shift()!; // There is one.
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
