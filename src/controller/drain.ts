import { checkCloseCode, CloseCode } from "../protocol/close.ts";
import { type Deadlines, isMs, MS, type Timed, within } from "../base/clock.ts";
import type { Connection } from "../connection/connection.ts";
import type { Connections } from "../connection/connections.ts";
import type { Extension } from "../application/extension.ts";
import { questionsOf } from "../application/websocket-client.ts";

/** Options of {@link WebSocketController.drain}. */
export interface DrainOptions {
  /**
   * Time until the node is gone, in ms; the clients are closed evenly over it, or all at once with `0`. Where members of channels keep their
   * place on other nodes, the clients are closed earlier by 1.2 times the longest `presence.grace`, but over half of the window at least.
   *
   * @default {0}
   */
  window?: number;
  /**
   * Time for everything, in ms, at least `window`; whatever is left then is ended. Clients have 5 s to answer the close (`closeTimeout`),
   * and members of channels 5 s to come back (`presence.grace`).
   *
   * @default `window` and 10_000
   */
  timeout?: number;
  /** Close code. @default {1012} service restart: clients come back at once */
  code?: number;
  /**
   * Time that clients are asked to stay away, in ms, at most 300_000: in the close reason, which `noroshi/client` obeys, and as
   * `Retry-After` of refused upgrades.
   *
   * @default {0}
   */
  retryAfter?: number;
  /**
   * Stops your own server; called when the clients have gone. The engine is closed after it has settled, so that requests under way can
   * still publish. `serve` does this by itself.
   */
  stop?: () => unknown;
}

/** How a drain ended. */
export interface DrainResult {
  /** Clients that were closed with nothing under way. */
  closed: number;
  /** Clients that were closed with a request under way, at `timeout`. */
  cut: number;
  /** Whether everything was over within `timeout` and nothing failed. If not, an `error` event says why. */
  isClean: boolean;
}

/**
 * - `running`: the controller accepts clients
 * - `draining`: it refuses new clients, and its clients leave
 * - `closed`: its clients have left
 */
export type ControllerStatus = "running" | "draining" | "closed";

type ResolvedOptions = Required<Omit<DrainOptions, "stop">> & Pick<DrainOptions, "stop">;

/** What a drain needs from its controller. */
export interface DrainHost {
  readonly deadlines: Deadlines;
  readonly extension: Extension | undefined;
  monotonic(): number;
  report(error: unknown): void;
}

/** Interval at which clients are closed, in ms. */
const TICK = 50;

/** Part of the window that the grace period of members takes: a fifth more, for the close handshakes and the end of the server. */
const GRACE_SHARE = 1.2;

/** Upper bound of `retryAfter`, in ms: that of the client. */
const MAX_RETRY_AFTER = 300_000;

/** Time for the last close frames, and then for the engine, once `timeout` has passed, in ms. */
const LAST_WAIT = 500;

/** Default of `timeout` beyond `window`, in ms: `closeTimeout` and `presence.grace`. */
const REST = 10_000;

/** Ends a controller so that nothing is lost: its clients leave over a window, those with nothing under way first, and the engine last. */
export class Drain implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #host: DrainHost;
  readonly #connections: Connections;
  readonly #goodbye: () => Promise<void>;
  readonly #options: ResolvedOptions;
  readonly #startedAt: number;
  /** Time over which the clients are closed, in ms. */
  readonly #span: number;
  /** Connections at the start. */
  readonly #total: number;
  readonly #stops: (() => unknown)[] = [];
  #closed = 0;
  #result: Promise<DrainResult> | undefined;

  /**
   * @param goodbye closes the engine.
   * @throws {TypeError} for an unknown option or a value out of range.
   */
  constructor(host: DrainHost, connections: Connections, goodbye: () => Promise<void>, options: DrainOptions) {
    this.#options = resolveDrain("Cannot drain: ", options);
    this.#host = host;
    this.#connections = connections;
    this.#goodbye = goodbye;
    this.#startedAt = host.monotonic();
    const { window } = this.#options;
    this.#span = Math.max(window / 2, window - GRACE_SHARE * (host.extension?.grace() ?? 0));
    this.#total = connections.size;
  }

  /** See {@link DrainOptions.retryAfter}. */
  get retryAfter(): number {
    return this.#options.retryAfter;
  }

  /** Starts it. A later call joins. */
  run(stop: (() => unknown) | undefined): Promise<DrainResult> {
    if (stop) this.#stops.push(stop);
    return this.#result ??= this.#run();
  }

  /** Closes the clients whose turn it is. */
  due(): void {
    const { code, retryAfter } = this.#options;
    const share = this.#span > 0 ? Math.min(1, (this.#host.monotonic() - this.#startedAt) / this.#span) : 1;
    const live = this.#live();
    let surplus = live.length - Math.floor(this.#total * (1 - share));
    for (const connection of live) {
      if (surplus <= 0) break;
      if (isBusy(connection)) continue;
      surplus--;
      this.#closed++;
      connection.close(code, reasonOf(connection, retryAfter), "drain");
    }
    this.#host.deadlines.set(this, TICK);
  }

  async #run(): Promise<DrainResult> {
    const { deadlines, report } = this.#host;
    const { timeout } = this.#options;
    let waitsFor = () => "";
    const steps = async () => {
      const live = () => this.#live().length;
      waitsFor = () => live() > 0 ? `${live()} clients have requests under way` : "clients have not answered the close";
      this.due();
      await this.#connections.emptied();
      waitsFor = () => "members of channels are in their grace period, pass a timeout above window + grace";
      await this.#host.extension?.settled();
      waitsFor = () => "requests of the server are under way";
      await Promise.all(this.#stops.map((stop) => stop()));
      waitsFor = () => "the engine is not closed";
      await this.#connections.closeAll(CloseCode.GOING_AWAY, "Going away"); // Also those that open from now on.
      await this.#goodbye();
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
    const closing = this.#connections.closeAll(CloseCode.GOING_AWAY, "Going away");
    await attempt(LAST_WAIT, () => closing, () => "").catch(() => {}); // Reported above.
    await attempt(LAST_WAIT, this.#goodbye, waitsFor).catch((error) => {
      if (error !== fault) report(error);
    });
    return { closed: this.#closed, cut, isClean };
  }

  #live(): Connection[] {
    return [...this.#connections].filter(({ state }) => state !== "closing" && state !== "closed");
  }
}

/** Whether the client waits for an answer, or is asked for one. */
export function isBusy({ client, host: { extension, handlers }, pipeline }: Connection): boolean {
  return !!pipeline?.isHeld || handlers.running.has(client) || !!extension?.isBusy(client) || !!questionsOf(client)?.size;
}

/** `drained` promises that no request without an answer was handled (PROTOCOL.md §6). What a `message` listener does is not known. */
export const saysDrained = ({ hasDropped, host: { bus } }: Connection): boolean => !hasDropped && !bus.has("message");

function reasonOf(connection: Connection, retryAfter: number): string {
  const words = saysDrained(connection) ? ["drained"] : [];
  if (retryAfter > 0) words.push(`retry=${retryAfter}`);
  return words.join(" ") || "Service restart";
}

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
  const { window = 0, timeout = window + REST, code = CloseCode.SERVICE_RESTART, retryAfter = 0, stop } = options;
  if (timeout < window) {
    throw new TypeError(`${prefix}option "timeout" must be at least the window of ${window} ms, such as ${window + REST}`);
  }
  checkCloseCode(code);
  return { window, timeout, code, retryAfter, ...(stop && { stop }) };
}
