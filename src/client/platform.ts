import { withoutSecrets } from "./failure.ts";

/** Source of time, replaceable in tests. */
export interface ClientClock {
  /**
   * Wall clock, in ms since 1970. The client checks it twice a second, because a jump means that the machine has slept. Return `NaN` to
   * disable that.
   */
  now(): number;
  /** Monotonic clock, in ms. Used for all waiting. */
  monotonic(): number;
  /** Calls back after a delay in ms. */
  setTimeout(callback: () => void, delay: number): unknown;
  /** Cancels a timer by the handle from `setTimeout`. */
  clearTimeout(handle: unknown): void;
}

/** The platform's clock. */
export const systemClock: ClientClock = {
  now: () => Date.now(),
  // On a platform without `performance`, the wall clock, although it may be set.
  monotonic: () => (globalThis.performance ?? Date).now(),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  // The handle comes from `setTimeout` above; its type differs between runtimes.
  clearTimeout: (handle) => clearTimeout(handle as number | undefined),
};

/** Sets a timer, which replaces the last one. Without a callback, it only cancels the last one. */
export type Timer = (callback?: () => void, delay?: number) => void;

/** Creates a timer. */
export function createTimer(clock: ClientClock): Timer {
  let handle: unknown;
  return (callback, delay = 0) => {
    clock.clearTimeout(handle);
    handle = callback && clock.setTimeout(callback, delay);
  };
}

/** The part of `WebSocket` that the client uses. Browsers, server runtimes, React Native and `ws` have it. */
export interface WebSocketLike {
  /** 0 connecting, 1 open, 2 closing, 3 closed. */
  readonly readyState: number;
  /** Called when the connection is open. */
  onopen: ((event: never) => void) | null;
  /** Called for each frame, with `data`. */
  onmessage: ((event: never) => void) | null;
  /** Called once at the end, with `code`, `reason` and `wasClean`. */
  onclose: ((event: never) => void) | null;
  /** Called on a failure, before `onclose`. */
  onerror: ((event: never) => void) | null;
  /** Sends a text frame. */
  send(data: string): void;
  /** Starts the closing handshake. */
  close(code?: number, reason?: string): void;
  /** Drops the connection without a closing handshake, if the platform supports it. */
  terminate?: () => void;
}

/** A WebSocket constructor, such as `globalThis.WebSocket` or the class of `ws`. */
export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike;

type PageListener = (event: { readonly persisted?: boolean }) => unknown;

/** The part of `window` and `document` that is used. Other platforms have some of it, React Native none. */
interface PartialEventTarget {
  addEventListener?: (event: string, listener: PageListener) => void;
  removeEventListener?: (event: string, listener: PageListener) => void;
  visibilityState?: string;
}

/**
 * Calls `wake` when a page becomes visible, returns from the back/forward cache or sees the network change, and `sleep` when it
 * enters that cache. Returns a function that removes the listeners.
 */
export function onWake(wake: () => void, sleep: () => void): () => void {
  // Browser globals; other platforms have some of them.
  const page = globalThis as PartialEventTarget & { document?: PartialEventTarget };
  const { document } = page;
  const listeners: Record<string, PageListener> = {
    online: wake,
    // The connection may continue, so it is only checked.
    offline: wake,
    pageshow: ({ persisted }) => persisted && wake(),
    // If the page is not persisted, the browser unloads it and closes its connections with 1001.
    pagehide: ({ persisted }) => persisted && sleep(),
  };
  const shown = () => document?.visibilityState !== "hidden" && wake();
  const toggle = (method: "addEventListener" | "removeEventListener") => {
    for (const [event, listener] of Object.entries(listeners)) page[method]?.(event, listener);
    document?.[method]?.("visibilitychange", shown);
  };
  toggle("addEventListener");
  return () => toggle("removeEventListener");
}

/**
 * Resolves a relative URL against the page, and replaces `http` by `ws`, which every WebSocket accepts.
 *
 * @param isLazy whether the client may never connect, as on a server that renders the page.
 * @throws {TypeError} for a URL without a scheme: a host and a port, or any relative URL if there is no page.
 */
export function resolveUrl(url: string | URL, isLazy?: boolean): string {
  const text = String(url);
  const page = (globalThis as { location?: { href: string } }).location?.href;
  const isRelative = !/^\w+:/.test(text);
  if (/^([\w.-]+|\[.+\]):\d/.test(text) || isRelative && !page && !isLazy) {
    const host = text[0] === "/" ? "<host>" : "";
    throw new TypeError(`Cannot create the client: the URL has no scheme, write "ws://${host}${withoutSecrets(text)}"`);
  }
  const whole = page && isRelative ? new URL(text, page).href : text;
  return whole.replace(/^http/, "ws");
}
