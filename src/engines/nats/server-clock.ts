import type { StreamState } from "./jetstream.ts";

/** If the server's clock was set back by more than this, in ms, it is followed. Smaller steps are ignored. */
const MAX_STEP = 60_000;

/** The server's clock: the time of the last message of a stream, plus the local time since. Clocks of two machines are not compared. */
export class ServerClock {
  /** Server time and sequence of the last message, and the local monotonic time at which it was read. */
  #last = { time: 0, sequence: 0, readAt: 0 };

  /** The server's time, in ms. */
  now(): number {
    const { time, readAt } = this.#last;
    return time + performance.now() - readAt;
  }

  /** Sets the clock from the state of the stream, unless the last message is the same as before. */
  update({ last_seq, last_ts }: StreamState): void {
    if (last_seq === this.#last.sequence) return;
    const sent = Date.parse(last_ts);
    const now = this.now();
    const time = sent < now - MAX_STEP ? sent : Math.max(sent, now);
    this.#last = { time, sequence: last_seq, readAt: performance.now() };
  }
}
