import type { Context } from "hono";
import { CloseCode } from "../protocol/close.ts";
import type { Acceptance, Runtime } from "./runtime.ts";
import { attach, type Feed } from "./standard.ts";

/** The part of the global `Deno` in use, so that this file compiles without Deno's types. */
interface DenoGlobal {
  upgradeWebSocket(request: Request, options: { idleTimeout: number }): { socket: WebSocket; response: Response };
}

/**
 * Deno's own upgrade; `null` on other runtimes, and for a request that the application created. `env` is the info that
 * `Deno.serve` passes with a request.
 */
export function denoRuntime(env: unknown, request: Request): Runtime | null {
  const { Deno } = globalThis as { Deno?: DenoGlobal };
  if (typeof Deno?.upgradeWebSocket !== "function") return null;
  const inner = innerOf(request);
  if (inner?.constructor === Object) return null; // A copy: Deno upgrades it to a socket that never opens.
  const { incoming, remoteAddr } = (env ?? {}) as { incoming?: unknown; remoteAddr?: { hostname?: string } };
  if (incoming !== undefined) return null; // A server of node:http, whose requests only `attachWebSocket` upgrades.
  return new DenoRuntime(Deno, remoteAddr?.hostname ?? null, request, inner);
}

/**
 * Turns of the event loop to wait, so that a reset right after a request is noticed. Of 500 requests with a reset, Deno upgraded
 * 500 without waiting, 120 after one turn and 1 after three.
 */
const TURNS = 3;

/** Shared by the upgrades that begin in this turn. */
let waiting: Promise<void> | undefined;

/** Captured when the module loads: with the fake timer of a test, this upgrade and all later ones would never go on. */
const { setImmediate: later = (callback: () => void) => setTimeout(callback, 0) } = globalThis as {
  setImmediate?: (callback: () => void) => unknown;
};

const nextTurn = () => new Promise<void>((resolve) => void later(resolve));

/** Waits for {@link TURNS} turns. Upgrades that begin in the same turn share one wait. */
async function afterTurns(): Promise<void> {
  await nextTurn();
  waiting = undefined;
  for (let turn = 1; turn < TURNS; turn++) await nextTurn();
}

/** The upgrade of one request. */
class DenoRuntime implements Runtime {
  readonly #deno: DenoGlobal;
  readonly #ip: string | null;
  /** Absent where {@link InnerRequest.onCancel} reports a reset. */
  readonly #signal: AbortSignal | undefined;
  #isReset = false;
  #feed: Feed | undefined;

  constructor(deno: DenoGlobal, ip: string | null, request: Request, inner: InnerRequest | undefined) {
    this.#deno = deno;
    this.#ip = ip;
    // At once, because Deno does not report earlier resets. `onCancel` is preferred: Deno aborts a signal at the end of each
    // request, and the two errors that it then creates are a fifth of the cost of an upgrade.
    if (typeof inner?.onCancel === "function") inner.onCancel(() => this.#isReset = true);
    else this.#signal = request.signal;
  }

  ip(): string | null {
    return this.#ip;
  }

  /** Upgrading after a reset leaks the file descriptor, and the socket emits no event (Deno 2.9.5). */
  settle(): Promise<void> {
    return waiting ??= afterTurns();
  }

  accept(request: Request, { protocol, headers, idleTimeout, open, abandoned }: Acceptance): Response | null {
    if (this.#isReset || this.#signal?.aborted) return null;
    const upgraded = this.#upgrade(request, idleTimeout);
    if (!upgraded) return null;
    const { socket, response } = upgraded;
    // Set by hand: the `protocol` option throws for a list without a space after the comma.
    if (protocol !== null) response.headers.set("sec-websocket-protocol", protocol);
    for (const [name, value] of headers ?? []) response.headers.append(name, value);
    this.#feed = attach(socket, { protocol, open, abandoned });
    return response;
  }

  #upgrade(request: Request, idleTimeout: number): ReturnType<DenoGlobal["upgradeWebSocket"]> | null {
    try {
      return this.#deno.upgradeWebSocket(request, { idleTimeout: Math.ceil(idleTimeout / 1000) });
    } catch {
      return null; // Already answered or upgraded. The handshake itself was checked before.
    }
  }

  /**
   * Drops a later response unless its status is 101: after an upgrade, any other status makes `Deno.serve` stop listening for
   * good. Reports the dropped response, and closes the client once it is connected.
   */
  pin(c: Context, report: (error: unknown) => void): void {
    const res = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(c), "res");
    Object.defineProperty(c, "res", {
      get: () => res?.get?.call(c),
      set: (response: Response | undefined) => {
        // Hono's documentation clears `c.res` before it sets another response.
        if (response === undefined) return;
        if (response.status === 101) return res?.set?.call(c, response);
        const problem =
          `Cannot answer ${response.status} after the upgrade, Deno.serve would stop listening: answer before next()`;
        report(new TypeError(problem, { cause: c.error }));
        this.#feed?.refuse(CloseCode.INTERNAL_ERROR, `Answered ${response.status}`);
      },
    });
  }
}

let innerRequest: symbol | undefined;

/** Deno's internal object of a Request: a class instance if the request came from a server, otherwise a plain object. */
interface InnerRequest {
  /** Calls back once the request has ended. Before its response, that means a reset by the client. */
  onCancel?(callback: () => void): void;
}

/**
 * Finds the internal object, which Deno stores under a symbol. `undefined` if a version of Deno has none: then copies of
 * requests, such as those of `app.request()` and `app.mount()`, cannot be recognized.
 */
function innerOf(request: Request): InnerRequest | undefined {
  innerRequest ??= Object.getOwnPropertySymbols(request).find(({ description }) => description === "request");
  return innerRequest && (request as unknown as Record<symbol, InnerRequest | undefined>)[innerRequest];
}
