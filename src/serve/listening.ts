import type { Connections } from "../connection/connections.ts";

/** Any app with Hono's `fetch`. */
export interface ServableApp {
  /** Answers a request. */
  fetch(request: Request, env?: unknown): Response | Promise<Response>;
}

/** A listening server on any runtime. */
export interface Listening {
  port: number;
  /** Open WebSocket connections of this server. */
  connections: Connections;
  /** Ends idle connections at once, and the others after their response. The server still accepts connections. */
  drain(): void;
  /**
   * Stops accepting, ends idle connections, and resolves when no request or socket is open. Ends requests whose body has not
   * arrived after `bodyTimeout` ms.
   */
  stop(bodyTimeout: number): Promise<void>;
  /** Ends open requests and sockets, as far as the runtime can. */
  kill(): void;
}
