import type { ClientClock } from "./platform.ts";

/** How often the time is looked at, in ms: twice a second, so that a machine that has woken is seen to have within half of one. */
const TICK = 500;
/** A tick that comes so much later (ms) than it should says that the machine slept or the page was frozen. */
const JUMP = 2_500;
/** How long an answer may take, in ms: with a tick before and after it, the promised five seconds. */
const PATIENCE = 4_000;
/** How long it may take after a jump, in ms: with the tick before it, the promised second. */
const WAKE_PATIENCE = 400;

/** Notices a connection that is dead and does not say so: by asking every period, and at once after a sleep. */
export class Heartbeat {
  readonly #clock: ClientClock;
  readonly #period: number;
  readonly #ping: () => void;
  readonly #dead: () => void;
  #timer: unknown;
  /** When the last tick was, by the wall clock and by the monotonic one. */
  #wall = 0;
  #last = 0;
  /** ms until the next ping. */
  #untilPing = 0;
  /** ms until no answer is given up on; `Infinity` while none is awaited. */
  #untilDead = Infinity;

  /**
   * @param ping asks the other side for a sign of life.
   * @param dead told that none came in time.
   */
  constructor(clock: ClientClock, period: number, ping: () => void, dead: () => void) {
    this.#clock = clock;
    this.#period = period || Infinity;
    this.#ping = ping;
    this.#dead = dead;
  }

  start(): void {
    this.#untilPing = this.#period;
    this.#wait();
  }

  stop(): void {
    this.#clock.clearTimeout(this.#timer);
  }

  /** Anything at all came from the other side. */
  heard(): void {
    this.#untilDead = Infinity;
  }

  /** Asks now. */
  probe(patience: number = PATIENCE): void {
    this.#untilPing = this.#period;
    this.#untilDead = Math.min(this.#untilDead, patience);
    this.#wait();
    this.#ping();
  }

  /** There is no tick where nothing is to be noticed: without a period, until somebody asks. */
  #wait(delay: number = TICK): void {
    this.#clock.clearTimeout(this.#timer);
    this.#wall = this.#clock.now();
    this.#last = this.#clock.monotonic();
    if (Math.min(this.#untilPing, this.#untilDead) < Infinity) {
      this.#timer = this.#clock.setTimeout(() => this.#tick(), delay);
    }
  }

  #tick(): void {
    const elapsed = this.#clock.monotonic() - this.#last;
    // Some monotonic clocks stand still in a sleep. A wall clock that was set forward looks like one and costs a ping.
    if (Math.max(elapsed, this.#clock.now() - this.#wall) > TICK + JUMP) {
      // What was awaited before the sleep may still wait to be read.
      this.#untilDead = Infinity;
      this.probe(WAKE_PATIENCE);
      return this.#wait(WAKE_PATIENCE);
    }
    this.#untilDead -= elapsed;
    this.#untilPing -= elapsed;
    if (this.#untilDead <= 0) this.#dead();
    else if (this.#untilPing <= 0) this.probe();
    else this.#wait();
  }
}
