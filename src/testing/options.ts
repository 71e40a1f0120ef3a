import type { ClientOptions } from "../client/client.ts";

/** Options of `testkit`. */
export interface TestkitOptions {
  /** Number of nodes, which a broker in memory connects. More than one need a function that builds the app. @default {1} */
  nodes?: number;
  /** Path of the WebSocket route. @default that of the only route whose handler is `controller.upgrade` itself */
  path?: string;
  /** The wall clock at the start, in ms since 1970. @default the time of the machine */
  now?: number;
  /** Seed of the random numbers. @default {1} */
  seed?: number;
  /** Whether nodes are Durable Objects, which `t.hibernate()` puts into hibernation. @default {false} */
  hibernates?: boolean;
  /**
   * Whether `setTimeout`, `setInterval`, `Date`, `performance.now`, `Math.random` and `crypto.randomUUID` are replaced until the kit is
   * closed, for handlers that use them. @default {false}
   */
  globals?: boolean;
  /** Bindings of the app, its `c.env`. @default none */
  env?: object;
}

/** How a client reaches the app. */
export interface TestConnectOptions {
  /** Path of the route, with a query if there is one. @default the option `path` of the kit */
  path?: string;
  /** Number of the node, from 0. @default the next running node in turn */
  node?: number;
  /** Headers of the upgrade request, such as `cookie` or `origin`. @default none */
  headers?: Record<string, string>;
  /** Address of the client. @default {"127.0.0.1"} */
  ip?: string;
}

/** Options of a client of `noroshi/client` and its connection. */
export interface TestClientOptions
  extends Omit<ClientOptions, "WebSocket" | "clock" | "random" | "streams">, TestConnectOptions {}

/** Options of a bare socket. */
export interface TestSocketOptions extends TestConnectOptions {
  /** Subprotocols to offer. @default none */
  protocols?: string[];
}

const NAMES = ["nodes", "path", "now", "seed", "hibernates", "globals", "env"];

/** @throws {TypeError} for an unknown option or an invalid number of nodes. */
export function checkOptions(options: TestkitOptions): void {
  const unknown = Object.keys(options).find((name) => !NAMES.includes(name));
  if (unknown !== undefined) throw new TypeError(`Cannot test: unknown option "${unknown}", use one of ${NAMES.join(", ")}`);
  const { nodes = 1 } = options;
  if (!(Number.isSafeInteger(nodes) && nodes > 0)) {
    throw new TypeError('Cannot test: option "nodes" must be a whole number from 1');
  }
}
