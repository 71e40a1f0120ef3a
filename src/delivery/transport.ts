import type { MessageUid } from "../protocol/errors.ts";
import type { Frame } from "../protocol/frame.ts";

/** The socket of a connection, with the same methods on every runtime. */
export interface Transport {
  /** The runtime's own socket. */
  readonly socket: unknown;
  /** Whether frames are sent over HTTP instead of a WebSocket. @default {false} */
  readonly isOverHttp?: boolean;
  /** The same values as `WebSocket.readyState`. */
  readonly readyState: number;
  /** Bytes that were sent and have not left the process, including frames of this turn; 0 if the runtime does not report it. */
  readonly bufferedAmount: number;
  /**
   * Whether at most {@link DRAINED_BYTES} are buffered, known without reading {@link bufferedAmount}, which is slow for many sockets. If
   * absent or `false`, read that.
   */
  readonly isDrained?: boolean;
  /** Bytes that the peer may not have read yet, if the transport tracks that. @default {bufferedAmount} */
  readonly unreadBytes?: number;
  /** Sends a text frame, which is written by the end of the turn of the event loop. Returns `false` if the runtime dropped it. */
  send(frame: Frame): boolean;
  /** Writes the frames of this turn now. Absent if frames are always written at once. */
  write?(): void;
  /** Starts the close handshake. The code and reason must be valid to send. */
  close(code: number, reason: string): void;
  /** Drops the connection without a handshake, if the runtime can. */
  terminate(): void;
  /**
   * Sends a protocol ping (RFC 6455 §5.5.2). Its pong calls `Connection.heard`. Absent if the runtime cannot.
   *
   * @param number its payload, one byte. @default none
   */
  ping?(number?: number): void;
  /** Called with the payload of each pong. Set by {@link SteppedTransport}, whose pings carry one. */
  ponged?: (number: number | undefined) => void;
  /** Stops reading until {@link resume}, so that TCP slows the peer down. Absent if the runtime cannot. */
  pause?(): void;
  /** Reads again. May be called at any time. */
  resume?(): void;
  /** Whether reading is paused. */
  readonly isPaused?: boolean;
  /**
   * Called once, with the limit of buffered bytes. If the runtime does not report them, the transport asks the client what it has read.
   *
   * @param maxBufferedBytes maximum number of buffered bytes.
   * @param now the monotonic clock, in ms.
   * @param asksAll whether to ask every client, not only those that are known to answer.
   */
  limit?(maxBufferedBytes: number, now: () => number, asksAll: boolean): void;
  /** Called whenever the peer has sent something, which also counts as an answer to {@link ask}. */
  heard?(): void;
  /** Asks the peer to confirm that it has read everything so far, if the runtime does not report it. */
  ask?(): void;
  /** Called for each `pong` message, with its `uid`. */
  answered?(uid: MessageUid | undefined): void;
  /** Saves what must survive hibernation. Absent where nothing hibernates. */
  save?(saved: SavedConnection): void;
  /** Absent if frames have to be sent to each socket separately. */
  readonly publisher?: Publisher | undefined;
  /** Subscribes the socket to a topic of {@link publisher}. Present if {@link publisher} is. */
  join?(topic: string): void;
  /** Unsubscribes the socket. Earlier publications are still sent. */
  leave?(topic: string): void;
}

/** Publishes a frame to many sockets at once, which costs less than a `send` to each. */
export interface Publisher {
  /** Bytes sent or published to all sockets so far. The buffer of one socket never grows by more than this number does. */
  readonly bytesSent: number;
  /**
   * Sends the frame to all sockets that have joined the topic, after everything sent to them before. Returns `false` if that is not
   * possible now; then nothing was sent.
   */
  publish(topic: string, frame: Frame): boolean;
}

/** The part of a connection that survives hibernation, as JSON. */
export interface SavedConnection {
  /** The option `name` of its controller. */
  controller: string;
  /** `uid` of the client. */
  uid: string;
  /** `handshake` of the client. */
  handshake: unknown;
  /** `state` of the client. */
  state: unknown;
  /** The state of the connection. */
  phase: "pending" | "admitted" | "expired";
  /** When the pending handshake or the grace period after expiry ends, in ms since 1970. */
  until: number;
  /** `accountability` of the client. */
  accountability: unknown;
  /** When its credentials expire, in seconds since 1970; `null`: never. */
  expires_at: number | null;
  /** When the connection reaches `maxAge`, in ms since 1970; absent without that option. */
  ends_at?: number;
  /** Minimum number of messages that were dropped for a slow client before `MESSAGES_DROPPED` was sent; absent: none. */
  missed?: number;
  /** The close frame that it was sent; absent before a close. */
  closing?: { readonly code: number; readonly reason: string } | undefined;
}

/** Maximum number of buffered bytes while {@link Transport.isDrained} is `true`. */
export const DRAINED_BYTES = 65_536;

/** `WebSocket.readyState`: the handshake is done and no close has begun. */
export const OPEN = 1;
/** A close has begun. */
export const CLOSING = 2;
/** The connection is gone. */
export const CLOSED = 3;
