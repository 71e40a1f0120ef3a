/** UTF-8: counts the bytes of texts, and decodes binary frames. */
const encoder = new TextEncoder();

/** Overwritten by each text that is counted, and never read. */
const scratch = new Uint8Array(48 * 1024);

/** Present on Node, Bun and Deno. */
const { Buffer } = globalThis as { Buffer?: { byteLength(text: string): number } };

/** Number of UTF-8 bytes of a text. */
export function byteLength(text: string): number {
  // Runs for each message. 128 ASCII characters take 30 to 80 ns here, 45 to 120 ns into `scratch`, 350 ns into new memory.
  if (Buffer) return Buffer.byteLength(text);
  return text.length * 3 <= scratch.byteLength ? encoder.encodeInto(text, scratch).written : encoder.encode(text).byteLength;
}

/** Whether the text has more than `limit` UTF-8 bytes. Counts them only if the text's length leaves it open. */
export function exceedsBytes(text: string, limit: number): boolean {
  if (text.length > limit) return true;
  if (text.length * 3 <= limit) return false;
  return byteLength(text) > limit;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of a binary frame; `null`: not UTF-8. */
export function textOf(data: ArrayBuffer | ArrayBufferView): string | null {
  try {
    return utf8.decode(data);
  } catch {
    return null; // The reply is `INVALID_PAYLOAD`, without details.
  }
}
