/** The sockets of Bun, Deno and Node behind one contract: how each upgrades a request, and writes to its socket. */
import type { Context } from "hono";
import type { Connection } from "../connection/connection.ts";
import type { Connections } from "../connection/connections.ts";
import type { Transport } from "../delivery/transport.ts";

/** An admitted upgrade, which the runtime carries out. */
export interface Acceptance {
  /** Subprotocol of the response; `null` for none. */
  readonly protocol: string | null;
  /** Response headers that middleware has set; `undefined` without middleware. */
  readonly headers: Headers | undefined;
  /** Maximum size of a message, in bytes. The runtime enforces it if it can. */
  readonly maxPayload: number;
  /** Silence after which the runtime pings on its own and then gives up, in ms, if it can; `0` is never. */
  readonly idleTimeout: number;
  /** Starts the connection. Called once the socket is writable. */
  open(transport: Transport): Connection;
  /** Releases the slot at once: the upgrade ended without a WebSocket. Does nothing after {@link open}. */
  abandoned(): void;
}

/** The upgrade of one request. */
export interface Runtime {
  /** The client's address; `null` if the runtime does not report it. */
  ip(request: Request): string | null;
  /** Called when the page's origin may connect, or there is none. Absent if the answer is the same. */
  allowed?(): void;
  /** Waits until a reset right after the request is detectable. Absent if the runtime needs no time for that. */
  settle?(): Promise<void>;
  /**
   * The response of the upgrade; `null` if the client has gone; a string with the reason and the remedy if this server cannot
   * upgrade.
   */
  accept(request: Request, acceptance: Acceptance): Response | string | null;
  /** Keeps the accepted response on the context. Absent if the server tolerates another one. */
  pin?(c: Context, report: (error: unknown) => void): void;
}

/**
 * Key in Hono's `c.env` where a server with its own upgrade (Node, a Durable Object, `noroshi/serve`) puts a {@link Host}.
 * Registered, so that all copies of the package share it.
 */
export const HOST: unique symbol = Symbol.for("noroshi.host") as never; // `Symbol.for` returns a plain symbol.

/** Marks `controller.upgrade`, so that a server finds our routes without running them. Registered, like {@link HOST}. */
export const ROUTE: unique symbol = Symbol.for("noroshi.route") as never; // As above.

/** On `controller.upgrade`: starts the engine that connects nodes, when a server listens. Registered, as {@link HOST} is. */
export const START: unique symbol = Symbol.for("noroshi.start") as never; // As above.

/** On `controller.upgrade`: its controller, for a test kit that is given an app. Registered, as {@link HOST} is. */
export const CONTROLLER: unique symbol = Symbol.for("noroshi.controller") as never; // As above.

/** Event of a `node:http` server: this socket is a WebSocket from now on, and its connection ends it. Registered, as {@link HOST} is. */
export const UPGRADED: unique symbol = Symbol.for("noroshi.upgraded") as never; // As above.

/** Whether it is `controller.upgrade`. Hono wraps the handlers of a sub-app with an error handler of its own. */
export function isRoute(handler: object): boolean {
  return unwrapped(handler) !== undefined;
}

/** A server listens: starts the controllers whose routes the app has. */
export function startRoutes(app: object): void {
  const { routes = [] } = app as { readonly routes?: readonly { readonly handler: object }[] }; // As Hono has them, and others may not.
  for (const start of new Set(routes.map(({ handler }) => unwrapped(handler)?.[START]))) start?.();
}

/** A route of an app that is `controller.upgrade` itself. */
export interface Route<Controller = object> {
  readonly path: string;
  readonly controller: Controller;
}

/** The routes of the app that are `controller.upgrade` itself: a handler that calls it cannot be recognized. */
export function routesOf(app: object): Route[] {
  const { routes = [] } = app as { readonly routes?: readonly { readonly path: string; readonly handler: object }[] }; // As above.
  return routes.flatMap(({ path, handler }) => {
    const controller = unwrapped(handler)?.[CONTROLLER];
    return controller ? [{ path, controller }] : [];
  });
}

/** What `controller.upgrade` has. */
interface MarkedHandler {
  readonly [ROUTE]?: true;
  readonly [START]?: () => void;
  readonly [CONTROLLER]?: object;
}

function unwrapped(handler: object): MarkedHandler | undefined {
  const { [ROUTE]: isOurs, __COMPOSED_HANDLER: wrapped } = handler as MarkedHandler & { __COMPOSED_HANDLER?: object }; // Either, or neither.
  return isOurs === true ? handler as MarkedHandler : wrapped && unwrapped(wrapped); // As just seen.
}

/** Header of a request that {@link presentRequest} returns. A header survives the copies that middleware makes, such as `mount()`. */
const PRESENTED = "noroshi-presented";

/** Hosts of presented requests, by the value of their header. Registered, like {@link HOST}. */
const presented: Map<string, Host> = (globalThis as { [key: symbol]: Map<string, Host> | undefined }) // Only this module writes it.
  [Symbol.for("noroshi.presented")] ??= new Map();

/** A request with a host of its own. */
export interface Presented {
  readonly request: Request;
  /** Whether it is the request, or a copy of it. */
  has(request: Request): boolean;
  /** The host is no longer found. */
  end(): void;
}

/** Presents a request as one that this host can upgrade. */
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
 * The host of a request: its own, if it is presented as an upgrade; of an upgrade from the response that `@hono/node-server` puts into
 * `c.env`; else from there.
 */
export function findHost(env: unknown, request?: Request): Host | undefined {
  const own = presented.size > 0 && request ? presented.get(request.headers.get(PRESENTED) ?? "") : undefined;
  if (own) return own;
  const { [HOST]: host, outgoing } = (env ?? {}) as { [HOST]?: Host; outgoing?: { [HOST]?: Host } }; // Both are optional.
  return outgoing?.[HOST] ?? host;
}

/** The server of a request, as the upgrade route sees it. */
export interface Host {
  /** The server's own upgrade. Absent: that of the runtime is used. */
  readonly runtime?: Runtime;
  /** Open connections of this server, which it closes when it stops. */
  readonly connections: Connections;
  /** Raises the maximum message size to this many bytes, on a server with one limit for all its sockets. */
  allowPayload?(bytes: number): void;
}
