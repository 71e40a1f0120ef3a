import type { Context } from "hono";
import { CloseCode } from "../close.ts";
import { afterTurn } from "../turn.ts";
import type { Acceptance, Runtime } from "./runtime.ts";
import { attach, type Feed } from "./standard.ts";

/** The part of the global `Deno` that is used, so that the file checks without Deno's types. */
interface DenoGlobal {
  upgradeWebSocket(request: Request, options: { idleTimeout: number }): { socket: WebSocket; response: Response };
}

/**
 * Deno's own upgrade, or `null` on another runtime, and for a request that the application has made. `env` is what `Deno.serve` passes beside
 * the request.
 */
export function denoRuntime(env: unknown, request: Request): Runtime | null {
  const { Deno } = globalThis as { Deno?: DenoGlobal };
  if (typeof Deno?.upgradeWebSocket !== "function" || isCopy(request)) return null;
  const { remoteAddr } = (env ?? {}) as { remoteAddr?: { hostname?: string } };
  return new DenoRuntime(Deno, remoteAddr?.hostname ?? null, request.signal);
}

/**
 * Turns of the event loop given to a reset that came right after its request. Of 500 such requests Deno upgraded 500 without, 120 after one
 * turn and 1 after three.
 */
const TURNS = 3;

/** The upgrade of one request. */
class DenoRuntime implements Runtime {
  readonly #deno: DenoGlobal;
  readonly #ip: string | null;
  /** Deno reports a reset only to a signal that was asked for before it. */
  readonly #signal: AbortSignal;
  #feed: Feed | undefined;

  constructor(deno: DenoGlobal, ip: string | null, signal: AbortSignal) {
    this.#deno = deno;
    this.#ip = ip;
    this.#signal = signal;
  }

  ip(): string | null {
    return this.#ip;
  }

  /** An upgrade whose client is gone keeps its descriptor for good, and no event ends it (Deno 2.9.5). */
  async settle(): Promise<void> {
    for (let turn = 0; turn < TURNS; turn++) await new Promise<void>(afterTurn);
  }

  accept(request: Request, { protocol, headers, idleTimeout, open, abandoned }: Acceptance): Response | null {
    if (this.#signal.aborted) return null;
    const upgraded = this.#upgrade(request, idleTimeout);
    if (!upgraded) return null;
    const { socket, response } = upgraded;
    // By hand: its option `protocol` throws for a list that was sent without a space after the comma.
    if (protocol !== null) response.headers.set("sec-websocket-protocol", protocol);
    for (const [name, value] of headers) response.headers.append(name, value);
    this.#feed = attach(socket, { protocol, open, abandoned });
    return response;
  }

  #upgrade(request: Request, idleTimeout: number): ReturnType<DenoGlobal["upgradeWebSocket"]> | null {
    try {
      return this.#deno.upgradeWebSocket(request, { idleTimeout: Math.ceil(idleTimeout / 1000) });
    } catch {
      return null; // The request was answered or upgraded meanwhile: its handshake was checked before.
    }
  }

  /**
   * Once Deno has upgraded a request, any answer but a 101 makes `Deno.serve` stop listening for good: one that comes later is reported and
   * not sent, and its client is closed as soon as it is connected.
   */
  pin(c: Context, report: (error: unknown) => void): void {
    const res = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(c), "res");
    Object.defineProperty(c, "res", {
      get: () => res?.get?.call(c),
      set: (response: Response | undefined) => {
        // Emptied, as Hono's documentation has it, before another is set.
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

/** Whether an application has made the request, as `app.request()` and `app.mount()` do: Deno upgrades it to a socket that never opens. */
function isCopy(request: Request): boolean {
  innerRequest ??= Object.getOwnPropertySymbols(request).find(({ description }) => description === "request");
  // What a server has made is of a class of Deno's own. Without that symbol nothing is known.
  const inner = innerRequest && (request as unknown as Record<symbol, object | undefined>)[innerRequest];
  return inner?.constructor === Object;
}
