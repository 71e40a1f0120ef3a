import type { LogRecord } from "../application/log.ts";
import type { ReachedLimit } from "../base/limits.ts";
import type { ResolvedOptions } from "../application/options.ts";
import type { RefusalReason } from "../application/refusals.ts";

/** A refused upgrade: the response, and a log line for the operator. */
export interface Refusal {
  status: 400 | 401 | 403 | 405 | 413 | 426 | 429 | 501 | 503;
  code: string;
  message: string;
  headers?: Record<string, string>;
  /** Absent if the refusal is already counted. */
  reason?: RefusalReason;
  /** The message for the operator. Absent: nothing is logged. */
  log?: string;
  /** Fields of its record. */
  fields?: Pick<LogRecord, "origin" | "host" | "option" | "limit">;
}

export function invalidRequest(message: string, status: Refusal["status"] = 400, headers: Record<string, string> = {}): Refusal {
  return { status, code: "INVALID_REQUEST", message, headers, reason: "request", log: `Refused a request: ${message}` };
}

export const BEHIND_PROXY = "Behind a proxy, set clientIp";

export function foreignOrigin(origin: string, host: string): Refusal {
  return {
    status: 403,
    code: "FORBIDDEN",
    message: "Pages of this origin may not connect",
    reason: "origin",
    log: `Refused origin ${origin}: the request's host is "${host}". Add it to origins, or let the proxy pass Host`,
    fields: { origin, host },
  };
}

export const COOKIE_WITHOUT_ORIGIN: Refusal = {
  status: 403,
  code: "FORBIDDEN",
  message: "A cookie needs an Origin",
  reason: "origin",
  log:
    "Refused a cookie without an Origin header, which every page sends. Outside of a browser, send the token as Authorization: Bearer, or set allowCookieWithoutOrigin",
};

export function noToken({ cookie }: ResolvedOptions): Refusal {
  const places = ["Sec-WebSocket-Protocol: bearer.<token>", "Authorization: Bearer", "?access_token="];
  if (cookie !== undefined) places.push(`the cookie "${cookie}"`);
  return {
    status: 401,
    code: "AUTH_FAILED",
    message: "A token is required",
    headers: { "www-authenticate": "Bearer" }, // No error attribute: the request has no credentials (RFC 6750 §3).
    reason: "token",
    log: `Refused an upgrade without a token: mode "strict" needs one in ${places.join(" or ")}`,
  };
}

/** The refusal if nothing can carry out the upgrade. Its log line says what to write on this runtime. */
export function noRuntime(): Refusal {
  const { Bun, Deno, WebSocketPair } = globalThis as { Bun?: unknown; Deno?: unknown; WebSocketPair?: unknown };
  const runtime = Bun ? "bun" : Deno ? "deno" : WebSocketPair ? "worker" : "node";
  return {
    status: 501,
    code: "SERVICE_UNAVAILABLE",
    message:
      "No way to upgrade here: use noroshi/serve, pass Bun's server, attach to the Node server, or run in a Durable Object",
    reason: "runtime",
    log: `Refused an upgrade: ${SETUP[runtime]}`,
  };
}

const OR_SERVE = 'or start the app with serve() of "noroshi/serve"';

/** How an app runs on Cloudflare. */
export const WRITE_OBJECT: string = "Write export class Room extends createWebSocketObject(() => ({ app, controller })) {} and " +
  'export default forward((env) => env.ROOM.getByName("main")), both of "noroshi/cloudflare"';

const SETUP = {
  bun:
    `the app did not receive Bun's server. Write fetch: (request, server) => app.fetch(request, server), or fetch: app.fetch; ${OR_SERVE}`,
  deno:
    "the request is not one of Deno.serve. Write Deno.serve(app.fetch), or attachWebSocket(server, app) with attachWebSocket of " +
    `"noroshi/node" for a server of node:http; ${OR_SERVE}`,
  node: `the server is not attached. Write attachWebSocket(server, app) with attachWebSocket of "noroshi/node"; ${OR_SERVE}`,
  worker:
    `the app runs outside of a Durable Object, and a plain Worker cannot send to the sockets of other requests. ${WRITE_OBJECT}`,
};

export const ANSWERED: Refusal = {
  ...unavailable("Something else has answered"),
  reason: "abandoned",
  log: "Refused an upgrade: the app responded before authenticate had settled, as Hono's timeout() does",
};

export const GONE: Refusal = { status: 400, code: "INVALID_REQUEST", message: "The connection is gone", reason: "abandoned" };

export function tooMany(message: string, retryAfter: number = 5_000, code: string = "LIMIT_EXCEEDED"): Refusal {
  return { status: 429, code, message, headers: { "retry-after": String(Math.ceil(retryAfter / 1000)) } };
}

export function unavailable(message: string): Refusal {
  return {
    status: 503,
    code: "SERVICE_UNAVAILABLE",
    message,
    headers: { "retry-after": "5" },
    reason: "unavailable",
    log: `Refused an upgrade: ${message}`,
  };
}

/** The refusal while the controller drains or is closed. @param retryAfter in ms */
export function draining(retryAfter: number): Refusal {
  return {
    ...unavailable("The server is going away"),
    headers: { "retry-after": String(Math.max(1, Math.ceil(retryAfter / 1000))) },
    reason: "draining",
  };
}

/** The refusal for a reached limit. Its log line names the option. */
export function reached(limit: ReachedLimit | "user", options: ResolvedOptions, ip: string | null): Refusal {
  switch (limit) {
    case "connections":
      return {
        ...unavailable("Too many connections"),
        reason: "connections",
        log: `Refused an upgrade: maxConnections (${options.maxConnections}) is reached`,
        fields: { option: "maxConnections", limit: options.maxConnections },
      };
    case "pending":
      return {
        ...unavailable("Too many connections that have not authenticated"),
        reason: "pending",
        log: `Refused an upgrade: maxPending (${options.maxPending}) is reached`,
        fields: { option: "maxPending", limit: options.maxPending },
      };
    case "ip-pending":
      return {
        ...tooMany("Too many connections from this address that have not authenticated"),
        reason: "ip",
        log: `Refused ${ip}: maxPendingPerIp (${options.maxPendingPerIp}) is reached. ${BEHIND_PROXY}`,
        fields: { option: "maxPendingPerIp", limit: options.maxPendingPerIp },
      };
    case "ip":
      return {
        ...tooMany("Too many connections from this address"),
        reason: "ip",
        log: `Refused ${ip}: maxConnectionsPerIp (${options.maxConnectionsPerIp}) is reached. ${BEHIND_PROXY}`,
        fields: { option: "maxConnectionsPerIp", limit: options.maxConnectionsPerIp },
      };
    case "user":
      return {
        ...tooMany("Too many connections of this user"),
        reason: "user",
        log: `Refused an upgrade: a user has reached maxConnectionsPerUser (${options.maxConnectionsPerUser})`,
        fields: { option: "maxConnectionsPerUser", limit: options.maxConnectionsPerUser },
      };
  }
}
