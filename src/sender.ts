import { type CloseCause, CloseCode } from "./close.ts";
import { Frame } from "./frame.ts";
import type { ResolvedOptions } from "./options.ts";
import { DRAINED_BYTES, OPEN, type Transport } from "./transport.ts";

/** The connection that frames are sent on. */
export interface SenderOwner {
  /** Messages that the client has not been sent and not been told of. Written by {@link Sender} only. */
  missed: number;
  /** Bytes sent after a frame that alone was larger than may wait, while that may be on its way; else Infinity. Written by {@link Sender} only. */
  following: number;
  readonly readyState: number;
  readonly transport: Transport;
  close(code: number, reason: string, cause: CloseCause): void;
  /** {@link Sender.due} is to be called in {@link Sender.remaining} ms. */
  fellBehind(): void;
  /** The client has been told what it has missed. */
  told(): void;
  error(error: unknown): void;
}

/** Between two looks whether a slow client can be told what it has missed, in ms. */
const PERIOD = 250;

/**
 * One for all connections of a controller: hands frames to a socket, no more than it may hold: each was handed over, or the client is closed, or told how many it has missed.
 * A slow client is found when there is something to send to it.
 */
export class Sender {
  readonly #options: ResolvedOptions;
  /** Frames that could not be handed over so far. */
  dropped = 0;

  constructor(options: ResolvedOptions) {
    this.#options = options;
  }

  /** Whether the frame was handed over. */
  send(owner: SenderOwner, frame: Frame): boolean {
    const { readyState, transport } = owner;
    if (readyState !== OPEN) return false;
    try {
      if (this.#hasRoom(owner, frame)) {
        if (owner.missed > 0) this.#tell(owner);
        if (transport.send(frame)) {
          // UTF-8 takes no more.
          if (owner.following < Infinity || 3 * frame.text.length > this.#options.maxBufferedBytes) this.#follow(owner, frame);
          return true;
        }
      }
    } catch (error) {
      // The socket was gone before the runtime said so: its close event follows.
      owner.error(error);
      return false;
    }
    this.drop(owner);
    return false;
  }

  #hasRoom(owner: SenderOwner, frame: Frame): boolean {
    const { maxBufferedBytes } = this.#options;
    const { transport } = owner;
    const isDrained = transport.isDrained && maxBufferedBytes >= DRAINED_BYTES;
    if (!isDrained && transport.bufferedAmount > maxBufferedBytes) {
      // What waits for the end of the turn is not for want of reading: the socket is given it, and asked again.
      transport.write?.();
      // A frame that is larger by itself takes its time: what follows it has the room that there is without it.
      if (transport.bufferedAmount > maxBufferedBytes) return owner.following + frame.bytes <= maxBufferedBytes;
    }
    if (owner.following < Infinity) owner.following = Infinity;
    return true;
  }

  #follow(owner: SenderOwner, { bytes }: Frame): void {
    if (owner.following < Infinity) owner.following += bytes;
    else if (bytes > this.#options.maxBufferedBytes) owner.following = 0;
  }

  /** A frame could not be handed over, or the runtime has dropped one that it had taken. */
  drop(owner: SenderOwner): void {
    this.dropped++;
    if (this.#options.slowConsumer === "close") return owner.close(CloseCode.SLOW_CONSUMER, "Too slow", "slow");
    if (owner.missed++ === 0) owner.fellBehind();
  }

  /** When {@link due} is to be called, in ms from now at the latest; Infinity is never. */
  remaining({ missed }: SenderOwner): number {
    return missed > 0 ? PERIOD : Infinity;
  }

  /** Tells the client what it has missed, if there is room by now. */
  due(owner: SenderOwner): void {
    const { missed, readyState, transport } = owner;
    if (missed > 0 && readyState === OPEN && transport.bufferedAmount <= this.#options.maxBufferedBytes) this.#tell(owner);
  }

  #tell(owner: SenderOwner): void {
    const count = owner.missed;
    owner.missed = 0;
    owner.transport.send(
      new Frame(
        `{"type":"server","status":"error","error":{"code":"MESSAGES_DROPPED","message":"Too slow","count":${count}}}`,
        true,
      ),
    );
    owner.told();
  }
}
