import type { WebSocketMessage } from "../protocol.ts";
import { backoffDelay } from "./connector.ts";
import { type ClientError, errorOf } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { type Position, type SubscribeOptions, Subscriber, type SubscriberHost } from "./subscription.ts";

/** What a server may be able to do a little later. */
const TRANSIENT = ["SERVICE_UNAVAILABLE", "ENGINE_UNAVAILABLE", "INTERNAL_ERROR", "REQUESTS_EXCEEDED"];

/** What the subscriptions need of the client. */
export interface SubscriptionsHost {
  readonly options: ResolvedOptions;
  /** Sends it, where the server takes messages. */
  send(message: WebSocketMessage): void;
  guard(call: () => unknown): void;
}

/** The subscriptions of a client, by `uid`. */
export class Subscriptions implements SubscriberHost {
  readonly #host: SubscriptionsHost;
  readonly #subscribers = new Map<unknown, Subscriber>();

  constructor(host: SubscriptionsHost) {
    this.#host = host;
  }

  /** Whether a pong may tell of something that was missed. */
  get haveHistory(): boolean {
    return [...this.#subscribers.values()].some(({ position }) => position);
  }

  add(channel: string, uid: string, options: SubscribeOptions): Subscriber {
    const subscriber = new Subscriber(this, channel, uid, options);
    this.#subscribers.set(uid, subscriber);
    this.ask(subscriber);
    return subscriber;
  }

  ask(subscriber: Subscriber): void {
    this.#host.send(subscriber.message);
  }

  /** Asks for all that the server has not answered: on a new connection that is each. */
  askAll(): void {
    for (const subscriber of this.#subscribers.values()) if (!subscriber.isLive) this.ask(subscriber);
  }

  remove({ uid }: Subscriber): void {
    if (this.#subscribers.delete(uid)) this.#host.send({ type: "unsubscribe", uid });
  }

  guard(call: () => unknown): void {
    this.#host.guard(call);
  }

  /** Whether the message is of one of them. */
  take(message: WebSocketMessage): boolean {
    const { type, status, uid } = message;
    const subscriber = this.#subscribers.get(uid);
    if (status === "error" && subscriber) this.#refused(subscriber, errorOf(message["error"]));
    else if (type !== "subscription" && type !== "presence") return false;
    // One that is unknown has been unsubscribed from.
    else if (message["event"] === "unsubscribe" && type === "subscription") {
      if (subscriber) {
        this.#refused(subscriber, errorOf({ code: message["reason"], message: "The server has ended the subscription" }));
      }
    } else subscriber?.take(message);
    return true;
  }

  /** What the server says that it has sent before: what has not come of it is asked for. */
  pong(channels: unknown): void {
    if (typeof channels !== "object" || channels === null) return;
    for (const subscriber of this.#subscribers.values()) {
      const at = Object.hasOwn(channels, subscriber.channel) && (channels as Record<string, Position>)[subscriber.channel];
      if (at && !subscriber.isAt(at)) this.ask(subscriber);
    }
  }

  lost(): void {
    for (const subscriber of this.#subscribers.values()) subscriber.isLive = false;
  }

  end(error?: ClientError): void {
    for (const [uid, subscriber] of [...this.#subscribers]) {
      this.#subscribers.delete(uid);
      subscriber.end(error);
    }
  }

  #refused(subscriber: Subscriber, error: ClientError): void {
    subscriber.isLive = false;
    if (error.code === "TOKEN_EXPIRED") return; // It is asked for again with the next token.
    if (!TRANSIENT.includes(error.code)) {
      this.#subscribers.delete(subscriber.uid);
      return subscriber.end(error);
    }
    const { clock, backoff, random } = this.#host.options;
    const wait = Number(error.details["retry_after"]) || 0;
    clock.setTimeout(() => {
      if (this.#subscribers.get(subscriber.uid) === subscriber && !subscriber.isLive) this.ask(subscriber);
    }, wait + backoffDelay(subscriber.failures++, backoff, random));
  }
}
