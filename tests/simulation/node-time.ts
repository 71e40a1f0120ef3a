import { type VirtualClock, VirtualTime } from "../../src/testing/virtual-time.ts";

/** The time of one machine: its clocks are faster or slower than the virtual time, and its wall clock may be wrong. */
export class NodeTime extends VirtualTime {
  readonly #time: VirtualTime;
  readonly #rate: number;
  readonly #start: number;
  #ahead: number;

  /**
   * @param rate of its clocks; 1 is right.
   * @param ahead by how much its wall clock is ahead, in ms.
   */
  constructor(time: VirtualTime, rate: number, ahead: number) {
    super(time.now, () => Promise.resolve());
    this.#time = time;
    this.#rate = rate;
    this.#start = time.now - time.elapsed;
    this.#ahead = ahead;
  }

  override get now(): number {
    return Math.floor(this.#start + this.elapsed + this.#ahead);
  }

  override get elapsed(): number {
    return this.#time.elapsed * this.#rate;
  }

  /** Sets the wall clock. No time passes. */
  turn(ms: number): void {
    this.#ahead += ms;
  }

  override set(callback: () => void, delay: number, owner: string, clock?: VirtualClock, place?: Error): number {
    return this.#time.set(callback, delay / this.#rate, owner, clock, place);
  }

  override clear(number: unknown): boolean {
    return this.#time.clear(number);
  }

  override drop(clock: VirtualClock): number | undefined {
    return this.#time.drop(clock);
  }
}
