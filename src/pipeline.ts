import { byteLength } from "./protocol.ts";

/** The text of a frame; `null` for one that is not text. */
type Frame = string | null;

/** How much may wait. */
interface PipelineLimits {
  readonly maxPipelined: number;
  readonly maxPayload: number;
}

/** The messages of one client that wait for what an earlier one has begun, such as an authentication. */
export class Pipeline {
  readonly #limits: PipelineLimits;
  readonly #receive: (frame: Frame) => void;
  #waiting: Frame[] = [];
  #bytes = 0;
  #holds = 0;

  /** @param receive takes each message once nothing holds it any more, in the order they came. */
  constructor(limits: PipelineLimits, receive: (frame: Frame) => void) {
    this.#limits = limits;
    this.#receive = receive;
  }

  /** Whether messages have to wait now. */
  get isHeld(): boolean {
    return this.#holds > 0;
  }

  /** Lets messages wait for the promise, which does not reject. */
  hold(settled: Promise<void>): void {
    this.#holds++;
    void settled.then(() => {
      this.#holds--;
      while (!this.isHeld && this.#waiting.length > 0) {
        const frame = this.#waiting.shift() as Frame; // There is one: `length` said so.
        this.#bytes -= sizeOf(frame);
        this.#receive(frame);
      }
    });
  }

  /** Lets the message wait behind the others; `false` when more would wait than may. */
  push(frame: Frame): boolean {
    const bytes = this.#bytes + sizeOf(frame);
    if (this.#waiting.length >= this.#limits.maxPipelined || bytes > this.#limits.maxPayload) return false;
    this.#waiting.push(frame);
    this.#bytes = bytes;
    return true;
  }

  /** Lets a message that was taken already wait before the others. */
  unshift(frame: Frame): void {
    this.#waiting.unshift(frame);
    this.#bytes += sizeOf(frame);
  }

  /** Forgets what waits. */
  clear(): void {
    this.#waiting = [];
    this.#bytes = 0;
  }
}

const sizeOf = (frame: Frame): number => frame === null ? 0 : byteLength(frame);
