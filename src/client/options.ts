import { type ClientClock, systemClock, type WebSocketConstructor } from "./platform.ts";
import type { StreamsFactory } from "./stream.ts";

/** Credentials of the client; absent for an anonymous one. */
export type Token = string | null | undefined;

/** Options of {@link createClient}. */
export interface ClientOptions {
  /**
   * A token, or a function that returns one. The function runs for each connection and when a token has expired.
   * @default none: the client is anonymous
   */
  token?: Token | (() => Token | Promise<Token>);
  /**
   * How the token is sent: in an `auth` message, as the subprotocol `bearer.<token>`, or in the URL, which logs contain.
   * A server in `strict` mode requires `"protocol"` or `"query"`.
   * @default {"message"}
   */
  tokenIn?: "message" | "protocol" | "query";
  /** Interval of pings, in ms. With `0`, the client pings only when the page becomes visible or the network changes. @default {25_000} */
  heartbeat?: number;
  /** Time limit for being admitted, in ms, including the time to get a token; `0` for none. @default {10_000} */
  timeout?: number;
  /** Time limit for the reply to a request, in ms; `0` for none. @default {10_000} */
  requestTimeout?: number;
  /** Delays before reconnecting; each is random up to a ceiling that doubles. */
  backoff?: {
    /** First ceiling, in ms. @default {500} */
    base?: number;
    /** Highest ceiling, in ms; a server may ask to wait longer. @default {30_000} */
    cap?: number;
    /** Time in ms that a connection has to last for the delays to start again at `base`. @default {10_000} */
    reset?: number;
  };
  /** Limits of the queue for messages sent while not connected. */
  outbox?: {
    /** Maximum number of messages; `0` queues none. @default {100} */
    maxMessages?: number;
    /** Maximum age, in ms; `0` is unlimited. Requests use their own timeout instead. @default {60_000} */
    maxAge?: number;
  };
  /**
   * Renews a session that the client cannot read, such as one in a cookie. Runs when the server reports that the session has expired, and
   * when upgrades are refused (`maxRefusals`); the client then reconnects, since a cookie is read only at the upgrade. Resolve with
   * `false` when the session has ended: the client closes with `AUTH_FAILED`. After a rejection it is called again, with backoff. It is
   * never called while an earlier call runs, so give it a time limit of its own: the client waits for it.
   * @default none
   */
  renew?: () => boolean | void | Promise<boolean | void>;
  /**
   * Number of consecutive upgrades refused with 401 or 403 after which `renew` runs, or the client closes; `0` disables both.
   * A browser cannot distinguish a refused upgrade from a server that is down, so there only `renew` runs.
   * @default {3}
   */
  maxRefusals?: number;
  /** Number of consecutive attempts without being admitted after which the client closes; `0` is unlimited. @default {0} */
  maxAttempts?: number;
  /** Whether to reconnect after the connection is lost. @default {true} */
  reconnect?: boolean;
  /** Whether to connect only on the first send, request, subscription or use of `ready`. @default {false} */
  lazy?: boolean;
  /**
   * Returns the `traceparent` (W3C Trace Context) to send with a request, a stream or a publication, so that the server continues the
   * trace; `undefined` for none. If it throws, the request rejects.
   *
   * @default nothing is sent
   */
  traceparent?: () => string | undefined;
  /** `streams` of `noroshi/client/streams`, which adds `stream`, `attach` and `streams` to the client. @default none */
  streams?: StreamsFactory;
  /** Maximum length of an incoming frame, in characters; a longer one ends the connection. @default {16_777_216} */
  maxFrame?: number;
  /** Subprotocols to offer; use `[]` for a server that supports none. @default {["noroshi.v1"]} */
  protocols?: string[];
  /** The WebSocket constructor, such as that of `ws` on Node 20. @default {globalThis.WebSocket} */
  WebSocket?: WebSocketConstructor;
  /** Source of time and timers. @default the platform's */
  clock?: ClientClock;
  /** Returns a random number from 0 up to but not including 1. @default {Math.random} */
  random?: () => number;
}

/** Options with defaults applied. */
export type ResolvedOptions =
  & Required<Omit<ClientOptions, "token" | "renew" | "traceparent" | "streams" | "backoff" | "outbox">>
  & { [Name in "token" | "renew" | "traceparent" | "streams"]: ClientOptions[Name] }
  & { backoff: Required<Backoff>; outbox: Required<OutboxOptions> };

type Backoff = NonNullable<ClientOptions["backoff"]>;
type OutboxOptions = NonNullable<ClientOptions["outbox"]>;

/** @throws {TypeError} for an unknown option or an invalid duration, and without a WebSocket, unless `lazy` is set. */
export function resolveOptions(options: ClientOptions): ResolvedOptions {
  const defaults: Omit<ResolvedOptions, "WebSocket"> & { WebSocket: WebSocketConstructor | undefined } = {
    token: undefined,
    tokenIn: "message",
    heartbeat: 25_000,
    timeout: 10_000,
    requestTimeout: 10_000,
    backoff: { base: 500, cap: 30_000, reset: 10_000 },
    outbox: { maxMessages: 100, maxAge: 60_000 },
    renew: undefined,
    traceparent: undefined,
    streams: undefined,
    maxRefusals: 3,
    maxAttempts: 0,
    reconnect: true,
    lazy: false,
    maxFrame: 2 ** 24,
    protocols: ["noroshi.v1"],
    // Undefined on Node 20.
    WebSocket: (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket,
    clock: systemClock,
    random: Math.random,
  };
  const resolved = merge(defaults, options);
  // A lazy client needs no WebSocket, because it never connects during server-side rendering.
  if (typeof resolved.WebSocket !== "function" && !resolved.lazy) {
    throw new TypeError('Cannot create the client: pass the option "WebSocket"');
  }
  // `merge` accepts only known options.
  return resolved as ResolvedOptions;
}

/** Names of options that are numbers, but not durations. */
const COUNTS = /^max(?!Age)/;

/**
 * Checks a duration in ms. A timer above 2³¹−1 ms would fire at once.
 *
 * @throws {TypeError}
 */
export function checkMs(what: string, value: unknown): void {
  if (typeof value !== "number" || !(value >= 0 && value < 2 ** 31)) {
    throw new TypeError(`${what} must be a number of ms from 0 to 2147483647`);
  }
}

/** Overrides the defaults with the given values, except `undefined`. */
function merge<T extends object>(defaults: T, given: object): T {
  const merged = { ...defaults } as Record<string, unknown>; // Indexed by name.
  for (const [name, value] of Object.entries(given)) {
    if (!(name in defaults)) throw new TypeError(`Cannot create the client: unknown option "${name}"`);
    if (value === undefined) continue;
    if (typeof merged[name] === "number" && !COUNTS.test(name)) checkMs(`Cannot create the client: option "${name}"`, value);
    merged[name] = name === "backoff" || name === "outbox" ? merge(merged[name] as object, value) : value;
  }
  return merged as T;
}
