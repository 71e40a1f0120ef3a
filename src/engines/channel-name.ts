/**
 * A name as one word of letters, digits, `_`, `-`, `/` and `=`: every other byte is `=` and two digits. No `.`, `*`, `>`, `?`, `:` or
 * space is left, with which it could mean other names than its own, on any broker.
 */
export function encodeName(name: string): string {
  return name.replace(
    /[^A-Za-z0-9_/-]/gu,
    (character) => Array.from(utf8.encode(character), (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  );
}

/** What {@link encodeName} has made a word of. `null` for a word that it makes of nothing. */
export function decodeName(word: string): string | null {
  try {
    const name = decodeURIComponent(word.replaceAll("%", "%25").replaceAll("=", "%"));
    return encodeName(name) === word ? name : null;
  } catch {
    return null; // A broker may say anything; who asks counts it.
  }
}

/** Bytes of a word of {@link encodeAny}: two of them, and what stands around them, fit into the 4,096 bytes of a line of NATS. */
const MAX_WORD = 768;

/** As {@link encodeName}, for names of any length: a long one becomes its SHA-256, which is the word of no name. */
export async function encodeAny(name: string): Promise<string> {
  const word = encodeName(name);
  if (word.length <= MAX_WORD) return word;
  const hash = await crypto.subtle.digest("SHA-256", utf8.encode(name));
  return `=${Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("")}=`;
}

/** @throws {TypeError} for a namespace that is no word. */
export function checkNamespace(namespace: string): void {
  if (typeof namespace !== "string" || !/^[A-Za-z0-9_-]{1,32}$/.test(namespace)) {
    throw new TypeError('Cannot create the engine: namespace must be 1 to 32 letters, digits, "_" or "-", such as "shop"');
  }
}

const utf8 = new TextEncoder();
