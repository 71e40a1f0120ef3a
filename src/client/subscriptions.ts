import type { WebSocketMessage } from "../protocol/protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { type ClientError, errorOf, retryAfter, tooBig } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { type Position, type SubscribeOptions, Subscriber, type SubscriberHost } from "./subscription.ts";

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
export class Subscriptions implements SubscriberHost {
  readonly #host: SubscriptionsHost;
  readonly report: (error: unknown) => void;
  readonly #subscribers = new Map<unknown, Subscriber>();
  /** Queued messages by `uid`: a subscriber stands for its `subscribe`, a string is an `unsubscribe`. */
  readonly #waiting = new Map<unknown, Subscriber | string>();
  /** Those whose `subscribe` was sent on this connection. */
  readonly #asked = new Set<unknown>();

  constructor(host: SubscriptionsHost) {
    this.#host = host;
    this.report = host.report;
  }

  /** Whether a pong could reveal missed publications. */
  get haveHistory(): boolean {
    return [...this.#subscribers.values()].some(({ position }) => position);
  }

  /** How many `subscribe` messages of this connection are unanswered. */
  get unanswered(): number {
    return [...this.#asked].filter((uid) => !this.#subscribers.get(uid)?.isLive).length;
  }

  add(channel: string, uid: string, options: SubscribeOptions): Subscriber {
    const subscriber = new Subscriber(this, channel, uid, options);
    this.#subscribers.set(uid, subscriber);
    this.ask(subscriber);
    return subscriber;
  }

  check(subscriber: Subscriber): void {
    const why = this.#host.whyClosed();
    if (why) this.#interrupt(subscriber, why);
  }

  ask(subscriber: Subscriber): void {
    this.#waiting.set(subscriber.uid, subscriber);
    this.flush();
  }

  /** Queues all that are not live; on a new connection that is every one. */
  askAll(): void {
    for (const [uid, subscriber] of this.#subscribers) {
      if (subscriber.isLive) continue;
      this.#waiting.delete(uid); // Keeps the order of subscribing.
      this.#waiting.set(uid, subscriber);
    }
    this.flush();
  }

  remove(subscriber: Subscriber): void {
    const { uid } = subscriber;
    const wasAsked = this.#asked.has(uid);
    if (!this.#forget(subscriber) || !wasAsked) return;
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
  take(message: WebSocketMessage): boolean {
    const { type, status, uid } = message;
    const subscriber = this.#subscribers.get(uid);
    if (status === "error" && subscriber) this.#refused(subscriber, errorOf(message));
    else if (type !== "subscription" && type !== "presence") return false;
    // A message of an unknown subscription is a late one, after `unsubscribe`.
    else if (message["event"] === "unsubscribe") {
      if (subscriber) {
        this.#refused(subscriber, errorOf({ error: { code: message["reason"], message: "Ended by the server" } }));
      }
    } else subscriber?.take(message);
    return true;
  }

  /** The pong lists the positions the server has reached; a subscription that lags asks for what it missed. */
  pong(channels: unknown): void {
    for (const subscriber of this.#subscribers.values()) {
      const at = (channels as Record<string, Position> | undefined)?.[subscriber.channel];
      if (at?.epoch && !subscriber.isAt(at)) this.ask(subscriber);
    }
  }

  lost(): void {
    this.#waiting.clear();
    this.#asked.clear();
    for (const subscriber of this.#subscribers.values()) subscriber.isLive = false;
  }

  end(): void {
    for (const subscriber of [...this.#subscribers.values()]) {
      this.#forget(subscriber);
      subscriber.end();
    }
  }

  /** The client is closed: iterations fail, subscriptions with callbacks stay. */
  interrupt(error: ClientError): void {
    for (const subscriber of [...this.#subscribers.values()]) this.#interrupt(subscriber, error);
  }

  #interrupt(subscriber: Subscriber, error: ClientError): void {
    this.#host.options.clock.clearTimeout(subscriber.timer);
    if (!subscriber.interrupt(error)) this.#forget(subscriber);
  }

  #forget({ uid, timer }: Subscriber): boolean {
    this.#host.options.clock.clearTimeout(timer);
    this.#waiting.delete(uid);
    this.#asked.delete(uid);
    return this.#subscribers.delete(uid);
  }

  #refused(subscriber: Subscriber, error: ClientError): void {
    subscriber.isLive = false;
    this.#asked.delete(subscriber.uid);
    if (error.code === "TOKEN_EXPIRED") return; // Asked for again after the next `auth`.
    if (!TRANSIENT.test(error.code)) {
      this.#forget(subscriber);
      return subscriber.end(error);
    }
    const { options } = this.#host;
    const { clock } = options;
    clock.clearTimeout(subscriber.timer);
    subscriber.timer = clock.setTimeout(() => {
      if (!subscriber.isLive) this.ask(subscriber);
    }, retryAfter(error) + backoffDelay(subscriber.failures++, options));
  }
}
