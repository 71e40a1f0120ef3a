/** One interface over the sockets of Bun, Deno and Node: how each upgrades a request, and writes to its socket. */
import type { Context } from "hono";
import type { Connection } from "../connection/connection.ts";
import type { Connections } from "../connection/connections.ts";
import type { Transport } from "../delivery/transport.ts";

/** An upgrade that the route has accepted, and the runtime carries out. */
export interface Acceptance {
  /** Subprotocol of the response; `null` for none. */
  readonly protocol: string | null;
  /** Response headers that middleware has set; `undefined` without middleware. */
  readonly headers: Headers | undefined;
  /** Maximum size of a message, in bytes. The runtime enforces it if it can. */
  readonly maxPayload: number;
  /** Silence after which a runtime that can pings by itself, and then closes, in ms; `0`: never. */
  readonly idleTimeout: number;
  /** Starts the connection. Called once the socket is writable. */
  open(transport: Transport): Connection;
  /** Releases the slot: the upgrade ended without a WebSocket. Does nothing after {@link open}. */
  abandoned(): void;
}

/** The upgrade of one request. */
export interface Runtime {
  /** The client's address; `null` if the runtime does not report it. */
  ip(request: Request): string | null;
  /** Called when the request's `Origin` is allowed or absent. Absent: the runtime does not need it. */
  allowed?(): void;
  /** Waits until a reset right after the request is detectable. Absent: the runtime detects it at once. */
  settle?(): Promise<void>;
  /**
   * Returns the response of the upgrade; `null` if the client has disconnected; a text with the reason and the remedy if this
   * server cannot upgrade.
   */
  accept(request: Request, acceptance: Acceptance): Response | string | null;
  /** Keeps later middleware from replacing the response of the upgrade. Absent: the server tolerates that. */
  pin?(c: Context, report: (error: unknown) => void): void;
}

/**
 * Key in Hono's `c.env` of the {@link Host} of a server with its own upgrade: Node, a Durable Object, `noroshi/serve`.
 * `Symbol.for`, so that all copies of the package share it.
 */
export const HOST: unique symbol = Symbol.for("noroshi.host") as never; // `Symbol.for` returns a plain symbol.

/** Marks `controller.upgrade`, so that a server finds upgrade routes without calling them. Shared as {@link HOST}. */
export const ROUTE: unique symbol = Symbol.for("noroshi.route") as never; // As above.

/** On `controller.upgrade`: a function that starts the engine, called when a server listens. Shared as {@link HOST}. */
export const START: unique symbol = Symbol.for("noroshi.start") as never; // As above.

/** On `controller.upgrade`: its controller. Shared as {@link HOST}. */
export const CONTROLLER: unique symbol = Symbol.for("noroshi.controller") as never; // As above.

/** Event of a `node:http` server: a socket has become a WebSocket, and its connection will end it. Shared as {@link HOST}. */
export const UPGRADED: unique symbol = Symbol.for("noroshi.upgraded") as never; // As above.

/** Whether the handler is `controller.upgrade`, possibly wrapped: Hono wraps handlers of a sub-app that has an error handler. */
export function isRoute(handler: object): boolean {
  return unwrapped(handler) !== undefined;
}

/** Starts the controllers whose routes the app has. Called when a server listens. */
export function startRoutes(app: object): void {
  const { routes = [] } = app as { readonly routes?: readonly { readonly handler: object }[] }; // Of Hono; other apps may have none.
  for (const start of new Set(routes.map(({ handler }) => unwrapped(handler)?.[START]))) start?.();
}

/** A route of an app whose handler is `controller.upgrade`. */
export interface Route<Controller = object> {
  readonly path: string;
  readonly controller: Controller;
}

/** The routes of the app whose handler is `controller.upgrade`. A handler that calls it is not recognized. */
export function routesOf(app: object): Route[] {
  const { routes = [] } = app as { readonly routes?: readonly { readonly path: string; readonly handler: object }[] }; // As above.
  return routes.flatMap(({ path, handler }) => {
    const controller = unwrapped(handler)?.[CONTROLLER];
    return controller ? [{ path, controller }] : [];
  });
}

/** Properties of `controller.upgrade`. */
interface MarkedHandler {
  readonly [ROUTE]?: true;
  readonly [START]?: () => void;
  readonly [CONTROLLER]?: object;
}

function unwrapped(handler: object): MarkedHandler | undefined {
  const { [ROUTE]: isOurs, __COMPOSED_HANDLER: wrapped } = handler as MarkedHandler & { __COMPOSED_HANDLER?: object }; // Either, or neither.
  return isOurs === true ? handler as MarkedHandler : wrapped && unwrapped(wrapped); // It has the mark.
}

/**
 * Header of a request that {@link presentRequest} returns. A header survives the copies that middleware makes, such as `mount()`.
 */
const PRESENTED = "noroshi-presented";

/** Hosts of presented requests, by the value of their header. Shared as {@link HOST}. */
const presented: Map<string, Host> = (globalThis as { [key: symbol]: Map<string, Host> | undefined }) // Only this module writes it.
  [Symbol.for("noroshi.presented")] ??= new Map();

/** A request with a host of its own. */
export interface Presented {
  readonly request: Request;
  /** Whether the argument is this request, or a copy of it. */
  has(request: Request): boolean;
  /** Ends the association: {@link findHost} no longer returns the host. */
  end(): void;
}

/** Associates a request with a host that can upgrade it, although no WebSocket server received the request. */
export function presentRequest(request: Request, host: Host): Presented {
  const key = crypto.randomUUID(); // A client must not guess it.
  presented.set(key, host);
  request.headers.set(PRESENTED, key);
  return {
    request,
    has: ({ headers }) => headers.get(PRESENTED) === key,
    end: () => void presented.delete(key),
  };
}

/**
 * Finds the host of a request: the one that {@link presentRequest} associated with it; else that of the response which
 * `@hono/node-server` passes as `c.env.outgoing`; else that in `c.env`.
 */
export function findHost(env: unknown, request?: Request): Host | undefined {
  const own = presented.size > 0 && request ? presented.get(request.headers.get(PRESENTED) ?? "") : undefined;
  if (own) return own;
  const { [HOST]: host, outgoing } = (env ?? {}) as { [HOST]?: Host; outgoing?: { [HOST]?: Host } }; // Both are optional.
  return outgoing?.[HOST] ?? host;
}

/** The server of a request, as the upgrade route sees it. */
export interface Host {
  /** The server's own upgrade. Absent: the upgrade of the runtime is used. */
  readonly runtime?: Runtime;
  /** Open connections of this server, which it closes when it stops. */
  readonly connections: Connections;
  /** Raises the maximum message size to this many bytes, on a server with one limit for all its sockets. */
  allowPayload?(bytes: number): void;
}
