import * as v from "valibot";
import { byteLength } from "../protocol/bytes.ts";
import { Backlog } from "./backlog.ts";
import type { Channel, ChannelHost } from "./channel.ts";
import type { ChannelQuota } from "./channel-quota.ts";
import type { ChannelTable, ResolvedChannel } from "./channel-options.ts";
import { CloseCode } from "../protocol/close.ts";
import type { IdQuota } from "./id-quota.ts";
import type { Awaitable, Position, SubscriptionKeeper } from "../engines/engine.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import { permit, shownError } from "./permission.ts";
import { invalid, readPublished } from "./published-data.ts";
import {
  FIRST_ISSUE,
  jsonOf,
  type PublishMessage,
  PublishMessageSchema,
  SubscribeMessageSchema,
  UnsubscribeMessageSchema,
  type WebSocketMessage,
} from "../protocol/protocol.ts";
import { bytesOf, requestOf, savedRequestOf, type SavedSubscription, type SubscriptionRequest } from "./saved-subscription.ts";
import { Subscription } from "./subscription.ts";
import type { SubscriptionOwner } from "./subscription-owner.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** Shared by the subscriptions of all clients of a controller. */
export interface ClientSubscriptionsHost {
  readonly host: ChannelHost;
  readonly table: ChannelTable;
  readonly maxSubscriptions: number;
  readonly quota: ChannelQuota;
  /** Whether the channel is open on this node. */
  isOpen(name: string): boolean;
  /** The channel on this node, created if necessary. */
  channel(name: string, options: ResolvedChannel): Channel;
  readonly ids: IdQuota;
  /** @param parent of a client its `traceparent`, unchecked; `null`: it has sent none. */
  publish(
    ...args: [channel: string, options: ResolvedChannel, event: string, data: string, id?: string, parent?: unknown]
  ): Awaitable<Position | null>;
}

/** Maximum size of the `query` of a subscription, in bytes of JSON. */
const MAX_QUERY_BYTES = 8_192;

/** Maximum size of what the subscriptions of one client store: names, uids, queries and member data, in bytes. */
const MAX_SUBSCRIPTION_BYTES = 1_048_576;

/** Maximum size of the member data that a client sends, in bytes of JSON. */
const MAX_MEMBER_BYTES = 1_024;

/** Maximum number of publications of one client that wait for authorization or the engine. */
const MAX_PUBLISHING = 1_024;

/** One client's use of channels: answers its `subscribe`, `unsubscribe` and `publish`, and owns its subscriptions. */
export class ClientSubscriptions implements SubscriptionOwner {
  readonly client: WebSocketClient;
  readonly host: ChannelHost;
  readonly backlog: Backlog;
  readonly #shared: ClientSubscriptionsHost;
  /** Subscriptions by {@link nameOf}. */
  readonly #subscriptions = new Map<string, Subscription>();
  /** Bytes counted against {@link MAX_SUBSCRIPTION_BYTES}. */
  #bytes = 0;
  /** The user that the subscriptions belong to. */
  #user: string | null;
  /** Quota key of the subscriptions. Kept while there are any, so that each is subtracted from the key it was added to. */
  #key: string | undefined;
  /** Completion of the latest publication to each channel; the next one waits for it. */
  #publishing: Map<string, Promise<void>> | undefined;
  #publishingCount = 0;
  #hasClosed = false;

  constructor(client: WebSocketClient, shared: ClientSubscriptionsHost) {
    this.client = client;
    this.host = shared.host;
    this.backlog = new Backlog(client, shared.host);
    this.#shared = shared;
    this.#user = client.accountability.user;
  }

  /** Whether there is a subscription to the channel, including one that is being authorized. */
  has(channel: string): boolean {
    return [...this.#subscriptions.values()].some(({ message }) => message.channel === channel);
  }

  get size(): number {
    return this.#subscriptions.size;
  }

  get channels(): string[] {
    return [...new Set(Array.from(this.#subscriptions.values(), ({ message }) => message.channel))];
  }

  /** Whether a publication of the client is not answered yet. */
  get isPublishing(): boolean {
    return this.#publishingCount > 0;
  }

  subscribe(message: WebSocketMessage): void {
    const parsed = v.safeParse(SubscribeMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) return this.#refuse(message, invalid("subscribe", parsed.issues[0]));
    const request = requestOf(parsed.output);
    if (request.collection !== undefined) this.#step();
    const options = this.#shared.table.find(request.channel);
    const name = nameOf(request);
    const fault = options ? this.#faultOf(name, request, options) : new WebSocketError("subscribe", "FORBIDDEN", "Not allowed");
    if (fault || !options) {
      // PROTOCOL.md 4.3: an error other than INVALID_PAYLOAD also ends the subscription that was to be replaced.
      if (fault?.code !== "INVALID_PAYLOAD") this.#end(name);
      return this.#refuse(request, fault!);
    }
    const subscription = new Subscription(request, options, this);
    const before = this.#subscriptions.get(name);
    if (before?.isStarted) subscription.replaces = before;
    else if (before) {
      subscription.replaces = before.replaces;
      before.replaces = undefined;
      before.end();
    }
    this.#put(name, subscription);
    void subscription.start();
  }

  unsubscribe(message: WebSocketMessage): void {
    const parsed = v.safeParse(UnsubscribeMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) return this.#refuse(message, invalid("unsubscribe", parsed.issues[0]));
    const { uid, channel } = parsed.output;
    for (const [name, { message: { uid: ofUid, channel: ofChannel } }] of [...this.#subscriptions]) {
      if (uid === undefined ? channel === undefined || ofChannel === channel : ofUid === uid) this.#end(name);
    }
    this.#answer({ type: "subscription", event: "unsubscribe", ...(channel === undefined ? {} : { channel }), ...withUid(uid) });
  }

  publish(message: WebSocketMessage): void {
    const parsed = v.safeParse(PublishMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) return this.#refuse(message, invalid("publish", parsed.issues[0]));
    const request = parsed.output;
    const options = this.#shared.table.find(request.channel);
    if (!options) return this.#refuse(request, new WebSocketError("publish", "FORBIDDEN", "Not allowed"));
    if (this.#publishingCount >= MAX_PUBLISHING) {
      return this.#refuse(request, new WebSocketError("publish", "LIMIT_EXCEEDED", "Too many publications in progress"));
    }
    const once = request.id === undefined ? undefined : `${request.channel} ${request.id}`;
    const wait = this.#newName(request.channel) || (once ? this.#shared.ids.takeId(this.host.keyOf(this.client), once) : 0);
    if (wait > 0) return this.#refuse(request, exceeded("publish", wait));
    const publishing = this.#publishing ??= new Map();
    const before = publishing.get(request.channel);
    this.#publishingCount++;
    const done = this.#publish(request, options, before, message["traceparent"] ?? null).catch((error) =>
      this.#refuse(request, shownError(error, "publish", this))
    );
    publishing.set(request.channel, done);
    void done.then(() => {
      this.#publishingCount--;
      if (publishing.get(request.channel) === done) publishing.delete(request.channel);
    });
  }

  /** Continues after the client's user or rights have changed, or when it can receive messages again. */
  resume(hasChanged: boolean): void {
    const { user } = this.client.accountability;
    if (user !== this.#user) {
      this.#user = user;
      const reason = new WebSocketError("subscribe", "FORBIDDEN", "Another user");
      for (const subscription of [...this.#subscriptions.values()]) subscription.endWith(reason);
      return;
    }
    for (const subscription of [...this.#subscriptions.values()]) {
      subscription.replaces?.resume(hasChanged);
      subscription.resume(hasChanged);
    }
  }

  /** Takes the client out of all groups that are sent to at once. */
  suspend(): void {
    for (const subscription of this.#subscriptions.values()) {
      subscription.replaces?.suspend();
      subscription.suspend();
    }
  }

  /** Positions by channel, from which the client detects lost messages. */
  positions(): Record<string, Position> | undefined {
    let positions: Record<string, Position> | undefined;
    for (const { message: { channel }, position } of this.#subscriptions.values()) {
      if (position) (positions ??= {})[channel] = position;
    }
    return positions;
  }

  /** Ends all subscriptions because the connection closed. */
  close(wasLost: boolean): void {
    this.#hasClosed = true;
    for (const [name, subscription] of [...this.#subscriptions]) {
      subscription.end(wasLost);
      this.#drop(name);
    }
    this.backlog.close();
    this.#withKeeper((keeper) => keeper.delete(this.client.uid));
  }

  /** Restores the subscriptions after hibernation. Returns whether there are any. */
  restore(): boolean {
    let saved: string[] = [];
    this.#withKeeper((keeper) => saved = keeper.load(this.client.uid));
    for (const text of saved) {
      const each = JSON.parse(text) as SavedSubscription; // Written by `changed`.
      const message = savedRequestOf(each);
      const options = this.#shared.table.find(message.channel);
      if (!options) continue; // A deployment has removed the declaration.
      if (message.collection !== undefined) this.#step();
      const subscription = new Subscription(message, options, this);
      this.#put(nameOf(message), subscription);
      subscription.restore(each);
    }
    return this.size > 0;
  }

  // Called by the subscriptions

  channel(name: string, options: ResolvedChannel): Channel {
    return this.#shared.channel(name, options);
  }

  started(subscription: Subscription): void {
    subscription.replaces?.end();
    subscription.replaces = undefined;
    this.changed(subscription);
  }

  ended(subscription: Subscription, reason: WebSocketError, wasStarted: boolean, kept?: Subscription): void {
    const { message } = subscription;
    const name = nameOf(message);
    const current = this.#subscriptions.get(name);
    if (current === subscription) kept ? this.#put(name, kept) : this.#drop(name);
    else if (current?.replaces === subscription) current.replaces = undefined;
    this.changed(subscription);
    const { channel, uid } = message;
    if (!wasStarted) this.#refuse(message, reason);
    else this.#answer({ type: "subscription", event: "unsubscribe", channel, ...withUid(uid), reason: reason.code });
  }

  changed({ message }: Subscription): void {
    if (this.#hasClosed) return;
    const name = nameOf(message);
    const current = this.#subscriptions.get(name);
    // A subscription that has not started is not saved. Until then the one it replaces is.
    const kept = current?.isStarted ? current : current?.replaces;
    const { uid } = this.client;
    this.#withKeeper((keeper) => kept ? keeper.save(uid, name, JSON.stringify(kept.save())) : keeper.delete(uid, name));
  }

  #withKeeper(call: (keeper: SubscriptionKeeper) => void): void {
    const { keeper } = this.host.engine;
    if (!keeper) return;
    try {
      call(keeper);
    } catch (error) {
      // After hibernation the client would lack some subscriptions, or have some that ended.
      this.host.report(error, this.client);
      this.client.close(CloseCode.INTERNAL_ERROR, "Cannot keep the subscriptions");
    }
  }

  #step(): void {
    if (connectionOf(this.client).step()) this.suspend(); // A stepped transport cannot be part of a group.
  }

  #end(name: string): void {
    const subscription = this.#subscriptions.get(name);
    if (!subscription) return;
    subscription.end();
    this.#drop(name);
    this.changed(subscription);
  }

  #put(name: string, subscription: Subscription): void {
    const before = this.#subscriptions.get(name);
    if (!before) this.#shared.quota.count(this.#key ??= this.host.keyOf(this.client), 1);
    this.#bytes += bytesOf(subscription.message) - (before ? bytesOf(before.message) : 0);
    this.#subscriptions.set(name, subscription);
  }

  #drop(name: string): void {
    const subscription = this.#subscriptions.get(name);
    if (!subscription || !this.#subscriptions.delete(name)) return;
    this.#bytes -= bytesOf(subscription.message);
    if (this.#key === undefined) return;
    this.#shared.quota.count(this.#key, -1);
    if (this.size === 0) this.#key = undefined;
  }

  #faultOf(name: string, request: SubscriptionRequest, options: ResolvedChannel): WebSocketError | undefined {
    const { query, data } = request;
    const { maxSubscriptions, quota } = this.#shared;
    if (!this.#subscriptions.has(name)) {
      if (this.#subscriptions.size >= maxSubscriptions) {
        return new WebSocketError("subscribe", "LIMIT_EXCEEDED", `More than ${maxSubscriptions} subscriptions`);
      }
      if (!quota.hasRoom(this.#key ?? this.host.keyOf(this.client))) {
        return new WebSocketError("subscribe", "LIMIT_EXCEEDED", "Too many subscriptions of this user");
      }
    }
    if (query !== undefined && byteLength(query) > MAX_QUERY_BYTES) {
      return new WebSocketError("subscribe", "LIMIT_EXCEEDED", `A query of more than ${MAX_QUERY_BYTES} bytes`);
    }
    if (data !== undefined && byteLength(data) > MAX_MEMBER_BYTES) {
      return new WebSocketError("subscribe", "INVALID_PAYLOAD", `More than ${MAX_MEMBER_BYTES} bytes at "data"`);
    }
    const before = this.#subscriptions.get(name);
    if (this.#bytes + bytesOf(request) - (before ? bytesOf(before.message) : 0) > MAX_SUBSCRIPTION_BYTES) {
      return new WebSocketError("subscribe", "LIMIT_EXCEEDED", `More than ${MAX_SUBSCRIPTION_BYTES} bytes of all subscriptions`);
    }
    // Last, because both charge the client.
    const wait = this.#newName(request.channel) || (this.host.rateGate?.ask(this.client, asksOf(request, options)) ?? 0);
    return wait > 0 ? exceeded("subscribe", wait) : undefined;
  }

  /** The ms to wait if the channel is not open on this node and the user has named too many such channels; else 0. */
  #newName(channel: string): number {
    const { isOpen, quota } = this.#shared;
    return isOpen(channel) ? 0 : quota.bringUp(this.host.keyOf(this.client), channel);
  }

  /** Publishes in the order of the calls, however long each authorization takes. */
  async #publish(
    request: PublishMessage,
    options: ResolvedChannel,
    before: Promise<void> | undefined,
    parent: unknown,
  ): Promise<void> {
    const { channel, event, data = null, uid, id } = request;
    const { client, host } = this;
    const ask = () => permit(options, { client, channel, params: options.params(channel), action: "publish", event, data }, host);
    const connection = connectionOf(client);
    let { accountability } = client;
    // Authorized at once, answered in order. The empty catch prevents an unhandled rejection until the await below.
    const permission = ask();
    permission.catch(() => {});
    if (before) await before;
    await permission;
    const reading = readPublished(options, event, data);
    const read = reading instanceof Promise ? await reading : reading;
    // The client may have left, changed its user or its rights meanwhile.
    for (;;) {
      if (connection.revalidating) await connection.revalidating;
      else if (connection.isSuspended) return connection.refuseMessage(uid);
      else if (client.accountability === accountability) break;
      else if (client.accountability.user !== accountability.user) {
        throw new WebSocketError("publish", "FORBIDDEN", "Another user");
      } else {
        ({ accountability } = client);
        await ask();
      }
    }
    const json = jsonOf(read.data);
    if (json === undefined) throw new TypeError(`Cannot publish to "${channel}": the output of the schema is not JSON`);
    // Anonymous clients have one scope in common: their address changes when they reconnect.
    const scoped = id === undefined ? id : JSON.stringify([client.accountability.user, id]);
    const position = await this.#shared.publish(channel, options, event, json, scoped, parent);
    this.#answer({ type: "publish", status: "ok", ...withUid(uid), ...position ?? {} });
  }

  #refuse({ type, uid }: { type: string; uid?: MessageUid }, { code, message, details }: WebSocketError): void {
    const connection = connectionOf(this.client);
    if (connection.isSuspended) return connection.refuseMessage(uid);
    const error = new WebSocketError(type, code, message, { ...withUid(uid), ...(details && { details }) });
    // Encoded by `toMessage`, which leaves out details of the application that JSON cannot represent.
    connection.send(new Frame(error.toMessage(), true));
  }

  #answer(message: WebSocketMessage): void {
    this.client.send(message);
  }
}

const withUid = (uid: MessageUid | undefined): { uid?: MessageUid } => uid === undefined ? {} : { uid };

const exceeded = (type: string, wait: number): WebSocketError =>
  new WebSocketError(type, "REQUESTS_EXCEEDED", "Too many requests", { details: { retry_after: wait } });

/** Number of expensive answers that the request asks for: a recovery or snapshot, and a list of members. */
function asksOf({ recover, event, presence }: SubscriptionRequest, options: ResolvedChannel): number {
  const isFilled = options.history && recover ? true : options.snapshot && event === undefined;
  return (isFilled ? 1 : 0) + (options.presence && presence ? 1 : 0);
}

/** Identifies a subscription among those of its client: by `uid` and its type, else, after a space, by channel and event. */
function nameOf({ uid, channel, event }: SubscriptionRequest): string {
  return uid === undefined ? ` ${channel} ${event ?? ""}` : `${typeof uid} ${uid}`;
}
