/** Minimum length of a secret that is redacted within a text; a shorter one may be part of ordinary words. */
const MIN_REDACTED = 8;

/**
 * Maximum length of a secret that is redacted within a text. Of a longer one the first characters are searched, which bounds the
 * time.
 */
const [MAX_REDACTED, SEARCHED] = [4_096, 64];

/** Replaces a whole text that contains a short or long secret: redacting "a" in "Cannot" would reveal it. */
const HIDDEN = "Cannot authenticate: what was thrown may quote the credentials";

/** Maximum number of values in an error that are searched. One with more, such as a socket, is treated as if it had a secret. */
const MAX_VALUES = 1_000;

/** Maximum length of all texts of an error that are searched, in characters. One with more is treated as if it had a secret. */
const MAX_LENGTH = 100_000;

/** Times that a text is percent-decoded: an address may be a parameter of another one. */
const MAX_DECODED = 3;

/** Maximum length of the chain of causes that is kept. The log shows two. */
const MAX_CAUSES = 4;

/**
 * Redacts secrets in an error before listeners and the log see it: hono's JWT errors quote the token, and those of HTTP clients
 * have the request among their causes and fields, in an address or in base64. An error without a secret is returned as it is; of
 * one with a secret only message, name, stack and causes are left.
 *
 * @throws what a getter of the error throws.
 */
export function withoutSecrets(error: unknown, values: readonly string[]): unknown {
  // Longest first: if one secret contains another, replacing the shorter first would leave the rest readable.
  const formsOfAll = (all: string[]) => [...new Set(all.filter((secret) => secret !== "").flatMap(formsOf))];
  const isLong = (secret: string) => secret.length > MAX_REDACTED;
  const redactable = formsOfAll(values.filter((secret) => !isLong(secret))).sort((a, b) => b.length - a.length);
  const secrets = [...redactable, ...formsOfAll(values.filter(isLong).map((secret) => secret.slice(0, SEARCHED)))];
  const redact = (text: string, hidden: string) => {
    if (text.length > MAX_LENGTH || secrets.some((secret) => secret.length < MIN_REDACTED && text.includes(secret))) {
      return hidden;
    }
    const redacted = redactable.reduce((left, secret) => left.replaceAll(secret, "[redacted]"), text);
    return quotes(redacted, secrets) ? hidden : redacted; // A secret may be left in an unusual form, such as one with needless escapes.
  };
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

/** The forms that a secret takes in URLs, form data, JSON and base64, such as that of `Authorization: Basic`. */
function formsOf(secret: string): string[] {
  const bytes = new TextEncoder().encode(secret);
  const text = new TextDecoder().decode(bytes); // Without lone surrogates, which cannot be encoded.
  const forms = [secret, decoded(secret), JSON.stringify(secret).slice(1, -1)];
  for (const escaped of [encodeURIComponent(text), encodeURI(text), `${new URLSearchParams([["", text]])}`.slice(1)]) {
    forms.push(escaped, escaped.replace(/%../g, (escape) => escape.toLowerCase()));
  }
  if (secret.length < MIN_REDACTED) return forms;
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  for (let before = 0; before < 3; before++) {
    // The bytes around the secret change the characters at its edges.
    const first = Math.ceil(before * 4 / 3);
    const form = btoa(`${"-".repeat(before)}${binary}`).slice(first, Math.floor((before + bytes.length) * 4 / 3));
    forms.push(form, form.replaceAll("+", "-").replaceAll("/", "_"));
  }
  return forms;
}

/** Whether the text contains a secret, percent-encoded or not. */
function quotes(text: string, secrets: readonly string[]): boolean {
  for (let rounds = 0, before = "", left = text; left !== before && rounds <= MAX_DECODED; rounds++) {
    if (secrets.some((secret) => left.includes(secret))) return true;
    before = left;
    left = decoded(before);
  }
  return false;
}

/** The text with its percent-encoded characters decoded, as far as they can be. */
function decoded(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (escapes) => {
    try {
      return decodeURIComponent(escapes);
    } catch {
      return escapes; // No UTF-8.
    }
  });
}

/** Whether any text reachable from the value contains a secret, or may contain one. */
function holds(value: unknown, secrets: readonly string[]): boolean {
  let length = 0;
  // Grows while it is iterated.
  const reached = new Set([value]);
  for (const each of reached) {
    if (reached.size > MAX_VALUES) return true;
    if (typeof each === "string") {
      length += each.length;
      if (length > MAX_LENGTH || quotes(each, secrets)) return true;
    }
    if (typeof each !== "object" || each === null) continue;
    if (ArrayBuffer.isView(each)) return true; // Its bytes may be those of a request.
    if (each instanceof Error) { for (const part of [each.message, each.name, each.stack]) reached.add(part); }
    // Their contents are not properties.
    else if (each instanceof Map || each instanceof Set || each instanceof Headers || each instanceof URLSearchParams) {
      for (const entry of each) reached.add(entry);
    } else if (each instanceof URL) reached.add(each.href);
    else if (each instanceof Request) reached.add(each.url).add(each.headers);
    for (const key of Reflect.ownKeys(each)) reached.add(key).add((each as Record<PropertyKey, unknown>)[key]);
  }
  return false;
}
