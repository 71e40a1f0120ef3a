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
 * The upgrades accepted during one request. The one whose socket is in the app's response becomes a connection. The others are
 * abandoned explicitly, because workerd emits no event for them: a timeout, error handler or middleware has answered in their
 * place.
 */
export class Upgrades implements Runtime {
  readonly #accepted: Upgrade[] = [];
  #ended = false;

  ip(request: Request): string | null {
    return request.headers.get("cf-connecting-ip");
  }

  accept(request: Request, acceptance: Acceptance): Response | null {
    // For workerd the socket of a disconnected client is open, and never closes. The signal is aborted only with the
    // compatibility flag `enable_request_signal`.
    if (this.#ended || request.signal.aborted) return null;
    const { protocol, headers = new Headers() } = acceptance;
    const { WebSocketPair } = globalThis as unknown as WorkerdGlobal; // Only workerd runs this.
    const [client, server] = Object.values(new WebSocketPair()) as [WebSocket, HibernatingSocket];
    this.#accepted.push({ client, server, acceptance });
    if (protocol !== null) headers.set("sec-websocket-protocol", protocol);
    return new Response(null, { status: 101, headers, webSocket: client } as ResponseInit); // An extension of workerd.
  }

  /** The upgrade whose socket is in the response. Hono may copy the response; the copy has the same socket. */
  carriedBy(response: Response): Upgrade | undefined {
    const { webSocket } = response as { webSocket?: WebSocket | null }; // An extension of workerd.
    return this.#accepted.find(({ client }) => client === webSocket);
  }

  /** Ends the request: refuses later upgrades, and abandons those without a connection. */
  end(): void {
    this.#ended = true;
    for (const { acceptance } of this.#accepted) acceptance.abandoned();
  }
}
