import type { Connections } from "../connection/connections.ts";

/** Any app with Hono's `fetch`. */
export interface ServableApp {
  /** Answers a request. */
  fetch(request: Request, env?: unknown): Response | Promise<Response>;
}

/** A listening server of any runtime. */
export interface Listening {
  port: number;
  /** Open WebSocket connections of this server. */
  connections: Connections;
  /** Ends idle connections, and each other one after its response. The server still accepts connections. */
  drain(): void;
  /**
   * Stops accepting, ends idle connections, and resolves when no request or socket is open. A request whose body has not come after
   * `bodyTimeout` ms is ended.
   */
  stop(bodyTimeout: number): Promise<void>;
  /** Ends open requests and sockets, as far as the runtime can. */
  kill(): void;
}
