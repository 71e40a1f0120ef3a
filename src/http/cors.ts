import type { Context } from "hono";

/**
 * Lets a page read the answer, with the cookies that a WebSocket would carry: a page whose origin the upgrade route has allowed, or any page
 * if the answer depends only on its request.
 */
export function allowOrigin(request: Request, headers: Headers): void {
  const origin = request.headers.get("origin");
  if (origin === null) return;
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-allow-credentials", "true");
  headers.set("access-control-expose-headers", "ETag, Retry-After");
  headers.append("vary", "Origin");
}

/** As {@link allowOrigin}, for the answer of a context: to read its headers makes a response, at half the cost of a small request on Node. */
export function allowPage(c: Context): void {
  if (c.req.raw.headers.has("origin")) allowOrigin(c.req.raw, c.res.headers);
}

/** Whether a browser asks before a request of another origin. */
export const isPreflight = ({ method, headers }: Request): boolean =>
  method === "OPTIONS" && headers.has("access-control-request-method");

/** Answers a preflight: any page may send the request, which itself is refused if the origin may not connect. */
export function preflight(c: Context, headers: string): Response {
  allowOrigin(c.req.raw, c.res.headers);
  return c.body(null, 204, {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": headers,
    "access-control-max-age": "7200",
  });
}
