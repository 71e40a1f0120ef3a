/**
 * What an envelope may hold: a `publication` to a channel with a history, an `event` to one without, a `member` of a channel, and to all
 * nodes a `message`, an `order`, which is kept, or a `control` of engines.
 */
export const ENVELOPE_KINDS = ["publication", "event", "member", "message", "order", "control"] as const;

/** One of {@link ENVELOPE_KINDS}. What is sent of one kind arrives in the order it was sent. */
export type EnvelopeKind = (typeof ENVELOPE_KINDS)[number];
