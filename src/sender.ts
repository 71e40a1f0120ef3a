import { type CloseCause, CloseCode } from "./close.ts";
import { Frame } from "./frame.ts";
import type { ResolvedOptions } from "./options.ts";
import { OPEN, type Transport } from "./transport.ts";

/** The connection that frames are sent on. */
export interface SenderOwner {
  readonly readyState: number;
  readonly transport: Transport;
  close(code: number, reason: string, cause: CloseCause): void;
  /** {@link Sender.due} is to be called in {@link Sender.remaining} ms. */
  missed(): void;
  /** The client has been told what it has missed. */
  told(): void;
  error(error: unknown): void;
}

/** Between two looks whether a slow client can be told what it has missed, in ms. */
const PERIOD = 250;

/**
 * Hands frames to a socket, no more than it may hold: each was handed over, or the client is closed, or told how many it has missed.
 * A slow client is found when there is something to send to it.
 */
export class Sender {
  readonly #owner: SenderOwner;
  readonly #options: ResolvedOptions;
  /** Messages that the client has not been sent and not been told of. */
  #missed = 0;

  constructor(owner: SenderOwner, options: ResolvedOptions) {
    this.#owner = owner;
    this.#options = options;
  }

  /** Whether the frame was handed over. */
  send(frame: Frame): boolean {
    const { readyState, transport } = this.#owner;
    if (readyState !== OPEN) return false;
    try {
      // What waits for the end of the turn is not for want of reading: the socket is given it first.
      if (transport.bufferedAmount > this.#options.maxBufferedBytes) transport.write?.();
      if (transport.bufferedAmount <= this.#options.maxBufferedBytes) {
        if (this.#missed > 0) this.#tell();
        if (transport.send(frame)) return true;
      }
    } catch (error) {
      // The socket was gone before the runtime said so: its close event follows.
      this.#owner.error(error);
      return false;
    }
    this.drop();
    return false;
  }

  /** A frame could not be handed over, or the runtime has dropped one that it had taken. */
  drop(): void {
    if (this.#options.slowConsumer === "close") return this.#owner.close(CloseCode.SLOW_CONSUMER, "Too slow", "slow");
    if (this.#missed++ === 0) this.#owner.missed();
  }

  /** What the client holds, in bytes; Infinity while there is something to tell it first. */
  get heldBytes(): number {
    return this.#missed > 0 ? Infinity : this.#owner.transport.bufferedAmount;
  }

  /** When {@link due} is to be called, in ms from now at the latest; Infinity is never. */
  get remaining(): number {
    return this.#missed > 0 ? PERIOD : Infinity;
  }

  /** Tells the client what it has missed, if there is room by now. */
  due(): void {
    const { readyState, transport } = this.#owner;
    if (this.#missed > 0 && readyState === OPEN && transport.bufferedAmount <= this.#options.maxBufferedBytes) this.#tell();
  }

  #tell(): void {
    const count = this.#missed;
    this.#missed = 0;
    this.#owner.transport.send(
      new Frame(
        `{"type":"server","status":"error","error":{"code":"MESSAGES_DROPPED","message":"Too slow","count":${count}}}`,
        true,
      ),
    );
    this.#owner.told();
  }
}
