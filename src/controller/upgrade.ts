import type { Context, MiddlewareHandler } from "hono";
import { normalizeAddress } from "../base/address.ts";
import type { Attempt, AuthenticationState, Authenticator, CredentialSource } from "../application/authentication.ts";
import type { Deadlines } from "../base/clock.ts";
import type { Connection } from "../connection/connection.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { ask, isThenable } from "../base/guard.ts";
import { copyOf, latestCopy } from "../base/latest.ts";
import type { Admission, Slot } from "../base/limits.ts";
import type { ResolvedOptions } from "../application/options.ts";
import { allowedOrigins } from "../application/origin.ts";
import type { Refusals } from "../application/refusals.ts";
import type { Revocations } from "../connection/revocations.ts";
import { bunRuntime } from "../runtimes/bun.ts";
import { denoRuntime } from "../runtimes/deno.ts";
import { CONTROLLER, findHost, type Host, isRoute, ROUTE, type Runtime, START } from "../runtimes/runtime.ts";
import type { Transport } from "../delivery/transport.ts";
import {
  ANSWERED,
  BEHIND_PROXY,
  COOKIE_WITHOUT_ORIGIN,
  draining,
  foreignOrigin,
  GONE,
  invalidRequest,
  noRuntime,
  noToken,
  reached,
  type Refusal,
  tooMany,
  unavailable,
} from "./upgrade-refusal.ts";
import { checkRequest, hasBody, type PresentedToken, readTarget, readToken, splitList } from "./upgrade-request.ts";
import type { Handshake } from "../application/websocket-client.ts";

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
// deno-lint-ignore no-explicit-any -- Hono's own UpgradeWebSocket says `any`: a narrower Env refuses apps with bindings.
type WebSocketRoute = MiddlewareHandler<any, string, { outputFormat: "ws" }>;

/** A Hono handler that `hono/client` recognizes as a WebSocket route (`$ws`). */
export type UpgradeHandler = WebSocketRoute;

/** The controller, as the upgrade route sees it. */
export interface UpgradeHost {
  readonly options: ResolvedOptions;
  readonly authenticator: Authenticator;
  /** Time to wait before another upgrade while the controller drains or is closed, in ms; `undefined` while it runs. */
  retryAfter(): number | undefined;
  readonly admission: Admission;
  readonly deadlines: Deadlines;
  open(transport: Transport, handshake: Handshake, identity: AuthenticationState | null, slot: Slot, since: number): Connection;
  readonly revocations: Revocations;
  readonly refusals: Refusals;
  report(error: unknown): void;
  /** Started when a client is about to connect. */
  readonly controller: { start(): void };
}

/** Maximum length of a URL without its token, in characters. A Durable Object stores it with the connection, in 16 KiB. */
const MAX_URL_LENGTH = 2048;

const isBun = "Bun" in globalThis;

/** Stored length of a User-Agent, in characters. */
const MAX_USER_AGENT_LENGTH = 512;

/** Maximum length of an Origin, in characters: a scheme, a host name of at most 253 (RFC 1035 §2.3.4), and a port. */
const MAX_ORIGIN_LENGTH = 512;

/** Stored length of a value from the `clientIp` option that is not an address, in characters. */
const MAX_ADDRESS_LENGTH = 128;

const CALLED =
  'Cannot upgrade: pass the handler without calling it, app.get("/websocket", controller.upgrade), or call it with Hono\'s context';

/** Results of reading headers. Each caches the latest, because most requests have the same headers. */
interface HeaderCaches {
  urlOf(url: string): string;
  originOf(header: string): string;
  userAgentOf(header: string): string;
  isAllowed(origin: string, hostname: string): boolean;
}

/** Creates the upgrade route: it turns an HTTP request into an open connection or a refusal. */
export function createUpgrade(host: UpgradeHost): UpgradeHandler {
  const caches: HeaderCaches = {
    urlOf: latestCopy(),
    originOf: latestCopy(),
    userAgentOf: latestCopy(),
    isAllowed: allowedOrigins(host.options.origins),
  };
  // The output type "ws" has no value: no client reads the response of a WebSocket route.
  const handler: UpgradeHandler = (c) => {
    // Thrown where it is called, so that the stack names the application's line.
    if (!c?.req) throw new TypeError(CALLED);
    // A promise, as the type says, unless only Hono reads it.
    if (isAlone(c)) return upgrade(host, c, caches, true) as never;
    return new Promise((resolve) => resolve(upgrade(host, c, caches, false))) as never;
  };
  const { controller } = host;
  return Object.assign(handler, { [ROUTE]: true, [START]: () => controller.start(), [CONTROLLER]: controller });
}

/**
 * Whether the route alone handles the request, without middleware. Read from the request itself: `matchedRoutes` of `hono/route`
 * knows only the requests of its own copy of Hono.
 */
function isAlone({ req: { matchedRoutes } }: Context): boolean {
  return matchedRoutes.length === 1 && isRoute(matchedRoutes[0]!.handler);
}

/** A request that may be upgraded once its token is verified. */
interface PendingUpgrade {
  readonly c: Context;
  readonly server: Host | undefined;
  readonly runtime: Runtime;
  readonly handshake: Handshake;
  readonly slot: Slot;
  /** Number of the last revocation before the verification. */
  readonly since: number;
  /** Whether the context had a response before. */
  readonly wasAnswered: boolean;
  /** Whether nothing else reads or writes the response on the context. */
  readonly isAlone: boolean;
}

/** Returns a promise only if something has to be awaited. */
function upgrade(
  host: UpgradeHost,
  c: Context,
  caches: HeaderCaches,
  isAlone: boolean,
): Response | Promise<Response> {
  const { options } = host;
  const server = findHost(c.env, c.req.raw);
  const runtime = findRuntime(c, server); // First, because it tells the server that an upgrade route was reached.
  const ip = clientIp(host, runtime?.ip(c.req.raw) ?? null, c.req.raw.headers);
  const refuse = (refusal: Refusal) => answerRefusal(host, c, refusal, ip);
  const protocols = c.req.raw.headers.get("sec-websocket-protocol");
  const invalid = checkRequest(c.req.raw, protocols);
  if (invalid) return refuse(invalid);
  const target = readTarget(c.req.url);
  if (!target) return refuse(invalidRequest("The request target is not a URL"));
  server?.connections.reached?.(host.controller); // Absent in earlier versions. A draining server also drains this controller.
  const retryAfter = host.retryAfter();
  if (retryAfter !== undefined) return refuse(draining(retryAfter));
  if (!runtime) return refuse(noRuntime());

  const offered = splitList(protocols);
  const origin = c.req.header("origin");
  const userAgent = c.req.header("user-agent");
  // Copied before the upgrade: Deno throws if the headers are read after it.
  const handshake: Handshake = {
    mode: options.mode,
    url: caches.urlOf(target.url),
    origin: origin === undefined ? null : caches.originOf(origin.slice(0, MAX_ORIGIN_LENGTH)),
    ip,
    userAgent: userAgent === undefined ? null : caches.userAgentOf(userAgent.slice(0, MAX_USER_AGENT_LENGTH)),
    protocol: agreedProtocol(offered, options.protocols),
  };
  if (handshake.url.length > MAX_URL_LENGTH) return refuse(invalidRequest("The request target is too long"));
  if (origin !== undefined && origin.length > MAX_ORIGIN_LENGTH) return refuse(invalidRequest("Origin is too long"));
  if (handshake.origin !== null) {
    // The Host header, not the request target: a client chooses its target, a browser sets Host for its page.
    const hostname = c.req.header("host")?.toLowerCase() ?? new URL(target.url).host;
    if (!caches.isAllowed(handshake.origin, hostname)) return refuse(foreignOrigin(handshake.origin, hostname));
  }
  runtime.allowed?.();
  const token = host.authenticator.enabled ? readToken(c, target.tokens, offered, options.cookie) : null;
  // Any page can make a browser send the cookie. Without an origin the page is unknown.
  if (token?.source === "cookie" && handshake.origin === null && !options.allowCookieWithoutOrigin) {
    return refuse(COOKIE_WITHOUT_ORIGIN);
  }

  host.controller.start();
  // Reserved before anything is awaited, so that the limits hold for concurrent upgrades.
  const slot = host.admission.reserve(handshake.ip);
  if (typeof slot === "string") return refuse(reached(slot, options, handshake.ip));
  const since = host.revocations.number;
  const pending: PendingUpgrade = { c, server, runtime, handshake, slot, since, wasAnswered: c.finalized, isAlone };
  const fail = (error: unknown): never => {
    slot.release();
    throw error;
  };
  let identity: Verified | Promise<Verified>;
  try {
    const settled = runtime.settle?.();
    identity = settled ? settled.then(() => verify(host, pending, token)) : verify(host, pending, token);
  } catch (error) {
    return fail(error);
  }
  return isThenable(identity)
    ? identity.then((identity) => conclude(host, pending, identity), fail)
    : conclude(host, pending, identity);
}

/** Carries out the upgrade of a request whose token is verified, or refuses it. */
function conclude(host: UpgradeHost, pending: PendingUpgrade, identity: Verified): Response {
  const { c, runtime, handshake, slot } = pending;
  const { options } = host;
  const refuse = (refusal: Refusal) => answerRefusal(host, c, refusal, handshake.ip);
  let opening = false;
  try {
    // Something else, such as Hono's timeout(), has responded meanwhile: no socket may open after that.
    if (c.finalized && !pending.wasAnswered) return refuse(ANSWERED);
    if (identity && "status" in identity) return refuse(identity);
    if (identity && !slot.claim(identity.accountability.user)) return refuse(reached("user", options, handshake.ip));
    const retryAfter = host.retryAfter();
    if (retryAfter !== undefined) return refuse(draining(retryAfter));
    if (slot.released) return refuse(unavailable("It took too long"));
    const response = accept(host, pending, identity);
    // The client disconnected during authentication and does not read this response.
    if (response === null) return refuse(GONE);
    if (typeof response === "string") {
      return refuse({ ...noRuntime(), message: response, log: `Refused an upgrade: ${response}` });
    }
    opening = true;
    // The socket may open later or never, and not every runtime reports a client that disconnects: the timeout releases the slot.
    if (!slot.taken) host.deadlines.set(slot, options.timeout);
    if (pending.isAlone) return response;
    // Cleared first: otherwise Hono merges earlier headers into a new Response, which not every runtime allows to be a 101.
    c.res = undefined;
    c.res = response;
    runtime.pin?.(c, host.report);
    return response;
  } finally {
    if (!opening) slot.release();
  }
}

/** The identity, `null` if none is needed, or a refusal. */
type Verified = AuthenticationState | Refusal | null;

/** Authenticates the token: at once if the application does. */
function verify(host: UpgradeHost, pending: PendingUpgrade, token: PresentedToken | null): Verified | Promise<Verified> {
  const { handshake } = pending;
  if (token === null) return handshake.mode === "strict" ? noToken(host.options) : null;
  if ("fault" in token) return refusedToken(host, handshake, token.source, new Error(token.fault));
  const attempt = host.authenticator.attempt({ access_token: token.value, source: token.source }, handshake);
  return isThenable(attempt)
    ? attempt.then((attempt) => verdict(host, pending, token.source, attempt))
    : verdict(host, pending, token.source, attempt);
}

function verdict(host: UpgradeHost, { handshake, since }: PendingUpgrade, source: CredentialSource, attempt: Attempt): Verified {
  if (attempt.outcome === "accepted") {
    if (!host.revocations.includes("disconnected", attempt.state.accountability, since)) return attempt.state;
    return { status: 403, code: "FORBIDDEN", message: "Disconnected", reason: "disconnected" };
  }
  if (attempt.outcome === "limited") {
    return {
      ...tooMany("Too many failed attempts from this address", attempt.retryAfter, "REQUESTS_EXCEEDED"),
      reason: "failures",
      log: `Refused ${
        handshake.ip ?? "a client without an address"
      }: too many failed authentications from there. ${BEHIND_PROXY}`,
    };
  }
  if (attempt.outcome === "refused") return refusedToken(host, handshake, source, attempt.cause, attempt.error);
  host.report(attempt.error);
  return unavailable("Authentication is unavailable");
}

function accept(host: UpgradeHost, pending: PendingUpgrade, identity: AuthenticationState | null): Response | string | null {
  const { c, server, runtime, handshake, slot, since } = pending;
  const { maxPayload, heartbeat } = host.options;
  return runtime.accept(c.req.raw, {
    protocol: handshake.protocol,
    headers: pending.isAlone ? undefined : headersOf(c), // Reading them creates a Response.
    maxPayload,
    idleTimeout: heartbeat ? heartbeat.period + heartbeat.timeout : 0,
    open(transport) {
      slot.take();
      host.deadlines.delete(slot);
      // Some runtimes open the socket later, when rights may have been revoked.
      const connection = host.open(transport, handshake, identity, slot, since);
      server?.connections.add(connection, host.controller);
      return connection;
    },
    abandoned() {
      if (slot.taken) return;
      host.refusals.add("abandoned");
      host.deadlines.delete(slot);
      slot.release();
    },
  });
}

/** The client's address: the TCP peer, or the result of the `clientIp` option. */
function clientIp({ options: { clientIp }, report }: UpgradeHost, address: string | null, headers: Headers): string | null {
  const own = address === null ? null : normalizeAddress(address) ?? address;
  if (clientIp === 0) return own;
  if (typeof clientIp === "number") {
    // Counted from the right: each trusted proxy appends one entry, and a client can forge the ones further left.
    const entry = splitList(headers.get("x-forwarded-for")).at(-clientIp);
    const forwarded = entry === undefined ? null : normalizeAddress(entry);
    return forwarded === null ? own : copyOf(forwarded);
  }
  const ip = ask(() => clientIp({ address, headers }), (ip) => ip === null || typeof ip === "string", report);
  if (ip === undefined) return own;
  return ip === null ? null : copyOf(normalizeAddress(ip) ?? ip.slice(0, MAX_ADDRESS_LENGTH));
}

/** The first offered subprotocol that is supported, as the option's own string: a slice would retain the whole header. */
function agreedProtocol(offered: string[], protocols: readonly string[]): string | null {
  if (offered.length === 0) return null;
  const agreed = offered.find((name) => protocols.includes(name));
  return protocols.find((name) => name === agreed) ?? null;
}

function findRuntime(c: Context, server: Host | undefined): Runtime | null {
  const env: unknown = c.env;
  return server?.runtime ?? bunRuntime(env, c.req.raw) ?? denoRuntime(env, c.req.raw);
}

function refusedToken(
  host: UpgradeHost,
  { ip }: Handshake,
  source: CredentialSource,
  cause: unknown,
  error: WebSocketError = new WebSocketError("auth", "AUTH_FAILED", "The token is not valid"),
): Refusal {
  host.refusals.addFailure(error, cause, { what: `the token of ${PLACES[source]}`, ip, event: "noroshi.upgrade.refused" });
  return {
    status: 401,
    code: error.code,
    message: error.message,
    headers: { "www-authenticate": 'Bearer error="invalid_token"' }, // RFC 6750 §3.1
  };
}

const PLACES: Record<CredentialSource, string> = {
  message: "an auth message",
  protocol: "Sec-WebSocket-Protocol",
  header: "the Authorization header",
  query: "?access_token",
  cookie: "a cookie",
};

function answerRefusal({ refusals }: UpgradeHost, c: Context, refusal: Refusal, ip: string | null): Response {
  const { status, code, message, headers, reason, log, fields } = refusal;
  const describe = log === undefined ? undefined : () => [{ code, ...(ip !== null && { ip }), ...fields }, log] as const;
  if (reason) refusals.add(reason, describe);
  const response = c.json({ error: { code, message } }, status, headers);
  // Otherwise Bun would receive the body for as long as the client sends. Node and Deno end such a connection by themselves.
  if (isBun && hasBody(c.req.raw.headers)) response.headers.append("connection", "close");
  return response;
}

/** Headers of the handshake itself, which the runtime sets, and those that describe a body. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "content-type",
  "transfer-encoding",
  "upgrade",
]);

/** Headers that middleware has set so far, without those of the handshake. */
function headersOf(c: Context): Headers {
  const headers = new Headers();
  for (const [name, value] of c.res.headers) {
    if (!OWN_HEADERS.has(name) && !name.startsWith("sec-websocket-")) headers.append(name, value);
  }
  return headers;
}
