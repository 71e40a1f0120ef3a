import type { Clock } from "../base/clock.ts";
import type { MessageUid } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import type { ResolvedOptions } from "../application/options.ts";
import { BATCHING } from "../delivery/write-queue.ts";
import { OPEN, type SavedConnection, type Transport } from "../delivery/transport.ts";
import type { Handshake } from "../application/websocket-client.ts";

/**
 * Delay between two frames on runtimes that send no protocol pings (`Deno.serve` and workerd), in ms. With 25 ms, some frames were lost on a
 * busy machine.
 */
const PAUSE = 50;

/**
 * Shortest and longest delay between a pong and the next frame, in ms. It is three times the time of the answer, because a busy client needs
 * longer. A client may answer before its listeners are done, as with `ws` on Deno, which lost frames with 3 ms and none with 8 ms.
 */
const SETTLE_TIME = 8;
const MAX_SETTLE_TIME = 60;

/** Time in ms after which a `ping` message counts as lost. A client may lose it if it arrives together with another message. */
const MESSAGE_TIME = 500;

/** Number of consecutive unanswered `ping` messages after which no more are sent. */
const MAX_MISSES = 3;

/** Time in ms after which a protocol ping counts as lost. RFC 6455 §5.5.3 requires a pong, but a proxy may drop either. */
const ANSWER_TIME = 10_000;

/**
 * The clock of the platform, also with the option `clock`: a client reads in real time, and would wait forever for a clock that stands
 * still. Unlike the timers of `systemClock`, these keep the process alive, as the socket does.
 */
const CLOCK: Pick<Clock, "monotonic" | "setTimeout" | "clearTimeout"> = {
  monotonic: () => performance.now(),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (handle) => clearTimeout(handle as number), // What `setTimeout` returned.
};

/**
 * Sends one frame at a time, followed by a ping. The pong shows that the client has read the frame, and the next one is sent. For the
 * Directus SDK, which listens for one message at a time and loses others that arrive together with it.
 *
 * Waiting frames count as buffered. A close sends them at once.
 */
export class SteppedTransport implements Transport {
  readonly isOverHttp: boolean;
  readonly save?: (saved: SavedConnection) => void;
  readonly ping?: () => void;
  readonly pause?: () => void;
  readonly #inner: Transport;
  readonly #failed: (error: unknown) => void;
  readonly #clock: typeof CLOCK;
  #waiting: Frame[] = [];
  /** Index of the first waiting frame, because `shift` would copy the rest. */
  #next = 0;
  #bytes = 0;
  /** Whether the last frame may still be unread. */
  #isHeld = false;
  #heldAt = 0;
  #timer: unknown;
  /** Protocol pings sent so far. */
  #pingsSent = 0;
  /** Payload of the last protocol ping; -1 if it was answered. */
  #pingNumber = -1;
  /** Whether the runtime sends protocol pings and the client answers them. */
  #answersPings: boolean;
  /** Whether `ping` messages are sent instead: if they are allowed, until too many are lost. */
  #answersMessages: boolean;
  #isAsked = false;
  #misses = 0;

  /**
   * @param asks whether `ping` messages may be sent if the runtime sends no protocol pings.
   * @param failed called with the error of a send that runs later, without a caller.
   * @param clock times the waits. Only tests pass one. @default the platform's
   */
  constructor(inner: Transport, asks: boolean, failed: (error: unknown) => void, clock: typeof CLOCK = CLOCK) {
    this.#inner = inner;
    this.#clock = clock;
    this.isOverHttp = inner.isOverHttp ?? false;
    this.#failed = failed;
    this.#answersPings = inner.ping !== undefined;
    this.#answersMessages = asks;
    if (inner.save) this.save = (saved) => inner.save!(saved);
    if (inner.ping) this.ping = () => inner.ping!();
    if (inner.pause) this.pause = () => inner.pause!();
    inner.ponged = (number) => {
      if (!this.#isHeld || !this.#answersPings || number !== this.#pingNumber) return;
      this.#pingNumber = -1; // Ignores a second pong for the same ping.
      const took = this.#clock.monotonic() - this.#heldAt;
      this.#timer = this.#clock.setTimeout(this.#advance, Math.min(Math.max(SETTLE_TIME, 3 * took), MAX_SETTLE_TIME));
    };
  }

  get socket(): unknown {
    return this.#inner.socket;
  }

  get readyState(): number {
    return this.#inner.readyState;
  }

  get bufferedAmount(): number {
    return this.#inner.bufferedAmount + this.#bytes;
  }

  get unreadBytes(): number {
    return (this.#inner.unreadBytes ?? this.#inner.bufferedAmount) + this.#bytes;
  }

  send(frame: Frame): boolean {
    this.#giveUp();
    if (!this.#isHeld) {
      const isSent = this.#inner.send(frame);
      this.#hold();
      return isSent;
    }
    this.#waiting.push(frame);
    this.#bytes += frame.bytes;
    return true;
  }

  write(): void {
    this.#inner.write?.();
  }

  /** Holds new frames until the client has read everything sent so far, if it answers protocol pings. */
  begin(): void {
    if (this.#answersPings) this.#hold();
  }

  #hold(): void {
    const inner = this.#inner;
    this.#isHeld = true;
    inner.write?.(); // Frames of this turn must precede the ping.
    if (this.#answersPings) {
      this.#heldAt = this.#clock.monotonic();
      inner.ping!(this.#pingNumber = this.#pingsSent++ % 256);
    } else if (this.#answersMessages) this.#timer = this.#clock.setTimeout(this.#ask, SETTLE_TIME);
    else this.#timer = this.#clock.setTimeout(this.#advance, PAUSE);
  }

  readonly #ask = (): void => {
    this.#isAsked = true;
    if (!this.#handOver(new Frame('{"type":"ping"}', true))) return;
    this.#inner.write?.();
    this.#timer = this.#clock.setTimeout(() => {
      if (++this.#misses === MAX_MISSES) this.#answersMessages = false;
      this.#advance();
    }, MESSAGE_TIME);
  };

  answered(uid: MessageUid | undefined): void {
    this.#inner.answered?.(uid);
    if (!this.#isAsked || uid !== undefined) return; // The ping in `#ask` has no `uid`.
    this.#clock.clearTimeout(this.#timer);
    this.#misses = 0;
    this.#advance();
  }

  close(code: number, reason: string): void {
    const left = this.#clear();
    for (const frame of left) this.#inner.send(frame);
    this.#inner.close(code, reason);
  }

  terminate(): void {
    this.#clear();
    this.#inner.terminate();
  }

  limit(maxBufferedBytes: number, now: () => number, asksAll: boolean): void {
    this.#inner.limit?.(maxBufferedBytes, now, asksAll);
  }

  get isPaused(): boolean {
    return this.#inner.isPaused ?? false;
  }

  resume(): void {
    this.#inner.resume?.();
  }

  ask(): void {
    this.#inner.ask?.();
  }

  leave(topic: string): void {
    this.#inner.leave?.(topic);
  }

  heard(): void {
    this.#inner.heard?.();
    this.#giveUp();
  }

  /** Stops waiting for pongs if none arrives. The heartbeat handles a client that does not answer at all. */
  #giveUp(): void {
    if (!this.#isHeld || !this.#answersPings || this.#clock.monotonic() - this.#heldAt < ANSWER_TIME) return;
    this.#answersPings = false;
    this.#clock.clearTimeout(this.#timer); // A pong may have just set it.
    this.#advance();
  }

  readonly #advance = (): void => {
    this.#isHeld = this.#isAsked = false;
    const frame = this.#waiting[this.#next];
    if (!frame) return;
    this.#bytes -= frame.bytes;
    if (++this.#next * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
    if (this.#handOver(frame)) this.#hold();
  };

  /** Sends a frame. Returns `false` if the socket is gone, in which case all waiting frames are discarded. */
  #handOver(frame: Frame): boolean {
    try {
      if (this.#inner.readyState === OPEN) {
        this.#inner.send(frame);
        return true;
      }
    } catch (error) {
      // The socket is gone, which the runtime reports later with a close event.
      this.#failed(error);
    }
    this.#clear();
    return false;
  }

  #clear(): readonly Frame[] {
    const left = this.#waiting.slice(this.#next);
    this.#clock.clearTimeout(this.#timer);
    this.#waiting = [];
    this.#next = 0;
    this.#bytes = 0;
    this.#isHeld = this.#isAsked = false;
    return left;
  }
}

/** A connection whose frames may be sent one at a time. */
export interface SteppedOwner {
  readonly transport: Transport;
  readonly client: { readonly handshake: Handshake };
  readonly host: { readonly options: ResolvedOptions };
  error(error: unknown): void;
}

/** Returns a stepped transport if the option `stopAndWait` applies from `start` on, unless the transport is stepped already. */
export function steppedFor(owner: SteppedOwner, start: "collection" | "all"): SteppedTransport | undefined {
  const { transport, client: { handshake }, host: { options } } = owner;
  const { heartbeat, stopAndWait } = options;
  if (stopAndWait !== start || handshake.protocol === BATCHING || transport instanceof SteppedTransport) return undefined;
  // A browser loses no message, because each has its own task (HTML, "When a WebSocket message has been received").
  if (start === "collection" && handshake.origin !== null) return undefined;
  const asks = heartbeat && heartbeat.message;
  const stepped = new SteppedTransport(transport, asks, (error) => owner.error(error));
  if (start === "collection") stepped.begin();
  return stepped;
}
