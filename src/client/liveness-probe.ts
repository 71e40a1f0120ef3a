import type { ClientClock } from "./platform.ts";

/** Interval of the timer, in ms: a machine that wakes from sleep is noticed within half a second. */
const TICK = 500;
/** A tick this much too late (ms) means that the machine slept or the page was frozen. */
const JUMP = 2_500;
/** Time for an answer, in ms: with one tick before and after it, the documented five seconds. */
const PATIENCE = 4_000;
/** Time for an answer after a jump, in ms: with the tick before it, the documented one second. */
const WAKE_PATIENCE = 400;

/** Detects a dead connection: pings every period, and immediately after a sleep. */
export class LivenessProbe {
  readonly #clock: ClientClock;
  readonly #period: number;
  readonly #ping: () => void;
  readonly #dead: () => void;
  #timer: unknown;
  /** Time of the last tick, by the wall clock and by the monotonic clock. */
  #wall = 0;
  #last = 0;
  /** ms until the next ping. */
  #untilPing = 0;
  /** ms until the connection is declared dead; `Infinity` while no answer is due. */
  #untilDead = Infinity;

  /**
   * @param ping sends a ping
   * @param dead called when no answer came in time
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

  /** Any frame counts as an answer. */
  heard(): void {
    this.#untilDead = Infinity;
  }

  /** Pings now. */
  probe(patience: number = PATIENCE): void {
    this.#untilPing = this.#period;
    this.#untilDead = Math.min(this.#untilDead, patience);
    this.#wait();
    this.#ping();
  }

  /** Without a period the timer runs only while an answer is due. */
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
    // Some monotonic clocks stop during sleep, hence the wall clock. One that is set forward costs one needless ping.
    if (Math.max(elapsed, this.#clock.now() - this.#wall) > TICK + JUMP) {
      // An answer that was due before the sleep may still be unread.
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
