import type { MessageUid } from "./errors.ts";
import { Frame } from "./frame.ts";
import type { ResolvedOptions } from "./options.ts";
import { BATCHING } from "./batch.ts";
import { OPEN, type SavedConnection, type Transport } from "./transport.ts";
import type { Handshake } from "./websocket-client.ts";

/**
 * ms between two frames where the runtime sends no pings: `Deno.serve` and workerd. With 25, one of 1,400 was lost on a machine of two cores
 * that did other things, too.
 */
const PAUSE = 50;

/**
 * ms between a pong and the next frame. `ws` on Deno reads on before its listeners are done: it lost half of the frames without a pause, one of
 * 240 with 3 ms, and none with 8 on an idle machine. A busy client answers late and needs longer: three times as long as its answer took.
 */
const SETTLE_TIME = 8;
const MAX_SETTLE_TIME = 60;

/** ms that a client has to answer a `ping` message, which it does not do for one that came together with something else. */
const MESSAGE_TIME = 500;

/** Pings in a row without an answer after which a client counts as one that answers no messages. */
const MAX_MISSES = 3;

/** ms after which a ping is taken for one that is never answered. RFC 6455 §5.5.3 demands a pong, but a proxy may drop either. */
const ANSWER_TIME = 10_000;

/**
 * Sends one frame at a time: the next one leaves soon after the client has answered the ping behind the last, and so has read it. The Directus SDK
 * listens for one message at a time, and loses the others of a read.
 *
 * Frames that wait count as buffered. A close sends what is left at once.
 */
export class SteppedTransport implements Transport {
  readonly save?: (saved: SavedConnection) => void;
  readonly ping?: () => void;
  readonly pause?: () => void;
  readonly #inner: Transport;
  readonly #failed: (error: unknown) => void;
  #waiting: Frame[] = [];
  /** The first that waits: a shift for each frame would copy the rest. */
  #next = 0;
  #bytes = 0;
  /** The last frame is not known to have been read. */
  #isHeld = false;
  #heldAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Pings so far. */
  #sent = 0;
  /** The payload of the last ping; -1 once it is answered. */
  #number = -1;
  /** It answers protocol pings. */
  #answers: boolean;
  /** It may answer `ping` messages. */
  #answersMessages: boolean;
  #isAsked = false;
  #misses = 0;

  /**
   * @param asks whether `ping` messages may be sent, where the runtime sends no others.
   * @param failed called with what a send throws that nobody waits for.
   */
  constructor(inner: Transport, asks: boolean, failed: (error: unknown) => void) {
    this.#inner = inner;
    this.#failed = failed;
    this.#answers = inner.ping !== undefined;
    this.#answersMessages = asks;
    if (inner.save) this.save = (saved) => inner.save!(saved);
    if (inner.ping) this.ping = () => inner.ping!();
    if (inner.pause) this.pause = () => inner.pause!();
    inner.ponged = (number) => {
      if (!this.#isHeld || !this.#answers || number !== this.#number) return;
      this.#number = -1; // One answer is enough.
      const took = performance.now() - this.#heldAt;
      this.#timer = setTimeout(this.#advance, Math.min(Math.max(SETTLE_TIME, 3 * took), MAX_SETTLE_TIME));
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

  /** Holds all frames until what was sent so far has been read, where the client can be asked. */
  begin(): void {
    if (this.#answers) this.#hold();
  }

  #hold(): void {
    const inner = this.#inner;
    this.#isHeld = true;
    inner.write?.(); // The ping would overtake it.
    if (this.#answers) {
      this.#heldAt = performance.now();
      inner.ping!(this.#number = this.#sent++ % 256);
    } else if (this.#answersMessages) this.#timer = setTimeout(this.#ask, SETTLE_TIME);
    else this.#timer = setTimeout(this.#advance, PAUSE);
  }

  readonly #ask = (): void => {
    this.#isAsked = true;
    if (!this.#handOver(new Frame('{"type":"ping"}', true))) return;
    this.#inner.write?.();
    this.#timer = setTimeout(() => {
      if (++this.#misses === MAX_MISSES) this.#answersMessages = false;
      this.#advance();
    }, MESSAGE_TIME);
  };

  answered(uid: MessageUid | undefined): void {
    this.#inner.answered?.(uid);
    if (!this.#isAsked || uid !== undefined) return; // Its own pings have no `uid`.
    clearTimeout(this.#timer);
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

  /** Goes on without answers where none comes: one who gives no sign of life at all is the heartbeat's to find. */
  #giveUp(): void {
    if (!this.#isHeld || !this.#answers || performance.now() - this.#heldAt < ANSWER_TIME) return;
    this.#answers = false;
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

  /** Whether it could. Nothing else is sent then. */
  #handOver(frame: Frame): boolean {
    try {
      if (this.#inner.readyState === OPEN) {
        this.#inner.send(frame);
        return true;
      }
    } catch (error) {
      // The socket was gone before the runtime said so: its close event follows.
      this.#failed(error);
    }
    this.#clear();
    return false;
  }

  #clear(): readonly Frame[] {
    const left = this.#waiting.slice(this.#next);
    clearTimeout(this.#timer);
    this.#waiting = [];
    this.#next = 0;
    this.#bytes = 0;
    this.#isHeld = this.#isAsked = false;
    return left;
  }
}

/** The connection whose frames may be sent one at a time. */
export interface SteppedOwner {
  readonly transport: Transport;
  readonly client: { readonly handshake: Handshake };
  readonly host: { readonly options: ResolvedOptions };
  error(error: unknown): void;
}

/** Its transport from now on, where the option `stopAndWait` starts at this; else `undefined`, as for one that is stepped already. */
export function steppedFor(owner: SteppedOwner, start: "collection" | "all"): SteppedTransport | undefined {
  const { transport, client: { handshake }, host: { options } } = owner;
  const { heartbeat, stopAndWait } = options;
  if (stopAndWait !== start || handshake.protocol === BATCHING || transport instanceof SteppedTransport) return undefined;
  // A browser hands each message over in a task of its own (HTML, "When a WebSocket message has been received").
  if (start === "collection" && handshake.origin !== null) return undefined;
  const stepped = new SteppedTransport(transport, heartbeat && heartbeat.message, (error) => owner.error(error));
  if (start === "collection") stepped.begin();
  return stepped;
}
