import type { Authenticate, Revalidate } from "./authentication.ts";
import { type Clock, isMs, MS } from "./clock.ts";
import type { Engine } from "./engine.ts";
import type { ConnectionLimits, RateLimit } from "./limits.ts";
import { isOriginPattern, type Origins } from "./origin.ts";
import type { AuthenticationMode, WebSocketClient } from "./websocket-client.ts";

/** Where records go that nobody listens to: the part of `console` that Noroshi uses. */
export interface Logger {
  /** A limit that is reached, in one line. */
  warn(record: string): void;
  /** Something that threw, in one line. */
  error(record: string): void;
}

/** Options of the heartbeat, which finds connections whose peer is gone. */
export interface HeartbeatOptions {
  /** Silence after which a client is pinged, in ms, or up to 50 ms sooner. @default {25_000} */
  period?: number;
  /** Time for its pong, in ms; without one it is closed with 4504. @default {10_000} or `period`, where that is shorter */
  timeout?: number;
  /** Sends `{ "type": "ping" }` too, for clients that want to see it. A client that takes no notice of it is then closed on Deno; in a Durable Object it is taken for slow, once it was sent more than `maxBufferedBytes` since it last sent something. @default {false} */
  message?: boolean;
}

/** Options of the rate limit. */
export interface RateLimitOptions extends RateLimit {
  /** Whose messages are counted together. @default the user, else the address, else the connection */
  key?: (client: WebSocketClient) => string;
}

/** What `clientIp` is told of an upgrade request. */
export interface ClientAddress {
  /** The other end of the TCP connection, as the runtime tells it. */
  address: string | null;
  /** Of the upgrade request. */
  headers: Headers;
}

/** How a controller behaves. Every option has a default; a wrong one throws. */
export interface WebSocketControllerOptions {
  /** Tells the controllers of one Durable Object apart. @default {"main"} */
  name?: string;
  /**
   * How clients prove who they are. `public`: everybody is let in as anonymous and may `auth` later. `handshake`: the first
   * message must be `auth`. `strict`: no upgrade without a valid token. In each, a token shown at the upgrade is verified there.
   *
   * @default {"handshake"} with `authenticate`, `"public"` without
   */
  mode?: AuthenticationMode;
  /** Verifies credentials. Required by the modes `handshake` and `strict`; absent: no token is read anywhere. */
  authenticate?: Authenticate;
  /** Says anew who a client is, when its credentials expire and at `controller.refresh`. Absent: expiry asks the client. */
  revalidate?: Revalidate;
  /**
   * The origins of pages that may connect, beside the request's own host: `["https://app.example.com", "https://*.example.org"]`. Apps whose
   * pages have a scheme of their own are listed too: `tauri://localhost`, `capacitor://localhost`, `chrome-extension://…`, `file://`.
   * `"*"` lets every page in, and may not be combined with `cookie`. A request without an `Origin` comes from no page and is let in.
   *
   * @default {[]}
   */
  origins?: Origins;
  /** Time to authenticate in, from the upgrade on, and the longest one call of `authenticate` may take, in ms. @default {10_000} */
  timeout?: number;
  /** Connections of this controller; more are answered 503. @default {50_000} */
  maxConnections?: number;
  /** Connections that have not been admitted; more are answered 503. @default {1_000} */
  maxPending?: number;
  /**
   * Connections from one address that have not been admitted; more are answered 429. One address is an IPv4 address or the /64 network of
   * an IPv6 address. Behind a proxy all have the proxy's, unless `clientIp` is set.
   *
   * @default a quarter of `maxPending`, but not less than 16
   */
  maxPendingPerIp?: number;
  /** Connections from one address, as `maxPendingPerIp` counts it; more are answered 429. @default {Infinity} */
  maxConnectionsPerIp?: number;
  /** Connections of one user; more are answered 429, or `LIMIT_EXCEEDED` to an `auth` message. @default {Infinity} */
  maxConnectionsPerUser?: number;
  /**
   * The client's address, where a proxy hides it: the number of proxies in front that add to `X-Forwarded-For`, whose entry is then
   * counted from the right, or a function. `0` is the other end of the TCP connection.
   *
   * @default {0}
   */
  clientIp?: number | ((request: ClientAddress) => string | null);
  /** Messages and bytes a client may send. `false` is no limit. @default 100 a second, 2,000 at once; 1 MiB a second, 8 MiB at once */
  rateLimit?: RateLimitOptions | false;
  /** Finds connections whose peer is gone. `false` is off. @default {{ period: 25_000, timeout: 10_000, message: false }} */
  heartbeat?: HeartbeatOptions | false;
  /**
   * The longest time a connection may be open, in ms. It is closed with 1012 at 90 to 100 % of it, at random, so that clients that came
   * together do not come back together. @default {Infinity}
   */
  maxAge?: number;
  /** The name of the cookie that holds an access token. Absent: no cookie is read. */
  cookie?: string;
  /**
   * Takes the cookie of a request without an `Origin` header: servers and native apps send none, and every browser does. Only for browsers this
   * header says which page connects, so with a proxy in front that removes it any site could act as its visitors: then leave it off.
   *
   * @default {false}
   */
  allowCookieWithoutOrigin?: boolean;
  /** The subprotocols that may be agreed on (RFC 6455 §1.9): the first that the client offers. @default {["noroshi.v1"]} */
  protocols?: string[];
  /** The largest message accepted, in UTF-8 bytes; a larger one closes with 1009. @default {65_536} */
  maxPayload?: number;
  /** Messages of one client that may wait while an earlier one is authenticated or held by a middleware. @default {64} */
  maxPipelined?: number;
  /**
   * Bytes that may wait to be sent to one client; a message beyond them is for `slowConsumer` to decide. One message may be larger: what
   * follows it has as many bytes again. Histories, snapshots and lists of members are read as the client reads, at most half of them ahead;
   * one that reads nothing of what waits for it for 30 s, for each so many bytes of it, is closed with 4508.
   *
   * @default {1_048_576}
   */
  maxBufferedBytes?: number;
  /**
   * What becomes of a client for which more than `maxBufferedBytes` wait. `"close"`: it is closed with 4508. `"drop"`: it is not sent what
   * comes then, and told how much that was (`MESSAGES_DROPPED`) once there is room.
   *
   * @default {"close"}
   */
  slowConsumer?: "close" | "drop";
  /**
   * Who is sent one frame at a time, the next when the client has answered a protocol ping: for clients that lose all but one of the messages
   * that arrive together, as the Directus SDK does on Node and Deno. `Deno.serve` and Cloudflare send no such pings: there the next follows 50 ms
   * later, and with `heartbeat.message` when the client has answered a `ping` message. What waits counts against `maxBufferedBytes`. `"collection"`: clients without an `Origin`, which are not browsers, and without `noroshi.v1`, from their
   * first `subscribe` with a `collection` on. `"all"`: all clients without `noroshi.v1`. `false`: nobody.
   *
   * @default {"collection"}
   */
  stopAndWait?: "collection" | "all" | false;
  /** Time a client has to answer the close handshake, in ms; then the connection is ended without it. @default {5_000} */
  closeTimeout?: number;
  /** Told, in one line each, of errors that no `error` listener takes and of limits that are reached. `false` is silence. @default {console} */
  logger?: Logger | false;
  /** Keeps histories and members, and joins nodes. @default what is in this process' memory, and a Durable Object's own storage */
  engine?: Engine;
  /**
   * What other nodes and `controller.cluster` call this one: `"berlin-1"` becomes `berlin-1-` and 12 random hexadecimal digits, others
   * after each start. It is for people: nodes are told apart by the digits.
   *
   * @default a random UUID
   */
  node?: string;
  /** The time, for tests. @default the platform's */
  clock?: Clock;
}

/** The options, complete. */
export interface ResolvedOptions extends ConnectionLimits {
  readonly name: string;
  readonly mode: AuthenticationMode;
  readonly authenticate: Authenticate | undefined;
  readonly revalidate: Revalidate | undefined;
  readonly origins: Origins;
  readonly clientIp: number | ((request: ClientAddress) => string | null);
  readonly rateLimit: (Required<RateLimit> & Pick<RateLimitOptions, "key">) | false;
  readonly heartbeat: Required<HeartbeatOptions> | false;
  readonly timeout: number;
  readonly maxAge: number;
  readonly cookie: string | undefined;
  readonly allowCookieWithoutOrigin: boolean;
  readonly protocols: readonly string[];
  readonly maxPayload: number;
  readonly maxPipelined: number;
  readonly maxBufferedBytes: number;
  readonly slowConsumer: "close" | "drop";
  readonly stopAndWait: "collection" | "all" | false;
  readonly closeTimeout: number;
  readonly logger: Logger | false;
  readonly engine: Engine | undefined;
  readonly node: string | undefined;
  readonly clock: Clock | undefined;
}

// A token of RFC 9110 §5.6.2, which is what RFC 6455 §4.1 lets a subprotocol and RFC 6265 §4.1.1 a cookie's name be.
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,255}$/;

const isFunction = (value: unknown): boolean => typeof value === "function";
const isToken = (value: unknown): boolean => typeof value === "string" && TOKEN.test(value);
/** A whole number from 1. */
export const isPositive = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isLimit = (value: unknown): boolean => value === Infinity || isPositive(value);
const isAmount = (value: unknown): boolean => Number.isFinite(value) && (value as number) > 0;

/** Whether it is an object with these fields and no other. */
function isObjectOf(value: unknown, checks: Record<string, (field: unknown) => boolean>): boolean {
  return typeof value === "object" && value !== null &&
    Object.entries(value).every(([name, field]) => field === undefined || (Object.hasOwn(checks, name) && checks[name]!(field)));
}

const LIMIT = "a whole number from 1, or Infinity";

/** What each option must be, and what to write instead. */
const CHECKS: { readonly [Name in keyof ResolvedOptions]: readonly [(value: unknown) => boolean, string] } = {
  name: [(value) => typeof value === "string" && value !== "", 'a non-empty string, such as "main"'],
  mode: [(value) => value === "public" || value === "handshake" || value === "strict", '"public", "handshake" or "strict"'],
  authenticate: [isFunction, "a function (credentials, handshake) => ({ accountability }) | null"],
  revalidate: [isFunction, "a function (client) => ({ accountability }) | null"],
  origins: [
    (value) => value === "*" || (Array.isArray(value) && value.every(isOriginPattern)),
    'a list of origins in lower case without a path, such as ["https://app.example.com", "https://*.example.org", "tauri://localhost"], or "*"',
  ],
  maxConnections: [isLimit, LIMIT],
  maxPending: [isLimit, LIMIT],
  maxPendingPerIp: [isLimit, LIMIT],
  maxConnectionsPerIp: [isLimit, LIMIT],
  maxConnectionsPerUser: [isLimit, LIMIT],
  clientIp: [(value) => isCount(value) || isFunction(value), "the number of proxies in front, from 0, or a function"],
  rateLimit: [
    (value) =>
      value === false ||
      isObjectOf(value, { messages: isAmount, burst: isPositive, bytes: isAmount, burstBytes: isPositive, key: isFunction }),
    "{ messages?, burst?, bytes?, burstBytes?, key? } with numbers above 0 and a function, or false",
  ],
  heartbeat: [
    (value) =>
      value === false || isObjectOf(value, { period: isMs, timeout: isMs, message: (field) => typeof field === "boolean" }),
    `{ period?, timeout?, message? } with ${MS} each and a boolean, or false`,
  ],
  timeout: [isMs, `${MS}, such as 10_000`],
  maxAge: [isLimit, "a whole number of ms from 1, such as 86_400_000, or Infinity"],
  cookie: [isToken, 'the name of a cookie, such as "session_token"'],
  allowCookieWithoutOrigin: [(value) => typeof value === "boolean", "true or false"],
  protocols: [
    (value) => Array.isArray(value) && value.every((name) => isToken(name) && !name.startsWith("bearer.")),
    'a list of subprotocol names, such as ["noroshi.v1"]; "bearer." is kept for tokens',
  ],
  maxPayload: [isPositive, "a whole number of bytes from 1, such as 65_536"],
  maxPipelined: [isCount, "a whole number from 0, such as 64"],
  maxBufferedBytes: [isPositive, "a whole number of bytes from 1, such as 1_048_576"],
  slowConsumer: [(value) => value === "close" || value === "drop", '"close" or "drop"'],
  stopAndWait: [(value) => value === "collection" || value === "all" || value === false, '"collection", "all" or false'],
  closeTimeout: [isMs, `${MS}, such as 5_000`],
  logger: [
    (value) => value === false || (typeof value === "object" && value !== null && "warn" in value && "error" in value),
    "an object with warn and error, such as console, or false",
  ],
  engine: [(value) => typeof value === "object" && value !== null && "publish" in value, "an Engine, such as new MemoryEngine()"],
  // With what comes behind it, an epoch of Redis has at most the 64 characters of the protocol.
  node: [
    (value) => typeof value === "string" && /^[\w-]{1,27}$/.test(value),
    '1 to 27 letters, digits, "_" or "-", such as "berlin-1"',
  ],
  clock: [(value) => typeof value === "object" && value !== null && "monotonic" in value, "a Clock"],
};

/**
 * The options with their defaults.
 *
 * @throws {TypeError} for an unknown option, a value out of its range, and a mode that needs `authenticate` without it.
 */
export function resolveOptions(options: WebSocketControllerOptions = {}): ResolvedOptions {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError("Cannot create the controller: its options must be an object");
  }
  for (const [name, value] of Object.entries(options)) {
    const check = Object.hasOwn(CHECKS, name) ? CHECKS[name as keyof ResolvedOptions] : undefined;
    if (!check) {
      throw new TypeError(`Cannot create the controller: unknown option "${name}", use one of ${Object.keys(CHECKS).join(", ")}`);
    }
    const [isValid, remedy] = check;
    if (value !== undefined && !isValid(value)) {
      throw new TypeError(`Cannot create the controller: option "${name}" must be ${remedy}`);
    }
  }
  const { authenticate, mode = authenticate ? "handshake" : "public", cookie } = options;
  if (!authenticate && mode !== "public") {
    throw new TypeError(
      `Cannot create the controller: mode "${mode}" needs the option "authenticate", such as jwtAuthenticator({ secret })`,
    );
  }
  if (!authenticate && cookie !== undefined) {
    throw new TypeError('Cannot create the controller: option "cookie" needs the option "authenticate" to verify what is in it');
  }
  if (cookie === undefined && options.allowCookieWithoutOrigin) {
    throw new TypeError('Cannot create the controller: option "allowCookieWithoutOrigin" needs the option "cookie"');
  }
  if (cookie !== undefined && options.origins === "*") {
    throw new TypeError(
      'Cannot create the controller: origins "*" with the option "cookie" lets any site act as its visitors, list the origins instead',
    );
  }
  const { rateLimit = {}, heartbeat = {}, maxPending = 1_000 } = options;
  return {
    name: options.name ?? "main",
    mode,
    authenticate,
    revalidate: options.revalidate,
    origins: options.origins ?? [],
    maxConnections: options.maxConnections ?? 50_000,
    maxPending,
    maxPendingPerIp: options.maxPendingPerIp ?? Math.max(16, Math.ceil(maxPending / 4)),
    maxConnectionsPerIp: options.maxConnectionsPerIp ?? Infinity,
    maxConnectionsPerUser: options.maxConnectionsPerUser ?? Infinity,
    clientIp: options.clientIp ?? 0,
    rateLimit: rateLimit && { messages: 100, burst: 2_000, bytes: 1_048_576, burstBytes: 8_388_608, ...defined(rateLimit) },
    heartbeat: heartbeat && {
      period: 25_000,
      timeout: Math.min(10_000, heartbeat.period ?? 10_000),
      message: false,
      ...defined(heartbeat),
    },
    cookie,
    allowCookieWithoutOrigin: options.allowCookieWithoutOrigin ?? false,
    timeout: options.timeout ?? 10_000,
    maxAge: options.maxAge ?? Infinity,
    protocols: options.protocols ?? ["noroshi.v1"],
    maxPayload: options.maxPayload ?? 65_536,
    maxPipelined: options.maxPipelined ?? 64,
    maxBufferedBytes: options.maxBufferedBytes ?? 1_048_576,
    slowConsumer: options.slowConsumer ?? "close",
    stopAndWait: options.stopAndWait ?? "collection",
    closeTimeout: options.closeTimeout ?? 5_000,
    logger: options.logger ?? console,
    engine: options.engine,
    node: options.node,
    clock: options.clock,
  };
}

/** Without the fields that are present but undefined, so that spreading it keeps defaults. */
function defined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T; // The same fields, less some optional ones.
}
