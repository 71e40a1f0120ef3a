import * as v from "valibot";
import { afterTurn } from "../base/turn.ts";
import { byteLength } from "../protocol/bytes.ts";
import { Backlog } from "./backlog.ts";
import type { Channel, ChannelHost } from "./channel.ts";
import type { ChannelQuota } from "./channel-quota.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import { ClientPublications, type ClientPublicationsHost } from "./client-publications.ts";
import { CloseCode } from "../protocol/close.ts";
import type { Position, SubscriptionKeeper } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { invalid } from "./published-data.ts";
import { FIRST_ISSUE, SubscribeMessageSchema, UnsubscribeMessageSchema, type WebSocketMessage } from "../protocol/protocol.ts";
import { exceeded, refuse, withUid } from "./refusal.ts";
import { bytesOf, requestOf, savedRequestOf, type SavedSubscription, type SubscriptionRequest } from "./saved-subscription.ts";
import { Subscription } from "./subscription.ts";
import type { SubscriptionOwner } from "./subscription-owner.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** What the subscriptions of all clients of a controller share. */
export interface ClientSubscriptionsHost extends ClientPublicationsHost {
  readonly host: ChannelHost;
  readonly maxSubscriptions: number;
  readonly quota: ChannelQuota;
  /** The channel on this node, created if necessary. */
  channel(name: string, options: ResolvedChannel): Channel;
}

/** Maximum size of the `query` of a subscription, in bytes of JSON. */
const MAX_QUERY_BYTES = 8_192;

/** Maximum size of what the subscriptions of one client store: names, uids, queries and member data, in bytes. */
const MAX_SUBSCRIPTION_BYTES = 1_048_576;

/** Maximum size of the member data that a client sends, in bytes of JSON. */
const MAX_MEMBER_BYTES = 1_024;

/** By starting subscription: why the one that it was to replace has ended. The client was not notified. */
const endings = new WeakMap<Subscription, WebSocketError>();

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
  /** Created with the first publication. */
  #publications: ClientPublications | undefined;
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
    return this.#publications?.isBusy ?? false;
  }

  subscribe(message: WebSocketMessage): void {
    const parsed = v.safeParse(SubscribeMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) return refuse(this.client, message, invalid("subscribe", parsed.issues[0]));
    const request = requestOf(parsed.output);
    if (request.collection !== undefined) this.#step();
    const options = this.#shared.table.find(request.channel);
    const name = nameOf(request);
    const fault = options ? this.#faultOf(name, request, options) : new WebSocketError("subscribe", "FORBIDDEN", "Not allowed");
    if (fault || !options) {
      // PROTOCOL.md 4.3: an error other than INVALID_PAYLOAD also ends the subscription that was to be replaced.
      if (fault?.code !== "INVALID_PAYLOAD") this.#end(name);
      return refuse(this.client, request, fault!);
    }
    this.#start(name, new Subscription(request, options, this));
  }

  unsubscribe(message: WebSocketMessage): void {
    const parsed = v.safeParse(UnsubscribeMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) return refuse(this.client, message, invalid("unsubscribe", parsed.issues[0]));
    const { uid, channel } = parsed.output;
    for (const [name, { message: { uid: ofUid, channel: ofChannel } }] of [...this.#subscriptions]) {
      if (uid === undefined ? channel === undefined || ofChannel === channel : ofUid === uid) this.#end(name);
    }
    this.#answer({ type: "subscription", event: "unsubscribe", ...(channel === undefined ? {} : { channel }), ...withUid(uid) });
  }

  publish(message: WebSocketMessage): void {
    (this.#publications ??= new ClientPublications(this.client, this.#shared)).publish(message);
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

  /** Removes the client from the groups of its channels. */
  suspend(): void {
    for (const subscription of this.#subscriptions.values()) {
      subscription.replaces?.suspend();
      subscription.suspend();
    }
  }

  /** Positions by channel. The client compares them with what it has received, to detect lost messages. */
  positions(): Record<string, Position> | undefined {
    let positions: Record<string, Position> | undefined;
    for (const { message: { channel }, position } of this.#subscriptions.values()) {
      if (position) (positions ??= {})[channel] = position;
    }
    return positions;
  }

  /** Ends all subscriptions because the connection closed. */
  close(mayReturn: boolean): void {
    this.#hasClosed = true;
    for (const [name, subscription] of [...this.#subscriptions]) {
      subscription.end(mayReturn);
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
      const { next, ...before } = JSON.parse(text) as SavedSubscription; // Written by `changed`.
      this.#restore(before);
      if (next) this.#restore(next);
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
    const { channel, uid } = message;
    const end = (code: string) =>
      this.#answer({ type: "subscription", event: "unsubscribe", channel, ...withUid(uid), reason: code });
    if (current?.replaces === subscription) {
      // The client is not notified (PROTOCOL.md 4.3): it would take the message for the end of the starting subscription.
      current.replaces = undefined;
      endings.set(current, reason);
      return this.changed(subscription);
    }
    if (current === subscription) kept ? this.#put(name, kept) : this.#drop(name);
    this.changed(subscription);
    if (wasStarted) return end(reason.code);
    refuse(this.client, message, reason);
    const ending = endings.get(subscription);
    if (ending && reason.code === "INVALID_PAYLOAD") end(ending.code); // After INVALID_PAYLOAD alone, the client expects the earlier one to continue.
  }

  waits(subscription: Subscription): void {
    // Deferred, because most waits end within this turn.
    if (this.host.engine.keeper) afterTurn(() => subscription.isWaiting && this.changed(subscription));
  }

  changed({ message }: Subscription): void {
    if (this.#hasClosed) return;
    const name = nameOf(message);
    const current = this.#subscriptions.get(name);
    const { uid } = this.client;
    this.#withKeeper((keeper) => current ? keeper.save(uid, name, JSON.stringify(current.save())) : keeper.delete(uid, name));
  }

  #withKeeper(call: (keeper: SubscriptionKeeper) => void): void {
    const { keeper } = this.host.engine;
    if (!keeper) return;
    try {
      call(keeper);
    } catch (error) {
      // Otherwise, after hibernation the client would lack subscriptions, or have some that have ended.
      this.host.report(error, this.client);
      this.client.close(CloseCode.INTERNAL_ERROR, "Cannot keep the subscriptions");
    }
  }

  /** Starts a subscription, which replaces the one of the same name. */
  #start(name: string, subscription: Subscription): void {
    const before = this.#subscriptions.get(name);
    if (before?.isStarted) subscription.replaces = before;
    else if (before) {
      subscription.replaces = before.replaces;
      before.replaces = undefined;
      const ending = endings.get(before);
      if (ending) endings.set(subscription, ending);
      before.end();
    }
    this.#put(name, subscription);
    void subscription.start();
    this.waits(subscription);
  }

  #restore(saved: SavedSubscription): void {
    const message = savedRequestOf(saved);
    const options = this.#shared.table.find(message.channel);
    if (!options) return; // A deployment has removed the declaration.
    if (message.collection !== undefined) this.#step();
    const subscription = new Subscription(message, options, this);
    const name = nameOf(message);
    if (saved.isStarting) return this.#start(name, subscription);
    this.#put(name, subscription);
    subscription.restore(saved);
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
    // Last, because both count against the client's limits.
    const wait = this.#shared.newName(this.client, request.channel) ||
      (this.host.rateGate?.ask(this.client, asksOf(request, options)) ?? 0);
    return wait > 0 ? exceeded("subscribe", wait) : undefined;
  }

  #answer(message: WebSocketMessage): void {
    this.client.send(message);
  }
}

/** Number of expensive answers that the request asks for: a recovery or snapshot, and a list of members. */
function asksOf({ recover, event, presence }: SubscriptionRequest, options: ResolvedChannel): number {
  const isFilled = options.history && recover ? true : options.snapshot && event === undefined;
  return (isFilled ? 1 : 0) + (options.presence && presence ? 1 : 0);
}

/** Identifies a subscription among those of its client: by `uid` and its type, else, after a space, by channel and event. */
function nameOf({ uid, channel, event }: SubscriptionRequest): string {
  return uid === undefined ? ` ${channel} ${event ?? ""}` : `${typeof uid} ${uid}`;
}
