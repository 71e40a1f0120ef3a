/**
 * Offsets have 53 bits: 40 for the sequence, enough for 10,000 messages a second over three years, and 13 of a hash of the message. The
 * hash distinguishes messages that got the same sequence because the stream was set back in between.
 */
const TAGS = 2 ** 13;

/** The largest sequence that fits into an offset. */
export const MAX_SEQUENCE: number = 2 ** 40 - 1;

/** The offset of a message. Another message has the same offset only if its sequence and 13 bits of its hash are equal. */
export function offsetOf(sequence: number, text: string): number {
  return sequence * TAGS + tagOf(text);
}

/** The least offset that a message with this sequence can have. For a message that is no longer stored, whose hash is unknown. */
export function leastOffsetOf(sequence: number): number {
  return sequence * TAGS;
}

/** The sequence in an offset. */
export function sequenceOf(offset: number): number {
  return Math.floor(offset / TAGS);
}

/** Prefix of marks. No envelope starts with it, because the first line of an envelope is a signature or empty. */
const MARK = "mark ";

/** Whether the text of a message is a mark. */
export const isMark = (text: string): boolean => text.startsWith(MARK);

/** Returns the text of a new mark. @param offset the offset that it stands for. @default its own */
export const markOf = (offset = 0): string => `${MARK}${offset} ${crypto.randomUUID()}`;

/** The offset that a message stands for: that in a mark, else its own. */
export function standsFor({ sequence, text }: { readonly sequence: number; readonly text: string }): number {
  const named = isMark(text) ? Number(text.slice(MARK.length).split(" ", 1)[0]) : 0;
  // A mark of an older version contains a sequence, which is lower than any offset.
  return named >= TAGS && Number.isSafeInteger(named) ? named : offsetOf(sequence, text);
}

/** 13-bit hash of a mark or a signature, or of the header if there is no signature: each is unique to its message. */
function tagOf(text: string): number {
  const first = text.indexOf("\n");
  const end = first > 0 || isMark(text) ? first : text.indexOf("\n", 1);
  const length = Math.min(end < 0 ? text.length : end, 512);
  let hash = 0x811c9dc5; // FNV-1a.
  for (let index = 0; index < length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return (hash ^ (hash >>> 13) ^ (hash >>> 26)) & (TAGS - 1);
}
