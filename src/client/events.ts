import type { Contract } from "../protocol/contract-types.ts";
import type { MessageOf } from "./contract.ts";
import type { CloseInfo } from "./failure.ts";

/** `connecting` until the server admits the client, `waiting` before the next attempt, `closed` when the client does not reconnect. */
export type ClientStatus = "connecting" | "open" | "waiting" | "closed";

/** Payload of `close`. */
export interface ClientClose extends CloseInfo {
  /** Whether the client does not reconnect any more. */
  isFinal: boolean;
}

/** Payload of `reconnecting`. */
export interface Reconnecting {
  /** Number of the attempt, counted since a connection has last lasted for `backoff.reset`. */
  attempt: number;
  /** Time until the attempt, in ms. */
  delay: number;
  /** How the last connection ended. */
  close: CloseInfo;
}

/** Events of a connector. */
export interface ConnectorEvents {
  /** The server has admitted the client. */
  open: Record<string, never>;
  /** The status has changed. */
  status: { status: ClientStatus };
  /** An admitted connection, or the last one, has ended. */
  close: ClientClose;
  /** A reconnection is scheduled. */
  reconnecting: Reconnecting;
  /** An attempt failed, or the server sent an error. */
  error: { error: unknown };
}

/** Events of a client, with the payload of their listeners. */
export interface ClientEvents<C = Contract> {
  /** The server has admitted the client. */
  open: Record<string, never>;
  /** An open connection has ended, or the client does not reconnect any more (`isFinal`). */
  close: ClientClose;
  /** A reconnection is scheduled. */
  reconnecting: Reconnecting;
  /** The server has sent a message that answers no request and belongs to no subscription. */
  message: { message: MessageOf<C> };
  /**
   * A {@link ClientError} for a failed attempt (once per code in an outage), an error that answers no request, or an unsent message. Or what
   * a listener threw; a value that is not an `Error` is the `cause` of one.
   */
  error: { error: Error };
  /** {@link BareClient.status} has changed. */
  status: { status: ClientStatus };
}
