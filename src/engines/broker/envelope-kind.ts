/**
 * Kinds of envelopes. Of a channel: `publication` (with a history), `event` (a publication without one) and `member`. To all nodes:
 * `message`, `order` (a message that the broker stores) and `control` (between engines).
 */
export const ENVELOPE_KINDS = ["publication", "event", "member", "message", "order", "control"] as const;

/** One of {@link ENVELOPE_KINDS}. Envelopes of one kind from one node arrive in the order sent. */
export type EnvelopeKind = (typeof ENVELOPE_KINDS)[number];
