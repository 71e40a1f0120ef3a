/** The time as a client needs it. A test passes its own. */
export interface ClientClock {
  /** The wall clock, in ms since 1970: by its jumps a client sees that the machine has slept. */
  now(): number;
  /** A clock that is never set, in ms: what all waiting is measured with. */
  monotonic(): number;
  /** Calls back after so many ms. */
  setTimeout(callback: () => void, delay: number): unknown;
  /** Cancels the call whose handle `setTimeout` returned. */
  clearTimeout(handle: unknown): void;
}

/** The clock of the platform. */
export const systemClock: ClientClock = {
  now: () => Date.now(),
  // A platform without the one has a clock that may be set.
  monotonic: () => (globalThis.performance ?? Date).now(),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  // The handle is what setTimeout above returned, whose type differs between the runtimes.
  clearTimeout: (handle) => clearTimeout(handle as number | undefined),
};

/** What a client uses of a WebSocket: the part that browsers, runtimes, React Native and `ws` have in common. */
export interface WebSocketLike {
  /** 0 connecting, 1 open, 2 closing, 3 closed. */
  readonly readyState: number;
  /** Told once the connection is open. */
  onopen: ((event: never) => void) | null;
  /** Told of each frame, as `data`. */
  onmessage: ((event: never) => void) | null;
  /** Told once when the connection has ended, with `code`, `reason` and `wasClean`. */
  onclose: ((event: never) => void) | null;
  /** Told of a failure that `onclose` follows. */
  onerror: ((event: never) => void) | null;
  /** Sends a text frame. */
  send(data: string): void;
  /** Starts the closing handshake. */
  close(code?: number, reason?: string): void;
  /** Ends the connection without a handshake, where the platform can. */
  terminate?: () => void;
}

/** A constructor such as `globalThis.WebSocket` or that of `ws`. */
export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike;

type PageListener = (event: { readonly type: string; readonly persisted?: boolean }) => void;

/** Something that tells of `online`, `visibilitychange` and their like. React Native has neither; nor need it. */
interface Telling {
  addEventListener?: (event: string, listener: PageListener) => void;
  removeEventListener?: (event: string, listener: PageListener) => void;
  visibilityState?: string;
}

/**
 * Calls back when a page is seen again or the network has changed, and when a page is put into the back/forward cache, as far as the platform
 * says so. Returns how to stop that.
 */
export function onWake(wake: () => void, sleep: () => void): () => void {
  // The globals of browsers, which other platforms have in part.
  const page = globalThis as Telling & { document?: Telling };
  const { document } = page;
  const seen = () => {
    if (document?.visibilityState !== "hidden") wake();
  };
  // What is not persisted is unloaded: the browser closes its connections, with 1001.
  const turned: PageListener = ({ type, persisted }) => {
    if (persisted) (type === "pagehide" ? sleep : wake)();
  };
  const all = (method: "addEventListener" | "removeEventListener") => {
    page[method]?.("online", wake);
    // That may not hold for this connection: it is asked.
    page[method]?.("offline", wake);
    page[method]?.("pagehide", turned);
    page[method]?.("pageshow", turned);
    document?.[method]?.("visibilitychange", seen);
  };
  all("addEventListener");
  return () => all("removeEventListener");
}

/** The address with a scheme that every WebSocket takes; one without a host is of the page's own. */
export function resolveUrl(url: string | URL): string {
  const page = (globalThis as { location?: { href: string } }).location?.href;
  const whole = page && !/^\w+:/.test(String(url)) ? new URL(url, page).href : String(url);
  return whole.replace(/^http/, "ws");
}
