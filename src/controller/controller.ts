/** The controller: the connections of one node, with their messages, broadcasts and rights. */
import type { AskAllQuestion, AskAllResult } from "./ask-all.ts";
import { type AuthenticationState, Authenticator } from "../application/authentication.ts";
import { Backplane } from "./backplane.ts";
import { type BroadcastFilter, type BroadcastResult, checkFilter } from "../delivery/broadcast.ts";
import { Bus, type Listener } from "../base/bus.ts";
import { type ClientKey, clientKey } from "../application/client-key.ts";
import { ALONE, type Cluster, type OrderResult } from "./cluster.ts";
import { type Clock, CurrentClock, Deadlines, systemClock } from "../base/clock.ts";
import { checkCloseCode, CloseCode } from "../protocol/close.ts";
import type { Connection } from "../connection/connection.ts";
import { ConnectionFactory } from "./connection-factory.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import { Connections } from "../connection/connections.ts";
import type { AnswerOf, AskedType, HandledInputOf } from "../protocol/contract-types.ts";
import type { Contract, HandledOf, ItemTo, MessageFrom, ReplyTo, RequestType } from "../protocol/contract-types.ts";
import { Delivery } from "../delivery/delivery.ts";
import { type ControllerStatus, Drain, type DrainOptions, type DrainResult } from "./drain.ts";
import type { Engine } from "../engines/engine.ts";
import { checkListener, type WebSocketEvents } from "../application/events.ts";
import type { Extension, ExtensionHost } from "../application/extension.ts";
import { extend } from "./extend.ts";
import { type Declared, type Handler, Handlers } from "../application/handlers.ts";
import type { Middleware } from "../application/middleware.ts";
import { Heartbeat } from "../connection/heartbeat.ts";
import { Admission, FailureLimiter, type Slot } from "../base/limits.ts";
import { Log, reporter } from "../application/log.ts";
import { resolveOptions, type WebSocketControllerOptions } from "../application/options.ts";
import { Frame } from "../protocol/frame.ts";
import { Observed, type Observer } from "../application/observer.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { outboundChecks } from "../application/outbound.ts";
import { Refusals } from "../application/refusals.ts";
import { checkDisconnectFilter, type DisconnectFilter, Revocations } from "../connection/revocations.ts";
import { Rights } from "../connection/rights.ts";
import { ConnectionCounts, type ControllerStats, statsOf } from "./stats.ts";
import { RateGate } from "../connection/rate-gate.ts";
import { Sender } from "../connection/sender.ts";
import type { SavedConnection, Transport } from "../delivery/transport.ts";
import { type HandleOptions, Streams } from "../streams/streams.ts";
import { createUpgrade, type UpgradeHandler } from "./upgrade.ts";
import type { Handshake, WebSocketClient } from "../application/websocket-client.ts";

/**
 * Holds the connections of one node: it admits clients, dispatches their messages and broadcasts to them. Create the default
 * one of a process with {@link createWebSocketController}, or any number with `new`. `C` is a contract of {@link defineContract}.
 */
export class WebSocketController<C = Contract> {
  /**
   * The route handler: `app.get("/websocket", controller.upgrade)`, the same on every runtime. A refused upgrade is answered
   * with 400, 401, 403, 405, 413, 426, 429, 501 or 503 and `{ error: { code, message } }`.
   */
  readonly upgrade: UpgradeHandler;
  /** The option `name`. */
  readonly name: string;

  readonly #admission: Admission;
  readonly #bus: Bus<WebSocketEvents>;
  #clients: Set<WebSocketClient> | undefined; // Absent until `clients()` is called: an entry takes 33 bytes.
  readonly #connections = new Connections();
  readonly #deadlines: Deadlines;
  readonly #factory: ConnectionFactory;
  readonly #delivery: Delivery;
  readonly #host: ConnectionHost;
  readonly #keyOf: ClientKey;
  readonly #rights: Rights;
  readonly #streams: Streams;
  readonly #clock: CurrentClock;
  readonly #backplane: Backplane;
  readonly #counts = new ConnectionCounts();
  #closed: Promise<void> | undefined;
  #drain: Drain | undefined;

  /**
   * Creates a controller that {@link getWebSocketController} does not return.
   *
   * @throws {TypeError} for an unknown option, a value out of range, or an option without the one that it requires.
   */
  constructor(options: WebSocketControllerOptions<C> = {}) {
    const resolved = resolveOptions(options);
    this.name = resolved.name;
    const { logger, heartbeat, timeout, revalidate, clock = systemClock } = resolved;
    const { now, monotonic } = this.#clock = new CurrentClock(clock);
    const observed = new Observed();
    const log = new Log(logger, monotonic, observed);
    const report = reporter(observed, log, (failure) => this.#bus.emit("error", failure));
    this.#deadlines = new Deadlines(clock, report);
    // An `error` listener that throws is only logged: another `error` event would call it again, forever.
    this.#bus = new Bus((error, event, payload) =>
      (event === "error" ? log.error : report)(error, "client" in payload ? payload.client : undefined)
    );
    const outbound = resolved.contract && resolved.validate ? outboundChecks.get(resolved.contract)?.(report) : undefined;
    this.#streams = new Streams({ options: resolved, deadlines: this.#deadlines, observed, outbound, report });
    const handlers = new Handlers({
      calls: this.#streams,
      emit: (client, message) => this.#bus.emit("message", { client, message }),
      report,
      observed,
      once: resolved.once,
      onceHost: () => ({ engine: this.#backplane.engine, deadlines: this.#deadlines, now, report }),
      outbound,
    });
    const failures = resolved.rateLimit ? new FailureLimiter(monotonic) : undefined;
    const authenticator = new Authenticator(resolved.authenticate, timeout, this.#deadlines, now, observed, failures);
    this.#admission = new Admission(resolved);
    const refusals = new Refusals(log, (failure) => this.#bus.emit("auth.failure", failure), observed);
    this.#delivery = new Delivery(resolved.maxBufferedBytes);
    // Verifying takes up to `timeout`, and opening the socket as long again: older revocations are never needed.
    const revocations = new Revocations(2 * timeout);
    this.#rights = new Rights({ connections: this.#connections, revocations, timeout, canRefresh: !!revalidate, monotonic });
    const backplane = this.#backplane = new Backplane({
      deadlines: this.#deadlines,
      log,
      now,
      report,
      receiveBroadcast: (frame, filter) => void this.#delivery.sendToMatching(frame, filter),
      disconnect: (...order) => this.#rights.disconnect(...order),
      refresh: (filter, age) => void this.#rights.refresh(filter, age),
      clients: (filter) => this.#connections.admitted(filter),
      stats: () => this.stats(),
    }, resolved);
    this.#keyOf = clientKey(resolved.rateLimit ? resolved.rateLimit.key : undefined, report);
    this.#host = {
      options: resolved,
      authenticator,
      bus: this.#bus,
      deadlines: this.#deadlines,
      delivery: this.#delivery,
      handlers,
      observed,
      outbound,
      heartbeat: heartbeat ? new Heartbeat(heartbeat, monotonic) : undefined,
      sender: new Sender(resolved),
      rateGate: resolved.rateLimit ? new RateGate(resolved.rateLimit, monotonic, this.#keyOf) : undefined,
      now,
      monotonic,
      revocations,
      refusals,
      report,
      streams: this.#streams,
      overHttp: this.#counts.overHttp,
      nodes: backplane.cluster,
      admit: (connection) => {
        this.#clients?.add(connection.client);
        this.#delivery.add(connection);
        this.#backplane.admitted(connection.client);
      },
      get extension() {
        return backplane.extension;
      },
      suspend: (connection) => {
        this.#delivery.remove(connection);
        this.#backplane.suspended(connection.client);
      },
      dismiss: (connection, mayReturn, close) => {
        this.#counts.delete(connection, close.cause);
        observed.observer?.closed?.(connection.client, close.cause, close);
        this.#clients?.delete(connection.client);
        this.#connections.delete(connection);
        this.#delivery.remove(connection);
        this.#backplane.closed(connection.client, mayReturn);
      },
    };
    this.#factory = new ConnectionFactory(this.#host, this.#admission, backplane, this.#connections, this.#counts);
    this.#streams.connect({ backplane, keyOf: this.#keyOf, handlers, rateGate: this.#host.rateGate });
    this.upgrade = createUpgrade({
      options: resolved,
      authenticator,
      admission: this.#admission,
      deadlines: this.#deadlines,
      retryAfter: () => this.#drain?.retryAfter ?? (this.isClosed ? 5_000 : undefined),
      open: (...args) => this.open(...args),
      revocations,
      refusals,
      report,
      controller: this,
    });
  }

  /** Starts an engine that connects nodes. Called by `serve` and `attachWebSocket(server, app)`, else with the first client. */
  start(): void {
    this.#backplane.start();
  }

  /**
   * Adds an event listener, called with one payload object. It may be async. An error that it throws or rejects with becomes an
   * `error` event, or is logged if there is no `error` listener.
   *
   * @throws {TypeError} for an unknown event, or a listener that is not a function.
   */
  on<Event extends keyof WebSocketEvents>(event: Event, listener: Listener<WebSocketEvents<C>[Event]>): void {
    checkListener("on", event, listener);
    this.#bus.on(event, listener as Listener<WebSocketEvents[Event]>); // The contract exists in types only.
  }

  /** Removes an event listener. @throws {TypeError} for an unknown event, or a listener that is not a function. */
  off<Event extends keyof WebSocketEvents>(event: Event, listener: Listener<WebSocketEvents<C>[Event]>): void {
    checkListener("off", event, listener);
    this.#bus.off(event, listener as Listener<WebSocketEvents[Event]>); // As in `on`.
  }

  /**
   * Sets the handler that answers one message type. The schema validates the payload, which is the message without `type` and
   * `uid`; an invalid one is answered `INVALID_PAYLOAD` with the path. The handler's result is sent as `data`; an async generator
   * is sent item by item. A `WebSocketError` that it throws is sent as it is, any other error as `INTERNAL_ERROR`. Handlers may
   * overlap.
   *
   * @param of the payload's schema, or a request of {@link defineContract}, which also declares the reply, the items and the
   * input.
   * @throws {TypeError} for a reserved type, a type that already has a handler, anything but a schema, or an invalid option.
   */
  handle<
    Type extends RequestType<C>,
    Output extends HandledOf<C, Type>,
    Reply extends ReplyTo<C, Type>,
    Item extends ItemTo<C, Type>,
    Input extends HandledInputOf<C, Type> = never,
  >(
    type: Type,
    of: Declared<Output, Reply, Item, Input>,
    handler: Handler<Output, NoInfer<Reply>, C, NoInfer<Item>, Input>,
    options: HandleOptions<NoInfer<Output>, NoInfer<Item>> = {},
  ): void {
    this.#host.handlers.handle(type, of, this.#streams.handlerOf(type, of, handler as Handler<Output>, options)); // As in `on`.
  }

  /** Adds a middleware, which runs around every inbound message except `auth`, `ping` and `pong`, in the order of addition. */
  use(middleware: Middleware): void {
    this.#host.handlers.use(middleware);
  }

  /**
   * Sends a message to the clients connected now, on all nodes, at most once: a string unchanged, an object as JSON. More than
   * 2,000 recipients are served in slices, between which inbound messages are handled. Resolves when the message was sent to, or
   * dropped for, every recipient on this node.
   *
   * @throws {TypeError} for a message that JSON cannot represent, or a filter with an unknown key or an empty or non-string
   * value.
   */
  broadcast(message: string | MessageFrom<C>, filter?: BroadcastFilter): Promise<BroadcastResult> {
    const checked = checkFilter(filter);
    const frame = Frame.of(message as string | WebSocketMessage); // A message of a contract is one, too.
    this.#host.outbound?.message(frame);
    const delivered = this.#delivery.sendToMatching(frame, checked);
    this.#backplane.shared?.sendBroadcast(frame, checked);
    return delivered;
  }

  /**
   * Asks the clients on all nodes that the filter matches. Resolves with the answers, and with the clients and nodes that did not
   * answer.
   */
  askAll<Type extends AskedType<C>, Reply extends AnswerOf<C, Type> = AnswerOf<C, Type>>(
    ...question: AskAllQuestion<Reply, C, Type>
  ): Promise<AskAllResult<Reply>> {
    return this.#backplane.cluster.askAll(this.#host, ...question as unknown as AskAllQuestion<Reply>); // As in `on`.
  }

  /** The admitted clients of this node, as a live set: do not modify it. */
  clients(): Set<WebSocketClient<C>> {
    return (this.#clients ??= new Set(this.#connections.admitted({}))) as Set<WebSocketClient<C>>; // As in `on`.
  }

  /**
   * Closes every connection, at most `closeTimeout` later, and then the engine; resolves when both are done. Later upgrades are
   * answered 503, and {@link getWebSocketController} no longer returns this controller.
   *
   * @param code @default {1001} going away
   * @throws {TypeError} for a close code that must not be sent.
   */
  close(code: number = CloseCode.GOING_AWAY, reason = "Going away"): Promise<void> {
    checkCloseCode(code);
    return this.#closed ??= this.#connections.closeAll(code, reason).then(() => this.#backplane.close());
  }

  /**
   * Ends this node without losing requests, as in a rolling deployment: refuses upgrades with 503, closes the clients over
   * `window`, idle ones first, waits until members of channels have had time to return on other nodes, calls `stop`, and closes
   * the engine. A further call returns the same result; {@link close} ends the drain at once.
   *
   * @throws {TypeError} for an unknown option, or a value out of range.
   */
  drain(options: DrainOptions = {}): Promise<DrainResult> {
    this.#drain ??= new Drain(this.#host, this.#connections, () => this.#closed ??= this.#backplane.close(), options);
    return this.#drain.start(options);
  }

  /** Whether the controller accepts clients. */
  get status(): ControllerStatus {
    return this.isClosed ? "closed" : this.#drain ? "draining" : "running";
  }

  /**
   * Closes every client that the filter matches, on all nodes, and refuses matching clients that are authenticating. A node that
   * is unreachable does so later. Resolves when the other nodes have answered, or 2 s after the order was sent.
   *
   * @param filter a user, a role, both, or the `uid` of one client.
   * @param code @default {4403} forbidden: the client does not reconnect by itself
   * @throws {TypeError} for an empty filter, an unknown key, an empty or non-string value, or a code that must not be sent.
   */
  disconnect(filter: DisconnectFilter, code: number = CloseCode.FORBIDDEN, reason = "Disconnected"): Promise<OrderResult> {
    checkDisconnectFilter(filter);
    checkCloseCode(code);
    this.#rights.disconnect(filter, code, reason);
    return this.#backplane.shared?.disconnect(filter, code, reason) ?? Promise.resolve(ALONE);
  }

  /**
   * Calls `revalidate` for every client that the filter matches, on all nodes: their rights have changed. A client for which it
   * returns `null` receives `TOKEN_EXPIRED` and has `timeout` to authenticate again. Results of an `authenticate` or `revalidate`
   * from before the refresh are discarded. Resolves when every call here has settled and the other nodes have answered, as {@link
   * disconnect}.
   *
   * @throws {TypeError} without the option `revalidate`, or for a bad filter, as {@link broadcast}.
   */
  async refresh(filter: BroadcastFilter): Promise<OrderResult> {
    if (!this.#host.options.revalidate) {
      throw new TypeError('Cannot refresh: pass the option "revalidate", or disconnect() the clients');
    }
    const checked = checkFilter(filter);
    const others = this.#backplane.shared?.refresh(checked) ?? ALONE;
    await this.#rights.refresh(checked);
    return await others;
  }

  /** Clients and counters of all nodes that the option `engine` connects. */
  get cluster(): Pick<Cluster, "clients" | "stats"> {
    return this.#backplane.cluster;
  }

  /** The engine, which stores histories and members and connects nodes; its `status` says whether it is available. */
  get engine(): Engine {
    return this.#backplane.engine;
  }

  /** Whether {@link close} was called, or a drain has closed the last connections. */
  get isClosed(): boolean {
    return this.#closed !== undefined || this.#connections.isClosing; // On Bun `close` listeners run before `#closed` is set.
  }

  /** The counters of this controller. `opened` is always `closed + active`. */
  stats(): ControllerStats {
    const [active, clients, streams] = [this.#connections.size, this.#admission.admitted, this.#streams.size];
    const { opened, closedBy } = this.#counts;
    return statsOf(this.#host, this.#admission, { opened, closedBy, active, clients, streams });
  }

  /**
   * Starts a connection on an open socket. With an identity the client is admitted at once, or closed with 4529 if its user has
   * `maxConnectionsPerUser` already. Only custom runtimes call it: with the built-in ones the upgrade does.
   * @internal
   * @param slot reserved at the upgrade. @default a new slot, counted but beyond the limits
   * @param since number of the last revocation before its credentials were verified. @default the last one so far
   */
  open(
    transport: Transport,
    handshake: Handshake,
    identity: AuthenticationState | null,
    slot?: Slot,
    since?: number,
  ): Connection {
    return this.#factory.open(transport, handshake, identity, slot, since);
  }

  /** Resumes a connection after hibernation: the client keeps its `uid` and state, and no `connect` event is emitted. */
  restore(transport: Transport, saved: SavedConnection): Connection {
    return this.#factory.restore(transport, saved);
  }

  /** Sets the runtime's own engine, unless the option `engine` was passed; `undefined` if its storage cannot hold one. */
  useEngine(engine: Engine | undefined): void {
    this.#backplane.use(engine);
  }

  /**
   * @internal Installs the channels, as the extension of the controller.
   * @throws {TypeError} if there is one already, one of its message types has a handler, or the engine cannot keep its histories.
   */
  extend(extension: Extension): ExtensionHost {
    return extend(extension, { host: this.#host, backplane: this.#backplane, delivery: this.#delivery, keyOf: this.#keyOf });
  }

  /** @internal Installs an observer. Returns a function that removes it. @throws {TypeError} if there is one of the name. */
  observe(name: string, create: (host: ConnectionHost) => Observer): () => void {
    return this.#host.observed.install(name, () => create(this.#host));
  }

  /** Sets the clock of a runtime with its own timers, such as a Durable Object's alarm, unless the option `clock` was passed. */
  useClock(clock: Clock): void {
    if (this.#host.options.clock) return;
    this.#clock.use(clock);
    this.#deadlines.use(clock);
  }
}
