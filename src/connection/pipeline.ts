import { byteLength } from "../protocol/bytes.ts";

/** The text of a frame; `null` if the frame is not text. */
type Frame = string | null;

/** Limits of the queue: the number of its messages, and their total bytes. */
interface PipelineLimits {
  readonly maxPipelined: number;
  readonly maxPayload: number;
}

/** The socket that messages are read from. Only Node can pause it. */
interface Source {
  pause?(): void;
  resume?(): void;
}

/** Queues the messages of one client while an earlier one is handled, such as an authentication. */
export class Pipeline {
  readonly #limits: PipelineLimits;
  readonly #receive: (frame: Frame) => void;
  readonly #source: Source;
  #waiting: Frame[] = [];
  #bytes = 0;
  #holds = 0;
  /** Whether a `ping` with `limits` waits. The first is exempt from the limits, because its pong shows that there is room (PROTOCOL.md §2.9). */
  #hasLimitsPing = false;

  /**
   * @param receive called with each message, in order, once none before it is being handled.
   * @param source paused while the queue is full. @default a source that cannot be paused
   */
  constructor(limits: PipelineLimits, receive: (frame: Frame) => void, source: Source = {}) {
    this.#limits = limits;
    this.#receive = receive;
    this.#source = source;
  }

  /** Whether messages have to wait. */
  get isHeld(): boolean {
    return this.#holds > 0;
  }

  /** Holds messages until the promise settles, which must not reject. */
  hold(settled: Promise<void>): void {
    this.#holds++;
    void settled.then(() => {
      this.#holds--;
      while (!this.isHeld && this.#waiting.length > 0) {
        const frame = this.#waiting.shift() as Frame; // The loop condition has checked `length`.
        this.#bytes -= sizeOf(frame);
        if (isLimitsPing(frame)) this.#hasLimitsPing = false;
        this.#receive(frame);
      }
      if (this.#waiting.length === 0) this.#source.resume?.();
    });
  }

  /**
   * Queues the message. Returns `false` if the queue is full and the message was not added. A source that can be paused is paused instead,
   * and messages that it has read already are queued beyond the limits.
   */
  push(frame: Frame): boolean {
    const { maxPipelined, maxPayload } = this.#limits;
    const isExempt = !this.#hasLimitsPing && isLimitsPing(frame);
    const count = this.#waiting.length - Number(this.#hasLimitsPing);
    if (!isExempt && (count >= maxPipelined || this.#bytes + sizeOf(frame) > maxPayload)) {
      if (!this.#source.pause) return false;
      this.#source.pause();
    }
    this.#waiting.push(frame);
    this.#bytes += sizeOf(frame);
    if (isExempt) this.#hasLimitsPing = true;
    return true;
  }

  /** Puts a message that was already received at the front of the queue. */
  unshift(frame: Frame): void {
    this.#waiting.unshift(frame);
    this.#bytes += sizeOf(frame);
  }

  /** Discards all waiting messages and resumes the source. */
  clear(): void {
    this.#waiting = [];
    this.#bytes = 0;
    this.#hasLimitsPing = false;
    this.#source.resume?.();
  }
}

/** Whether the frame is a short `ping` with `limits`. */
export const isLimitsPing = (frame: Frame): boolean =>
  frame !== null && frame.length <= 128 && /"type":\s*"ping"/.test(frame) && /"limits":\s*true/.test(frame);

const sizeOf = (frame: Frame): number => frame === null || isLimitsPing(frame) ? 0 : byteLength(frame);
