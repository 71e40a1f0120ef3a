/**
 * Channels: named streams that clients subscribe to, with a snapshot, presence, and a history that what was missed is sent from.
 *
 * @example
 * ```ts
 * import { WebSocketController } from "noroshi";
 * import { Channels } from "noroshi/channels";
 *
 * const channels = new Channels(controller, {
 *   "room:*": {
 *     authorize: ({ client }) => client.accountability.user !== null,
 *     history: { size: 100, ttl: 300_000 },
 *     presence: true,
 *   },
 * });
 * await channels.publish("room:1", "say", { text: "Hello" });
 * ```
 *
 * @module
 */
import type * as v from "valibot";
import { Channel, type ChannelHost } from "./channel.ts";
import { ChannelQuota } from "./channel-quota.ts";
import { type ChannelOptions, ChannelTable, type ResolvedChannel } from "./channel-options.ts";
import { CloseCode } from "./close.ts";
import { WebSocketController } from "./controller.ts";
import { describeCopies } from "./copies.ts";
import type { Member, Position, Publication } from "./engine.ts";
import type { Extension } from "./extension.ts";
import { type HistoryQuery, type HistoryRecord, readHistory } from "./history-record.ts";
import { isPositive } from "./options.ts";
import { jsonOf, RESERVED_EVENTS, type WebSocketMessage } from "./protocol.ts";
import { Subscriber, type SubscriberHost } from "./subscriber.ts";
import type { WebSocketClient } from "./websocket-client.ts";

export type {
  Authorization,
  AuthorizeContext,
  ChannelHistoryOptions,
  ChannelOptions,
  PresenceContext,
  PresenceOptions,
  SnapshotContext,
} from "./channel-options.ts";
export type { HistoryQuery, HistoryReason, HistoryRecord, PublicationRecord } from "./history-record.ts";

/** Channels by their name, or by its beginning and `*`. */
export type ChannelDeclarations = { readonly [name: string]: ChannelOptions };

/** The declaration that a channel's name falls under; any, where the name is not known when it is compiled. */
export type DeclarationOf<Declarations, Name extends string> = string extends Name ? ChannelOptions
  : Name extends keyof Declarations ? Declarations[Name]
  : {
    [Key in keyof Declarations]: Key extends `${infer Prefix}*` ? Name extends `${Prefix}${string}` ? Declarations[Key] : never
      : never;
  }[keyof Declarations];

/** The events that may be published to a channel: those of its `schema`, or any. */
export type EventOf<Declarations, Name extends string> = DeclarationOf<Declarations, Name> extends { schema: infer Schema }
  ? keyof Schema & string
  : string;

/** The data of an event: what its schema puts out, since what the server itself publishes is not read by it. */
export type DataOf<Declarations, Name extends string, Event extends string> = DeclarationOf<Declarations, Name> extends
  { schema: infer Schema } ? Event extends keyof Schema ? Schema[Event] extends v.GenericSchema ? v.InferOutput<Schema[Event]>
    : unknown
  : unknown
  : unknown;

/** Options of {@link Channels} as a whole. */
export interface ChannelsOptions {
  /** Subscriptions that one client may have; more are answered `LIMIT_EXCEEDED`. @default {128} */
  maxSubscriptions?: number;
  /**
   * Subscriptions that one user may have over all connections to this node; more are answered `LIMIT_EXCEEDED`. Clients are counted
   * together as by `rateLimit`: by its `key`, else the user, else the address. @default {10_000} and with `rateLimit: false` none
   */
  maxSubscriptionsPerUser?: number;
  /**
   * Channels a minute that one user, counted likewise, may name in `subscribe` and `publish` that nobody on this node is subscribed to; more
   * are answered `REQUESTS_EXCEEDED`. @default {1_000} and with `rateLimit: false` none
   */
  maxNewChannelsPerMinute?: number;
}

/** A member of a channel, as the server reads it. */
export interface MemberRecord {
  /** The user's id, or `uid:<id>` of a connection without a user. */
  user: string;
  /** What the channel keeps with it. */
  data?: unknown;
}

/** Counters of the channels on this node. */
export interface ChannelsStats {
  /** Channels that somebody here is subscribed to, or was a moment ago. */
  channels: number;
  /** Subscriptions of the clients here, those that are still asked about included. */
  subscriptions: number;
  /** Clients that have any. */
  subscribers: number;
}

/** The channels of a controller. */
export class Channels<const Declarations extends ChannelDeclarations = ChannelDeclarations> {
  readonly #channels = new Map<string, Channel>();
  readonly #host: ChannelHost;
  readonly #shared: SubscriberHost;
  readonly #subscribers = new Map<WebSocketClient, Subscriber>();
  readonly #table: ChannelTable;

  /**
   * Makes the controller answer `subscribe`, `unsubscribe` and `publish`.
   *
   * @throws {TypeError} for a declaration that is not what it should be, a history that the engine cannot keep, a controller of another
   * copy of the package, and where the controller has channels already.
   */
  constructor(controller: WebSocketController, declarations: Declarations, options: ChannelsOptions = {}) {
    const given = checkLimits(options);
    checkController(controller);
    this.#table = new ChannelTable(declarations);
    const host = controller.extend(this.#extension());
    const { maxSubscriptions, ...limits } = { ...(host.rateGate ? DEFAULTS : UNLIMITED), ...given };
    const closed = ({ name }: Channel): void => void this.#channels.delete(name);
    this.#host = Object.defineProperties({ closed }, Object.getOwnPropertyDescriptors(host)) as ChannelHost; // `engine` stays a getter.
    this.#shared = {
      host: this.#host,
      table: this.#table,
      maxSubscriptions,
      quota: new ChannelQuota(limits, host.monotonic),
      isOpen: (name) => this.#channels.has(name),
      channel: (name, options) => this.#channel(name, options),
      publish: (channel, options, event, data) => this.#host.engine.publish(channel, { event, data }, options.history),
    };
  }

  /**
   * Publishes to all who are subscribed, on all nodes, as it is: the channel's schema reads what clients publish. Resolves when it is in the history: with its position, or `null` where the channel
   * has no history. A rejection that nobody looks at is an `error` event, and ends no process.
   *
   * @throws {TypeError} for a channel that is not declared, a name that is none for an event, and data that JSON cannot hold.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection: it is not certain to have been published.
   */
  publish<const Name extends string, const Event extends EventOf<Declarations, Name>>(
    channel: Name,
    event: Event,
    data: DataOf<Declarations, Name, Event>,
  ): Promise<Position | null> {
    const options = this.#declared("publish to", channel);
    if (typeof event !== "string" || event === "" || event.length > 64 || RESERVED_EVENTS.has(event)) {
      throw new TypeError(
        `Cannot publish to "${channel}": the event must be a string of 1 to 64 characters, and none of the protocol's own`,
      );
    }
    const json = jsonOf(data);
    if (json === undefined) throw new TypeError(`Cannot publish to "${channel}": pass data that JSON can hold`);
    // The call itself publishes: what is broadcast next comes after it.
    const published = (async () => await this.#host.engine.publish(channel, { event, data: json }, options.history))();
    published.catch((error) => this.#host.report(error));
    return published;
  }

  /**
   * The last publications of a channel, or the first after a position, and whether these are all.
   *
   * @throws {TypeError} for a channel that is not declared with a history, and a limit or a position that is none.
   */
  async history(channel: string, query: HistoryQuery = {}): Promise<HistoryRecord> {
    const { history } = this.#declared("read", channel);
    if (!history) throw new TypeError(`Cannot read "${channel}": declare it with history: { size, ttl }`);
    return await readHistory(this.#host.engine, channel, history, query);
  }

  /**
   * The members of a channel, on all nodes.
   *
   * @throws {TypeError} for a channel that is not declared with presence.
   */
  async presence(channel: string): Promise<MemberRecord[]> {
    if (!this.#declared("list the members of", channel).presence) {
      throw new TypeError(`Cannot list the members of "${channel}": declare it with presence: true`);
    }
    return (await this.#host.engine.members(channel)).map(memberOf);
  }

  /** Counts without listing: all channels of this node, or one. */
  stats(channel?: string): ChannelsStats {
    const all = [...this.#subscribers.values()];
    if (channel !== undefined) {
      const subscriptions = this.#channels.get(channel)?.size ?? 0;
      return {
        channels: this.#channels.has(channel) ? 1 : 0,
        subscriptions,
        subscribers: all.filter((each) => each.has(channel)).length,
      };
    }
    return {
      channels: this.#channels.size,
      subscriptions: all.reduce((sum, { size }) => sum + size, 0),
      subscribers: all.filter(({ size }) => size > 0).length,
    };
  }

  #extension(): Extension {
    return {
      types: ["subscribe", "unsubscribe", "publish"],
      maxSubscriptions: () => this.#shared.maxSubscriptions,
      histories: this.#table.histories,
      take: (client, message) => this.#take(client, message),
      admitted: (client) => this.#subscribers.get(client)?.resume(true),
      restored: (client) => {
        // Else it would wait for what nobody sends it any more.
        if (!this.#host.engine.keeper) client.close(CloseCode.SERVICE_RESTART, "Subscriptions are lost");
        else if (!this.#subscriber(client).restore()) this.#subscribers.delete(client);
      },
      readable: (client) => this.#subscribers.get(client)?.resume(false),
      suspended: (client) => this.#subscribers.get(client)?.suspend(),
      closed: (client, hasLeft) => {
        this.#subscribers.get(client)?.close(!hasLeft);
        this.#subscribers.delete(client);
      },
      // While something is on its way to some, nobody can be told that it has been sent all.
      positions: (client) => this.#host.delivery.isBusy ? undefined : this.#subscribers.get(client)?.positions(),
      published: (name: string, publication: Publication) => this.#channels.get(name)?.published(publication),
      gap: (name: string, position?: Position) => this.#channels.get(name)?.gap(position),
      present: (name: string, joined: readonly Member[], left: readonly string[]) =>
        this.#channels.get(name)?.presence?.changed(joined, left),
    };
  }

  #take(client: WebSocketClient, message: WebSocketMessage): void {
    const subscriber = this.#subscriber(client);
    if (message.type === "subscribe") subscriber.subscribe(message);
    else if (message.type === "unsubscribe") subscriber.unsubscribe(message);
    else subscriber.publish(message);
  }

  #subscriber(client: WebSocketClient): Subscriber {
    let subscriber = this.#subscribers.get(client);
    if (!subscriber) this.#subscribers.set(client, subscriber = new Subscriber(client, this.#shared));
    return subscriber;
  }

  #channel(name: string, options: ResolvedChannel): Channel {
    let channel = this.#channels.get(name);
    if (!channel) this.#channels.set(name, channel = new Channel(name, options, this.#host));
    return channel;
  }

  #declared(action: string, channel: string): ResolvedChannel {
    const options = typeof channel === "string" ? this.#table.find(channel) : undefined;
    if (options) return options;
    throw new TypeError(
      `Cannot ${action} "${channel}": no such channel is declared, add it or a name ending in * to new Channels()`,
    );
  }
}

const DEFAULTS: Required<ChannelsOptions> = {
  maxSubscriptions: 128,
  maxSubscriptionsPerUser: 10_000,
  maxNewChannelsPerMinute: 1_000,
};

/** Where clients are not counted together. */
const UNLIMITED: Required<ChannelsOptions> = {
  ...DEFAULTS,
  maxSubscriptionsPerUser: Infinity,
  maxNewChannelsPerMinute: Infinity,
};

/** The limits that are given. @throws {TypeError} for an unknown option, and one that is no limit. */
function checkLimits(options: ChannelsOptions): ChannelsOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new TypeError(`Cannot create the channels: unknown option "${name}", use one of ${Object.keys(DEFAULTS).join(", ")}`);
    }
    if (value !== Infinity && !isPositive(value)) {
      throw new TypeError(`Cannot create the channels: option "${name}" must be a whole number from 1, or Infinity`);
    }
  }
  return Object.fromEntries(given);
}

const memberOf = ({ user, data }: Member): MemberRecord => data === undefined ? { user } : { user, data: JSON.parse(data) };

/** Channels read private fields of the controller's clients, which those of another copy of the package do not have. */
function checkController(controller: unknown): void {
  if (controller instanceof WebSocketController) return;
  throw new TypeError(
    typeof controller === "object" && controller !== null && "extend" in controller
      ? `Cannot create the channels: the controller is of another copy of the package, load it once${describeCopies()}`
      : "Cannot create the channels: pass a WebSocketController first, such as createWebSocketController()",
  );
}
