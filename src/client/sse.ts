/**
 * Lets the client use server-sent events and POST if WebSockets are blocked. The server needs `fallback()` of `noroshi/http`.
 *
 * @example
 * ```ts
 * import { createClient } from "noroshi/client";
 * import { withFallback } from "noroshi/client/sse";
 *
 * const client = createClient("wss://example.com/websocket", { WebSocket: withFallback() });
 * ```
 *
 * @module
 */
import { EventSocket, type Fetch } from "./event-socket.ts";
import type { WebSocketConstructor, WebSocketLike } from "./platform.ts";

export { EventSocket };
export type { Fetch };

/** Options of {@link withFallback}. */
export interface WithFallbackOptions {
  /** The WebSocket constructor, such as that of `ws` on Node 20. @default {globalThis.WebSocket} */
  WebSocket?: WebSocketConstructor;
  /** Opens streams and sends messages if WebSockets do not work. @default {globalThis.fetch} */
  fetch?: Fetch;
  /** Time limit for a WebSocket to open, in ms, after which the fallback is used, because some proxies never answer. @default {5_000} */
  openTimeout?: number;
  /**
   * Time in ms after which an open fallback checks whether a WebSocket works; `0` for never. It doubles after each failed check, up to an
   * hour. After a successful check, the next connection is a WebSocket.
   *
   * @default {60_000}
   */
  probeAfter?: number;
}

const OPEN_TIMEOUT = 5_000;

/** Maximum time between two checks, in ms. */
const MAX_RETRY = 3_600_000;

/** Close code of a client that will reconnect, so that it stays a member of its channels for the grace period. */
const WILL_RECONNECT = 4000;

/** Servers that need the fallback. `sessionStorage` keeps them when the page is reloaded. */
const KEY = "noroshi.fallback";
const remembered = new Set<string>();

const storage = () => (globalThis as { sessionStorage?: Storage }).sessionStorage;

/** Whether the last connection to the server was over the fallback. */
function isRemembered(origin: string): boolean {
  try {
    return remembered.has(origin) || storage()?.getItem(`${KEY} ${origin}`) === "1";
  } catch {
    return false; // The page has no access to its storage.
  }
}

function remember(origin: string, isFallback: boolean): void {
  try {
    if (isFallback) {
      remembered.add(origin);
      storage()?.setItem(`${KEY} ${origin}`, "1");
    } else {
      remembered.delete(origin);
      storage()?.removeItem(`${KEY} ${origin}`);
    }
  } catch {
    // Without storage, it is kept until the page is left.
  }
}

const OPTIONS: ReadonlySet<string> = new Set<keyof WithFallbackOptions>(["WebSocket", "fetch", "openTimeout", "probeAfter"]);

/**
 * Creates a constructor for the option `WebSocket`. Its sockets use a WebSocket if that works, else an {@link EventSocket}.
 *
 * @throws {TypeError} for an unknown option.
 */
export function withFallback(options: WithFallbackOptions = {}): WebSocketConstructor {
  const unknown = Object.keys(options).find((name) => !OPTIONS.has(name));
  if (unknown !== undefined) {
    throw new TypeError(`Cannot create the fallback: unknown option "${unknown}", use one of ${[...OPTIONS].join(", ")}`);
  }
  return class extends FallbackSocket {
    constructor(url: string, protocols?: string[]) {
      super(options, url, protocols);
    }
  };
}

class FallbackSocket implements WebSocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #options: WithFallbackOptions;
  readonly #request: [url: string, protocols?: string[]];
  readonly #origin: string;
  #inner: WebSocketLike | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The WebSocket that is tried beside the connection. */
  #probe: WebSocketLike | undefined;
  #hasReceived = false;
  /** Whether the client sends its token in a message. */
  #authenticates = false;
  /** The `error` event of a WebSocket that did not open. */
  #failure: { readonly message?: unknown } | undefined;

  constructor(options: WithFallbackOptions, ...request: [url: string, protocols?: string[]]) {
    this.#options = options;
    this.#request = request;
    this.#origin = new URL(request[0]).host;
    const WebSocket = this.#WebSocket;
    if (!WebSocket || isRemembered(this.#origin)) this.#fallBack();
    else this.#tryWebSocket(new WebSocket(...request));
  }

  get #WebSocket(): WebSocketConstructor | undefined {
    return this.#options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  }

  get readyState(): number {
    return this.#inner?.readyState ?? 0;
  }

  send(data: string): void {
    this.#authenticates ||= data.startsWith('{"type":"auth"');
    this.#inner?.send(data);
  }

  close(code?: number, reason?: string): void {
    this.#stopTrying();
    this.#inner?.close(code, reason);
  }

  terminate(): void {
    this.#stopTrying();
    if (this.#inner?.terminate) this.#inner.terminate();
    else this.#inner?.close(WILL_RECONNECT);
  }

  #tryWebSocket(socket: WebSocketLike): void {
    let isOpen = false;
    const giveUp = () => {
      socket.onopen = socket.onclose = null;
      socket.onerror = () => {}; // `ws` emits an error for a socket that is closed before it opens.
      socket.close();
      this.#fallBack();
    };
    this.#timer = setTimeout(giveUp, this.#options.openTimeout ?? OPEN_TIMEOUT);
    this.#attach(socket, {
      opened: () => {
        isOpen = true;
        clearTimeout(this.#timer);
      },
      failed: (event) => void (this.#failure = event),
      ended: () => {
        clearTimeout(this.#timer);
        if (!isOpen && !this.#hasStopped) {
          this.#fallBack();
          return false;
        }
        // A proxy has let the upgrade through, but no message after it.
        if (isOpen && !this.#hasReceived && !this.#hasStopped) remember(this.#origin, true);
        return true;
      },
    });
  }

  #fallBack(): void {
    const socket = new EventSocket(...this.#request, this.#options.fetch);
    let isOpen = false;
    this.#attach(socket, {
      opened: () => {
        isOpen = true;
        remember(this.#origin, true);
        this.#probeLater(this.#options.probeAfter ?? 60_000);
      },
      failed: (event) => this.onerror?.((this.#failure?.message ? this.#failure : event) as never), // The client reads only `message`.
      ended: () => {
        this.#stopTrying();
        if (!isOpen) remember(this.#origin, false);
        return true;
      },
    });
  }

  #hasStopped = false;

  /** Called when the client has closed the connection, or when it has ended, so that nothing else is tried. */
  #stopTrying(): void {
    this.#hasStopped = true;
    clearTimeout(this.#timer);
    this.#probe?.close();
  }

  /** @param own handles each event first. Its `ended` returns whether to notify the client of the close. */
  #attach(socket: WebSocketLike, own: { opened(): void; failed(event: object): void; ended(): boolean }): void {
    this.#inner = socket;
    socket.onopen = (event) => {
      own.opened();
      this.onopen?.(event);
    };
    socket.onmessage = (event) => {
      this.#hasReceived = true;
      this.onmessage?.(event);
    };
    socket.onerror = (event) => own.failed(event);
    socket.onclose = (event) => {
      if (own.ended()) this.onclose?.(event);
    };
  }

  #probeLater(delay: number): void {
    const WebSocket = this.#WebSocket;
    if (!delay || !WebSocket) return;
    this.#timer = setTimeout(() => {
      const socket = this.#probe = new WebSocket(...this.#request);
      let works = false;
      const succeed = () => {
        works = true;
        remember(this.#origin, false);
        socket.close(WILL_RECONNECT, "It works");
      };
      // The answer to a ping shows that messages pass. Not if the client authenticates with a message, which has to be the first.
      socket.onopen = () => this.#authenticates ? succeed() : socket.send('{"type":"ping"}');
      socket.onmessage = succeed;
      socket.onerror = () => {};
      const unanswered = setTimeout(() => socket.close(), this.#options.openTimeout ?? OPEN_TIMEOUT);
      socket.onclose = () => {
        clearTimeout(unanswered);
        this.#probe = undefined;
        if (!works && !this.#hasStopped) this.#probeLater(Math.min(2 * delay, MAX_RETRY));
      };
    }, delay);
  }
}
