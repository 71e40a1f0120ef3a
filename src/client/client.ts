/**
 * WebSocket client for browsers, Bun, Deno, Node and React Native, built on the platform's own `WebSocket`. It reconnects,
 * authenticates again, recovers its subscriptions and reports what could not be recovered. The wire format is `PROTOCOL.md`.
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
import type {
  ChannelName,
  ChannelOf,
  Contract,
  EventOf,
  ItemOf,
  MessageFrom,
  ReplyOf,
  RequestType,
  StreamType,
} from "../protocol/contract-types.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { Connector } from "./connector.ts";
import type { DataTo, MessageTo, PayloadOf, SubscribeOptionsOf, SubscriptionOf, WithoutEnvelope } from "./contract.ts";
import { disposeBy, type Disposes, type DisposesAsync } from "./dispose.ts";
import { Emitter } from "./emitter.ts";
import { checkToken, encode } from "./encode.ts";
import { ClientError, errorOf, tooBig } from "./error.ts";
import type { ClientClose, ClientEvents, ClientStatus } from "./events.ts";
import { type ClientOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { Outbox, type Waiting } from "./outbox.ts";
import { resolveUrl } from "./platform.ts";
import { type PublishOptions, type RequestOptions, Requests } from "./requests.ts";
import { type ClientStream, createStreams, type StreamOptions } from "./streams.ts";
import type { Position, SubscribeOptions } from "./subscription.ts";
import { Subscriptions } from "./subscriptions.ts";

export { ClientError } from "./error.ts";
export type { ClientClose, ClientEvents, ClientStatus, Reconnecting } from "./events.ts";
export type * from "../protocol/contract-types.ts";
export type * from "./contract.ts";
export type { Disposes, DisposesAsync } from "./dispose.ts";
export type { CloseInfo } from "./failure.ts";
export type { ClientOptions, Token } from "./options.ts";
export type { ClientClock, WebSocketConstructor, WebSocketLike } from "./platform.ts";
export type { PublishOptions, RequestOptions } from "./requests.ts";
export type { ClientStream, StreamOptions } from "./streams.ts";
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

/** Creates a client and connects it, unless `lazy` is set. @throws {TypeError} for invalid options and a URL without a scheme. */
export function createClient<C = Contract>(url: string | URL, options: ClientOptions = {}): Client<C> {
  return new BareClient<C>(url, options) as Client<C>; // The constructor adds the `using` methods.
}

/** A client that reconnects by itself. `using` and `await using` close it at the end of their block. */
export type Client<C = Contract> = BareClient<C> & Disposes & DisposesAsync;

/** {@link Client} without `using`. */
export class BareClient<C = Contract> {
  /** The contract, in types only: the declaration files have no private fields, from which the hooks would infer it. */
  declare readonly "~contract"?: C;
  readonly #options: ResolvedOptions;
  readonly #emitter = new Emitter<ClientEvents<C>>();
  readonly #connector: Connector;
  readonly #outbox: Outbox;
  readonly #requests: Requests;
  readonly #streams = createStreams(
    (text) => this.#connector.offer(text),
    (uid, error) => this.#requests.drop(uid, error),
  );
  readonly #subscriptions: Subscriptions;
  /** Random, so that the `uid` of an idempotent request stays unique on a server that remembers it across connections. */
  #prefix = "";
  /** Shared by all callers of {@link ready}. */
  #opening: Promise<void> | undefined;
  #lastUid = 0;
  /** True for a lazy client until its first use. */
  #isIdle = true;

  /** Takes the arguments of {@link createClient}. */
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
      url: resolveUrl(url, resolved.lazy),
      nextUid: () => this.#nextUid(),
      ready: (isNew) => this.#ready(isNew),
      resume: () => this.#flush(),
      unanswered: () => this.#subscriptions.unanswered,
      received: (message) => this.#receive(message),
      lost: (close, error) => this.#lost(close, error),
      // A hibernating Durable Object answers a bare ping without waking; only recoverable subscriptions need more from the pong.
      ping: () => ({ type: "ping", ...(this.#subscriptions.haveHistory && { uid: this.#nextUid() }) }),
      // Every connector event is also a client event.
      emit: (event, payload) => this.#emitter.emit(event, payload as ClientEvents<C>[typeof event]),
    });
    disposeBy(this, () => this.close());
    if (!resolved.lazy) this.#openIfIdle();
  }

  /** The state of the connection. */
  get status(): ClientStatus {
    return this.#connector.status;
  }

  /** True for a `lazy` client that nothing has used yet. Its status is `closed` until then. */
  get isIdle(): boolean {
    return this.#isIdle;
  }

  /**
   * Why the last attempt failed, or why the client is closed. `undefined` while connected, before the first attempt has failed,
   * and after your own {@link close}.
   */
  get error(): ClientError | undefined {
    return this.#connector.error;
  }

  /**
   * Resolves when the client is open. Ignoring it is safe: a rejection is never reported as unhandled.
   *
   * @throws {ClientError} AUTH_FAILED, FORBIDDEN, AUTH_TIMEOUT, TOKEN_EXPIRED, NOT_CONNECTED or another code of the server: the client
   * gave up. CLOSED after your own {@link close}.
   */
  get ready(): Promise<void> {
    this.#openIfIdle();
    if (this.#opening) return this.#opening;
    const ready = new Promise<void>((resolve, reject) => {
      const update = () => {
        if (this.status === "open") resolve();
        else if (this.status === "closed") reject(this.#whyClosed);
        else return;
        this.#opening = undefined;
        stop();
      };
      const stop = this.on("status", update);
      update();
    });
    ready.catch(() => {}); // Reading `ready` without awaiting it must not raise an unhandled rejection.
    if (/ing$/.test(this.status)) this.#opening = ready;
    return ready;
  }

  /** Adds a listener and returns a function that removes it. A listener added twice is called twice. */
  on<Event extends keyof ClientEvents<C>>(event: Event, listener: (payload: ClientEvents<C>[Event]) => unknown): () => void {
    return this.#emitter.on(event, listener);
  }

  /** Removes the listener; if it was added more than once, the earliest registration. */
  off<Event extends keyof ClientEvents<C>>(event: Event, listener: (payload: ClientEvents<C>[Event]) => unknown): void {
    this.#emitter.off(event, listener);
  }

  /**
   * Opens a lazy or closed client, such as after a new login; after the client gave up, callbacks continue. A waiting client retries at
   * once, and an open one checks its connection with a ping. Call it when a user presses retry or a React Native app returns to the front.
   */
  connect(): void {
    this.#isIdle = false;
    this.#connector.wake(true);
  }

  /**
   * Sends a message, or queues it until the client is open. Resolves when the socket has accepted it, which does not mean that the
   * server received it: use {@link request} for that. Ignoring the promise is safe: a rejection also emits `error`.
   *
   * @throws {ClientError} NOT_CONNECTED, OUTBOX_FULL, OUTBOX_EXPIRED, MESSAGE_TOO_BIG, CLOSED, or a code of {@link ready}
   */
  send(message: MessageTo<C>): Promise<void> {
    const promise = new Promise<void>((resolve, reject) => {
      this.#transmit({ text: encode(message), sent: resolve, failed: reject }, true);
    });
    promise.catch((error) => this.#emitter.emit("error", { error }));
    return promise;
  }

  /**
   * Sends a request and resolves with the `data` of the reply. If the connection is lost first, the server may or may not have handled
   * it: the promise rejects at once, unless `idempotent` is set.
   *
   * @throws {ClientError} the server's code, or DISCONNECTED, TIMEOUT, NOT_CONNECTED (never sent), OUTBOX_FULL, MESSAGE_TOO_BIG, CLOSED,
   * or a code of {@link ready}. An aborted signal rejects with its reason.
   */
  request<Type extends RequestType<C>>(
    type: Type,
    ...[payload, options]: Record<string, never> extends PayloadOf<C, Type>
      ? [payload?: WithoutEnvelope<PayloadOf<C, Type>>, options?: RequestOptions]
      : [payload: WithoutEnvelope<PayloadOf<C, Type>>, options?: RequestOptions]
  ): Promise<ReplyOf<C, Type>> {
    // The reply is not validated; the contract is trusted.
    return this.#request(type, payload as object, options).then(({ data }) => data as ReplyOf<C, Type>);
  }

  /**
   * Sends a request that is answered in parts. A `break` out of the loop cancels it. A stream does not outlive its connection: its
   * iteration throws `DISCONNECTED`.
   */
  stream<Type extends StreamType<C>>(
    type: Type,
    ...[payload, { signal } = {}]: Record<string, never> extends PayloadOf<C, Type>
      ? [payload?: WithoutEnvelope<PayloadOf<C, Type>>, options?: StreamOptions]
      : [payload: WithoutEnvelope<PayloadOf<C, Type>>, options?: StreamOptions]
  ): ClientStream<ItemOf<C, Type>, ReplyOf<C, Type>> {
    const uid = this.#nextUid();
    const request = () => this.#request(type, payload as object, { timeout: 0, ...(signal && { signal }) }, uid);
    // Items and result are not validated; the contract is trusted.
    return this.#streams.start(uid, request, signal) as ClientStream<ItemOf<C, Type>, ReplyOf<C, Type>>;
  }

  /**
   * Publishes to a channel. Resolves with the publication's position, or `{}` for a channel without history.
   *
   * @throws {ClientError} as {@link request}
   */
  publish<Name extends ChannelName<C>, Event extends EventOf<ChannelOf<C, Name>>>(
    channel: Name,
    event: Event,
    data: DataTo<ChannelOf<C, Name>, Event>,
    options: PublishOptions = {},
  ): Promise<Partial<Position>> {
    const { id } = options;
    return this.#request("publish", { channel, event, data, id }, { idempotent: !!id, ...options }).then(({ epoch, offset }) =>
      (epoch ? { epoch, offset } : {}) as Partial<Position> // PROTOCOL.md §4: `epoch` and `offset` come together.
    );
  }

  /**
   * Answers a type of questions of the server with what the handler returns. A `ClientError` that it throws is the answer, with its code;
   * any other error is answered `INTERNAL_ERROR` and emits `error`. Returns a function that removes the handler.
   */
  handle<Payload = Record<string, unknown>>(type: string, handler: (question: Payload) => unknown): () => void {
    return this.on("message", async ({ message }) => {
      const { uid } = message as WebSocketMessage; // Of a contract, it is one, too.
      if (message.type !== type || !/^ask:/.test(uid as string)) return;
      const answer = (rest: object) => this.send({ type, uid, ...rest } as MessageTo<C>); // No contract has answers.
      try {
        answer({ status: "ok", data: await handler(message as Payload) });
      } catch (error) {
        const isShown = error instanceof ClientError;
        answer({ status: "error", error: { code: isShown ? error.code : "INTERNAL_ERROR" } });
        if (!isShown) throw error;
      }
    });
  }

  /**
   * Subscribes to a channel until you unsubscribe; after a reconnect the subscription resumes from its position. Iterate over the
   * result or pass callbacks. When the client gives up, an iteration throws; callbacks continue after {@link connect}.
   *
   * @throws {TypeError} for options that JSON cannot encode
   */
  subscribe<Name extends ChannelName<C>, Event extends EventOf<ChannelOf<C, Name>> = EventOf<ChannelOf<C, Name>>>(
    channel: Name,
    options: SubscribeOptionsOf<ChannelOf<C, Name>, Event> & { event?: Event } = {},
  ): SubscriptionOf<ChannelOf<C, Name>, Event> {
    // The contract exists in types only; at run time everything is JSON.
    const subscriber = this.#subscriptions.add(channel, this.#nextUid(), options as unknown as SubscribeOptions);
    this.#openIfIdle();
    // Deferred: an `onError` callback may use the returned subscription.
    void Promise.resolve().then(() => this.#subscriptions.check(subscriber));
    return subscriber as unknown as SubscriptionOf<ChannelOf<C, Name>, Event>;
  }

  /**
   * Closes the client for good: queued and pending requests reject, iterations end. Resolves when the connection is gone.
   *
   * @param code 1000, or 3000 to 4999
   */
  close(code = 1000, reason = ""): Promise<void> {
    const wasIdle = this.#isIdle;
    this.#isIdle = false;
    // The status was `closed` before, but `isIdle` changed with it, and listeners of `status` show both.
    if (wasIdle) this.#emitter.emit("status", { status: "closed" });
    this.#subscriptions.end();
    return this.#connector.close(code, reason);
  }

  #nextUid(): string {
    // Not in the constructor: Workers forbid `crypto` randomness while a module loads.
    this.#prefix ||= this.#options.random().toString(36).slice(2, 10);
    return `${this.#prefix}${++this.#lastUid}`;
  }

  async #request(
    type: string,
    payload: object | undefined,
    options: RequestOptions = {},
    uid = this.#nextUid(),
  ): Promise<WebSocketMessage> {
    if (payload && (typeof payload !== "object" || Array.isArray(payload) || "type" in payload || "uid" in payload)) {
      throw new TypeError('Cannot send: pass an object without "type" and "uid"');
    }
    // More random: anonymous clients have one scope in common.
    const end = options.idempotent ? `${this.#options.random().toString(36).slice(1)}.once` : "";
    const message = { ...payload, type, uid: uid + end };
    const { timeout = this.#options.requestTimeout } = options;
    return await this.#requests.add(message, { ...options, timeout }, (item) => this.#transmit(item, false));
  }

  get #whyClosed(): ClientError {
    return this.error ?? new ClientError("CLOSED", "The client is closed");
  }

  #openIfIdle(): void {
    if (this.#isIdle) this.connect();
  }

  #transmit(item: Waiting, expires: boolean): void {
    this.#openIfIdle();
    if (this.status === "closed") return item.failed(this.#whyClosed);
    if (this.#refuse(item)) return;
    // Queued messages go first.
    if (this.#outbox.size > 0 || !this.#connector.offer(item.text)) return this.#outbox.add(item, expires);
    item.sent?.();
  }

  /** Rejects a message for which the server would close the connection. */
  #refuse(item: Waiting): boolean {
    const isTooBig = this.#connector.pace.isTooBig(item.text);
    if (isTooBig) item.failed(tooBig());
    return isTooBig;
  }

  /** Called on a new connection, after new credentials, and after a pause. */
  #ready(isNew: boolean): void {
    this.#subscriptions.askAll();
    this.#flush();
    if (isNew) this.#emitter.emit("open", {});
  }

  /** Sends what the server accepts now; its next pong triggers the rest. */
  #flush(): void {
    this.#subscriptions.flush();
    this.#outbox.flush((item) => this.#refuse(item) || this.#connector.offer(item.text));
    this.#streams.flush();
  }

  #lost(close: ClientClose, error?: ClientError): void {
    const { code, reason, isFinal } = close;
    this.#subscriptions.lost();
    this.#streams.lost();
    const why = `The connection was lost (${code}${reason && ` ${reason}`}): it may have been handled`;
    const lost = new ClientError("DISCONNECTED", why, { close });
    // After 1009 any of them may be the message that was too big, so none is sent again.
    this.#requests.lost(lost, code !== 1009, /^drained\b/.test(reason));
    if (!isFinal) return;
    this.#outbox.fail(this.#whyClosed, lost);
    if (error) this.#subscriptions.interrupt(error);
  }

  #receive(message: WebSocketMessage): void {
    const { type, uid, status } = message;
    if (type === "ping") return this.#connector.send({ type: "pong", uid } as WebSocketMessage); // JSON drops an undefined `uid`.
    if (type === "pong") return this.#subscriptions.pong(message["channels"]);
    if (type === "auth") {
      // The server handled nothing that arrived after the token expired, so the request is safe to send again.
      const wasRefused = errorOf(message).code === "TOKEN_EXPIRED" && this.#requests.retry(uid);
      this.#subscriptions.receive(message);
      if (wasRefused || !this.#requests.settle(message)) this.#connector.auth(message);
      return;
    }
    if (this.#streams.receive(message) || this.#subscriptions.receive(message) || this.#requests.settle(message)) return;
    if (status === "error") {
      // An error that answers no request of ours.
      const error = errorOf(message);
      // A server that asks for a pause discarded what it received meanwhile, `subscribe` included.
      if (this.#connector.heed(error)) this.#subscriptions.askAll();
      return this.#emitter.emit("error", { error });
    }
    // A late reply to a request that timed out or was aborted.
    if (status !== undefined && typeof uid === "string" && this.#prefix && uid.startsWith(this.#prefix)) return;
    this.#emitter.emit("message", { message: message as MessageFrom<C> }); // Typed by the contract.
  }
}
