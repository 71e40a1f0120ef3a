import { checkCloseCode, CloseCode } from "../protocol/close.ts";
import { type Deadlines, isMs, MS, type Timed, within } from "../base/clock.ts";
import type { Connection } from "../connection/connection.ts";
import type { StreamsOfClients } from "../connection/connection-host.ts";
import type { Connections } from "../connection/connections.ts";
import type { Extension } from "../application/extension.ts";
import { guard } from "../base/guard.ts";
import { errorFor } from "../application/envelope.ts";
import { isOnce } from "../application/once.ts";
import { questionsOf } from "../application/websocket-client.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";

/** Options of {@link WebSocketController.drain}. */
export interface DrainOptions {
  /**
   * Time over which the clients are closed evenly, in ms; `0` closes them all at once. If members of channels may return on other
   * nodes within `presence.grace`, the clients are closed earlier by 1.2 times the longest grace, but over at least half of the
   * window.
   *
   * In the last quarter of that time streams are ended with SERVICE_UNAVAILABLE. Clients continue resumable streams on another
   * node, until the window is over. A client that is never idle gets no further requests handled, after a second at the earliest,
   * and is closed once its earlier ones are answered.
   *
   * @default {0}
   */
  window?: number;
  /**
   * Maximum time of the whole drain, in ms, at least `window`; whatever is left then is ended. The default leaves clients 5 s to
   * answer the close (`closeTimeout`), and members of channels 5 s to return (`presence.grace`).
   *
   * @default `window` plus 10_000
   */
  timeout?: number;
  /** Close code. @default {1012} service restart: clients reconnect at once */
  code?: number;
  /**
   * Time that clients are asked to wait before they reconnect, in ms, at most 300_000. Sent in the close reason, which
   * `noroshi/client` obeys, and as `Retry-After` of refused upgrades.
   *
   * @default {0}
   */
  retryAfter?: number;
  /**
   * Stops your own server. Called when the clients have disconnected, or after `timeout`. The engine is closed once the returned
   * promise has settled, so that requests in progress can still publish. `serve` does this by itself.
   */
  stop?: () => unknown;
}

/** How a drain ended. */
export interface DrainResult {
  /** Number of clients that were closed while idle. */
  closed: number;
  /** Number of clients that were closed with a request in progress, at `timeout`. */
  cut: number;
  /** Whether everything ended within `timeout` and nothing failed. If not, an `error` event says why. */
  isClean: boolean;
}

/**
 * - `running`: the controller accepts clients
 * - `draining`: it refuses new clients, and closes its clients
 * - `closed`: its clients have disconnected
 */
export type ControllerStatus = "running" | "draining" | "closed";

type ResolvedOptions = Required<Omit<DrainOptions, "stop">> & Pick<DrainOptions, "stop">;

/** What a drain needs from its controller. */
export interface DrainHost {
  readonly deadlines: Deadlines;
  readonly extension: Extension | undefined;
  readonly streams: StreamsOfClients;
  monotonic(): number;
  report(error: unknown): void;
}

/** Interval at which clients are closed, in ms. */
const TICK = 50;

/** The window ends this many grace periods after the last close: the rest is for close handshakes and the end of the server. */
const GRACE_FACTOR = 1.2;

/** Last share of the time over which clients are closed, in which busy clients are stopped one by one. */
const ENDING_SHARE = 1 / 4;

/** Minimum time for which a busy client may start further requests, in ms. */
const MIN_SERVED = 1_000;

/** Upper bound of `retryAfter`, in ms: that of the client. */
const MAX_RETRY_AFTER = 300_000;

/** Time for the last close frames, and then for the engine, once `timeout` has passed, in ms. */
const FINAL_TIMEOUT = 500;

/** Default of `timeout` beyond `window`, in ms: `closeTimeout` and `presence.grace`. */
const TIMEOUT_MARGIN = 10_000;

/** Ends a controller without losing requests: idle clients are closed first, over a window, and the engine last. */
export class Drain implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #host: DrainHost;
  readonly #connections: Connections;
  readonly #closeEngine: () => Promise<void>;
  readonly #options: ResolvedOptions;
  readonly #startedAt: number;
  /** Time over which the clients are closed, in ms. */
  readonly #span: number;
  /** Connections at the start. */
  readonly #total: number;
  readonly #stops: (() => unknown)[] = [];
  /** Clients whose streams are ended, and whose further requests are not handled. */
  readonly #stopped = new Set<Connection>();
  /** Number of busy clients when the first of them was stopped. */
  #busy: number | undefined;
  /** Checks whether members can still return. */
  #checkMembers: (() => void) | undefined;
  /** Called once no stream has to be continued on another node. */
  #handedOver: (() => void) | undefined;
  #hasStopped = false;
  #closed = 0;
  #result: Promise<DrainResult> | undefined;

  /**
   * @param closeEngine closes the engine.
   * @throws {TypeError} for an unknown option or a value out of range.
   */
  constructor(host: DrainHost, connections: Connections, closeEngine: () => Promise<void>, options: DrainOptions) {
    this.#options = resolveDrain("Cannot drain: ", options);
    this.#host = host;
    this.#connections = connections;
    this.#closeEngine = closeEngine;
    this.#startedAt = host.monotonic();
    const { window } = this.#options;
    this.#span = Math.max(window / 2, window - GRACE_FACTOR * (host.extension?.grace() ?? 0));
    this.#total = connections.size;
  }

  /** See {@link DrainOptions.retryAfter}. */
  get retryAfter(): number {
    return this.#options.retryAfter;
  }

  /**
   * Starts the drain. A later call returns the same result, and adds its `stop`, which is called at once if the others have been.
   *
   * @throws {TypeError} for an unknown option or a value out of range.
   */
  start(options: DrainOptions): Promise<DrainResult> {
    const { stop } = resolveDrain("Cannot drain: ", options);
    if (stop && this.#hasStopped) guard(stop, this.#host.report);
    else if (stop) this.#stops.push(stop);
    if (!this.#result) {
      let settle: (result: Promise<DrainResult>) => void;
      // Set first: on Bun the first clients have closed before `#drain` returns, and a `close` listener may drain, too.
      this.#result = new Promise((resolve) => settle = resolve);
      settle!(this.#drain());
    }
    return this.#result;
  }

  /** Closes the clients that are due by now. */
  due(): void {
    const elapsed = this.#host.monotonic() - this.#startedAt;
    const share = this.#span > 0 ? Math.min(1, elapsed / this.#span) : 1;
    const live = this.#live();
    if (share >= 1 - ENDING_SHARE) {
      this.#stopClients(live, (1 - share) / ENDING_SHARE, elapsed < MIN_SERVED ? isStreaming : isBusy);
    }
    let surplus = live.length - Math.floor(this.#total * (1 - share));
    // Stopped clients are closed before those that can still be served.
    for (const connection of this.#stopped) if (this.#closeIfIdle(connection)) surplus--;
    for (const connection of live) {
      if (surplus <= 0) break;
      if (this.#closeIfIdle(connection)) surplus--;
    }
    this.#checkMembers?.();
    if (elapsed >= this.#options.window || !this.#host.streams.isShared) this.#handedOver?.();
    this.#host.deadlines.set(this, TICK);
  }

  /** Closes the client unless it is busy. Returns whether it was closed. */
  #closeIfIdle(connection: Connection): boolean {
    if (!isLive(connection) || isBusy(connection)) return false;
    const { code, retryAfter } = this.#options;
    this.#closed++;
    connection.close(code, reasonOf(connection, retryAfter), "drain");
    return true;
  }

  /**
   * Stops the busy clients that are due: ends their streams and refuses further requests.
   *
   * @param rest share of the time that is left, from 1 to 0.
   */
  #stopClients(live: readonly Connection[], rest: number, isToStop: (connection: Connection) => boolean): void {
    const busy = live.filter((connection) => !this.#stopped.has(connection) && isToStop(connection));
    this.#busy ??= busy.length;
    for (const connection of busy.slice(0, busy.length - Math.floor(this.#busy * rest))) {
      this.#stopped.add(connection);
      connection.host.handlers.running.stop(connection.client, (message) => refusesWhenStopped(connection, message));
    }
    for (const connection of this.#stopped) {
      if (!isLive(connection)) this.#stopped.delete(connection);
      else if (isStreaming(connection)) this.#host.streams.end(connection.client); // Also one that was about to start.
    }
  }

  /**
   * Resolves when no member is in its grace period: at the latest when the controller is closed or, while the broker is away and
   * accepts no leave, when the grace period is over.
   */
  #settled(): Promise<unknown> | undefined {
    const { extension } = this.#host;
    if (!extension) return undefined;
    const end = this.#host.monotonic() + extension.grace();
    const graceOver = new Promise<void>((resolve) => {
      const isOver = () => extension.isBrokerUnavailable() && this.#host.monotonic() >= end || this.#connections.isClosing; // By `close`.
      this.#checkMembers = () => isOver() && resolve();
    });
    return Promise.race([extension.settled(), graceOver]);
  }

  async #drain(): Promise<DrainResult> {
    const { deadlines, report } = this.#host;
    const { timeout, retryAfter } = this.#options;
    let waitsFor = () => "";
    const closeAll = () => this.#connections.closeAll(CloseCode.GOING_AWAY, joinReason(retryAfter) || "Going away");
    const steps = async () => {
      const live = () => this.#live().length;
      waitsFor = () => live() > 0 ? `${live()} clients have requests in progress` : "clients have not answered the close";
      this.due();
      await this.#connections.emptied();
      waitsFor = () => "members of channels are in their grace period, pass a timeout above window + grace";
      await this.#settled();
      waitsFor = () => "streams go on for clients of other nodes";
      if (this.#host.streams.isShared) await new Promise<void>((resolve) => this.#handedOver = resolve);
      waitsFor = () => "requests of the server are in progress";
      await this.#stop();
      waitsFor = () => "the engine is not closed";
      await closeAll(); // Also connections that open from now on.
      await this.#closeEngine();
    };
    const attempt = (ms: number, step: () => Promise<void>, what: () => string) =>
      within(deadlines, ms, step, () => new Error(`Cannot drain in ${ms} ms: ${what()}`));
    let fault: unknown;
    const isClean = await attempt(timeout, steps, () => waitsFor()).then(() => true, (error) => {
      report(fault = error);
      return false;
    });
    deadlines.delete(this);
    if (isClean) return { closed: this.#closed, cut: 0, isClean };
    const cut = this.#live().length;
    const closing = closeAll();
    if (!this.#hasStopped) { for (const stop of this.#takeStops()) guard(stop, report); }
    await attempt(FINAL_TIMEOUT, () => closing, () => "").catch(() => {}); // Reported above.
    await attempt(FINAL_TIMEOUT, this.#closeEngine, waitsFor).catch((error) => {
      if (error !== fault) report(error);
    });
    return { closed: this.#closed, cut, isClean };
  }

  #live(): Connection[] {
    return [...this.#connections].filter(isLive);
  }

  /** Stops the servers. */
  async #stop(): Promise<void> {
    await Promise.all(this.#takeStops().map((stop) => stop()));
  }

  #takeStops(): (() => unknown)[] {
    this.#hasStopped = true;
    return this.#stops.splice(0);
  }
}

const isLive = ({ state }: Connection): boolean => state !== "closing" && state !== "closed";

/** Whether the client reads a stream that ends with its connection. */
function isStreaming({ client, host: { streams } }: Connection): boolean {
  const { all, portable } = streams.of(client);
  return all > portable;
}

/** Whether the client waits for an answer of the server, or the server for one of the client. */
export function isBusy({ client, host: { extension, handlers, streams }, pipeline }: Connection): boolean {
  const isRunning = handlers.running.of(client) > streams.of(client).portable;
  return !!pipeline?.isHeld || isRunning || !!extension?.isBusy(client) || !!questionsOf(client)?.size;
}

/**
 * Refuses a message of a client that is about to be closed, unless the server waits for an answer of that client. A message that
 * the client will send again gets no reply: any message if the close reason will be `drained`, and idempotent ones.
 */
function refusesWhenStopped(connection: Connection, message: WebSocketMessage): boolean {
  const { client, hasDropped, host: { bus, streams } } = connection;
  if (questionsOf(client)?.size) return false;
  const willSayDrained = !hasDropped && !bus.has("message") && streams.of(client).portable === 0;
  if (message.uid === undefined || !willSayDrained && !isOnce(message)) {
    connection.transmit(errorFor(message, "SERVICE_UNAVAILABLE", "The server is going away").toMessage());
  }
  return true;
}

/**
 * Whether the close reason may be `drained`: no request without an answer was handled (PROTOCOL.md §6). A `message` listener may
 * have handled any.
 */
export const saysDrained = ({ client, hasDropped, host: { bus, handlers } }: Connection): boolean =>
  !hasDropped && !bus.has("message") && handlers.running.of(client) === 0;

const reasonOf = (connection: Connection, retryAfter: number): string =>
  joinReason(retryAfter, ...saysDrained(connection) ? ["drained"] : []) || "Service restart";

const joinReason = (retryAfter: number, ...words: string[]): string =>
  [...words, ...retryAfter > 0 ? [`retry=${retryAfter}`] : []].join(" ");

/** For each option its check, and the remedy in the error message. */
const CHECKS: { readonly [Name in keyof DrainOptions]-?: readonly [(value: unknown) => boolean, string] } = {
  window: [(value) => value === 0 || isMs(value), `0 or ${MS}, such as 30_000`],
  timeout: [isMs, `${MS}, such as 45_000`],
  code: [(value) => typeof value === "number", "a close code, such as 1012"],
  retryAfter: [
    (value) => value === 0 || isMs(value) && value <= MAX_RETRY_AFTER,
    `0 or a whole number of ms up to ${MAX_RETRY_AFTER}, such as 2_000`,
  ],
  stop: [(value) => typeof value === "function", "a function that stops your server"],
};

/**
 * Validates the options and applies the defaults.
 *
 * @param prefix start of each error message.
 * @throws {TypeError} for an unknown option or a value out of range.
 */
export function resolveDrain(prefix: string, options: DrainOptions): ResolvedOptions {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError(`${prefix}pass an object, such as { window: 30_000, timeout: 45_000 }`);
  }
  for (const [name, value] of Object.entries(options)) {
    const check = Object.hasOwn(CHECKS, name) ? CHECKS[name as keyof DrainOptions] : undefined;
    if (!check) throw new TypeError(`${prefix}unknown option "${name}", use one of ${Object.keys(CHECKS).join(", ")}`);
    if (value !== undefined && !check[0](value)) throw new TypeError(`${prefix}option "${name}" must be ${check[1]}`);
  }
  const { window = 0, timeout = window + TIMEOUT_MARGIN, code = CloseCode.SERVICE_RESTART, retryAfter = 0, stop } = options;
  if (timeout < window) {
    throw new TypeError(
      `${prefix}option "timeout" must be at least the window of ${window} ms, such as ${window + TIMEOUT_MARGIN}`,
    );
  }
  checkCloseCode(code);
  return { window, timeout, code, retryAfter, ...(stop && { stop }) };
}
