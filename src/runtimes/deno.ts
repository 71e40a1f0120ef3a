import type { Acceptance, Runtime } from "./runtime.ts";
import { attach } from "./standard.ts";

/** The part of the global `Deno` that is used, so that the file checks without Deno's types. */
interface DenoGlobal {
  upgradeWebSocket(request: Request, options: { idleTimeout: number }): { socket: WebSocket; response: Response };
}

/** Deno's own upgrade, or `null` on another runtime. `env` is what `Deno.serve` passes beside the request. */
export function denoRuntime(env: unknown): Runtime | null {
  const { Deno } = globalThis as { Deno?: DenoGlobal };
  if (typeof Deno?.upgradeWebSocket !== "function") return null;
  const { remoteAddr } = (env ?? {}) as { remoteAddr?: { hostname?: string } };
  return {
    ip: () => remoteAddr?.hostname ?? null,
    accept(request: Request, { protocol, headers, idleTimeout, open }: Acceptance): Response {
      const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: Math.ceil(idleTimeout / 1000) });
      // By hand: its option `protocol` throws for a list that was sent without a space after the comma.
      if (protocol !== null) response.headers.set("sec-websocket-protocol", protocol);
      for (const [name, value] of headers) response.headers.append(name, value);
      attach(socket, { protocol, open });
      return response;
    },
  };
}
