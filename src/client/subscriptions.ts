import type { WebSocketMessage } from "../protocol/protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { type ClientError, errorOf, retryAfter, tooBig } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { ClientSubscription, type ClientSubscriptionHost, type Position, type SubscribeOptions } from "./subscription.ts";

/** Errors after which a subscription is tried again. */
const TRANSIENT = /_UNAVAILABLE$|^INTERNAL_ERROR$|^REQUESTS_EXCEEDED$/;

/** What the subscriptions need from the client. */
export interface SubscriptionsHost {
  readonly options: ResolvedOptions;
  /** Why the client is closed; `undefined` if it is not. */
  whyClosed(): ClientError | undefined;
  /** Sends the message if the server accepts it now. Returns whether it did. */
  send(text: string, isSubscribe: boolean): boolean;
  /** Whether the message exceeds the server's maximum. */
  isTooBig(text: string): boolean;
  /** Reports what a callback threw. */
  report(error: unknown): void;
}

/** A client's subscriptions, by `uid`. */
export class Subscriptions implements ClientSubscriptionHost {
  readonly #host: SubscriptionsHost;
  readonly report: (error: unknown) => void;
  readonly #subscriptions = new Map<unknown, ClientSubscription>();
  /** Queued messages by `uid`: a subscription stands for its `subscribe`, a string is an `unsubscribe`. */
  readonly #waiting = new Map<unknown, ClientSubscription | string>();
  /** Those whose `subscribe` was sent on this connection. */
  readonly #asked = new Set<unknown>();

  constructor(host: SubscriptionsHost) {
    this.#host = host;
    this.report = host.report;
  }

  /** Whether a pong could reveal missed publications. */
  get haveHistory(): boolean {
    return [...this.#subscriptions.values()].some(({ position }) => position);
  }

  /** How many `subscribe` messages of this connection are unanswered. */
  get unanswered(): number {
    return [...this.#asked].filter((uid) => !this.#subscriptions.get(uid)?.isLive).length;
  }

  add(channel: string, uid: string, options: SubscribeOptions): ClientSubscription {
    const subscription = new ClientSubscription(this, channel, uid, options);
    this.#subscriptions.set(uid, subscription);
    this.ask(subscription);
    return subscription;
  }

  check(subscription: ClientSubscription): void {
    const why = this.#host.whyClosed();
    if (why) this.#interrupt(subscription, why);
  }

  ask(subscription: ClientSubscription): void {
    this.#waiting.set(subscription.uid, subscription);
    this.flush();
  }

  /** Queues all that are not live; on a new connection that is every one. */
  askAll(): void {
    for (const [uid, subscription] of this.#subscriptions) {
      if (subscription.isLive) continue;
      this.#waiting.delete(uid); // Keeps the order of subscribing.
      this.#waiting.set(uid, subscription);
    }
    this.flush();
  }

  remove(subscription: ClientSubscription): void {
    const { uid } = subscription;
    const wasAsked = this.#asked.has(uid);
    if (!this.#forget(subscription) || !wasAsked) return;
    this.#waiting.set(uid, JSON.stringify({ type: "unsubscribe", uid }));
    this.flush();
  }

  /** Sends as many queued messages as the server accepts now. */
  flush(): void {
    for (const [uid, item] of this.#waiting) {
      const text = typeof item === "string" ? item : item.text;
      if (typeof item !== "string") {
        if (this.#host.isTooBig(text)) {
          this.#forget(item);
          // Deferred until `subscribe()` has returned.
          void Promise.resolve().then(() => item.end(tooBig()));
          continue;
        }
      }
      if (!this.#host.send(text, typeof item !== "string")) return;
      this.#waiting.delete(uid);
      if (typeof item !== "string") this.#asked.add(uid);
    }
  }

  /** Handles the message if it belongs to a subscription. Returns whether it did. */
  receive(message: WebSocketMessage): boolean {
    const { type, status, uid } = message;
    const subscription = this.#subscriptions.get(uid);
    if (status === "error" && subscription) this.#refused(subscription, errorOf(message));
    else if (type !== "subscription" && type !== "presence") return false;
    // A message of an unknown subscription is a late one, after `unsubscribe`.
    else if (message["event"] === "unsubscribe") {
      if (subscription) {
        this.#refused(subscription, errorOf({ error: { code: message["reason"], message: "Ended by the server" } }));
      }
    } else subscription?.receive(message);
    return true;
  }

  /** The pong lists the positions the server has reached; a subscription that lags asks for what it missed. */
  pong(channels: unknown): void {
    for (const subscription of this.#subscriptions.values()) {
      const at = (channels as Record<string, Position> | undefined)?.[subscription.channel];
      if (at?.epoch && !subscription.isAt(at)) this.ask(subscription);
    }
  }

  lost(): void {
    this.#waiting.clear();
    this.#asked.clear();
    for (const subscription of this.#subscriptions.values()) subscription.isLive = false;
  }

  end(): void {
    for (const subscription of [...this.#subscriptions.values()]) {
      this.#forget(subscription);
      subscription.end();
    }
  }

  /** The client is closed: iterations fail, subscriptions with callbacks stay. */
  interrupt(error: ClientError): void {
    for (const subscription of [...this.#subscriptions.values()]) this.#interrupt(subscription, error);
  }

  #interrupt(subscription: ClientSubscription, error: ClientError): void {
    this.#host.options.clock.clearTimeout(subscription.timer);
    if (!subscription.interrupt(error)) this.#forget(subscription);
  }

  #forget({ uid, timer }: ClientSubscription): boolean {
    this.#host.options.clock.clearTimeout(timer);
    this.#waiting.delete(uid);
    this.#asked.delete(uid);
    return this.#subscriptions.delete(uid);
  }

  #refused(subscription: ClientSubscription, error: ClientError): void {
    subscription.isLive = false;
    this.#asked.delete(subscription.uid);
    if (error.code === "TOKEN_EXPIRED") return; // Asked for again after the next `auth`.
    if (!TRANSIENT.test(error.code)) {
      this.#forget(subscription);
      return subscription.end(error);
    }
    const { options } = this.#host;
    const { clock } = options;
    clock.clearTimeout(subscription.timer);
    subscription.timer = clock.setTimeout(() => {
      if (!subscription.isLive) this.ask(subscription);
    }, retryAfter(error) + backoffDelay(subscription.failures++, options));
  }
}
