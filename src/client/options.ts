import { type ClientClock, systemClock, type WebSocketConstructor } from "./platform.ts";

/** Proves who the client is. */
export type Token = string | null | undefined;

/** Options of {@link createClient}. */
export interface ClientOptions {
  /**
   * Who the client is: a token, or a function that gets one, asked for each connection and when the one before has expired.
   * @default none: the client is anonymous
   */
  token?: Token | (() => Token | Promise<Token>);
  /**
   * How it travels: in an `auth` message, in the subprotocol `bearer.<token>`, or in the URL, which ends up in logs.
   * A server in `strict` mode wants one of the latter two.
   * @default {"message"}
   */
  tokenIn?: "message" | "protocol" | "query";
  /** The other side is asked every so many ms whether it is there; `0` asks only when a page is seen again or the network changes. @default {25_000} */
  heartbeat?: number;
  /** How long the server may take to let the client in, in ms; getting the token is part of it. `0` waits for ever. @default {10_000} */
  timeout?: number;
  /** How long the answer to a request may take, in ms; `0` waits for ever. @default {10_000} */
  requestTimeout?: number;
  /** The waiting before another try. */
  backoff?: {
    /** The first wait is at most this (ms); the next ones at most twice the one before. @default {500} */
    base?: number;
    /** No wait is longer (ms), unless the server asks for it. @default {30_000} */
    cap?: number;
    /** A connection that has held for so long (ms) was a good one: the next wait is a first one again. @default {10_000} */
    reset?: number;
  };
  /** What is sent while there is no connection waits here. */
  outbox?: {
    /** How many messages; `0` keeps none. @default {100} */
    maxMessages?: number;
    /** How long, in ms; `0` is for ever. Requests have a timeout of their own. @default {60_000} */
    maxAge?: number;
  };
  /**
   * Renews a session that the client cannot see, such as one in a cookie: asked when the server says that it has expired, and when upgrades
   * are refused (`maxRefusals`). The client then opens another connection, since a cookie is read at the upgrade only. Resolve with `false`
   * where the session has ended: the client is `closed` with `AUTH_FAILED`. After a rejection it is asked again, with backoff.
   * @default none
   */
  renew?: () => boolean | void | Promise<boolean | void>;
  /**
   * After so many upgrades in a row that the server refused with 401 or 403, `renew` is asked, or the client is `closed`; `0` is never.
   * A browser says the same of a refused upgrade and of a server that is down: there only `renew` is asked.
   * @default {3}
   */
  maxRefusals?: number;
  /** After so many attempts in a row in which the server did not let it in, the client is `closed`; `0` is never. @default {0} */
  maxAttempts?: number;
  /** Whether it comes back when a connection was lost. @default {true} */
  reconnect?: boolean;
  /** Whether it opens nothing until something is sent, asked, subscribed to or waited for. @default {false} */
  lazy?: boolean;
  /** A frame of more characters is not read, and ends the connection. @default {16_777_216} */
  maxFrame?: number;
  /** The subprotocols to offer. A server that knows none of them needs `[]`. @default {["noroshi.v1"]} */
  protocols?: string[];
  /** The constructor, such as that of `ws` where the platform has none. @default {globalThis.WebSocket} */
  WebSocket?: WebSocketConstructor;
  /** The time. @default the platform's */
  clock?: ClientClock;
  /** A random number from 0 to below 1. @default {Math.random} */
  random?: () => number;
}

/** The options with their defaults. */
export type ResolvedOptions =
  & Required<Omit<ClientOptions, "token" | "renew" | "backoff" | "outbox">>
  & { token: ClientOptions["token"]; renew: ClientOptions["renew"]; backoff: Required<Backoff>; outbox: Required<Outbox> };

type Backoff = NonNullable<ClientOptions["backoff"]>;
type Outbox = NonNullable<ClientOptions["outbox"]>;

/** @throws {TypeError} for an unknown option, a duration that is none, and where there is no WebSocket for one that is not lazy. */
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
    maxRefusals: 3,
    maxAttempts: 0,
    reconnect: true,
    lazy: false,
    maxFrame: 2 ** 24,
    protocols: ["noroshi.v1"],
    // Node 20 has none.
    WebSocket: (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket,
    clock: systemClock,
    random: Math.random,
  };
  const resolved = merge(defaults, options);
  // A page that is rendered where there is none opens nothing there.
  if (typeof resolved.WebSocket !== "function" && !resolved.lazy) {
    throw new TypeError('Cannot create the client: pass the option "WebSocket"');
  }
  // `merge` has checked what it took against the defaults.
  return resolved as ResolvedOptions;
}

const DURATIONS = /^(heartbeat|timeout|requestTimeout|base|cap|reset|maxAge)$/;

/**
 * Checks a duration: a longer timer fires at once.
 *
 * @throws {TypeError}
 */
export function checkMs(what: string, value: unknown): void {
  if (typeof value !== "number" || !(value >= 0 && value < 2 ** 31)) {
    throw new TypeError(`${what} must be a number of ms from 0 to 2147483647`);
  }
}

/** The defaults, with what is given in their place. `undefined` gives nothing. */
function merge<T extends object>(defaults: T, given: object): T {
  const merged = { ...defaults } as Record<string, unknown>; // Read by name.
  for (const [name, value] of Object.entries(given)) {
    if (!(name in defaults)) throw new TypeError(`Cannot create the client: unknown option "${name}"`);
    if (value === undefined) continue;
    if (DURATIONS.test(name)) checkMs(`Cannot create the client: option "${name}"`, value);
    merged[name] = name === "backoff" || name === "outbox" ? merge(merged[name] as object, value) : value;
  }
  return merged as T;
}
