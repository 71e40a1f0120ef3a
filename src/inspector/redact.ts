/** Names of fields whose values are not shown. */
const SECRET =
  /pass|secret|token|authorization|cookie|credential|api[-_]?key|private|session|jwt|bearer|signature|(?:^|[-_])auth(?:$|[-_])|otp|pin$/i;

/** Shown in place of a secret, and of values that are cut or too deep. */
const [HIDDEN, CUT] = ["•••", "…"];

const [MAX_TEXT, MAX_ITEMS, MAX_DEPTH, MAX_URL] = [200, 20, 6, 512];

/** The path of a URL and the names in its query, without the values: a parameter of any name may be a credential. */
export function redactUrl(url: string): string {
  const { pathname, searchParams } = new URL(url);
  const names = [...new Set(searchParams.keys())].slice(0, MAX_ITEMS).map((name) => `${encodeURIComponent(name)}=${HIDDEN}`);
  const shown = names.length > 0 ? `${pathname}?${names.join("&")}` : pathname;
  return shown.length > MAX_URL ? shown.slice(0, MAX_URL) + CUT : shown;
}

/** Copies JSON for display: cut, and without the values of fields that may be secret. */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === "string") return value.length > MAX_TEXT ? value.slice(0, MAX_TEXT) + CUT : value;
  if (typeof value !== "object" || value === null) return value;
  if (depth >= MAX_DEPTH) return CUT;
  if (Array.isArray(value)) {
    const items = value.slice(0, MAX_ITEMS).map((item) => redact(item, depth + 1));
    return value.length > MAX_ITEMS ? [...items, CUT] : items;
  }
  const fields = Object.entries(value);
  const shown = fields.slice(0, MAX_ITEMS).map(([name, field]) => [
    redact(name),
    SECRET.test(name) ? HIDDEN : redact(field, depth + 1),
  ]);
  return Object.fromEntries(fields.length > MAX_ITEMS ? [...shown, [CUT, fields.length - MAX_ITEMS]] : shown);
}
