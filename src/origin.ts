/** The `Origin` headers that are let in: exact origins, or `https://*.example.com` for every host below one; `"*"` is all. */
export type Origins = readonly string[] | "*";

const PATTERN = /^(https?):\/\/(\*\.)?([a-z0-9.-]+|\[[0-9a-f:]+\])(?::(\d{1,5}))?$/;

/** Whether it can stand in the list: a scheme, a host, perhaps a port, and nothing after it. */
export const isOriginPattern = (value: unknown): boolean =>
  typeof value === "string" && PATTERN.test(value) && URL.canParse(value.replace("*.", ""));

/**
 * Whether a page of this origin may connect. A browser lets any site open a WebSocket to any other and sends the cookies along, so a
 * page must come from the host it connects to, or from one that is listed.
 *
 * @param origin the header; absent for what is not a browser.
 * @param host the request's own host and port. The scheme is not compared with it: a proxy may have ended TLS.
 */
export function isAllowedOrigin(origin: string, host: string, origins: Origins): boolean {
  if (origins === "*") return true;
  // Serialised (RFC 6454 §6.2): `null`, a list, a path or upper case is not what a browser sends for a page with an origin.
  if (!URL.canParse(origin)) return false;
  const url = new URL(origin);
  if (url.origin !== origin) return false;
  return url.host === host || origins.some((pattern) => matches(url, pattern));
}

/** What a host's name is made of (RFC 1123 §2.1), and an underscore. `new URL` takes more, a comma among it, that looks like a list. */
const HOST_NAME = /^[a-z0-9._-]+$/;

function matches(url: URL, pattern: string): boolean {
  if (!pattern.includes("*")) return new URL(pattern).origin === url.origin;
  const parent = new URL(pattern.replace("*.", ""));
  const { protocol, port, hostname } = url;
  return protocol === parent.protocol && port === parent.port && hostname.endsWith(`.${parent.hostname}`) &&
    HOST_NAME.test(hostname);
}
