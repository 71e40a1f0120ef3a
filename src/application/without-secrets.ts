/** Minimum length of a secret that is redacted within a text; a shorter one may be part of ordinary words. */
const MIN_REDACTED = 8;

/** Replaces a whole text that contains a short secret: redacting "a" in "Cannot" would reveal it. */
const HIDDEN = "Cannot authenticate: what was thrown may quote the credentials";

/** Maximum number of values in an error that are searched. One with more, such as a socket, is treated as if it had a secret. */
const MAX_VALUES = 1_000;

/** Maximum number of causes that are kept, one of the other. The log shows two. */
const MAX_CAUSES = 4;

/**
 * Redacts secrets in an error before listeners and the log see it: hono's JWT errors quote the token, and those of HTTP clients have the
 * request among their causes and fields. An error without a secret is returned as it is; of one with a secret only message, name, stack
 * and causes are left.
 *
 * @throws what a getter of the error throws.
 */
export function withoutSecrets(error: unknown, values: readonly string[]): unknown {
  // Longest first: if one secret contains another, replacing the shorter first would leave the rest readable.
  const secrets = values.filter((secret) => secret !== "").sort((a, b) => b.length - a.length);
  const redact = (text: string, hidden: string) =>
    secrets.some((secret) => secret.length < MIN_REDACTED && text.includes(secret))
      ? hidden
      : secrets.reduce((left, secret) => left.replaceAll(secret, "[redacted]"), text);
  const copy = (error: unknown, depth: number): unknown => {
    if (typeof error === "string") return redact(error, HIDDEN);
    if (!holds(error, secrets)) return error;
    if (!(error instanceof Error)) return new Error(HIDDEN);
    const { cause } = error;
    const isKept = cause instanceof Error ? depth < MAX_CAUSES : cause !== undefined && !holds(cause, secrets);
    const redacted = new Error(redact(error.message, HIDDEN), isKept ? { cause: copy(cause, depth + 1) } : {});
    redacted.name = redact(error.name, "Error");
    redacted.stack = redact(error.stack ?? "", `${redacted.name}: ${redacted.message}`);
    return redacted;
  };
  return copy(error, 0);
}

/** Whether a text that can be reached from the value contains a secret, or may do so. */
function holds(value: unknown, secrets: readonly string[]): boolean {
  // Iterated while it grows.
  const reached = new Set([value]);
  for (const each of reached) {
    if (reached.size > MAX_VALUES) return true;
    if (typeof each === "string" && secrets.some((secret) => each.includes(secret))) return true;
    if (typeof each !== "object" || each === null) continue;
    if (ArrayBuffer.isView(each)) return true; // Its bytes may be those of a request.
    if (each instanceof Error) { for (const part of [each.message, each.name, each.stack]) reached.add(part); }
    // Their content is in no property.
    else if (each instanceof Map || each instanceof Set || each instanceof Headers || each instanceof URLSearchParams) {
      for (const entry of each) reached.add(entry);
    } else if (each instanceof URL) reached.add(each.href);
    else if (each instanceof Request) reached.add(each.url).add(each.headers);
    for (const key of Reflect.ownKeys(each)) reached.add(key).add((each as Record<PropertyKey, unknown>)[key]);
  }
  return false;
}
