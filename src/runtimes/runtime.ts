import type { Context } from "hono";
import type { Connection } from "../connection.ts";
import type { Connections } from "../connections.ts";
import type { Transport } from "../transport.ts";

/** An upgrade that was admitted, for a runtime to carry out. */
export interface Acceptance {
  /** The subprotocol to answer with; `null` for none. */
  readonly protocol: string | null;
  /** What middleware put on the response. */
  readonly headers: Headers;
  /** The largest message, in bytes, for the runtime to enforce where it can. */
  readonly maxPayload: number;
  /** Silence after which the runtime pings by itself and then gives up, in ms, where it can; 0 is never. */
  readonly idleTimeout: number;
  /** Starts the connection, once the socket can be written to. */
  open(transport: Transport): Connection;
  /** Gives its place back at once: the upgrade ended without a WebSocket. Does nothing after {@link open}. */
  abandoned(): void;
}

/** How one request is upgraded on the runtime it arrived on. */
export interface Runtime {
  /** The client's address, `null` where the runtime does not tell. */
  ip(request: Request): string | null;
  /** Waits until a reset that came right after the request is known, where the runtime needs to be given the time. */
  settle?(): Promise<void>;
  /**
   * The response to return for it; `null` when the client went away meanwhile; a text that says why this server cannot upgrade it, and
   * what to do.
   */
  accept(request: Request, acceptance: Acceptance): Response | string | null;
  /** Keeps the response that was accepted on the context, where the server must not be given another. */
  pin?(c: Context, report: (error: unknown) => void): void;
}

/**
 * Where a server that does its own upgrade (Node, a Durable Object, `noroshi/serve`) puts a {@link Host} into Hono's `c.env`.
 * Registered, so that two copies of the package in one process find each other.
 */
export const HOST: unique symbol = Symbol.for("noroshi.host") as never; // The cast names a unique symbol, which `for` cannot.

/**
 * On `controller.upgrade`, so that a server sees from its routes which paths are ours before anything runs. Registered, as {@link HOST} is.
 */
export const ROUTE: unique symbol = Symbol.for("noroshi.route") as never; // As above.

/** On `controller.upgrade`: starts what the controller needs of others. Called when a server listens. Registered, as {@link HOST} is. */
export const START: unique symbol = Symbol.for("noroshi.start") as never; // As above.

/** Whether it is `controller.upgrade`. Hono wraps the handlers of a sub-app with an error handler of its own. */
export function isRoute(handler: object): boolean {
  return unwrapped(handler) !== undefined;
}

/** A server listens: starts the controllers whose routes the app has. */
export function startRoutes(app: object): void {
  const { routes = [] } = app as { readonly routes?: readonly { readonly handler: object }[] }; // As Hono has them, and others may not.
  for (const start of new Set(routes.map(({ handler }) => unwrapped(handler)?.[START]))) start?.();
}

/** What `controller.upgrade` has. */
interface Route {
  readonly [ROUTE]?: true;
  readonly [START]?: () => void;
}

function unwrapped(handler: object): Route | undefined {
  const { [ROUTE]: isOurs, __COMPOSED_HANDLER: wrapped } = handler as Route & { __COMPOSED_HANDLER?: object }; // Either, or neither.
  return isOurs === true ? handler as Route : wrapped && unwrapped(wrapped); // As just seen.
}

/** The host of a request: in `c.env`, or on the response that `@hono/node-server` puts there. */
export function findHost(env: unknown): Host | undefined {
  const { [HOST]: host, outgoing } = (env ?? {}) as { [HOST]?: Host; outgoing?: { [HOST]?: Host } }; // Absent where it is something else.
  return host ?? outgoing?.[HOST];
}

/** What a server tells the upgrade route of one request. */
export interface Host {
  /** Absent: the runtime's own upgrade is used. */
  readonly runtime?: Runtime;
  /** Every open connection of this server, so that it can close them when it stops. */
  readonly connections: Connections;
  /** Has the server take messages of so many bytes, where it has one limit for all its sockets. */
  allowPayload?(bytes: number): void;
}
