import type { Context, MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import type { AuthenticationState, Authenticator, CredentialSource } from "./authentication.ts";
import type { Deadlines } from "./clock.ts";
import type { Connection } from "./connection.ts";
import { WebSocketError } from "./errors.ts";
import { ask } from "./guard.ts";
import type { Admission, ReachedLimit, Slot } from "./limits.ts";
import type { ResolvedOptions } from "./options.ts";
import { isAllowedOrigin } from "./origin.ts";
import type { Revocations } from "./revocations.ts";
import { bunRuntime } from "./runtimes/bun.ts";
import { denoRuntime } from "./runtimes/deno.ts";
import { HOST, type Host, type Runtime } from "./runtimes/runtime.ts";
import type { Transport } from "./transport.ts";
import type { Handshake } from "./websocket-client.ts";

/** A Hono handler that `hono/client` knows as a WebSocket route (`$ws`). */
// deno-lint-ignore no-explicit-any -- Hono's own UpgradeWebSocket says `any`: a narrower Env refuses apps with bindings.
export type UpgradeHandler = MiddlewareHandler<any, string, { outputFormat: "ws" }>;

/** What the upgrade route needs of its controller. */
export interface UpgradeHost {
  readonly options: ResolvedOptions;
  readonly authenticator: Authenticator;
  /** No connection is taken any more. */
  readonly closed: boolean;
  readonly admission: Admission;
  readonly deadlines: Deadlines;
  open(transport: Transport, handshake: Handshake, identity: AuthenticationState | null, slot: Slot, since: number): Connection;
  readonly revocations: Revocations;
  report(error: unknown): void;
  /** Tells the operator that a limit is reached. */
  warn(limit: ReachedLimit): void;
  /** Tells the `auth.failure` listeners. */
  refused(error: WebSocketError): void;
}

/** A request that is not upgraded, and why. */
interface Refusal {
  status: 400 | 401 | 403 | 405 | 413 | 426 | 429 | 501 | 503;
  code: string;
  message: string;
  headers?: Record<string, string>;
}

/** Tokens beyond this many characters are refused unread: no proxy lets such a header pass. */
const MAX_TOKEN_LENGTH = 8192;

/** Characters of a URL, its token not counted. It is kept with the connection, in a Durable Object within 16 KiB. */
const MAX_URL_LENGTH = 2048;

/** Characters of a User-Agent that are kept. */
const MAX_USER_AGENT_LENGTH = 512;

/** A token and some names beside it. */
const MAX_PROTOCOLS_LENGTH = MAX_TOKEN_LENGTH + 1024;

/** The route: from an HTTP request to an open connection, or to an answer that says why not. */
export function createUpgrade(host: UpgradeHost): UpgradeHandler {
  return async (c) => await upgrade(host, c) as never; // The type says "ws": what a WebSocket route returns nobody reads.
}

async function upgrade(host: UpgradeHost, c: Context): Promise<Response> {
  const { options } = host;
  const invalid = checkRequest(c.req.raw);
  if (invalid) return refuse(c, invalid);
  const url = parseUrl(c.req.url);
  if (!url) return refuse(c, { status: 400, code: "INVALID_REQUEST", message: "The request target is not a URL" });
  if (host.closed) return refuse(c, unavailable("The server is going away"));
  const runtime = findRuntime(c);
  if (!runtime) return refuse(c, NO_RUNTIME);

  const offered = splitList(c.req.header("sec-websocket-protocol"));
  // Everything is copied before the upgrade: Deno throws when the headers are read after it.
  const handshake: Handshake = {
    mode: options.mode,
    url: withoutToken(url),
    origin: c.req.header("origin") ?? null,
    ip: clientIp(host, runtime.ip(c.req.raw), c.req.raw.headers),
    userAgent: c.req.header("user-agent")?.slice(0, MAX_USER_AGENT_LENGTH) ?? null,
    protocol: offered.find((name) => options.protocols.includes(name)) ?? null,
  };
  if (handshake.url.length > MAX_URL_LENGTH) {
    return refuse(c, { status: 400, code: "INVALID_REQUEST", message: "The request target is too long" });
  }
  // The header and not the target: a client writes that as it likes, a browser writes this for its page.
  const hostname = c.req.header("host")?.toLowerCase() ?? url.host;
  if (handshake.origin !== null && !isAllowedOrigin(handshake.origin, hostname, options.origins)) {
    return refuse(c, { status: 403, code: "FORBIDDEN", message: "Pages of this origin may not connect" });
  }
  const token = host.authenticator.enabled ? readToken(c, url, offered, options.cookie) : null;
  // A page sends its origin, and only a page is given a cookie: without one, nothing says whose page it is.
  if (token !== null && token !== "invalid" && token.source === "cookie" && handshake.origin === null) {
    return refuse(c, { status: 403, code: "FORBIDDEN", message: "A cookie needs an Origin" });
  }

  // From here on it counts, before anything is awaited.
  const slot = host.admission.reserve(handshake.ip);
  if (typeof slot === "string") {
    host.warn(slot);
    return refuse(c, REACHED[slot]);
  }
  let opening = false;
  try {
    const since = host.revocations.number;
    const identity = await verify(host, handshake, token, since);
    if (identity && "status" in identity) return refuse(c, identity);
    if (identity && !slot.claim(identity.accountability.user)) return refuse(c, REACHED.user);
    if (slot.released || host.closed) return refuse(c, unavailable("It took too long"));
    const response = accept(host, c, runtime, handshake, identity, slot, since);
    // The client went away while its token was verified: nobody is there to read this.
    if (!response) return refuse(c, { status: 400, code: "INVALID_REQUEST", message: "The connection is gone" });
    opening = true;
    // The socket opens later, or never: a client that goes away now is not always told of. The place is kept for so long.
    if (!slot.taken) host.deadlines.set(slot, options.timeout);
    // Emptied first: Hono merges the headers of an earlier response by making a new one, which not every runtime lets be a 101.
    c.res = undefined;
    return c.res = response;
  } finally {
    if (!opening) slot.release();
  }
}

/** Who the token stands for, `null` where none is needed, or why it is refused. */
async function verify(
  host: UpgradeHost,
  handshake: Handshake,
  token: ReturnType<typeof readToken>,
  since: number,
): Promise<AuthenticationState | Refusal | null> {
  if (token === "invalid") return refusedToken(host);
  if (token === null) return handshake.mode === "strict" ? NO_TOKEN : null;
  const attempt = await host.authenticator.attempt({ access_token: token.value, source: token.source }, handshake);
  if (attempt.outcome === "accepted") {
    if (!host.revocations.includes("disconnected", attempt.state.accountability, since)) return attempt.state;
    return { status: 403, code: "FORBIDDEN", message: "Disconnected" };
  }
  if (attempt.outcome === "limited") {
    return tooMany("Too many failed attempts from this address", attempt.retryAfter, "REQUESTS_EXCEEDED");
  }
  if (attempt.outcome === "refused") return refusedToken(host);
  if (attempt.error instanceof WebSocketError) return refusedToken(host, attempt.error);
  host.report(attempt.error);
  return unavailable("Authentication is unavailable");
}

function accept(
  host: UpgradeHost,
  c: Context,
  runtime: Runtime,
  handshake: Handshake,
  identity: AuthenticationState | null,
  slot: Slot,
  since: number,
): Response | null {
  const { maxPayload, heartbeat } = host.options;
  const server = (c.env as { [HOST]?: Host } | undefined)?.[HOST];
  return runtime.accept(c.req.raw, {
    protocol: handshake.protocol,
    headers: headersOf(c),
    maxPayload,
    idleTimeout: heartbeat ? heartbeat.period : 0,
    open(transport) {
      slot.take();
      host.deadlines.delete(slot);
      // Not every runtime opens it at once: rights may have been taken since.
      const connection = host.open(transport, handshake, identity, slot, since);
      server?.connections.add(connection);
      return connection;
    },
    abandoned() {
      if (slot.taken) return;
      host.deadlines.delete(slot);
      slot.release();
    },
  });
}

/** The client's address: the other end of the TCP connection, or what the proxies in front say of it. */
function clientIp({ options: { clientIp }, report }: UpgradeHost, address: string | null, headers: Headers): string | null {
  if (clientIp === 0) return address;
  if (typeof clientIp === "number") {
    // Counted from the right: each proxy in front adds one entry, and what is further left is what the client says of itself.
    return splitList(headers.get("x-forwarded-for")).at(-clientIp) ?? address;
  }
  const ip = ask(() => clientIp({ address, headers }), (ip) => ip === null || typeof ip === "string", report);
  return ip === undefined ? address : ip;
}

/** RFC 6455 §4.2.1: what the request of an opening handshake must have. */
function checkRequest({ method, headers }: Request): Refusal | null {
  if (!splitList(headers.get("upgrade")).some((name) => name.toLowerCase() === "websocket")) {
    return {
      status: 426,
      code: "INVALID_REQUEST",
      message: "This is a WebSocket route",
      headers: { upgrade: "websocket", connection: "Upgrade" },
    };
  }
  // A body would be read as frames, or by a proxy as the next request.
  if (Number(headers.get("content-length") ?? 0) !== 0 || headers.has("transfer-encoding")) {
    return { status: 413, code: "INVALID_REQUEST", message: "A WebSocket handshake has no body" };
  }
  if ((headers.get("sec-websocket-protocol")?.length ?? 0) > MAX_PROTOCOLS_LENGTH) {
    return { status: 400, code: "INVALID_REQUEST", message: "Sec-WebSocket-Protocol is too long" };
  }
  if (method !== "GET") {
    return { status: 405, code: "INVALID_REQUEST", message: "A WebSocket handshake is a GET", headers: { allow: "GET" } };
  }
  if (!splitList(headers.get("connection")).some((name) => name.toLowerCase() === "upgrade")) {
    return { status: 400, code: "INVALID_REQUEST", message: "The Connection header must name Upgrade" };
  }
  if (headers.get("sec-websocket-version") !== "13") {
    return {
      status: 426,
      code: "INVALID_REQUEST",
      message: "Only version 13 of the protocol is spoken",
      headers: { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13" }, // RFC 6455 §4.2.2
    };
  }
  // 16 bytes in base64.
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers.get("sec-websocket-key") ?? "")) {
    return { status: 400, code: "INVALID_REQUEST", message: "Sec-WebSocket-Key must be 16 bytes in base64" };
  }
  return null;
}

const NO_TOKEN: Refusal = {
  status: 401,
  code: "AUTH_FAILED",
  message: "A token is required",
  headers: { "www-authenticate": "Bearer" }, // No error attribute: nothing was shown (RFC 6750 §3).
};

const NO_RUNTIME: Refusal = {
  status: 501,
  code: "SERVICE_UNAVAILABLE",
  message: "No way to upgrade here: use noroshi/serve, pass Bun's server, attach to the Node server, or run in a Durable Object",
};

function tooMany(message: string, retryAfter = 5_000, code = "LIMIT_EXCEEDED"): Refusal {
  return { status: 429, code, message, headers: { "retry-after": String(Math.ceil(retryAfter / 1000)) } };
}

function unavailable(message: string): Refusal {
  return { status: 503, code: "SERVICE_UNAVAILABLE", message, headers: { "retry-after": "5" } };
}

const REACHED: Record<ReachedLimit | "user", Refusal> = {
  connections: unavailable("Too many connections"),
  pending: unavailable("Too many connections that have not authenticated"),
  ip: tooMany("Too many connections from this address"),
  user: tooMany("Too many connections of this user"),
};

function findRuntime(c: Context): Runtime | null {
  const env: unknown = c.env;
  const host = (env as { [HOST]?: Host } | undefined)?.[HOST];
  return host?.runtime ?? bunRuntime(env) ?? denoRuntime(env);
}

/**
 * The token shown at the upgrade: the first of subprotocol, Authorization, query and cookie that is there. An invalid one
 * never falls back to the next, nor to anonymous.
 */
function readToken(
  c: Context,
  url: URL,
  protocols: string[],
  cookie: string | undefined,
): { value: string; source: CredentialSource } | "invalid" | null {
  const checked = (value: string, source: CredentialSource) =>
    value === "" || value.length > MAX_TOKEN_LENGTH ? "invalid" : { value, source };

  const bearers = protocols.filter((name) => name.startsWith("bearer."));
  if (bearers.length > 0) return bearers.length > 1 ? "invalid" : checked(bearers[0]!.slice("bearer.".length), "protocol");

  const authorization = c.req.header("authorization");
  if (authorization !== undefined) {
    if (authorization.length > MAX_TOKEN_LENGTH + 7) return "invalid";
    const [scheme, value, ...more] = authorization.trim().split(/ +/);
    return scheme?.toLowerCase() !== "bearer" || value === undefined || more.length > 0 ? "invalid" : checked(value, "header");
  }

  const queried = url.searchParams.getAll("access_token");
  if (queried.length > 1) return "invalid";
  if (queried[0]) return checked(queried[0], "query");

  const kept = cookie === undefined ? undefined : getCookie(c, cookie);
  return kept === undefined || kept === "" ? null : checked(kept, "cookie");
}

function refusedToken(
  host: UpgradeHost,
  error: WebSocketError = new WebSocketError("auth", "AUTH_FAILED", "The token is not valid"),
): Refusal {
  host.refused(error);
  return {
    status: 401,
    code: error.code,
    message: error.message,
    headers: { "www-authenticate": 'Bearer error="invalid_token"' }, // RFC 6750 §3.1
  };
}

function refuse(c: Context, { status, code, message, headers }: Refusal): Response {
  return c.json({ error: { code, message } }, status, headers);
}

function parseUrl(target: string): URL | null {
  return URL.canParse(target) ? new URL(target) : null;
}

let latestUrl = "";

function withoutToken(url: URL): string {
  const copy = url.searchParams.has("access_token") ? new URL(url) : url;
  if (copy !== url) copy.searchParams.delete("access_token");
  // Most clients ask for the same: one string is kept for all in a row who do, where each would take 110 bytes.
  if (copy.href !== latestUrl) latestUrl = copy.href;
  return latestUrl;
}

function splitList(header: string | null | undefined): string[] {
  return header ? header.split(",").map((name) => name.trim()).filter((name) => name !== "") : [];
}

/** What middleware has put on the response so far; the upgrade's own headers stay the runtime's. */
function headersOf(c: Context): Headers {
  const headers = new Headers(c.res.headers);
  for (const name of ["connection", "content-length", "content-type", "transfer-encoding", "upgrade"]) headers.delete(name);
  for (const name of [...headers.keys()]) if (name.startsWith("sec-websocket-")) headers.delete(name);
  return headers;
}
