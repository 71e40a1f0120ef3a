import type { CloseCause } from "./close.ts";

/** The states that the identity decides on. They outlive hibernation. */
export type IdentityState = "pending" | "admitted" | "expired";

/**
 * The one state of a connection.
 *
 * | state | entered | follows |
 * |---|---|---|
 * | `opening` | the connection is made, its socket is not open | `pending` |
 * | `pending` | the socket is open | `admitted` |
 * | `admitted` | the client has authenticated, need not, or has renewed its credentials | `expired` |
 * | `expired` | its credentials have run out, or are being checked again | `admitted` |
 * | `closing` | the server closes it, in any state before | `closed` |
 * | `closed` | the socket has closed, in any state | |
 *
 * `connect` is emitted at the first `admitted`, `close` at `closed` if there was a `connect`.
 */
export type ConnectionState = LiveState | "closing" | "closed";

/** The states before a close begins. */
export type LiveState = "opening" | IdentityState;

/** How a connection closes. */
export interface Close {
  readonly code: number;
  readonly reason: string;
  readonly cause: CloseCause;
  /** The state it closes from. */
  readonly from: LiveState;
}

/** Whether a connection in this state can hibernate. */
export const isSaved = (state: ConnectionState): state is IdentityState =>
  state === "pending" || state === "admitted" || state === "expired";
