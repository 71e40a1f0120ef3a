/** Reads an upgrade request: checks the opening handshake and finds the token. */
import type { Context } from "hono";
import { getCookie } from "hono/cookie";
import type { CredentialSource } from "../application/authentication.ts";
import { latest } from "../base/latest.ts";
import { invalidRequest, type Refusal } from "./upgrade-refusal.ts";

/** The name of the query parameter with the token. */
const TOKEN = "access_token";

/** Start of a query pair with a token. */
const IS_TOKEN = `${TOKEN}=`;

/** A token that needs no decoding. It may have more characters than other values: those that a URL parser leaves as they are. */
const PLAIN_TOKEN = /^[\w.~:;@!$*,/=-]*$/;

/** A query without a token that needs no decoding. */
const PLAIN_QUERY = /^[\w.~-]+=[\w.~-]*(?:&[\w.~-]+=[\w.~-]*)*$/;

/** A URL without a query whose path needs no decoding. No segment begins with a dot: "." and ".." would be resolved. */
const PLAIN_URL = /^(https?:\/\/[^/?#]+)(?=\/)(?:\/[\w~!$&'()*,;=:@-][\w.~!$&'()*,;=:@-]*)*\/?$/;

/** The target of an upgrade request. */
export interface Target {
  /** The URL without its tokens. */
  readonly url: string;
  readonly tokens: readonly string[];
}

/**
 * Separates the tokens from the URL of a request; `null` if it is not a URL. A URL that needs no decoding, as most, is not
 * parsed: parsing a URL and its query takes Node as long as the rest of the upgrade route.
 */
export function readTarget(text: string): Target | null {
  const [url, query] = splitOnce(text, "?");
  if (!isPlain(url)) return parseTarget(text);
  if (url.length === text.length) return { url, tokens: [] };
  if (query.startsWith(IS_TOKEN)) {
    const token = query.slice(IS_TOKEN.length);
    if (PLAIN_TOKEN.test(token)) return { url, tokens: [token] };
  }
  const tokens: string[] = [];
  let rest = "";
  for (const pair of query.split("&")) {
    if (pair.startsWith(IS_TOKEN)) tokens.push(pair.slice(IS_TOKEN.length));
    else rest += `&${pair}`;
  }
  if (!tokens.every((token) => PLAIN_TOKEN.test(token)) || rest !== "" && !PLAIN_QUERY.test(rest.slice(1))) {
    return parseTarget(text);
  }
  return { url: rest === "" ? url : `${url}?${rest.slice(1)}`, tokens };
}

/** Whether a URL parser leaves the URL, without its query, unchanged. Most requests have the same URL as the one before. */
function isPlain(url: string): boolean {
  if (url === plainUrl) return true;
  const [, origin] = PLAIN_URL.exec(url) ?? [];
  if (origin === undefined || !isOrigin(origin)) return false;
  plainUrl = url;
  return true;
}

let plainUrl: string | undefined;

function parseTarget(text: string): Target | null {
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  const tokens = url.searchParams.getAll(TOKEN);
  if (tokens.length > 0) url.searchParams.delete(TOKEN);
  return { url: url.href, tokens };
}

/** Whether the text is an origin in the form that a URL parser writes. */
const isOrigin = latest((text) => URL.canParse(text) && new URL(text).origin === text);

function splitOnce(text: string, separator: string): [before: string, after: string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** Maximum length of a token, in characters. Longer ones are refused unread: no proxy passes such a header. */
const MAX_TOKEN_LENGTH = 8192;

/** Maximum length of Sec-WebSocket-Protocol, in characters: a token and a few names. */
const MAX_PROTOCOLS_LENGTH = MAX_TOKEN_LENGTH + 1024;

/** A list of tokens (RFC 9110 §5.6.2) without empty elements. ws refuses those too, but only after a slot is reserved. */
const PROTOCOLS = /^[!#$%&'*+\-.^_`|~\w]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~\w]+)*$/;

/** Checks the requirements of an opening handshake (RFC 6455 §4.2.1). @param protocols the header Sec-WebSocket-Protocol */
export function checkRequest(
  { method, headers }: Request,
  protocols: string | null = headers.get("sec-websocket-protocol"),
): Refusal | null {
  const upgrade = headers.get("upgrade")?.toLowerCase() ?? "";
  if (!includesToken(upgrade, "websocket")) {
    return {
      ...invalidRequest("This is a WebSocket route", 426, { upgrade: "websocket", connection: connectionOf(headers) }),
      log: "Refused a request without the header Upgrade: websocket. If a proxy is in front, let it pass Upgrade and Connection",
    };
  }
  if (upgrade !== "websocket") return invalidRequest("The Upgrade header must name websocket alone");
  // A body would be parsed as frames, or by a proxy as the next request.
  if (hasBody(headers)) {
    return invalidRequest("A WebSocket handshake has no body", 413);
  }
  if (method !== "GET") return invalidRequest("A WebSocket handshake is a GET", 405, { allow: "GET" });
  if (!includesToken(headers.get("connection"), "upgrade")) {
    return invalidRequest("The Connection header must name Upgrade");
  }
  if (headers.get("sec-websocket-version") !== "13") {
    return invalidRequest("Only version 13 of the protocol is supported", 426, {
      upgrade: "websocket",
      connection: connectionOf(headers),
      "sec-websocket-version": "13", // RFC 6455 §4.2.2
    });
  }
  // 16 bytes in base64.
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers.get("sec-websocket-key") ?? "")) {
    return invalidRequest("Sec-WebSocket-Key must be 16 bytes in base64");
  }
  return checkProtocols(protocols);
}

/** Whether a body follows the headers (RFC 9112 §6). Not `Request.body`, which a GET never has. */
export const hasBody = (headers: Headers): boolean =>
  Number(headers.get("content-length") ?? 0) !== 0 || headers.has("transfer-encoding");

/** A 426 must name Upgrade (RFC 9110 §7.8). It also repeats a requested close: otherwise Node keeps the connection open. */
const connectionOf = (headers: Headers): string =>
  includesToken(headers.get("connection"), "close") ? "Upgrade, close" : "Upgrade";

function checkProtocols(header: string | null): Refusal | null {
  if (header === null) return null;
  if (header.length > MAX_PROTOCOLS_LENGTH) return invalidRequest("Sec-WebSocket-Protocol is too long");
  const names = splitList(header);
  if (PROTOCOLS.test(header) && new Set(names).size === names.length) return null;
  return invalidRequest("Sec-WebSocket-Protocol must list different tokens");
}

/** A token, or the fault that makes it invalid. */
export type PresentedToken = { source: CredentialSource } & ({ value: string } | { fault: string });

/**
 * Finds the token of an upgrade: in the subprotocol, Authorization, query or cookie, in this order. An invalid token never falls
 * back to the next place or to anonymous.
 */
export function readToken(
  c: Context,
  queried: readonly string[],
  protocols: string[],
  cookie: string | undefined,
): PresentedToken | null {
  const checked = (value: string, source: CredentialSource): PresentedToken =>
    value === ""
      ? { source, fault: "It is empty" }
      : value.length > MAX_TOKEN_LENGTH
      ? { source, fault: `It has more than ${MAX_TOKEN_LENGTH} characters` }
      : { source, value };
  const several = (source: CredentialSource): PresentedToken => ({ source, fault: "There are several" });

  const bearers = protocols.length === 0 ? protocols : protocols.filter((name) => name.startsWith("bearer."));
  if (bearers.length > 1) return several("protocol");
  if (bearers.length > 0) return checked(bearers[0]!.slice("bearer.".length), "protocol");

  // Only Bearer (RFC 6750 §2.1): browsers repeat the Basic credentials of a site by themselves.
  const authorization = c.req.header("authorization");
  if (authorization !== undefined && /(?:^|,)\s*bearer(?:\s|,|$)/i.test(authorization)) {
    const [, value] = /^\s*bearer +([^\s,]+)\s*$/i.exec(authorization) ?? [];
    return value === undefined ? { source: "header", fault: "It is not Bearer and one token" } : checked(value, "header");
  }

  if (queried.length > 1) return several("query");
  if (queried[0]) return checked(queried[0], "query");

  if (cookie === undefined) return null;
  // If there are two, another host of the site may have set one, and controls which comes first (RFC 6265 §8.6).
  if (countCookies(c.req.header("cookie") ?? "", cookie) > 1) return several("cookie");
  const kept = getCookie(c, cookie);
  return kept === undefined || kept === "" ? null : checked(kept, "cookie");
}

function countCookies(header: string, name: string): number {
  return header.split(";").filter((pair) => pair.includes("=") && pair.slice(0, pair.indexOf("=")).trim() === name).length;
}

/** Whether the list has this token, in any case. It is usually the only one. */
function includesToken(header: string | null, token: string): boolean {
  const list = header?.toLowerCase();
  return list === token || splitList(list).includes(token);
}

export function splitList(header: string | null | undefined): string[] {
  return header ? header.split(",").map((name) => name.trim()).filter((name) => name !== "") : [];
}
