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
import type { AskedType, ChannelName, ChannelOf, Contract, EventOf } from "../protocol/contract-types.ts";
import type { MatchingName, ReplyOf, RequestType } from "../protocol/contract-types.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { type Connector, createConnector } from "./connector.ts";
import type {
  AnswerTo,
  AskedOf,
  DataTo,
  MessageTo,
  PayloadOf,
  SubscribeOptionsOf,
  SubscriptionOf,
  WithoutEnvelope,
} from "./contract.ts";
import { disposeBy, type Disposes, type DisposesAsync } from "./dispose.ts";
import { createEmitter } from "./emitter.ts";
import { checkToken } from "./encode.ts";
import { ClientError, errorOf, isUnread } from "./error.ts";
import type { ClientEvents, ClientStatus } from "./events.ts";
import { checkMs, type ClientOptions, resolveOptions } from "./options.ts";
import { resolveUrl } from "./platform.ts";
import { createRequests, type PublishOptions, type RequestOptions } from "./requests.ts";
import type { StreamsFactory } from "./stream.ts";
import type { Streaming } from "./streams.ts";
import type { Position, SubscribeOptions, Subscription } from "./subscription.ts";
import { createSubscriptions } from "./subscriptions.ts";

export { ClientError } from "./error.ts";
export type { ClientClose, ClientEvents, ClientStatus, Reconnecting } from "./events.ts";
export type * from "../protocol/contract-types.ts";
export type { JsonItemOf, JsonOf } from "../protocol/json-of.ts";
export type * from "./contract.ts";
export type { Disposes, DisposesAsync } from "./dispose.ts";
export type { CloseInfo } from "./failure.ts";
export type { ClientOptions, Token } from "./options.ts";
export type { ClientClock, WebSocketConstructor, WebSocketLike } from "./platform.ts";
export type { PublishOptions, RequestOptions } from "./requests.ts";
export type { AttachOptions, ClientStream, StreamInfo, StreamOptions, Streams, StreamsFactory, StreamsHost } from "./stream.ts";
export type { Streaming } from "./streams.ts";
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

/** A client that reconnects by itself. `using` and `await using` close it at the end of their block. */
export type Client<C = Contract> = BareClient<C> & Disposes & DisposesAsync;

/** A {@link Client} with the option `streams`. */
export type StreamingClient<C = Contract> = Client<C> & Streaming<C>;

/** {@link Client} without `using`. */
export interface BareClient<C = Contract> {
  /** The contract, in types only: the hooks infer it from here. */
  readonly "~contract"?: C;

  /** The state of the connection. */
  readonly status: ClientStatus;

  /** True for a `lazy` client that nothing has used yet. Its status is `closed` until then. */
  readonly isIdle: boolean;

  /**
   * Why the last attempt failed, or why the client is closed. `undefined` while connected, before the first attempt has failed,
   * and after your own {@link close}.
   */
  readonly error: ClientError | undefined;

  /**
   * Resolves when the client is open. Ignoring it is safe: a rejection is never reported as unhandled.
   *
   * @throws {ClientError} AUTH_FAILED, FORBIDDEN, AUTH_TIMEOUT, TOKEN_EXPIRED, NOT_CONNECTED or another code of the server, if the client
   * gave up. CLOSED after your own {@link close}.
   */
  readonly ready: Promise<void>;

  /** Adds a listener and returns a function that removes it. A listener added twice is called twice. */
  on<Event extends keyof ClientEvents<C>>(event: Event, listener: (payload: ClientEvents<C>[Event]) => unknown): () => void;

  /** Removes the listener; if it was added more than once, the earliest registration. */
  off<Event extends keyof ClientEvents<C>>(event: Event, listener: (payload: ClientEvents<C>[Event]) => unknown): void;

  /**
   * Opens a lazy or closed client, such as after a new login; after the client gave up, callbacks continue. A waiting client retries at
   * once, and an open one checks its connection with a ping. Call it when a user presses retry or a React Native app returns to the front.
   */
  connect(): void;

  /**
   * Sends a message, or queues it until the client is open. Resolves when the socket has accepted it; to know that the server has received
   * it, use {@link request}. Ignoring the promise is safe: a rejection also emits `error`.
   *
   * @throws {ClientError} NOT_CONNECTED, OUTBOX_FULL, OUTBOX_EXPIRED, MESSAGE_TOO_BIG, CLOSED, or a code of {@link ready}
   */
  send(message: MessageTo<C>): Promise<void>;

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
  ): Promise<ReplyOf<C, Type>>;

  /**
   * Publishes to a channel. Resolves with the publication's position, or `{}` for a channel without history.
   *
   * @throws {ClientError} as {@link request}
   */
  publish<Name extends ChannelName<C>, Event extends EventOf<ChannelOf<C, Name>>>(
    channel: MatchingName<C, Name>,
    event: Event,
    data: DataTo<ChannelOf<C, Name>, Event>,
    options?: PublishOptions,
  ): Promise<Partial<Position>>;

  /**
   * Answers questions of this type, which the server asks, with what the handler returns. If it throws a `ClientError`, the answer is an
   * error with its code; any other error is answered with `INTERNAL_ERROR` and emits `error`. Returns a function that removes the handler.
   */
  handle<Type extends AskedType<C>>(
    type: Type,
    handler: (question: AskedOf<C, Type>) => AnswerTo<C, Type> | Promise<AnswerTo<C, Type>>,
  ): () => void;

  /**
   * Subscribes to a channel until you unsubscribe; after a reconnect the subscription resumes from its position. Iterate over the
   * result or pass callbacks. When the client gives up, an iteration throws; callbacks continue after {@link connect}.
   *
   * @throws {TypeError} for options that JSON cannot encode
   */
  subscribe<Name extends ChannelName<C>, Event extends EventOf<ChannelOf<C, Name>> = EventOf<ChannelOf<C, Name>>>(
    channel: MatchingName<C, Name>,
    options?: SubscribeOptionsOf<ChannelOf<C, Name>, Event> & { event?: Event },
  ): SubscriptionOf<ChannelOf<C, Name>, Event>;

  /**
   * Closes the client: queued and pending requests reject, iterations end. Resolves when the connection is gone.
   *
   * @param code 1000, or 3000 to 4999. @default {1000}
   */
  close(code?: number, reason?: string): Promise<void>;
}

/** Creates a client with streams, as below. */
export function createClient<C = Contract>(
  url: string | URL,
  options: ClientOptions & { streams: StreamsFactory },
): StreamingClient<C>;
/** Creates a client and connects it, unless `lazy` is set. @throws {TypeError} for invalid options and a URL without a scheme. */
export function createClient<C = Contract>(url: string | URL, options?: ClientOptions): Client<C>;
export function createClient<C = Contract>(url: string | URL, options: ClientOptions = {}): Client<C> {
  const resolved = resolveOptions(options);
  const { token, lazy, random, requestTimeout, outbox, traceparent } = resolved;
  if (typeof token !== "function") checkToken(token);
  // The contract exists in types only; at run time everything is JSON.
  const { on, off, emit, report } = createEmitter<ClientEvents>();
  /** Random, so that the `uid` of an idempotent request is unique on a server that keeps it across connections. */
  let prefix = "";
  let lastUid = 0;
  /** By `uid`: the latest answers to questions, which are sent again if the server refuses them because the token has expired. */
  const answers = new Map<unknown, WebSocketMessage>();
  /** True for a lazy client until its first use. */
  let isIdle = true;
  /** Shared by all callers of `ready`. */
  let opening: Promise<void> | undefined;

  // The prefix is drawn at the first use, because Workers forbid randomness while a module loads.
  const nextUid = () => (prefix ||= random().toString(36).slice(2, 10)) + ++lastUid;

  const connect = () => {
    isIdle = false;
    connector.wake(true);
  };

  /** Whether the client connects, or waits for the next attempt. */
  const isOpening = () => /ing$/.test(connector.status);

  const openIfIdle = () => {
    if (isIdle) connect();
  };

  const offer: Connector["offer"] = (...text) => connector.offer(...text);

  const subscriptions = createSubscriptions(
    resolved,
    nextUid,
    offer,
    () => connector.whyClosed(),
    report,
  );

  const requests = createRequests(
    resolved,
    (text, refused) => {
      openIfIdle();
      const why = connector.whyClosed();
      if (why) refused(why);
      return !!why || offer(text, refused);
    },
    () => connector.whyUnsent(),
  );

  const request = async (
    type: string,
    payload: object | undefined,
    options: RequestOptions = {},
    uid = nextUid(),
  ): Promise<WebSocketMessage> => {
    if (payload && (typeof payload !== "object" || Array.isArray(payload) || "type" in payload || "uid" in payload)) {
      throw new TypeError('Cannot send: pass an object without "type" and "uid"');
    }
    const { timeout = requestTimeout } = options;
    checkMs('Cannot request: option "timeout"', timeout);
    // More random, because all anonymous clients share one scope.
    uid += options.idempotent ? `${random().toString(36).slice(1)}.once` : "";
    return await requests.add({ traceparent: traceparent?.(), ...payload, type, uid }, uid, { ...options, timeout });
  };

  const streams = resolved.streams?.({ nextUid, request, offer, drop: requests.drop, report });

  const receive = (message: WebSocketMessage) => {
    const { type, uid, status } = message;
    if (type === "ping") return connector.send({ type: "pong", uid } as WebSocketMessage); // JSON drops an undefined `uid`.
    if (type === "pong") return subscriptions.pong(message["channels"]);
    if (type === "server") connector.heed(errorOf(message));
    const answer = answers.get(uid);
    if (answer && isUnread(message)) return void client.send(answer);
    if (streams?.receive(message) || subscriptions.receive(message) && type !== "auth" || requests.settle(message)) return;
    if (type === "auth") return connector.auth(message);
    // An error that answers no request of this client.
    if (status === "error" && message["error"]) return emit("error", { error: errorOf(message) });
    // A late reply to a request that timed out or was aborted.
    if (status !== undefined && typeof uid === "string" && prefix && uid.startsWith(prefix)) return;
    emit("message", { message });
  };

  const connector = createConnector(
    resolved,
    resolveUrl(url, lazy),
    nextUid,
    // Every event of a connector is one of the client.
    emit as (event: string, payload: unknown) => void,
    receive,
    subscriptions,
    requests,
    streams,
  );

  const client: BareClient = {
    get status() {
      return connector.status;
    },
    get isIdle() {
      return isIdle;
    },
    get error() {
      return connector.error;
    },
    get ready() {
      openIfIdle();
      if (opening) return opening;
      const ready = new Promise<void>((resolve, reject) => {
        const update = () => {
          if (isOpening()) return;
          stop();
          opening = undefined;
          const why = connector.whyClosed();
          if (why) reject(why);
          else resolve();
        };
        const stop = on("status", update);
        update();
      });
      ready.catch(() => {}); // Reading `ready` without awaiting it must not raise an unhandled rejection.
      if (isOpening()) opening = ready;
      return ready;
    },
    on,
    off,
    connect,
    send(message) {
      const sent: Promise<unknown> = requests.add(message, undefined, { timeout: outbox.maxAge });
      sent.catch((error) => emit("error", { error }));
      return sent as Promise<void>; // Without a `uid` there is no answer.
    },
    request: (type, payload, options) => request(type, payload, options).then(({ data }) => data),
    publish: (channel, event, data, options = {}) => {
      const { id } = options;
      return request("publish", { channel, event, data, id }, { idempotent: !!id, ...options }).then(({ epoch, offset }) =>
        (epoch ? { epoch, offset } : {}) as Partial<Position> // PROTOCOL.md §4: `epoch` and `offset` come together.
      );
    },
    handle: (type, handler) =>
      on("message", async ({ message }) => {
        const { uid } = message;
        if (message.type !== type || !/^ask:/.test(uid as string)) return;
        const answer = (rest: object) => {
          if (answers.size > 63) answers.clear(); // At most 64 questions are open.
          // The `uid` of the question comes last, so that the error of a rate limit can contain it (PROTOCOL.md §3.3).
          const message = { type, ...rest, uid } as WebSocketMessage;
          answers.set(uid, message);
          return client.send(message);
        };
        let isMade;
        try {
          const data = await handler(message as never); // Typed by the contract, not validated.
          isMade = true;
          await answer({ status: "ok", data });
        } catch (error) {
          const isCode = error instanceof ClientError;
          answer({ status: "error", error: { code: isCode ? error.code : "INTERNAL_ERROR" } });
          if (!isCode && !isMade) throw error; // `send` reports an answer that cannot be sent.
        }
      }),
    subscribe(channel, options = {}) {
      const subscription: unknown = subscriptions.add(channel, options as unknown as SubscribeOptions); // Typed by the event.
      openIfIdle();
      return subscription as Subscription<never>; // As above; `add` has added the method that `using` calls.
    },
    close(code = 1000, reason = "") {
      const wasIdle = isIdle;
      isIdle = false;
      // The status was `closed` before, but listeners of `status` may also show `isIdle`.
      if (wasIdle) emit("status", { status: "closed" });
      subscriptions.end();
      return connector.close(code, reason);
    },
  };
  Object.assign(client, streams?.methods);
  disposeBy(client, () => client.close());
  if (!lazy) connect();
  return client as unknown as Client<C>; // `disposeBy` has added the methods of `using`; the contract exists in types only.
}
