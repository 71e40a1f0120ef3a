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
