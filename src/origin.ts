/**
 * The `Origin` headers that are let in: exact origins, `https://*.example.com` for every host below one, or the origin of an app with a
 * scheme of its own, such as `tauri://localhost`; `"*"` is all.
 */
export type Origins = readonly string[] | "*";

/** An origin of the web, or a pattern of them. */
const WEB = /^(https?):\/\/(\*\.)?([a-z0-9.-]+|\[[0-9a-f:]+\])(?::(\d{1,5}))?$/;

/**
 * The origin of a page with another scheme: `capacitor://localhost`, `chrome-extension://…`, `file://`. Such an origin is opaque to
 * `new URL`, so it is compared as text.
 */
const APP =
  /^(?!(?:https?|wss?|ftp|blob|data|javascript|about):)[a-z][a-z0-9+.-]{1,31}:\/\/(?:[A-Za-z0-9._-]{1,255}(?::\d{1,5})?|(?<=^file:\/\/))$/;

/** Whether it can stand in the list: a scheme, a host, perhaps a port, and nothing after it. */
export const isOriginPattern = (value: unknown): boolean =>
  typeof value === "string" && (APP.test(value) || (WEB.test(value) && URL.canParse(value.replace("*.", ""))));

/**
 * Whether a page of this origin may connect. A browser lets any site open a WebSocket to any other and sends the cookies along, so a
 * page must come from the host it connects to, or from one that is listed.
 *
 * @param origin the header; absent for what is not a browser.
 * @param host the request's own host and port. The scheme is not compared with it: a proxy may have ended TLS.
 */
export function isAllowedOrigin(origin: string, host: string, origins: Origins): boolean {
  if (origins === "*") return true;
  if (APP.test(origin)) return origins.includes(origin);
  // Serialised (RFC 6454 §6.2): `null`, a list, a path or upper case is not what a browser sends for a page with an origin.
  if (!URL.canParse(origin)) return false;
  const url = new URL(origin);
  if (url.origin !== origin) return false;
  return isSameHost(url, host) || origins.some((pattern) => matches(url, pattern));
}

/** A host with perhaps a port, as the Host header has it (RFC 9110 §7.2). `new URL` takes more, such as a user's name before it. */
const HOST = /^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/i;

/** Proxies such as nginx with `$host:$server_port` name the scheme's own port, which a browser leaves out of an origin. */
function isSameHost(origin: URL, host: string): boolean {
  const asked = `${origin.protocol}//${host}`;
  return HOST.test(host) && URL.canParse(asked) && new URL(asked).host === origin.host;
}

/** What a host's name is made of (RFC 1123 §2.1), and an underscore. `new URL` takes more, a comma among it, that looks like a list. */
const HOST_NAME = /^[a-z0-9._-]+$/;

function matches(url: URL, pattern: string): boolean {
  if (APP.test(pattern)) return false;
  if (!pattern.includes("*")) return new URL(pattern).origin === url.origin;
  const parent = new URL(pattern.replace("*.", ""));
  const { protocol, port, hostname } = url;
  return protocol === parent.protocol && port === parent.port && hostname.endsWith(`.${parent.hostname}`) &&
    HOST_NAME.test(hostname);
}
