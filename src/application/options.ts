/** The API for applications: options, client, events, handlers, authentication, origins, contract and extension. */
import type { Authenticate, Revalidate } from "./authentication.ts";
import { type Clock, isMs, MS } from "../base/clock.ts";
import type { Contract } from "../protocol/contract-types.ts";
import type { Engine } from "../engines/engine.ts";
import type { LoggerOption } from "./log.ts";
import type { Once } from "./once.ts";
import { isDevelopment } from "../base/environment.ts";
import type { ConnectionLimits, RateLimit } from "../base/limits.ts";
import {
  defined,
  isAmount,
  isContract,
  isCount,
  isFunction,
  isLimit,
  isLogger,
  isObjectOf,
  isPositive,
  isToken,
  LIMIT,
} from "./option-checks.ts";
import { isOriginPattern, type Origins } from "./origin.ts";
import type { AuthenticationMode, WebSocketClient } from "./websocket-client.ts";

/** Options of the heartbeat, which detects dead connections. */
export interface HeartbeatOptions {
  /** Silence after which a client is pinged, in ms; the ping may be up to 50 ms early. @default {25_000} */
  period?: number;
  /** Time to wait for the pong, in ms; then the client is closed with 4504. @default {10_000} or `period`, if that is shorter */
  timeout?: number;
  /**
   * Also sends `{ "type": "ping" }`. A client that does not answer it is then closed on Deno; in a Durable Object it is treated
   * as a slow consumer after it was sent more than `maxBufferedBytes` without sending anything.
   *
   * @default {false}
   */
  message?: boolean;
}

/** Options of the rate limit. */
export interface RateLimitOptions extends RateLimit {
  /**
   * Returns the key of a client; clients with the same key share one limit.
   *
   * @default the user, else the address, else the connection
   */
  key?: (client: WebSocketClient) => string;
}

/** The argument of a `clientIp` function. */
export interface ClientAddress {
  /** The remote address of the TCP connection; `null` if the runtime does not provide it. */
  address: string | null;
  /** Headers of the upgrade request. */
  headers: Headers;
}

/** Options of a controller. Each has a default; an invalid or unknown one throws. `C` is the contract. */
export interface WebSocketControllerOptions<C = Contract> {
  /** Distinguishes the controllers of one Durable Object. @default {"main"} */
  name?: string;
  /**
   * How clients authenticate. `public`: clients are admitted as anonymous and may send `auth` later. `handshake`: the first
   * message must be `auth`. `strict`: the upgrade requires a valid token. In every mode a token in the upgrade request is
   * verified there.
   *
   * @default {"handshake"} with `authenticate`, `"public"` without
   */
  mode?: AuthenticationMode;
  /** Verifies credentials; required by the modes `handshake` and `strict`. Absent: tokens are ignored. */
  authenticate?: Authenticate;
  /**
   * Re-evaluates a client when its credentials expire and at `controller.refresh`. Absent: an expired client must send `auth`.
   */
  revalidate?: Revalidate;
  /**
   * Allowed origins besides the request's own host: `["https://app.example.com", "https://*.example.org"]`. Apps whose pages use
   * another scheme must be listed too: `tauri://localhost`, `capacitor://localhost`, `chrome-extension://…`, `file://`. `"*"`
   * allows every page and cannot be combined with `cookie`. A request without `Origin` is not from a page and is allowed.
   *
   * @default {[]}
   */
  origins?: Origins;
  /**
   * Time from the upgrade to authenticate, and limit of one call of `authenticate` or `revalidate`, in ms. Also the time that an
   * aborted stream has to end.
   *
   * @default {10_000}
   */
  timeout?: number;
  /** Maximum connections of this controller; further upgrades are answered 503. @default {50_000} */
  maxConnections?: number;
  /** Maximum connections that are not admitted yet; further upgrades are answered 503. @default {1_000} */
  maxPending?: number;
  /**
   * Maximum connections from one address that are not admitted yet; further upgrades are answered 429. An address is an IPv4
   * address or the /64 network of an IPv6 address. Behind a proxy all clients share the proxy's address unless `clientIp` is set.
   *
   * @default a quarter of `maxPending`, at least 16
   */
  maxPendingPerIp?: number;
  /** Maximum connections from one address, as in `maxPendingPerIp`; further upgrades are answered 429. @default {Infinity} */
  maxConnectionsPerIp?: number;
  /** Maximum connections of one user; further upgrades are answered 429, `auth` messages `LIMIT_EXCEEDED`. @default {Infinity} */
  maxConnectionsPerUser?: number;
  /**
   * How to find the client's address behind proxies: the number of trusted proxies that append to `X-Forwarded-For` (the entry is
   * counted from the right), or a function. `0`: the remote address of the TCP connection.
   *
   * @default {0}
   */
  clientIp?: number | ((request: ClientAddress) => string | null);
  /**
   * Messages and bytes a client may send; `false`: no limit.
   *
   * @default 100 messages/s, bursts of 2,000; 1 MiB/s, bursts of 8 MiB
   */
  rateLimit?: RateLimitOptions | false;
  /** Detects dead connections; `false`: off. @default {{ period: 25_000, timeout: 10_000, message: false }} */
  heartbeat?: HeartbeatOptions | false;
  /**
   * Maximum age of a connection, in ms. It is closed with 1012 at a random 90 to 100 % of it, so that clients that connected
   * together do not reconnect together.
   *
   * @default {Infinity}
   */
  maxAge?: number;
  /** Name of the cookie with the access token. Absent: cookies are ignored. */
  cookie?: string;
  /**
   * Accepts the cookie of a request without an `Origin` header, as servers and native apps send it. Browsers always send
   * `Origin`. Leave this off behind a proxy that removes the header: any site could then act as its visitors.
   *
   * @default {false}
   */
  allowCookieWithoutOrigin?: boolean;
  /**
   * Supported subprotocols (RFC 6455 §1.9); the first of the client's offer that is among them is selected.
   *
   * @default {["noroshi.v1"]}
   */
  protocols?: string[];
  /** Maximum size of a message, in UTF-8 bytes; a larger one closes the connection with 1009. @default {65_536} */
  maxPayload?: number;
  /** Messages of one client that may queue while an `auth`, a revalidation or a middleware is pending. @default {64} */
  maxPipelined?: number;
  /**
   * Maximum bytes buffered for one client; beyond it `slowConsumer` applies. A single message may be larger, and what follows it
   * may again fill the limit. Histories, snapshots and member lists are sent as the client reads, at most half the limit ahead; a
   * client that then reads nothing for 30 s per `maxBufferedBytes` of unread data is closed with 4508.
   *
   * @default {1_048_576}
   */
  maxBufferedBytes?: number;
  /**
   * What happens when more than `maxBufferedBytes` are buffered for a client. `"close"`: it is closed with 4508. `"drop"`:
   * further messages are dropped, and it receives their number (`MESSAGES_DROPPED`) once there is room.
   *
   * @default {"close"}
   */
  slowConsumer?: "close" | "drop";
  /** Maximum streams of one client at once; more are answered `LIMIT_EXCEEDED`. @default {32} */
  maxStreams?: number;
  /** Time without reading after which a stream ends with `SLOW_CONSUMER`, in ms; the connection stays open. @default {30_000} */
  streamTimeout?: number;
  /**
   * Which clients receive one frame at a time, the next one after they answer a protocol ping. It is for clients that lose all
   * but one of the messages that arrive together, as the Directus SDK does on Node and Deno.
   *
   * - `"collection"`: clients with neither `Origin` (not browsers) nor `noroshi.v1`, from their first `subscribe` with a
   * `collection`
   * - `"all"`: every client without `noroshi.v1`
   * - `false`: none
   *
   * `Deno.serve` and Cloudflare cannot send protocol pings: the next frame follows after 50 ms or, with `heartbeat.message`,
   * after the client answers a `ping` message. Waiting frames count against `maxBufferedBytes`.
   *
   * @default {"collection"}
   */
  stopAndWait?: "collection" | "all" | false;
  /** Time for a client to answer the close handshake, in ms; then the connection is terminated. @default {5_000} */
  closeTimeout?: number;
  /** The contract of the server and its clients, as `defineContract` returned it; it types the controller. */
  contract?: C;
  /**
   * `"outbound"`: replies, messages, questions, publications, snapshots and data of members are checked against the option
   * `contract`. One that does not fit becomes an `error` event, and is sent all the same. An event whose schema outputs another
   * type than it reads is not checked. `false`: nothing is checked.
   *
   * @default {"outbound"} with a `contract`, where `NODE_ENV` can be read and is not `"production"`; else `false`
   */
  validate?: "outbound" | false;
  /**
   * Logs errors without an `error` listener, refusals, and reached limits: to an object with `warn(record, message)` and
   * `error(record, message)`, such as a logger of pino, or to the console as `"text"` or `"json"`. `console`: `"text"` on a
   * terminal, else `"json"`. `false`: no log.
   *
   * @default {console}
   */
  logger?: LoggerOption;
  /** Stores histories and members and connects nodes. @default in memory; in a Durable Object its own storage */
  engine?: Engine;
  /** Answers repeats of idempotent requests: `answerOnce()` of `noroshi/once`. @default each request is handled */
  once?: Once;
  /**
   * Readable name of this node in `controller.cluster`: `"berlin-1"` becomes `berlin-1-` and 12 random hexadecimal digits, new at
   * each start. The digits alone make it unique.
   *
   * @default a random UUID
   */
  node?: string;
  /** Replaces the clock, for tests; `stopAndWait` waits in real time all the same. @default the platform's */
  clock?: Clock;
}

/** The options with all defaults applied. */
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
  readonly maxStreams: number;
  readonly streamTimeout: number;
  readonly stopAndWait: "collection" | "all" | false;
  readonly closeTimeout: number;
  readonly contract: object | undefined;
  readonly validate: "outbound" | false;
  readonly logger: LoggerOption;
  readonly engine: Engine | undefined;
  readonly once: Once | undefined;
  readonly node: string | undefined;
  readonly clock: Clock | undefined;
}

/** For each option its check, and the remedy in the error message. */
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
  maxStreams: [isLimit, LIMIT],
  streamTimeout: [isMs, `${MS}, such as 30_000`],
  stopAndWait: [(value) => value === "collection" || value === "all" || value === false, '"collection", "all" or false'],
  closeTimeout: [isMs, `${MS}, such as 5_000`],
  contract: [isContract, "what defineContract of the same copy of the package returns"],
  validate: [(value) => value === "outbound" || value === false, '"outbound" or false'],
  logger: [
    (value) => value === false || isLogger(value),
    '"text", "json", false, or an object with warn and error, such as console or pino(), and without a format',
  ],
  engine: [(value) => typeof value === "object" && value !== null && "publish" in value, "an Engine, such as new MemoryEngine()"],
  once: [(value) => typeof value === "object" && value !== null && "answer" in value, "answerOnce() of noroshi/once"],
  // The Redis engine appends to it to form an epoch, and the protocol limits an epoch to 64 characters.
  node: [
    (value) => typeof value === "string" && /^[\w-]{1,27}$/.test(value),
    '1 to 27 letters, digits, "_" or "-", such as "berlin-1"',
  ],
  clock: [(value) => typeof value === "object" && value !== null && "monotonic" in value, "a Clock"],
};

/**
 * Validates the options and applies the defaults.
 *
 * @throws {TypeError} for an unknown option, a value out of range, or an option without the one that it requires.
 */
export function resolveOptions(options: WebSocketControllerOptions<unknown> = {}): ResolvedOptions {
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
  const contract = options.contract as object | undefined; // As checked above.
  if (!contract && options.validate) {
    throw new TypeError('Cannot create the controller: option "validate" needs the option "contract"');
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
    maxStreams: options.maxStreams ?? 32,
    streamTimeout: options.streamTimeout ?? 30_000,
    stopAndWait: options.stopAndWait ?? "collection",
    closeTimeout: options.closeTimeout ?? 5_000,
    contract,
    validate: options.validate ?? (contract && isDevelopment() ? "outbound" : false),
    logger: options.logger ?? console,
    engine: options.engine,
    once: options.once,
    node: options.node,
    clock: options.clock,
  };
}
