import type { WebSocketMessage } from "../protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { type ClientError, errorOf, retryAfter, tooBig } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { type Position, type SubscribeOptions, Subscriber, type SubscriberHost } from "./subscription.ts";

/** What a server may be able to do a little later. */
const TRANSIENT = /_UNAVAILABLE$|^INTERNAL_ERROR$|^REQUESTS_EXCEEDED$/;

/** What the subscriptions need of the client. */
export interface SubscriptionsHost {
  readonly options: ResolvedOptions;
  /** Why nothing is tried any more, where that is so. */
  whyClosed(): ClientError | undefined;
  /** Sends it, where the server takes messages now. */
  send(text: string, isSubscribe: boolean): boolean;
  /** Whether the server takes no message of this size. */
  isTooBig(text: string): boolean;
  /** Told what a callback throws. */
  report(error: unknown): void;
}

/** The subscriptions of a client, by `uid`. */
export class Subscriptions implements SubscriberHost {
  readonly #host: SubscriptionsHost;
  readonly report: (error: unknown) => void;
  readonly #subscribers = new Map<unknown, Subscriber>();
  /** What is to be sent for each, in parts if there are many. */
  readonly #waiting = new Map<unknown, Subscriber | string>();
  /** What has been asked for on this connection. */
  readonly #asked = new Set<unknown>();

  constructor(host: SubscriptionsHost) {
    this.#host = host;
    this.report = host.report;
  }

  /** Whether a pong may tell of something that was missed. */
  get haveHistory(): boolean {
    return [...this.#subscribers.values()].some(({ position }) => position);
  }

  /** How many have been asked for on this connection and not answered. */
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

  /** Asks for all that the server has not answered: on a new connection that is each. */
  askAll(): void {
    for (const [uid, subscriber] of this.#subscribers) {
      if (subscriber.isLive) continue;
      this.#waiting.delete(uid); // For their order.
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

  /** Sends of what waits as much as the server takes. */
  flush(): void {
    for (const [uid, item] of this.#waiting) {
      const text = typeof item === "string" ? item : item.text;
      if (typeof item !== "string") {
        if (this.#host.isTooBig(text)) {
          this.#forget(item);
          // Not before `subscribe` has returned.
          void Promise.resolve().then(() => item.end(tooBig()));
          continue;
        }
      }
      if (!this.#host.send(text, typeof item !== "string")) return;
      this.#waiting.delete(uid);
      if (typeof item !== "string") this.#asked.add(uid);
    }
  }

  /** Whether the message is of one of them. */
  take(message: WebSocketMessage): boolean {
    const { type, status, uid } = message;
    const subscriber = this.#subscribers.get(uid);
    if (status === "error" && subscriber) this.#refused(subscriber, errorOf(message));
    else if (type !== "subscription" && type !== "presence") return false;
    // One that is unknown has been unsubscribed from.
    else if (message["event"] === "unsubscribe") {
      if (subscriber) {
        this.#refused(subscriber, errorOf({ error: { code: message["reason"], message: "Ended by the server" } }));
      }
    } else subscriber?.take(message);
    return true;
  }

  /** What the server says that it has sent before: what has not come of it is asked for. */
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

  /** The client is closed: iterations fail, and callbacks may go on when it is opened again. */
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
    if (error.code === "TOKEN_EXPIRED") return; // It is asked for again with the next token.
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
