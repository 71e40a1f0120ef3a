/**
 * Channels: named streams that clients subscribe to, with an optional snapshot, presence, and a history for recovery.
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
import { Channel, type ChannelHost } from "./channel.ts";
import { ChannelQuota } from "./channel-quota.ts";
import type {
  AnySchemas,
  ChannelDeclarations,
  ChannelsOf,
  DeclarationOf,
  DeclaredName,
  OnlyDeclared,
} from "./channel-declarations.ts";
import { ChannelTable, type ResolvedChannel } from "./channel-options.ts";
import { CloseCode } from "../protocol/close.ts";
import type { Contract, DataOf, EventOf } from "../protocol/contract-types.ts";
import { WebSocketController } from "../controller/controller.ts";
import type { Publishing } from "../application/observer.ts";
import { describeCopies } from "../base/copies.ts";
import type { Awaitable, Member, Position, Publication, PublishOnce } from "../engines/engine.ts";
import type { Extension } from "../application/extension.ts";
import { type HistoryQuery, type HistoryRecord, readHistory } from "./history-record.ts";
import { checkLimits, DEFAULTS, UNLIMITED } from "./channels-limits.ts";
import { IdQuota } from "./id-quota.ts";
import { permitReader } from "./permission.ts";
import { publicationOf, transactionOf } from "./publication-content.ts";
import { CHANNEL_NAME, type WebSocketMessage } from "../protocol/protocol.ts";
import { ClientSubscriptions, type ClientSubscriptionsHost } from "./client-subscriptions.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

export type {
  Authorization,
  AuthorizeContext,
  ChannelHistoryOptions,
  ChannelOptions,
  EventSchemas,
  MemberData,
  PresenceContext,
  PresenceOptions,
  SchemasOf,
  SnapshotContext,
} from "./channel-options.ts";
export type { AnySchemas, ChannelDeclarations, ChannelsOf, DeclarationOf, DeclaredName } from "./channel-declarations.ts";
export type * from "../protocol/contract-types.ts";
export type { JsonItemOf, JsonOf } from "../protocol/json-of.ts";
export type { HistoryQuery, HistoryReason, HistoryRecord, PublicationRecord } from "./history-record.ts";

/** Limits for all channels together. */
export interface ChannelsOptions {
  /** Maximum number of subscriptions of one client; further ones fail with `LIMIT_EXCEEDED`. @default {128} */
  maxSubscriptions?: number;
  /**
   * Maximum number of subscriptions of one user on this node; further ones fail with `LIMIT_EXCEEDED`. Users are counted as by
   * `rateLimit`: by its `key`, else by user, else by address. With `rateLimit: false` the default is `Infinity`.
   *
   * @default {10_000}
   */
  maxSubscriptionsPerUser?: number;
  /**
   * Maximum number of channels not open on this node that one user may name per minute, in `subscribe` and `publish`; further
   * ones fail with `REQUESTS_EXCEEDED`. Users are counted as above. With `rateLimit: false` the default is `Infinity`.
   *
   * @default {1_000}
   */
  maxNewChannelsPerMinute?: number;
  /** Time in ms that the `id` of a publication is remembered, at least. @default {300_000} */
  idWindow?: number;
  /**
   * Maximum number of publications with an `id` that one user may send to this node per `idWindow`; further ones fail with
   * `REQUESTS_EXCEEDED`. Repeats do not count. Users are counted as above. With `rateLimit: false` the default is `Infinity`.
   *
   * @default {10_000}
   */
  maxIdsPerUser?: number;
}

/** Options of {@link Channels.publish}. */
export interface PublishOptions {
  /**
   * Publishes at most once: another publication to the channel with the same id, of 1 to 64 characters, within `idWindow` publishes
   * nothing and resolves with the position of the first. Ids of the server and of each user are separate.
   */
  id?: string;
  /**
   * Publishes if and when this transaction commits, with an engine that uses the database, such as `noroshi/postgres`. With `pg`, pass
   * the client that ran `BEGIN`; with `postgres` and PGlite, what the callback of the transaction receives. Resolves with `null` once the
   * publication is part of the transaction: it gets its position at the commit.
   */
  transaction?: unknown;
}

/** A member of a channel, as returned by {@link Channels.presence}. */
export interface MemberRecord {
  /** User id, or `uid:<id>` for a connection without a user. */
  user: string;
  /** The member's data. Absent if the channel keeps none. */
  data?: unknown;
}

/** Channel counters of this node. */
export interface ChannelsStats {
  /** Open channels: with subscriptions, or with members in their grace period. */
  channels: number;
  /** Subscriptions, including those that are being authorized. For a single channel, only those that receive publications. */
  subscriptions: number;
  /** Clients with at least one subscription. */
  subscribers: number;
}

/** Adds channels to a controller. `C` is the controller's contract. Without one, `Schemas` are the schemas of the declarations. */
export class Channels<C = Contract, Schemas = AnySchemas> {
  /** @internal The controller that it extends. */
  readonly controller: Pick<WebSocketController, "upgrade">;
  readonly #channels = new Map<string, Channel>();
  readonly #host: ChannelHost;
  readonly #idWindow: number;
  readonly #shared: ClientSubscriptionsHost;
  readonly #subscriptions = new Map<WebSocketClient, ClientSubscriptions>();
  readonly #whenSettled: (() => void)[] = [];
  readonly #table: ChannelTable;

  /**
   * Makes the controller answer `subscribe`, `unsubscribe` and `publish`.
   *
   * @throws {TypeError} for an invalid declaration or option, a history that the engine cannot keep, a controller from another
   * copy of the package, or a controller that already has channels.
   */
  constructor(
    controller: WebSocketController<C>,
    declarations: ChannelDeclarations<C, Schemas> & OnlyDeclared<C, NoInfer<Schemas>>,
    options: ChannelsOptions = {},
  ) {
    const given = checkLimits(options);
    checkController(controller);
    this.controller = controller;
    this.#table = new ChannelTable(declarations as ChannelDeclarations); // The contract exists in types only.
    const host = controller.extend(this.#extension());
    const { maxSubscriptions, idWindow, maxIdsPerUser, ...limits } = { ...(host.rateGate ? DEFAULTS : UNLIMITED), ...given };
    this.#idWindow = idWindow;
    const closed = ({ name }: Channel): void => {
      this.#channels.delete(name);
      if (this.#channels.size === 0) { for (const resolve of this.#whenSettled.splice(0)) resolve(); }
    };
    // Copies descriptors, because `engine` must stay a getter: reading it starts the engine.
    this.#host = Object.defineProperties({ closed }, Object.getOwnPropertyDescriptors(host)) as ChannelHost;
    const quota = new ChannelQuota(limits, host.monotonic);
    this.#shared = {
      host: this.#host,
      table: this.#table,
      maxSubscriptions,
      quota,
      newName: (client, name) => this.#channels.has(name) ? 0 : quota.recordName(host.keyOf(client), name),
      channel: (name, options) => this.#channel(name, options),
      ids: new IdQuota(maxIdsPerUser, idWindow, host.monotonic),
      publish: (channel, options, event, data, id, parent) =>
        this.#publish(channel, options, event, data, id === undefined ? id : { id, window: idWindow }, parent),
    };
  }

  /**
   * Publishes to all subscribers on all nodes. Resolves with the position in the history, or with `null` without a history.
   *
   * The channel's `schema` is not applied: it parses what clients publish. A rejection also emits an `error` event; if it is
   * not handled, the process continues.
   *
   * @throws {TypeError} for an undeclared channel, an invalid name of a channel or event, an invalid id, data that JSON cannot
   * represent, or a transaction that the engine cannot publish in.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection: the publication may or may not have been published. With an `id` it is
   * safe to publish it again. LIMIT_EXCEEDED, as a rejection: the engine remembers too many ids, and nothing was published.
   */
  publish<const Name extends string, const Event extends EventOf<DeclarationOf<ChannelsOf<C, Schemas>, Name>>>(
    channel: DeclaredName<ChannelsOf<C, Schemas>, Name>,
    event: Event,
    data: DataOf<DeclarationOf<ChannelsOf<C, Schemas>, Name>, Event>,
    options: PublishOptions = {},
  ): Promise<Position | null> {
    const declared = this.#declared("publish to", channel);
    const { data: json, once } = publicationOf(channel, event, data, options.id, this.#idWindow);
    const transaction = transactionOf(channel, options, this.#host.engine, "pass the controller an engine of noroshi/postgres");
    // The engine is called synchronously, so that a broadcast after this call is sent after the publication.
    const published = (async () => await this.#publish(channel, declared, event, json, once, undefined, transaction))();
    published.catch((error) => this.#host.report(error));
    return published;
  }

  /**
   * Reads the latest publications of a channel, or the first ones after a position.
   *
   * @throws {TypeError} as a rejection, for a channel that is not declared with `history`, or an invalid limit or position.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection.
   */
  async history<const Name extends string>(
    channel: DeclaredName<ChannelsOf<C, Schemas>, Name>,
    query: HistoryQuery = {},
  ): Promise<HistoryRecord<DeclarationOf<ChannelsOf<C, Schemas>, Name>>> {
    const { history } = this.#declared("read", channel);
    return await readHistory(this.#host.engine, channel, history, query) as HistoryRecord<never>; // `publish` has typed the data.
  }

  /**
   * Lists the members of a channel on all nodes.
   *
   * @throws {TypeError} as a rejection, for a channel that is not declared with `presence`.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection.
   */
  async presence<const Name extends string>(channel: DeclaredName<ChannelsOf<C, Schemas>, Name>): Promise<MemberRecord[]> {
    if (!this.#declared("list the members of", channel).presence) {
      throw new TypeError(`Cannot list the members of "${channel}": declare it with presence: true`);
    }
    return (await this.#host.engine.members(channel)).map(memberOf);
  }

  /** @internal Authorizes a client that reads a channel without a subscription. @throws {WebSocketError} as a `subscribe` is refused. */
  permit(client: WebSocketClient, channel: string): Promise<ResolvedChannel> {
    return permitReader(client, channel, this.#table, this.#host);
  }

  /** Counts channels, subscriptions and subscribers on this node, of all channels or of one. */
  stats(channel?: string): ChannelsStats {
    const all = [...this.#subscriptions.values()];
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

  /** @internal The open channels of this node. */
  open(): Iterable<Channel> {
    return this.#channels.values();
  }

  /** @internal The names of the channels that the client subscribes to. */
  ofClient(client: WebSocketClient): string[] {
    return this.#subscriptions.get(client)?.channels ?? [];
  }

  /** @internal How the channel is declared. @throws {TypeError} if it is not. */
  declared(channel: string): ResolvedChannel {
    return this.#declared("read", channel);
  }

  #extension(): Extension {
    return {
      types: ["subscribe", "unsubscribe", "publish"],
      maxSubscriptions: () => this.#shared.maxSubscriptions,
      histories: this.#table.histories,
      declare: (contract) => this.#table.declare(contract),
      handle: (client, message) => this.#handle(client, message),
      admitted: (client) => this.#subscriptions.get(client)?.resume(true),
      restored: (client) => {
        // Without its subscriptions the client would wait for publications that never come.
        if (!this.#host.engine.keeper) client.close(CloseCode.SERVICE_RESTART, "Subscriptions are lost");
        else if (!this.#subscriptionsOf(client).restore()) this.#subscriptions.delete(client);
      },
      readable: (client) => this.#subscriptions.get(client)?.resume(false),
      suspended: (client) => this.#subscriptions.get(client)?.suspend(),
      closed: (client, mayReturn) => {
        this.#subscriptions.get(client)?.close(mayReturn);
        this.#subscriptions.delete(client);
      },
      isBusy: (client) => this.#subscriptions.get(client)?.isPublishing ?? false,
      settled: () =>
        new Promise((resolve) => {
          if (this.#channels.size === 0 || this.#host.engine.isAlone) resolve();
          else this.#whenSettled.push(resolve);
        }),
      grace: () => this.#channels.size === 0 || this.#host.engine.isAlone ? 0 : this.#table.grace,
      subscriptionsOf: (client) => this.#subscriptions.get(client)?.size ?? 0,
      isBrokerUnavailable: () => this.#host.engine.status !== "ready",
      // While a delivery is in progress, some clients have not been sent everything up to the position.
      positions: (client) => this.#host.delivery.isBusy ? undefined : this.#subscriptions.get(client)?.positions(),
      stats: () => this.stats(),
      published: (name: string, publication: Publication) => this.#deliver(name, publication),
      gap: (name: string, position?: Position) => this.#channels.get(name)?.gap(position),
      present: (name: string, joined: readonly Member[], left: readonly string[]) =>
        this.#channels.get(name)?.presence?.changed(joined, left),
    };
  }

  #publish(
    channel: string,
    { name, history }: ResolvedChannel,
    event: string,
    data: string,
    once?: PublishOnce,
    parent?: unknown,
    transaction?: unknown,
  ): Awaitable<Position | null> {
    this.#host.outbound?.publication(name, channel, event, data);
    const { engine, observed: { observer } } = this.#host;
    if (!observer?.publish) return engine.publish(channel, { event, data }, history, once, transaction);
    const publishing: Publishing = { channel, declared: name, event, parent };
    return observer.publish(publishing, () => {
      const { traceparent } = publishing;
      const content = { event, data, ...(traceparent !== undefined && { traceparent }) };
      return engine.publish(channel, content, history, once, transaction);
    });
  }

  #deliver(name: string, publication: Publication): void {
    const channel = this.#channels.get(name);
    const { traceparent, event } = publication;
    const { observer } = this.#host.observed;
    if (!channel || traceparent === undefined || !observer?.deliver) return channel?.deliver(publication);
    const { options: { name: declared }, size: subscriptions } = channel;
    observer.deliver({ channel: name, declared, event, traceparent, subscriptions }, () => channel.deliver(publication));
  }

  #handle(client: WebSocketClient, message: WebSocketMessage): void {
    const subscriptions = this.#subscriptionsOf(client);
    if (message.type === "subscribe") subscriptions.subscribe(message);
    else if (message.type === "unsubscribe") subscriptions.unsubscribe(message);
    else subscriptions.publish(message);
  }

  #subscriptionsOf(client: WebSocketClient): ClientSubscriptions {
    let subscriptions = this.#subscriptions.get(client);
    if (!subscriptions) this.#subscriptions.set(client, subscriptions = new ClientSubscriptions(client, this.#shared));
    return subscriptions;
  }

  #channel(name: string, options: ResolvedChannel): Channel {
    let channel = this.#channels.get(name);
    if (!channel) this.#channels.set(name, channel = new Channel(name, options, this.#host));
    return channel;
  }

  #declared(action: string, channel: string): ResolvedChannel {
    const options = typeof channel === "string" ? this.#table.find(channel) : undefined;
    if (options && CHANNEL_NAME.test(channel)) return options;
    if (options) {
      throw new TypeError(
        `Cannot ${action} "${channel}": a name is 1 to 255 of A–Z a–z 0–9 _ - . : / @ = + ~, encode other characters`,
      );
    }
    throw new TypeError(
      `Cannot ${action} "${channel}": no such channel is declared, add it or a name ending in * to new Channels()`,
    );
  }
}

const memberOf = ({ user, data }: Member): MemberRecord => data === undefined ? { user } : { user, data: JSON.parse(data) };

/** Refuses a controller of another copy of the package: channels read private fields that its clients do not have. */
function checkController(controller: unknown): void {
  if (controller instanceof WebSocketController) return;
  throw new TypeError(
    typeof controller === "object" && controller !== null && "extend" in controller
      ? `Cannot create the channels: the controller is of another copy of the package, load it once${describeCopies()}`
      : "Cannot create the channels: pass a WebSocketController first, such as createWebSocketController()",
  );
}
