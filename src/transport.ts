import type { MessageUid } from "./errors.ts";
import type { Frame } from "./frame.ts";

/** One socket of a runtime, its differences evened out: what a connection needs to write to it and to end it. */
export interface Transport {
  /** The runtime's own socket. */
  readonly socket: unknown;
  /** As `WebSocket.readyState`. */
  readonly readyState: number;
  /** Bytes handed over that have not left the process; 0 where the runtime does not tell. What waits for the end of the turn is among them. */
  readonly bufferedAmount: number;
  /**
   * Known without asking the socket: no more than {@link DRAINED_BYTES} wait. Absent or `false`: it has to be asked, which for 10,000 sockets
   * is 10,000 times some ten objects that are not in the processor's cache.
   */
  readonly isDrained?: boolean;
  /** Bytes that the peer is not known to have read. Where the runtime does not tell, those since it last sent something. @default {bufferedAmount} */
  readonly unreadBytes?: number;
  /** Hands a text frame over, to be written when the turn of the event loop ends. `false`: the runtime dropped it. */
  send(frame: Frame): boolean;
  /** Writes what waits for the end of the turn now. Absent where nothing waits. */
  write?(): void;
  /** Starts the close handshake, with a code and reason that may be sent. */
  close(code: number, reason: string): void;
  /** Ends the connection without a handshake, as far as the runtime can. */
  terminate(): void;
  /**
   * Sends a protocol ping (RFC 6455 §5.5.2), whose pong is told to `Connection.heard`. Absent where the runtime cannot.
   *
   * @param number its payload, of one byte. @default none
   */
  ping?(number?: number): void;
  /** Called with the payload of each pong. Set by {@link SteppedTransport}, which asks with one. */
  ponged?: (number: number | undefined) => void;
  /** Reads nothing more until {@link resume}: what is under way waits in the network. Absent where the runtime cannot. */
  pause?(): void;
  /** Reads again. Called at any time. */
  resume?(): void;
  /** Whether nothing is read. */
  readonly isPaused?: boolean;
  /**
   * Told once how many bytes may wait, and the monotonic clock, where the runtime does not tell how many do and the client has to be asked.
   *
   * @param asksAll not only clients that are known to answer.
   */
  limit?(maxBufferedBytes: number, now: () => number, asksAll: boolean): void;
  /** Told of every sign of life, which is the answer then. */
  heard?(): void;
  /** Has the peer say that it has read what it was sent so far, where the runtime does not tell. */
  ask?(): void;
  /** Called for each `pong` message, with its `uid`. */
  answered?(uid: MessageUid | undefined): void;
  /** Keeps what must survive hibernation. Absent where nothing hibernates. */
  save?(saved: SavedConnection): void;
  /** Absent where every socket has to be sent to by itself. */
  readonly publisher?: Publisher | undefined;
  /** What is published to the topic from now on is sent to this socket too. There where there is a publisher. */
  join?(topic: string): void;
  /** It is not from now on; what was published before still is. */
  leave?(topic: string): void;
}

/** Sends one frame to many sockets at once, for less than a `send` for each costs. */
export interface Publisher {
  /** Bytes that any socket was handed so far, by whichever way: since then none can hold more than by how much this has grown. */
  readonly handedOver: number;
  /**
   * Sends the frame to all sockets that have joined the topic, after what they were sent before. `false`, and nothing is done, when that cannot
   * be now.
   */
  publish(topic: string, frame: Frame): boolean;
}

/** What of a connection outlives hibernation, as JSON. */
export interface SavedConnection {
  /** The `name` of its controller. */
  controller: string;
  /** Of its client. */
  uid: string;
  /** Of its client. */
  handshake: unknown;
  /** Of its client. */
  state: unknown;
  /** Whether it had proved who it is, and whether that has expired. */
  phase: "pending" | "admitted" | "expired";
  /** When a pending handshake, or the grace of an expired client, ends: ms since 1970. */
  until: number;
  /** Who it was. */
  accountability: unknown;
  /** In seconds since 1970. */
  expires_at: number | null;
  /** When it reaches `maxAge`, in ms since 1970; absent without that option. */
  ends_at?: number;
  /** The close frame it has been sent, if it has. */
  closing?: { readonly code: number; readonly reason: string } | undefined;
}

/** What may wait where next to nothing does. */
export const DRAINED_BYTES = 65_536;

/** `WebSocket.readyState`: the handshake is done and no close has begun. */
export const OPEN = 1;
/** A close has begun. */
export const CLOSING = 2;
/** The connection is gone. */
export const CLOSED = 3;
