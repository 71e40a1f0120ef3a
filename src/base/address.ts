/** IP addresses for limits: normalizes an address, and returns one key for all addresses of a caller. */

const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$/;

/** Characters of a canonical IPv6 address. */
const IPV6 = /^[\da-f:]{2,39}$/;

/** The usual spelling of the prefix of an IPv4-mapped address. */
const MAPPED = "::ffff:";

/** An address with a port, as some proxies write in `X-Forwarded-For`: `203.0.113.7:1234`, `[2001:db8::1]:443`. */
const WITH_PORT = /^(?:\[([^\]]+)\]|([\d.]+))(?::\d{1,5})?$/;

/** IPv6 prefixes that embed an IPv4 address: IPv4-mapped (RFC 4291 §2.5.5.2) and NAT64 (RFC 6052 §2.1). */
const EMBEDDING_IPV4 = ["0:0:0:0:0:ffff:", "64:ff9b:0:0:0:0:"];

/** Normalizes an IP address (RFC 5952 for IPv6) and drops port, brackets and zone; `null` for any other text. */
export function normalizeAddress(text: string): string | null {
  // The forms in which runtimes report an IPv4 client, on a socket for IPv4 or for both versions.
  const short = text.startsWith(MAPPED) ? text.slice(MAPPED.length) : text;
  if (IPV4.test(short)) return short;
  const trimmed = text.trim();
  const [, bracketed, dotted] = WITH_PORT.exec(trimmed) ?? [];
  const address = bracketed ?? dotted ?? trimmed;
  if (IPV4.test(address)) return address;
  const [withoutZone = ""] = address.split("%"); // RFC 4007 §11: a zone is local to this machine.
  if (!/^[\da-f:.]{2,45}$/i.test(withoutZone)) return null;
  // Bun 1.4 cannot parse every address that ends in an IPv4 address (RFC 4291 §2.2).
  const host = `http://[${withoutZone.replace(/[\d.]+$/, (tail) => IPV4.test(tail) ? groupsOfIpv4(tail) : tail)}]`;
  if (!URL.canParse(host)) return null;
  const canonical = new URL(host).hostname.slice(1, -1);
  const groups = groupsOf(canonical);
  const start = `${groups.slice(0, 6).join(":")}:`;
  return EMBEDDING_IPV4.includes(start) ? ipv4Of(groups) : canonical;
}

/**
 * The key of a caller for limits: an IPv4 address, or the /64 network of an IPv6 address, which usually belongs to one caller.
 * Any other text, such as a name that the `clientIp` option returned, is its own key.
 */
export function addressKey(ip: string): string {
  if (!ip.includes(":") || !IPV6.test(ip)) return ip; // Fast path: called for each message of an anonymous client.
  const groups = groupsOf(ip);
  return groups.length === 8 ? `${groups.slice(0, 4).join(":")}::/64` : ip;
}

/** The eight groups of a canonical IPv6 address, without leading zeros. */
function groupsOf(canonical: string): string[] {
  const [head = "", tail] = canonical.split("::");
  const left = head === "" ? [] : head.split(":");
  if (tail === undefined) return left;
  const right = tail === "" ? [] : tail.split(":");
  return [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill("0"), ...right];
}

function groupsOfIpv4(address: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = address.split(".").map(Number);
  return [a * 256 + b, c * 256 + d].map((group) => group.toString(16)).join(":");
}

function ipv4Of(groups: string[]): string {
  const [high = 0, low = 0] = groups.slice(6).map((group) => parseInt(group, 16));
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}
