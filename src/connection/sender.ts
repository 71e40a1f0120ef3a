import { afterTurn } from "../base/turn.ts";
import type { Writable } from "../base/writable.ts";
import { CloseCode } from "../protocol/close.ts";
import type { Connection } from "./connection.ts";
import { Frame } from "../protocol/frame.ts";
import type { ResolvedOptions } from "../application/options.ts";
import { DRAINED_BYTES, OPEN } from "../delivery/transport.ts";

/** The state of a client that reads slowly or was sent a large frame. */
export interface Lag {
  /** Number of dropped messages that it was not notified of yet. */
  missed: number;
  /** Bytes sent after a frame larger than `maxBufferedBytes` that may still be buffered; `undefined` without such a frame. */
  following: number | undefined;
  /** Whether `missed` will be saved when the turn ends. */
  savesSoon: boolean;
}

/** A connection that frames are sent to. Only {@link Sender} writes `lag`. */
type Receiver = Writable<
  Pick<Connection, "lag" | "readyState" | "transport" | "close" | "fellBehind" | "notified" | "error" | "save">
>;

/** Interval in ms at which a slow client is checked. */
const PERIOD = 250;

/**
 * Sends frames to the sockets of a controller, up to `maxBufferedBytes` each. If a frame does not fit, the client is closed, or the frame is
 * counted in the `MESSAGES_DROPPED` that follows. A slow client is noticed only when something is sent to it.
 */
export class Sender {
  readonly #options: ResolvedOptions;
  /** Number of frames that sockets have accepted so far. */
  sent = 0;
  /** Number of frames dropped so far. */
  dropped = 0;
  /** Number of times that a client fell behind, with `slowConsumer: "drop"`. */
  lagged = 0;

  constructor(options: ResolvedOptions) {
    this.#options = options;
  }

  /** Sends a frame. Returns whether the socket accepted it. */
  send(owner: Receiver, frame: Frame): boolean {
    const { readyState, transport } = owner;
    if (readyState !== OPEN) return false;
    try {
      if (this.#hasRoom(owner, frame) && this.#notify(owner) && transport.send(frame)) {
        this.sent++;
        // UTF-8 has at most 3 bytes per code unit.
        if (owner.lag || 3 * frame.text.length > this.#options.maxBufferedBytes) this.#follow(owner, frame);
        return true;
      }
    } catch (error) {
      // The socket is gone, which the runtime reports later with a close event.
      owner.error(error);
      return false;
    }
    this.drop(owner);
    return false;
  }

  #hasRoom(owner: Receiver, frame: Frame): boolean {
    const { maxBufferedBytes } = this.#options;
    const { lag, transport } = owner;
    const isDrained = transport.isDrained && maxBufferedBytes >= DRAINED_BYTES;
    if (!isDrained && transport.bufferedAmount > maxBufferedBytes) {
      // Frames that wait for the end of the turn do not mean a slow client: write them and check again.
      transport.write?.();
      // A frame larger than the limit takes time, so the frames after it have the whole limit again.
      if (transport.bufferedAmount > maxBufferedBytes) {
        return lag?.following !== undefined && lag.following + frame.bytes <= maxBufferedBytes;
      }
    }
    if (lag?.following !== undefined) lag.following = undefined;
    return true;
  }

  #follow(owner: Receiver, { bytes }: Frame): void {
    if (owner.lag?.following !== undefined) owner.lag.following += bytes;
    else if (bytes > this.#options.maxBufferedBytes) lagOf(owner).following = 0;
  }

  /** Counts a frame that the socket did not accept, or that the runtime dropped after accepting it. */
  drop(owner: Receiver): void {
    this.dropped++;
    if (this.#options.slowConsumer === "close") return owner.close(CloseCode.SLOW_CONSUMER, "Too slow", "slow");
    const lag = lagOf(owner);
    if (lag.missed++ > 0) return saveSoon(owner, lag);
    this.lagged++;
    owner.fellBehind();
  }

  /** The connection has returned from hibernation. @param missed number of dropped messages that it was not notified of yet. */
  restored(owner: Receiver, missed: number): void {
    lagOf(owner).missed = missed;
  }

  /** Time until {@link due} must be called, in ms; `Infinity` if it need not be called. */
  remaining({ lag }: Receiver): number {
    return lag && lag.missed > 0 ? PERIOD : Infinity;
  }

  /** Notifies the client of the messages that it has missed, if there is room. */
  due(owner: Receiver): void {
    const { lag, readyState, transport } = owner;
    if (lag && readyState === OPEN && transport.bufferedAmount <= this.#options.maxBufferedBytes) this.#notify(owner);
  }

  /**
   * Sends the client the number of missed messages, if any. Returns `false` if the runtime drops that, too, so that no other frame may be
   * sent.
   */
  #notify(owner: Receiver): boolean {
    const { lag, transport } = owner;
    if (!lag || lag.missed === 0) return true;
    const count = lag.missed;
    lag.missed = 0;
    const text = `{"type":"server","status":"error","error":{"code":"MESSAGES_DROPPED","message":"Too slow","count":${count}}}`;
    if (!transport.send(new Frame(text, true))) {
      lag.missed = count;
      return false;
    }
    owner.notified();
    return true;
  }
}

function lagOf(owner: Receiver): Lag {
  return owner.lag ??= { missed: 0, following: undefined, savesSoon: false };
}

/** Saves the count for hibernation, once for all messages that are dropped in this turn. */
function saveSoon(owner: Receiver, lag: Lag): void {
  if (!owner.transport.save || lag.savesSoon) return;
  lag.savesSoon = true;
  afterTurn(() => {
    lag.savesSoon = false;
    owner.save();
  });
}
