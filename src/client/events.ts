import type { CloseInfo } from "./failure.ts";

/** `connecting`: until the server has let the client in. `waiting`: for the next try. `closed`: nothing is tried any more. */
export type ClientStatus = "connecting" | "open" | "waiting" | "closed";

/** What a client is told of the end of a connection. */
export interface ClientClose extends CloseInfo {
  /** Nothing is tried any more. */
  isFinal: boolean;
}

/** What a client is told of the next try. */
export interface Reconnecting {
  /** How many tries there were since a connection last held. */
  attempt: number;
  /** ms until the next one. */
  delay: number;
  /** Why the last one ended. */
  close: CloseInfo;
}

/** What is told of a connector as it is. */
export interface ConnectorEvents {
  /** The status has changed. */
  status: { status: ClientStatus };
  /** A connection that was let in has ended, or the last one did. */
  close: ClientClose;
  /** The next try will be made. */
  reconnecting: Reconnecting;
  /** Something went wrong. */
  error: { error: unknown };
}
