/** Passes a plain request to the upgrade route as a handshake, so that the same rules admit its client. */
import type { Context } from "hono";
import { Connections } from "../connection/connections.ts";
import { bunRuntime } from "../runtimes/bun.ts";
import { allowOrigin } from "./cors.ts";
import { type Acceptance, findHost, presentRequest } from "../runtimes/runtime.ts";

/**
 * Runs the route with the request as an opening handshake.
 *
 * @param accept returns the response of the accepted handshake; `null` if the client has disconnected.
 * @param route calls `controller.upgrade`.
 */
export async function presentUpgrade<Result>(
  c: Context,
  accept: (acceptance: Acceptance) => Response | null,
  route: () => Promise<Result>,
): Promise<Result> {
  const { env, req: { raw } } = c;
  const ip = addressOf(c);
  let isAllowed = false;
  // Associated with the request and not set in `env`, which may be the server itself.
  const presented = presentRequest(asUpgrade(raw), {
    connections: findHost(env)?.connections ?? new Connections(),
    runtime: {
      ip: () => ip,
      allowed: () => void (isAllowed = true),
      accept: (_request, acceptance) => raw.signal.aborted ? null : accept(acceptance),
    },
  });
  c.req.raw = presented.request;
  c.env = withAddresses(env, (request) => presented.has(request) ? raw : request);
  try {
    const result = await route();
    const { headers } = result instanceof Response ? result : c.res;
    // A page of an allowed origin may read why it was refused.
    if (isAllowed && !headers.has("access-control-allow-origin")) allowOrigin(raw, headers);
    return result;
  } finally {
    c.req.raw = raw;
    c.env = env;
    presented.end();
  }
}

/** Whether a list of subprotocols has a token, which must not be in a URL. */
export const hasToken = (protocols: string): boolean => /(?:^|,)\s*bearer\./.test(protocols);

/** The request as an opening handshake of RFC 6455. The parameter `protocols` replaces the header, which a page cannot set. */
function asUpgrade({ url, headers: given, signal }: Request): Request {
  const target = new URL(url);
  const headers = new Headers(given);
  const protocols = target.searchParams.get("protocols");
  if (protocols !== null) {
    target.searchParams.delete("protocols");
    if (!hasToken(protocols)) headers.set("sec-websocket-protocol", protocols);
  }
  headers.set("upgrade", "websocket");
  headers.set("connection", "Upgrade");
  headers.set("sec-websocket-version", "13");
  headers.set("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="); // Never used.
  for (const name of ["content-length", "transfer-encoding"]) headers.delete(name); // A handshake has no body.
  if (!headers.has("origin")) {
    const origin = originOf(target, headers);
    if (origin !== undefined) headers.set("origin", origin);
  }
  return new Request(target, { headers, signal });
}

/**
 * The origin of a request without `Origin`, from headers that no page can set: browsers send no `Origin` with a same-origin or
 * no-CORS GET. Returns `undefined` outside of a browser, and where there is neither `Sec-Fetch-Site` (absent over `http://`, and
 * in Safari before 16.4) nor `Referer`.
 */
function originOf(target: URL, headers: Headers): string | undefined {
  const site = headers.get("sec-fetch-site");
  if (site === "cross-site" || site === "same-site") return "null"; // An opaque origin, which is refused.
  if (site === "none") return undefined; // The user entered the address.
  const page = headers.get("referer") ?? "";
  if (URL.canParse(page)) return new URL(page).origin;
  // Behind a proxy that terminates TLS, only `Referer` has the page's scheme.
  return site === null ? undefined : `${target.protocol}//${headers.get("host") ?? target.host}`;
}

/** Where the servers of Node and Deno pass the address of the client. */
interface ServerEnv {
  readonly incoming?: { readonly socket?: { readonly remoteAddress?: string } };
  readonly remoteAddr?: { readonly hostname?: string };
}

function addressOf({ env, req: { raw } }: Context): string | null {
  const { incoming, remoteAddr } = (env ?? {}) as ServerEnv; // Of one runtime or another.
  const runtime = findHost(env)?.runtime ?? bunRuntime(env, raw);
  return runtime?.ip(raw) ?? incoming?.socket?.remoteAddress ?? remoteAddr?.hostname ?? null;
}

/** The part of Bun's server that is used. */
interface BunServer {
  requestIP(request: Request): unknown;
  timeout?(request: Request, seconds: number): void;
}

/**
 * On Bun, returns `env` with a server whose `requestIP` accepts the presented request, for `getConnInfo` of Hono: Bun's own
 * accepts only requests that Bun created. Elsewhere returns `env` itself, from which `getConnInfo` reads the address.
 */
function withAddresses(env: unknown, originalOf: (request: Request) => Request): unknown {
  if (!isBunServer(env) && !(typeof env === "object" && env !== null && "server" in env && isBunServer(env.server))) return env;
  const server = ("server" in env ? env.server : env) as BunServer; // Checked above.
  const proxy = new Proxy(server, {
    get(target, name) {
      if (name === "requestIP") return (request: Request) => target.requestIP(originalOf(request));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value; // Its methods need the server itself.
    },
  });
  return "server" in env ? { ...env, server: proxy } : proxy;
}

const isBunServer = (value: unknown): value is BunServer & object =>
  "Bun" in globalThis && typeof (value as Partial<BunServer> | null | undefined)?.requestIP === "function";

/** Turns off Bun's idle timeout of 10 s for a stream. The heartbeat detects dead clients. */
export function stayOpen(env: unknown, request: Request): void {
  if (!bunRuntime(env, request)) return;
  const { server = env as BunServer, request: original = request } = env as { server?: BunServer; request?: Request }; // As `bunRuntime` has found.
  server.timeout?.(original, 0);
}
