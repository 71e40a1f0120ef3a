/**
 * A client for browsers, Bun, Deno, Node and React Native, over the platform's own `WebSocket`: it comes back when the connection was
 * lost, proves anew who it is, and says what it could not make good. It needs nothing of the server but `PROTOCOL.md`.
 *
 * @example
 * ```ts
 * import { createClient } from "noroshi/client";
 *
 * const client = createClient("wss://example.com/websocket", { token: () => fetchToken() });
 * client.on("status", ({ status }) => console.log(status));
 * const reply = await client.request("say", { text: "hello" });
 * for await (const { event, data } of client.subscribe("articles")) console.log(event, data);
 * ```
 *
 * @module
 */
import type { WebSocketMessage } from "../protocol.ts";
import { Connector } from "./connector.ts";
import type {
  ChannelName,
  ChannelOf,
  Contract,
  DataTo,
  EventOf,
  MessageFrom,
  MessageTo,
  PayloadOf,
  ReplyOf,
  RequestType,
  SubscribeOptionsOf,
  SubscriptionOf,
  WithoutEnvelope,
} from "./contract.ts";
import { disposeBy, type Disposes, type DisposesAsync } from "./dispose.ts";
import { Emitter } from "./emitter.ts";
import { checkToken, encode } from "./encode.ts";
import { ClientError, errorOf, tooBig } from "./error.ts";
import type { ClientClose, ClientStatus, Reconnecting } from "./events.ts";
import { type ClientOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { Outbox, type Waiting } from "./outbox.ts";
import { resolveUrl } from "./platform.ts";
import { type RequestOptions, Requests } from "./requests.ts";
import type { Position, SubscribeOptions } from "./subscription.ts";
import { Subscriptions } from "./subscriptions.ts";

export { ClientError } from "./error.ts";
export type { ClientClose, ClientStatus, Reconnecting } from "./events.ts";
export type * from "./contract.ts";
export type { Disposes, DisposesAsync } from "./dispose.ts";
export type { CloseInfo } from "./failure.ts";
export type { ClientOptions, Token } from "./options.ts";
export type { ClientClock, WebSocketConstructor, WebSocketLike } from "./platform.ts";
export type { RequestOptions } from "./requests.ts";
export type {
  Member,
  OpenSubscription,
  Position,
  PresenceChange,
  Publication,
  SubscribeOptions,
  Subscription,
  SubscriptionInit,
} from "./subscription.ts";

/** The events of a client and what their listeners receive. */
export interface ClientEvents<C = Contract> {
  /** The server has let the client in, and answered. */
  open: Record<string, never>;
  /** A connection that was open has ended, or nothing is tried any more. */
  close: ClientClose;
  /** The next try will be made. */
  reconnecting: Reconnecting;
  /** The server has sent something by itself. */
  message: { message: MessageFrom<C> };
  /** An attempt failed, the first of an outage; the server reports what answers no request; a message was not sent; a listener threw. */
  error: { error: unknown };
  /** {@link BareClient.status} has changed. */
  status: { status: ClientStatus };
}

/** Opens a connection, unless the option `lazy` is set, and keeps it. @throws {TypeError} for bad options. */
export function createClient<C = Contract>(url: string | URL, options: ClientOptions = {}): Client<C> {
  return new BareClient<C>(url, options) as Client<C>; // What it lacks, its constructor adds.
}

/** A connection to a server that outlives its WebSockets, and ends with the block of a `using` or `await using`. */
export type Client<C = Contract> = BareClient<C> & Disposes & DisposesAsync;

/** {@link Client}, without `using`. */
export class BareClient<C = Contract> {
  readonly #options: ResolvedOptions;
  readonly #emitter = new Emitter<ClientEvents<C>>();
  readonly #connector: Connector;
  readonly #outbox: Outbox;
  readonly #requests: Requests;
  readonly #subscriptions: Subscriptions;
  /** Makes a `uid` of this client nobody else's: an idempotent request may be known by it after the connection it was sent on. */
  #prefix = "";
  /** All who wait for it have the same one. */
  #opening: Promise<void> | undefined;
  #lastUid = 0;
  /** It is lazy, and nothing was wanted of it. */
  #isIdle = true;

  /** {@link createClient} takes the same. */
  constructor(url: string | URL, options: ClientOptions = {}) {
    const resolved = this.#options = resolveOptions(options);
    if (typeof resolved.token !== "function") checkToken(resolved.token);
    const whyUnsent = () => this.status === "open" ? undefined : this.#connector.notConnected();
    this.#outbox = new Outbox(resolved.clock, resolved.outbox, whyUnsent);
    this.#requests = new Requests(resolved.clock, this.#outbox);
    this.#subscriptions = new Subscriptions({
      options: resolved,
      send: (text, isSubscribe) => this.#connector.offer(text, isSubscribe),
      isTooBig: (text) => this.#connector.pace.isTooBig(text),
      report: this.#emitter.report,
      whyClosed: () => this.status === "closed" ? this.#whyClosed : undefined,
    });
    this.#connector = new Connector({
      options: resolved,
      url: resolveUrl(url),
      nextUid: () => this.#nextUid(),
      ready: (isNew) => this.#ready(isNew),
      resume: () => this.#flush(),
      asked: () => this.#subscriptions.unanswered,
      received: (message) => this.#receive(message),
      lost: (close, error) => this.#lost(close, error),
      // A sleeping Durable Object answers without being woken where nobody has to know more.
      ping: () => ({ type: "ping", ...(this.#subscriptions.haveHistory && { uid: this.#nextUid() }) }),
      // Those of a connector are among those of a client.
      emit: (event, payload) => this.#emitter.emit(event, payload as ClientEvents<C>[typeof event]),
    });
    disposeBy(this, () => this.close());
    if (!resolved.lazy) this.#rouse();
  }

  /** Whether there is a connection, and what is done about it. */
  get status(): ClientStatus {
    return this.#connector.status;
  }

  /** Whether it is `lazy` and nothing has been wanted of it. Its status is `closed` until then. */
  get isIdle(): boolean {
    return this.#isIdle;
  }

  /**
   * Why there is no connection: of the last attempt, or why the client is closed. Absent while there is one, before the first attempt has
   * ended, and where you have closed it.
   */
  get error(): ClientError | undefined {
    return this.#connector.error;
  }

  /**
   * Resolves once the client is open, at once where it is. It may be left alone: a rejection that nobody awaits ends no process.
   *
   * @throws {ClientError} why nothing is tried any more: AUTH_FAILED, FORBIDDEN, AUTH_TIMEOUT, TOKEN_EXPIRED or what else the server said,
   * NOT_CONNECTED, or CLOSED where you have closed it.
   */
  get ready(): Promise<void> {
    this.#rouse();
    if (this.#opening) return this.#opening;
    const ready = new Promise<void>((resolve, reject) => {
      const look = () => {
        if (this.status === "open") resolve();
        else if (this.status === "closed") reject(this.#whyClosed);
        else return;
        this.#opening = undefined;
        stop();
      };
      const stop = this.on("status", look);
      look();
    });
    ready.catch(() => {}); // Who awaits it gets the error; who has only looked is not to blame.
    if (/ing$/.test(this.status)) this.#opening = ready;
    return ready;
  }

  /** Calls the listener at each such event, with one payload object: twice where it is registered twice. Returns how to end this registration. */
  on<Event extends keyof ClientEvents<C>>(event: Event, listener: (payload: ClientEvents<C>[Event]) => unknown): () => void {
    return this.#emitter.on(event, listener);
  }

  /** Ends one registration of the listener, the first. */
  off<Event extends keyof ClientEvents<C>>(event: Event, listener: (payload: ClientEvents<C>[Event]) => unknown): void {
    this.#emitter.off(event, listener);
  }

  /**
   * Opens what is lazy or closed, such as when a user has logged in again: subscriptions with callbacks go on then. Tries again now instead of waiting; asks an open connection whether it is alive. For what a client cannot
   * see by itself: a button, or that an app of React Native is in front again.
   */
  connect(): void {
    this.#isIdle = false;
    this.#connector.wake(true);
  }

  /**
   * Sends a message, now or once there is a connection. Resolves when it was handed to the connection, which may still be lost with it:
   * {@link request} tells more. It may be left alone: a rejection is an `error` event too.
   *
   * @throws {ClientError} NOT_CONNECTED, OUTBOX_FULL, OUTBOX_EXPIRED, CLOSED, or why the client is closed, as {@link ready}
   */
  send(message: MessageTo<C>): Promise<void> {
    const promise = new Promise<void>((resolve, reject) => {
      this.#transmit({ text: encode(message), sent: resolve, failed: reject }, true);
    });
    promise.catch((error) => this.#emitter.emit("error", { error }));
    return promise;
  }

  /**
   * Asks, and resolves with `data` of the answer. When the connection is lost meanwhile the server may have handled it or not: then it
   * rejects at once, unless it is said to be idempotent.
   *
   * @throws {ClientError} the server's code, or DISCONNECTED, TIMEOUT, NOT_CONNECTED (it was not sent), OUTBOX_FULL, CLOSED, or why the
   * client is closed, as {@link ready}; and the reason of the signal.
   */
  request<Type extends RequestType<C>>(
    type: Type,
    ...[payload, options]: Record<string, never> extends PayloadOf<C, Type>
      ? [payload?: WithoutEnvelope<PayloadOf<C, Type>>, options?: RequestOptions]
      : [payload: WithoutEnvelope<PayloadOf<C, Type>>, options?: RequestOptions]
  ): Promise<ReplyOf<C, Type>> {
    // What the server answers is what the contract says: it is not looked at here.
    return this.#ask(type, payload as object, options).then(({ data }) => data as ReplyOf<C, Type>);
  }

  /**
   * Publishes to a channel. Resolves with its place in the history, where there is one.
   *
   * @throws {ClientError} as {@link request}.
   */
  publish<Name extends ChannelName<C>, Event extends EventOf<ChannelOf<C, Name>>>(
    channel: Name,
    event: Event,
    data: DataTo<ChannelOf<C, Name>, Event>,
    options?: RequestOptions,
  ): Promise<Partial<Position>> {
    return this.#ask("publish", { channel, event, data }, options).then(({ epoch, offset }) =>
      (epoch ? { epoch, offset } : {}) as Partial<Position> // As the protocol says.
    );
  }

  /**
   * Subscribes to a channel for as long as the client lives: it is asked for again after each loss of the connection, from where it was.
   * Iterate over what is returned, or pass callbacks. A client that is `closed` ends an iteration with the reason; callbacks go on after
   * {@link connect}.
   *
   * @throws {TypeError} for options that JSON cannot hold.
   */
  subscribe<Name extends ChannelName<C>, Event extends EventOf<ChannelOf<C, Name>> = EventOf<ChannelOf<C, Name>>>(
    channel: Name,
    options: SubscribeOptionsOf<ChannelOf<C, Name>, Event> & { event?: Event } = {},
  ): SubscriptionOf<ChannelOf<C, Name>, Event> {
    // The contract is of types alone; inside, everything is JSON.
    const subscriber = this.#subscriptions.add(channel, this.#nextUid(), options as unknown as SubscribeOptions);
    this.#rouse();
    // Not before it is returned: its callbacks may use it.
    void Promise.resolve().then(() => this.#subscriptions.check(subscriber));
    return subscriber as unknown as SubscriptionOf<ChannelOf<C, Name>, Event>;
  }

  /**
   * Ends everything: what waits is rejected, iterations are done, and nothing is tried any more. Resolves when the connection is gone.
   *
   * @param code 1000, or 3000 to 4999
   */
  close(code = 1000, reason = ""): Promise<void> {
    const wasIdle = this.#isIdle;
    this.#isIdle = false;
    // Its status is what it was, and means another thing.
    if (wasIdle) this.#emitter.emit("status", { status: "closed" });
    this.#subscriptions.end();
    return this.#connector.close(code, reason);
  }

  #nextUid(): string {
    // Not in the constructor: while a Worker's module is loaded, a `random` of crypto's throws.
    this.#prefix ||= this.#options.random().toString(36).slice(2, 10);
    return `${this.#prefix}${++this.#lastUid}`;
  }

  async #ask(type: string, payload: object | undefined, options: RequestOptions = {}): Promise<WebSocketMessage> {
    if (payload && (typeof payload !== "object" || Array.isArray(payload) || "type" in payload || "uid" in payload)) {
      throw new TypeError('Cannot send: pass an object without "type" and "uid"');
    }
    const message = { ...payload, type, uid: this.#nextUid() };
    const { timeout = this.#options.requestTimeout } = options;
    return await this.#requests.add(message, { ...options, timeout }, (item) => this.#transmit(item, false));
  }

  get #whyClosed(): ClientError {
    return this.error ?? new ClientError("CLOSED", "The client is closed");
  }

  #rouse(): void {
    if (this.#isIdle) this.connect();
  }

  #transmit(item: Waiting, expires: boolean): void {
    this.#rouse();
    if (this.status === "closed") return item.failed(this.#whyClosed);
    if (this.#refuse(item)) return;
    // Behind what waits, if something does.
    if (this.#outbox.size > 0 || !this.#connector.offer(item.text)) return this.#outbox.add(item, expires);
    item.sent?.();
  }

  /** Whether it is not sent, as the server would close the connection for it. */
  #refuse(item: Waiting): boolean {
    const isTooBig = this.#connector.pace.isTooBig(item.text);
    if (isTooBig) item.failed(tooBig());
    return isTooBig;
  }

  /** The server takes messages: on a new connection, with new credentials, or after a pause. */
  #ready(isNew: boolean): void {
    this.#subscriptions.askAll();
    this.#flush();
    if (isNew) this.#emitter.emit("open", {});
  }

  /** As much of what waits as the server takes: on its answers, the next part. */
  #flush(): void {
    this.#subscriptions.flush();
    this.#outbox.flush((item) => this.#refuse(item) || this.#connector.offer(item.text));
  }

  #lost(close: ClientClose, error?: ClientError): void {
    const { code, reason, isFinal } = close;
    this.#subscriptions.lost();
    const why = `The connection was lost (${code}${reason && ` ${reason}`}): it may have been handled`;
    const lost = new ClientError("DISCONNECTED", why, { close });
    // The message that was too big may be any of these: it must not be sent again.
    this.#requests.lost(lost, code !== 1009);
    if (!isFinal) return;
    this.#outbox.fail(this.#whyClosed, lost);
    if (error) this.#subscriptions.interrupt(error);
  }

  #receive(message: WebSocketMessage): void {
    const { type, uid, status } = message;
    if (type === "ping") return this.#connector.send({ type: "pong", uid } as WebSocketMessage); // What is undefined JSON leaves out.
    if (type === "pong") return this.#subscriptions.pong(message["channels"]);
    if (type === "auth") {
      // Of what was sent after the credentials had run out nothing has been handled.
      const wasRefused = errorOf(message).code === "TOKEN_EXPIRED" && this.#requests.retry(uid);
      this.#subscriptions.take(message);
      if (wasRefused || !this.#requests.settle(message)) this.#connector.auth(message);
      return;
    }
    if (this.#subscriptions.take(message) || this.#requests.settle(message)) return;
    if (status === "error") return this.#fault(errorOf(message));
    // The answer to what was given up.
    if (status !== undefined && typeof uid === "string" && this.#prefix && uid.startsWith(this.#prefix)) return;
    this.#emitter.emit("message", { message: message as MessageFrom<C> }); // As the contract says.
  }

  /** An error that belongs to nothing that was asked. */
  #fault(error: ClientError): void {
    // What it was sent too fast it has not read, subscriptions included.
    if (this.#connector.heed(error)) this.#subscriptions.askAll();
    this.#emitter.emit("error", { error });
  }
}
