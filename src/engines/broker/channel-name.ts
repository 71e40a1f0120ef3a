/**
 * Encodes a name for subjects and keys: letters, digits, `_`, `-` and `/` stay, every other byte becomes `=` and two hexadecimal
 * digits. So no character remains that has a meaning at a broker: `.`, `*`, `>`, `?`, `:`, space.
 */
export function encodeName(name: string): string {
  return name.replace(
    /[^A-Za-z0-9_/-]/gu,
    (character) => Array.from(utf8.encode(character), (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  );
}

/** Reverses {@link encodeName}; `null` for a word that it does not produce. */
export function decodeName(word: string): string | null {
  try {
    const name = decodeURIComponent(word.replaceAll("%", "%25").replaceAll("=", "%"));
    return encodeName(name) === word ? name : null;
  } catch {
    return null; // Input from the broker; the caller counts it as malformed.
  }
}

/** Maximum length of a word of {@link encodeAny}: a subject with two of them fits into the 4,096 bytes of a NATS line. */
const MAX_WORD = 768;

/** Like {@link encodeName}, for names of any length: a long name becomes `=<SHA-256>=`, which `encodeName` never returns. */
export async function encodeAny(name: string): Promise<string> {
  const word = encodeName(name);
  if (word.length <= MAX_WORD) return word;
  const hash = await crypto.subtle.digest("SHA-256", utf8.encode(name));
  return `=${Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("")}=`;
}

/** Checks the option `namespace`. @throws {TypeError} if it is not 1 to 32 letters, digits, `_` or `-`. */
export function checkNamespace(namespace: string): void {
  if (typeof namespace !== "string" || !/^[A-Za-z0-9_-]{1,32}$/.test(namespace)) {
    throw new TypeError('Cannot create the engine: namespace must be 1 to 32 letters, digits, "_" or "-", such as "shop"');
  }
}

const utf8 = new TextEncoder();
