import type { Frame } from "./frame.ts";
import type { ResolvedOptions } from "./options.ts";
import { BATCHING } from "./outbox.ts";
import { OPEN, type SavedConnection, type Transport } from "./transport.ts";
import type { Handshake } from "./websocket-client.ts";

/** ms between two frames where the runtime sends no pings: `Deno.serve` and workerd. */
const PAUSE = 25;

/** ms after which a ping is taken for one that is never answered. RFC 6455 §5.5.3 demands a pong, but a proxy may drop either. */
const ANSWER_TIME = 10_000;

/**
 * Sends one frame at a time: the next one leaves when the client has answered the ping behind the last, and so has read it. The Directus SDK
 * listens for one message at a time, and loses the others of a read.
 *
 * Frames that wait count as buffered. A close sends what is left at once.
 */
export class SteppedTransport implements Transport {
  readonly save?: (saved: SavedConnection) => void;
  readonly ping?: () => void;
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
  /** The payload of the last ping. */
  #number = 0;
  #answers: boolean;

  /** @param failed called with what a send throws that nobody waits for. */
  constructor(inner: Transport, failed: (error: unknown) => void) {
    this.#inner = inner;
    this.#failed = failed;
    this.#answers = inner.ping !== undefined;
    if (inner.save) this.save = (saved) => inner.save!(saved);
    if (inner.ping) this.ping = () => inner.ping!();
    inner.ponged = (number) => {
      if (this.#isHeld && number === this.#number) this.#advance();
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

  send(frame: Frame): boolean {
    this.#giveUp();
    if (!this.#isHeld) {
      const isSent = this.#inner.send(frame);
      this.hold();
      return isSent;
    }
    this.#waiting.push(frame);
    this.#bytes += frame.bytes;
    return true;
  }

  write(): void {
    this.#inner.write?.();
  }

  /** Holds all frames until what was sent so far has been read. */
  hold(): void {
    const inner = this.#inner;
    this.#isHeld = true;
    inner.write?.(); // The ping would overtake it.
    if (this.#answers) {
      this.#heldAt = performance.now();
      inner.ping!(this.#number = (this.#number + 1) % 256);
    } else this.#timer = setTimeout(this.#advance, PAUSE);
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
    this.#isHeld = false;
    const frame = this.#waiting[this.#next];
    if (!frame) return;
    if (this.#inner.readyState !== OPEN) return void this.#clear();
    this.#bytes -= frame.bytes;
    if (++this.#next * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
    try {
      this.#inner.send(frame);
      this.hold();
    } catch (error) {
      // The socket was gone before the runtime said so: its close event follows.
      this.#clear();
      this.#failed(error);
    }
  };

  #clear(): readonly Frame[] {
    const left = this.#waiting.slice(this.#next);
    clearTimeout(this.#timer);
    this.#waiting = [];
    this.#next = 0;
    this.#bytes = 0;
    this.#isHeld = false;
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
  if (options.stopAndWait !== start || handshake.protocol === BATCHING || transport instanceof SteppedTransport) return undefined;
  // A browser hands each message over in a task of its own (HTML, "When a WebSocket message has been received").
  if (start === "collection" && handshake.origin !== null) return undefined;
  return new SteppedTransport(transport, (error) => owner.error(error));
}
