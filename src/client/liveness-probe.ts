import { type ClientClock, createTimer } from "./platform.ts";

/** Interval of the timer, in ms: a machine that wakes from sleep is noticed within half a second. */
const TICK = 500;
/** A tick this much too late (ms) means that the machine slept or the page was frozen. */
const JUMP = 2_500;
/** Time for an answer, in ms: with one tick before and after it, the documented five seconds. */
const PATIENCE = 4_000;
/** Time for an answer after a jump, in ms: with the tick before it, the documented one second. */
const WAKE_PATIENCE = 400;

/** Detects a dead connection: pings every period, and immediately after a sleep. */
export interface LivenessProbe {
  start(): void;
  stop(): void;
  /** Any frame counts as an answer. */
  heard(): void;
  /** Pings now. */
  probe(): void;
}

/**
 * @param period ms between pings; `0` pings only when asked to
 * @param ping sends a ping
 * @param dead called when no answer came in time
 */
export function createLivenessProbe(clock: ClientClock, period: number, ping: () => void, dead: () => void): LivenessProbe {
  const timer = createTimer(clock);
  /** Time of the last tick, by the wall clock: some monotonic clocks stop during sleep. */
  let wall: number;
  /** Time of the next ping, and when the connection is declared dead: `Infinity` while no answer is due. */
  let pingAt: number;
  let deadAt = Infinity;

  const start = () => {
    pingAt = clock.monotonic() + (period || Infinity);
    wait();
  };

  /** Without a period the timer runs only while an answer is due. */
  const wait = (delay = TICK) => {
    wall = clock.now();
    timer(Math.min(pingAt, deadAt) < Infinity ? tick : undefined, delay);
  };

  const probe = (patience = PATIENCE) => {
    deadAt = Math.min(deadAt, clock.monotonic() + patience);
    start();
    ping();
  };

  const tick = () => {
    const now = clock.monotonic();
    // A wall clock that is set forward costs one needless ping.
    if (clock.now() - wall > TICK + JUMP) {
      // An answer that was due before the sleep may still be unread.
      deadAt = Infinity;
      probe(WAKE_PATIENCE);
      wait(WAKE_PATIENCE);
    } else if (now >= deadAt) dead();
    else if (now >= pingAt) probe();
    else wait();
  };

  return { start, stop: timer, heard: () => void (deadAt = Infinity), probe };
}
