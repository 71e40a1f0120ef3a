/**
 * Of the 53 bits of an offset 40 count: 10,000 messages a second for three years. The others are a part of the message's hash, which
 * tells it from another one that has its sequence once the stream has gone back.
 */
const TAGS = 2 ** 13;

/** The last sequence of a stream that has an offset. */
export const MAX_SEQUENCE: number = 2 ** 40 - 1;

/** The place of a message: of no other message, whatever the stream has lost. */
export function offsetOf(sequence: number, text: string): number {
  return sequence * TAGS + tagOf(text);
}

export function sequenceOf(offset: number): number {
  return Math.floor(offset / TAGS);
}

/** What stands in a history beside envelopes. No envelope begins so: its first line is a signature or nothing. */
const MARK = "mark ";

export const isMark = (text: string): boolean => text.startsWith(MARK);

/** A mark that stands for an offset, or for its own. */
export const markOf = (offset = 0): string => `${MARK}${offset} ${crypto.randomUUID()}`;

/** The offset that a message stands for. */
export function standsFor({ sequence, text }: { readonly sequence: number; readonly text: string }): number {
  const named = isMark(text) ? Number(text.slice(MARK.length).split(" ", 1)[0]) : 0;
  // One of an older version names a sequence, which is less than any offset.
  return named >= TAGS && Number.isSafeInteger(named) ? named : offsetOf(sequence, text);
}

/** Of the signature, or of the header: no two envelopes have the same. */
function tagOf(text: string): number {
  const first = text.indexOf("\n");
  const end = first > 0 || isMark(text) ? first : text.indexOf("\n", 1);
  const length = Math.min(end < 0 ? text.length : end, 512);
  let hash = 0x811c9dc5; // FNV-1a.
  for (let place = 0; place < length; place++) hash = Math.imul(hash ^ text.charCodeAt(place), 0x01000193);
  return (hash ^ (hash >>> 13) ^ (hash >>> 26)) & (TAGS - 1);
}
