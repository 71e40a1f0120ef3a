import { type AuthenticationState, Authenticator } from "./authentication.ts";
import { Backplane } from "./backplane.ts";
import { type BroadcastFilter, type BroadcastResult, checkFilter } from "./broadcast.ts";
import { Bus, type Listener } from "./bus.ts";
import { type ClientKey, clientKey } from "./client-key.ts";
import { ALONE, type Cluster, type OrderResult } from "./cluster.ts";
import { type Clock, Deadlines, systemClock } from "./clock.ts";
import { checkCloseCode, CloseCode } from "./close.ts";
import { Connection, type ConnectionHost } from "./connection.ts";
import { Connections } from "./connections.ts";
import { Delivery } from "./delivery.ts";
import type { Engine } from "./engine.ts";
import { checkListener, type WebSocketEvents } from "./events.ts";
import type { Extension, ExtensionHost } from "./extension.ts";
import { type Declared, type Handler, Handlers, type Middleware } from "./handlers.ts";
import { Heartbeat } from "./heartbeat.ts";
import { Admission, FailureLimiter, type Slot } from "./limits.ts";
import { errorLogger } from "./log.ts";
import { resolveOptions, type WebSocketControllerOptions } from "./options.ts";
import { Frame } from "./frame.ts";
import type { WebSocketMessage } from "./protocol.ts";
import { Refusals } from "./refusals.ts";
import { checkDisconnectFilter, type DisconnectFilter, Revocations } from "./revocations.ts";
import { Rights } from "./rights.ts";
import { type ControllerStats, NO_CLOSES, sumOf } from "./stats.ts";
import { RateGate } from "./rate-gate.ts";
import { Sender } from "./sender.ts";
import type { SavedConnection, Transport } from "./transport.ts";
import { createUpgrade, type UpgradeHandler } from "./upgrade.ts";
import type { Handshake, JsonValue, WebSocketClient } from "./websocket-client.ts";

/**
 * The service behind {@link WebSocketService}: it holds the connections of one node, lets clients in and hands their
 * messages on. Make one for a process with {@link createWebSocketController}, or any number with `new`.
 */
export class WebSocketController {
  /**
   * The route: `app.get("/websocket", controller.upgrade)`, the same line on every runtime. A request that is not
   * upgraded is answered 400, 401, 403, 405, 413, 426, 429, 501 or 503 with `{ error: { code, message } }`.
   */
  readonly upgrade: UpgradeHandler;
  /** The option `name`. */
  readonly name: string;

  readonly #admission: Admission;
  readonly #bus: Bus<WebSocketEvents>;
  readonly #clients = new Set<WebSocketClient>();
  readonly #connections = new Connections();
  readonly #deadlines: Deadlines;
  readonly #delivery: Delivery;
  readonly #handlers: Handlers;
  readonly #host: ConnectionHost;
  readonly #hasClock: boolean;
  readonly #refusals: Refusals;
  readonly #keyOf: ClientKey;
  readonly #revocations: Revocations;
  readonly #rights: Rights;
  #clock: Clock;
  /** What the monotonic clock of now is behind the first one, in ms: times that were taken by that hold on. */
  #shift = 0;
  readonly #backplane: Backplane;
  #opened = 0;
  readonly #closedBy = { ...NO_CLOSES };
  #closed: Promise<void> | undefined;

  /**
   * Makes a controller of its own, which {@link getWebSocketController} does not know.
   *
   * @throws {TypeError} for an unknown option, a value out of range, and a mode that lacks what it needs.
   */
  constructor(options: WebSocketControllerOptions = {}) {
    const resolved = resolveOptions(options);
    this.name = resolved.name;
    this.#clock = resolved.clock ?? systemClock;
    this.#hasClock = resolved.clock !== undefined;

    const { logger, heartbeat } = resolved;
    const log = errorLogger(logger, this.#monotonic);
    const report = (error: unknown, client?: WebSocketClient) => {
      if (!this.#bus.emit("error", client ? { client, error } : { error })) log(error, client);
    };
    this.#deadlines = new Deadlines(this.#clock, report);
    // A listener of `error` that throws is logged: telling the `error` listeners of it would go round in circles.
    this.#bus = new Bus((error, event, payload) =>
      (event === "error" ? log : report)(error, "client" in payload ? payload.client : undefined)
    );
    this.#handlers = new Handlers({
      emit: (client, message) => this.#bus.emit("message", { client, message }),
      report,
    });
    const now = () => this.#clock.now();
    const monotonic = this.#monotonic;
    const failures = resolved.rateLimit ? new FailureLimiter(monotonic) : undefined;
    const authenticator = new Authenticator(resolved.authenticate, resolved.timeout, this.#deadlines, now, failures);
    this.#admission = new Admission(resolved);
    this.#refusals = new Refusals(logger, monotonic, (failure) => this.#bus.emit("auth.failure", failure));
    this.#delivery = new Delivery(resolved.maxBufferedBytes);
    // No attempt takes longer, so nothing older needs to be remembered.
    this.#revocations = new Revocations(2 * resolved.timeout);
    this.#rights = new Rights({
      connections: this.#connections,
      revocations: this.#revocations,
      timeout: resolved.timeout,
      canRefresh: resolved.revalidate !== undefined,
      monotonic,
    });
    this.#backplane = new Backplane({
      deadlines: this.#deadlines,
      now,
      report,
      broadcast: (frame, filter) => void this.#delivery.broadcast(frame, filter),
      disconnect: (...order) => this.#rights.disconnect(...order),
      refresh: (filter, age) => void this.#rights.refresh(filter, age),
      clients: (filter) => this.#connections.admitted(filter),
      stats: () => this.stats(),
    }, resolved);
    this.#keyOf = clientKey(resolved.rateLimit ? resolved.rateLimit.key : undefined, report);
    const extension = () => this.#backplane.extension;
    this.#host = {
      options: resolved,
      authenticator,
      bus: this.#bus,
      deadlines: this.#deadlines,
      delivery: this.#delivery,
      handlers: this.#handlers,
      heartbeat: heartbeat ? new Heartbeat(heartbeat, monotonic) : undefined,
      sender: new Sender(resolved),
      rateGate: resolved.rateLimit ? new RateGate(resolved.rateLimit, monotonic, this.#keyOf) : undefined,
      now,
      monotonic,
      revocations: this.#revocations,
      refusals: this.#refusals,
      report,
      admit: (connection) => {
        this.#clients.add(connection.client);
        this.#delivery.add(connection);
        extension()?.admitted(connection.client);
      },
      get extension() {
        return extension();
      },
      suspend: (connection) => {
        this.#delivery.remove(connection);
        extension()?.suspended(connection.client);
      },
      dismiss: (connection, hasLeft, cause) => {
        this.#closedBy[cause]++;
        this.#clients.delete(connection.client);
        this.#connections.delete(connection);
        this.#delivery.remove(connection);
        extension()?.closed(connection.client, hasLeft);
      },
    };
    this.upgrade = createUpgrade({
      options: resolved,
      authenticator,
      admission: this.#admission,
      deadlines: this.#deadlines,
      isClosed: () => this.isClosed,
      open: (...args) => this.open(...args),
      revocations: this.#revocations,
      refusals: this.#refusals,
      report,
      start: () => this.start(),
    });
  }

  /** Connects the engine to the other nodes. `serve` and `attachWebSocket(server, app)` call it when they listen; else the first client does. */
  start(): void {
    this.#backplane.start();
  }

  /**
   * Calls the listener at each such event, with one payload object. A listener may be async; what it throws or rejects with
   * becomes an `error` event, and a logged line where nobody listens to that.
   *
   * @throws {TypeError} for an unknown event, or a listener that is no function.
   */
  on<Event extends keyof WebSocketEvents>(event: Event, listener: Listener<WebSocketEvents[Event]>): void {
    checkListener("on", event, listener);
    this.#bus.on(event, listener);
  }

  /**
   * Removes this one listener.
   *
   * @throws {TypeError} for an unknown event, or without a listener.
   */
  off<Event extends keyof WebSocketEvents>(event: Event, listener: Listener<WebSocketEvents[Event]>): void {
    checkListener("off", event, listener);
    this.#bus.off(event, listener);
  }

  /**
   * Answers messages of a type. The schema validates the payload, which is the message without `type` and `uid`; a payload that it refuses is
   * answered `INVALID_PAYLOAD` with the path that failed. The handler's result is `data` of the answer; a `WebSocketError` is answered as it
   * is, any other error as `INTERNAL_ERROR`. Handlers of one client may overlap: answers are matched by their `uid`.
   *
   * @param of the schema, or a request of {@link defineContract}, which says what the handler returns, too.
   * @throws {TypeError} for a reserved type, one that has a handler, or a schema that is not a synchronous valibot
   * schema, or has an async schema or function in it.
   */
  handle<Output extends object, Reply = unknown>(
    type: string,
    of: Declared<Output, Reply>,
    handler: Handler<Output, NoInfer<Reply>>,
  ): void {
    this.#handlers.handle(type, of, handler);
  }

  /** Runs the middleware around every inbound message but `auth`, `ping` and `pong`, in the order they were added. */
  use(middleware: Middleware): void {
    this.#handlers.use(middleware);
  }

  /**
   * Sends a message to the clients connected now, at most once: a string as it is, an object encoded once. More than 2,000 are sent to
   * in slices, between which inbound messages are handled. Resolves when each was handed the message or could not be.
   *
   * @throws {TypeError} for what JSON cannot hold, and for a filter with an unknown key or a value that is not a non-empty string.
   */
  broadcast(message: string | WebSocketMessage, filter?: BroadcastFilter): Promise<BroadcastResult> {
    const checked = checkFilter(filter);
    const frame = Frame.of(message);
    const delivered = this.#delivery.broadcast(frame, checked);
    this.#backplane.shared?.broadcast(frame, checked);
    return delivered;
  }

  /** The clients of this node that have been admitted: a live set, to be read. */
  clients(): Set<WebSocketClient> {
    return this.#clients;
  }

  /**
   * Closes every connection and takes no more: later upgrades are answered 503. A default controller is uninstalled.
   * Resolves when the last connection is gone, which takes at most `closeTimeout`.
   *
   * @param code @default {1001} going away
   * @throws {TypeError} for a code that may not be sent.
   */
  close(code: number = CloseCode.GOING_AWAY, reason = "Going away"): Promise<void> {
    checkCloseCode(code);
    return this.#closed ??= this.#end(code, reason);
  }

  /**
   * Closes every client that the filter matches, on all nodes, and refuses those that are authenticating. A node that is cut off does so when
   * it is back. Resolves when the other nodes have answered, after 2 s at most; it does not reject.
   *
   * @param filter a user, a role, both, or the `uid` of one client.
   * @param code @default {4403} forbidden: the client does not come back by itself
   * @throws {TypeError} for an empty filter, an unknown key or a value that is not a non-empty string, and a code that may not be sent.
   */
  disconnect(filter: DisconnectFilter, code: number = CloseCode.FORBIDDEN, reason = "Disconnected"): Promise<OrderResult> {
    checkDisconnectFilter(filter);
    checkCloseCode(code);
    this.#rights.disconnect(filter, code, reason);
    return this.#backplane.shared?.disconnect(filter, code, reason) ?? Promise.resolve(ALONE);
  }

  /**
   * Calls `revalidate` for the clients that the filter matches: their rights have changed. A client for which it returns `null` receives
   * `TOKEN_EXPIRED` and has the grace of `timeout` to authenticate. Resolves when all have been asked, as for {@link disconnect}.
   * Results of an `authenticate` or `revalidate` from before the refresh are discarded, and `revalidate` is called instead.
   *
   * @throws {TypeError} without the option `revalidate`, and for a bad filter as {@link broadcast}.
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

  /** All nodes together, where the option `engine` joins this one with others. */
  get cluster(): Pick<Cluster, "clients" | "stats"> {
    return this.#backplane.cluster;
  }

  /** What keeps histories and members, and joins nodes; its `status` says whether it can be used. */
  get engine(): Engine {
    return this.#backplane.engine;
  }

  readonly #monotonic = (): number => this.#clock.monotonic() + this.#shift;

  /** Whether {@link close} was called. */
  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /** The counters of this controller. `opened` is always `closed + active`. */
  stats(): ControllerStats {
    const { rateGate, sender } = this.#host;
    return {
      opened: this.#opened,
      closed: sumOf(this.#closedBy),
      active: this.#connections.size,
      clients: this.#clients.size,
      pending: this.#admission.pending,
      reserved: this.#admission.total,
      deadlines: this.#deadlines.size,
      keys: this.#admission.keys,
      refused: { ...this.#refusals.counts },
      closedBy: { ...this.#closedBy },
      dropped: sender.dropped,
      limited: rateGate?.limited ?? 0,
    };
  }

  // For the runtimes

  /**
   * Starts the connection of a socket that is open. With an identity it is admitted at once, or closed with 4529 where the user has
   * as many as may be. For those who bring a runtime of their own: the built-in ones call it from the upgrade.
   *
   * @param slot its place among `maxConnections`. @default one more, whatever the limit
   * @param since how many revocations there had been when its credentials began to be verified. @default all there have been
   */
  open(
    transport: Transport,
    handshake: Handshake,
    identity: AuthenticationState | null,
    slot: Slot = this.#admission.restore(handshake.ip),
    since: number = this.#revocations.number,
  ): Connection {
    const connection = this.#connect(transport, slot, handshake);
    // It took longer to open than its place was kept for.
    if (slot.released) connection.close(CloseCode.TRY_AGAIN_LATER, "It took too long");
    else if (identity && !slot.claim(identity.accountability.user)) {
      connection.close(CloseCode.RATE_LIMITED, "Too many connections of this user", "auth");
    }
    connection.opened(identity, since);
    return connection;
  }

  /** Goes on with a connection that came back from hibernation: the same client, and no `connect` event. */
  restore(transport: Transport, saved: SavedConnection): Connection {
    // Both were written by Connection.save, from values of these types.
    const { handshake, state } = saved as { handshake: Handshake; state: JsonValue };
    const connection = this.#connect(transport, this.#admission.restore(handshake.ip), handshake, saved.uid, state);
    connection.restored(saved);
    return connection;
  }

  #connect(transport: Transport, slot: Slot, handshake: Handshake, uid?: string, state?: JsonValue): Connection {
    const connection = new Connection(this.#host, transport, slot, handshake, uid, state);
    this.#opened++;
    this.#connections.hold(connection);
    this.#backplane.start();
    return connection;
  }

  /** Uses an engine of the runtime's own; the option `engine` goes first. */
  useEngine(engine: Engine): void {
    this.#backplane.use(engine);
  }

  /** @throws {TypeError} if there is an extension, one of its message types has a handler, or the engine cannot keep its histories. */
  extend(extension: Extension): ExtensionHost {
    const backplane = this.#backplane;
    const { now, options: { maxBufferedBytes, timeout }, rateGate, report } = this.#host;
    backplane.check(extension);
    this.#handlers.take(extension.types, (client, message) => extension.take(client, message));
    backplane.extension = extension;
    return {
      get engine() {
        return backplane.engine;
      },
      deadlines: this.#deadlines,
      delivery: this.#delivery,
      timeout,
      maxBufferedBytes,
      rateGate,
      keyOf: this.#keyOf,
      now,
      monotonic: this.#monotonic,
      report,
    };
  }

  async #end(code: number, reason: string): Promise<void> {
    await this.#connections.closeAll(code, reason);
    await this.#backplane.close();
  }

  /** Lets a runtime whose timers are its own, such as a Durable Object's alarm, keep the time; the option `clock` goes first. */
  useClock(clock: Clock): void {
    if (this.#hasClock) return;
    this.#shift += this.#clock.monotonic() - clock.monotonic();
    this.#clock = clock;
    this.#deadlines.use(clock);
  }
}
