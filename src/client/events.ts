import type { CloseInfo } from "./failure.ts";

/** `connecting` until the server admits the client, `waiting` before the next attempt, `closed` when the client no longer tries. */
export type ClientStatus = "connecting" | "open" | "waiting" | "closed";

/** Payload of `close`. */
export interface ClientClose extends CloseInfo {
  /** Whether the client has stopped trying. */
  isFinal: boolean;
}

/** Payload of `reconnecting`. */
export interface Reconnecting {
  /** Number of the attempt, counted since a connection last held for `backoff.reset`. */
  attempt: number;
  /** Time until the attempt, in ms. */
  delay: number;
  /** How the last connection ended. */
  close: CloseInfo;
}

/** Events of a connector. */
export interface ConnectorEvents {
  /** The status has changed. */
  status: { status: ClientStatus };
  /** An admitted connection, or the last one, has ended. */
  close: ClientClose;
  /** A reconnection is scheduled. */
  reconnecting: Reconnecting;
  /** An attempt failed, or the server sent an error. */
  error: { error: unknown };
}
