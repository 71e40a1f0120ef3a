/**
 * What an envelope can hold. Of a channel: a `publication` with a history, an `event` without one, a `member`. To all nodes: a
 * `message`, an `order`, which the broker stores, or a `control` message between engines.
 */
export const ENVELOPE_KINDS = ["publication", "event", "member", "message", "order", "control"] as const;

/** One of {@link ENVELOPE_KINDS}. Envelopes of one kind from one node arrive in the order sent. */
export type EnvelopeKind = (typeof ENVELOPE_KINDS)[number];
