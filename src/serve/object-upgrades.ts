import type { Acceptance, Runtime } from "../runtimes/runtime.ts";
import type { HibernatingSocket } from "./hibernating-transport.ts";

/** An accepted upgrade whose socket is not open yet. */
export interface Upgrade {
  readonly client: WebSocket;
  readonly server: HibernatingSocket;
  readonly acceptance: Acceptance;
}

/** The part of workerd's globals that this file uses. */
interface WorkerdGlobal {
  WebSocketPair: new () => [WebSocket, HibernatingSocket];
}

/**
 * The upgrades accepted during one request. The one whose socket the app's response carries becomes a connection; the others are
 * abandoned, because no runtime event ends them. A timeout, an error handler or middleware may answer instead of the route.
 */
export class Upgrades implements Runtime {
  readonly #accepted: Upgrade[] = [];
  #ended = false;

  ip(request: Request): string | null {
    return request.headers.get("cf-connecting-ip");
  }

  accept(request: Request, acceptance: Acceptance): Response | null {
    // workerd treats the socket of a client that has gone as open, and never reports it closed. The signal aborts only with the
    // compatibility flag `enable_request_signal`.
    if (this.#ended || request.signal.aborted) return null;
    const { protocol, headers = new Headers() } = acceptance;
    const { WebSocketPair } = globalThis as unknown as WorkerdGlobal; // Only workerd runs this.
    const [client, server] = Object.values(new WebSocketPair()) as [WebSocket, HibernatingSocket];
    this.#accepted.push({ client, server, acceptance });
    if (protocol !== null) headers.set("sec-websocket-protocol", protocol);
    return new Response(null, { status: 101, headers, webSocket: client } as ResponseInit); // An extension of workerd.
  }

  /** The upgrade whose socket the response carries. A copy of the response, which Hono may make, carries the same one. */
  carriedBy(response: Response): Upgrade | undefined {
    const { webSocket } = response as { webSocket?: WebSocket | null }; // An extension of workerd.
    return this.#accepted.find(({ client }) => client === webSocket);
  }

  /** Ends the request: later upgrades are refused, and those without a connection are abandoned. */
  end(): void {
    this.#ended = true;
    for (const { acceptance } of this.#accepted) acceptance.abandoned();
  }
}
