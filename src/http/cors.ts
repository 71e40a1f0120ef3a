import type { Context } from "hono";

/**
 * Lets the page that sent the request read the response, and send cookies. Call it only if the upgrade route has allowed the
 * origin, or if the response does not depend on more than the request.
 */
export function allowOrigin(request: Request, headers: Headers): void {
  const origin = request.headers.get("origin");
  if (origin === null) return;
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-allow-credentials", "true");
  headers.set("access-control-expose-headers", "ETag, Retry-After");
  headers.append("vary", "Origin");
}

/** As {@link allowOrigin}, for a context. Reads its headers only if needed: that takes Node half as long as a small request. */
export function allowPage(c: Context): void {
  if (c.req.raw.headers.has("origin")) allowOrigin(c.req.raw, c.res.headers);
}

/** Whether the request is a CORS preflight. */
export const isPreflight = ({ method, headers }: Request): boolean =>
  method === "OPTIONS" && headers.has("access-control-request-method");

/** Answers a preflight. Any page may send the request; the request itself is refused if its origin is not allowed. */
export function preflight(c: Context, headers: string): Response {
  allowOrigin(c.req.raw, c.res.headers);
  return c.body(null, 204, {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": headers,
    "access-control-max-age": "7200",
  });
}
