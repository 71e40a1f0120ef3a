import { byteLength } from "./bytes.ts";

/** The text of a frame; `null` for one that is not text. */
type Frame = string | null;

/** How much may wait. */
interface PipelineLimits {
  readonly maxPipelined: number;
  readonly maxPayload: number;
}

/** What can be left unread, where the runtime can. */
interface Source {
  pause?(): void;
  resume?(): void;
}

/** The messages of one client that wait for what an earlier one has begun, such as an authentication. */
export class Pipeline {
  readonly #limits: PipelineLimits;
  readonly #receive: (frame: Frame) => void;
  readonly #source: Source;
  #waiting: Frame[] = [];
  #bytes = 0;
  #holds = 0;
  /** A ping that asks for the limits waits beside the others: by its answer a client knows that there is room again. */
  #isAsked = false;

  /**
   * @param receive takes each message once nothing holds it any more, in the order they came.
   * @param source where they come from.
   */
  constructor(limits: PipelineLimits, receive: (frame: Frame) => void, source: Source = {}) {
    this.#limits = limits;
    this.#receive = receive;
    this.#source = source;
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
        if (isAsking(frame)) this.#isAsked = false;
        this.#receive(frame);
      }
      if (this.#waiting.length === 0) this.#source.resume?.();
    });
  }

  /**
   * Lets the message wait behind the others; `false`, and it does not, when more would wait than may. Where the source can be paused, it
   * is, and what has been read with the message waits too.
   */
  push(frame: Frame): boolean {
    const { maxPipelined, maxPayload } = this.#limits;
    const isBeside = !this.#isAsked && isAsking(frame);
    const count = this.#waiting.length - Number(this.#isAsked);
    if (!isBeside && (count >= maxPipelined || this.#bytes + sizeOf(frame) > maxPayload)) {
      if (!this.#source.pause) return false;
      this.#source.pause();
    }
    this.#waiting.push(frame);
    this.#bytes += sizeOf(frame);
    if (isBeside) this.#isAsked = true;
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
    this.#isAsked = false;
    this.#source.resume?.();
  }
}

const isAsking = (frame: Frame): boolean =>
  frame !== null && frame.length <= 128 && /"type":\s*"ping"/.test(frame) && /"limits":\s*true/.test(frame);

const sizeOf = (frame: Frame): number => frame === null || isAsking(frame) ? 0 : byteLength(frame);
