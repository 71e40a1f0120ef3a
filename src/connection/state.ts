import type { CloseCause } from "../protocol/close.ts";

/** The states that {@link Identity} decides on. They survive hibernation. */
export type IdentityState = "pending" | "admitted" | "expired";

/**
 * The state of a connection.
 *
 * | state | entered when | next |
 * |---|---|---|
 * | `opening` | the connection is created; its socket is not open yet | `pending` |
 * | `pending` | the socket opens | `admitted` |
 * | `admitted` | the client authenticates, need not, or renews its credentials | `expired` |
 * | `expired` | its credentials expire or are checked again | `admitted` |
 * | `closing` | the server closes the connection, in any state above | `closed` |
 * | `closed` | the socket closes, in any state | |
 *
 * `connect` is emitted on the first `admitted`; `close` is emitted on `closed`, if `connect` was.
 */
export type ConnectionState = LiveState | "closing" | "closed";

/** The states before a close begins. */
export type LiveState = "opening" | IdentityState;

/** How a connection closes: code, reason and cause. */
export interface Close {
  readonly code: number;
  readonly reason: string;
  readonly cause: CloseCause;
  /** The state before the close. */
  readonly from: LiveState;
}

/** Whether a connection in this state can hibernate. */
export const isSaved = (state: ConnectionState): state is IdentityState =>
  state === "pending" || state === "admitted" || state === "expired";
