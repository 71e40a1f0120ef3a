import { copyOf } from "../base/latest.ts";

/**
 * Allowed `Origin` headers: exact origins, `https://*.example.com` for all subdomains, or the origin of an app with its own
 * scheme, such as `tauri://localhost`. `"*"` allows every origin.
 */
export type Origins = readonly string[] | "*";

/** A web origin, or a pattern with `*.` before the host. */
const WEB = /^(https?):\/\/(\*\.)?([a-z0-9.-]+|\[[0-9a-f:]+\])(?::(\d{1,5}))?$/;

/**
 * The origin of an app with its own scheme: `capacitor://localhost`, `chrome-extension://…`, `file://`. It is compared as text,
 * because `new URL` gives it an opaque origin.
 */
const APP =
  /^(?!(?:https?|wss?|ftp|blob|data|javascript|about):)[a-z][a-z0-9+.-]{1,31}:\/\/(?:[A-Za-z0-9._-]{1,255}(?::\d{1,5})?|(?<=^file:\/\/))$/;

/** Whether the value may be in the list: a scheme, a host and an optional port, and nothing else. */
export const isOriginPattern = (value: unknown): boolean =>
  typeof value === "string" && (APP.test(value) || (WEB.test(value) && URL.canParse(value.replace("*.", ""))));

/**
 * Whether a page of this origin may connect: its host is the request's own, or it is in the list. A browser lets any site open a
 * WebSocket to any other, and sends cookies with it.
 *
 * @param origin the `Origin` header.
 * @param host the request's host and port. The scheme is not compared: a proxy may have terminated TLS.
 */
export function isAllowedOrigin(origin: string, host: string, origins: Origins): boolean {
  if (origins === "*") return true;
  if (APP.test(origin)) return origins.includes(origin);
  // Only a serialized origin (RFC 6454 §6.2): browsers send no list, path or upper case, and `null` stands for no page.
  if (!URL.canParse(origin)) return false;
  const url = new URL(origin);
  if (url.origin !== origin) return false;
  return isSameHost(url, host) || origins.some((pattern) => matches(url, pattern));
}

/** {@link isAllowedOrigin} that remembers its latest answer: each one parses four URLs, and most clients come from one page. */
export function allowedOrigins(origins: Origins): (origin: string, host: string) => boolean {
  if (origins === "*") return () => true;
  let known: { readonly origin: string; readonly host: string; readonly list: Origins; readonly isAllowed: boolean } | undefined;
  // The application may change its list.
  const isListed = (list: Origins) => list.length === origins.length && origins.every((each, index) => each === list[index]);
  return (origin, host) => {
    if (known?.origin !== origin || known.host !== host || !isListed(known.list)) {
      const isAllowed = isAllowedOrigin(origin, host, origins);
      known = { origin: copyOf(origin), host: copyOf(host), list: [...origins], isAllowed };
    }
    return known.isAllowed;
  };
}

/** A host with an optional port, as in a Host header (RFC 9110 §7.2). `new URL` also accepts a user name before it. */
const HOST = /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/i;

/** Ignores the scheme's default port: browsers omit it, proxies such as nginx with `$host:$server_port` add it. */
function isSameHost(origin: URL, host: string): boolean {
  const requested = `${origin.protocol}//${host}`;
  return HOST.test(host) && URL.canParse(requested) && new URL(requested).host === origin.host;
}

/** A host name (RFC 1123 §2.1) with underscores. `new URL` also accepts a comma, which looks like a list. */
const HOST_NAME = /^[a-z0-9._-]+$/;

function matches(url: URL, pattern: string): boolean {
  if (APP.test(pattern)) return false;
  if (!pattern.includes("*")) return new URL(pattern).origin === url.origin;
  const parent = new URL(pattern.replace("*.", ""));
  const { protocol, port, hostname } = url;
  return protocol === parent.protocol && port === parent.port && hostname.endsWith(`.${parent.hostname}`) &&
    HOST_NAME.test(hostname);
}
