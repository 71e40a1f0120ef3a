import type { Writable } from "../base/writable.ts";
import type { Connection } from "./connection.ts";

/** A connection that is checked. Only {@link Heartbeat} writes `nextPingAt`. */
type Checked = Writable<Pick<Connection, "nextPingAt" | "receivedAt" | "probe" | "timedOut">>;

/** Value of `receivedAt` from a ping until the peer sends anything: a whole number that is lower than any time. */
const AWAITS_ANSWER = -(2 ** 31);

/** Value of `receivedAt` after a late check, until the peer sends anything. */
const CHECKED_LATE = AWAITS_ANSWER + 1;

/**
 * Delay of a check, in ms, that shows that the process stood still, such as on a suspended machine. An answer may have arrived meanwhile that
 * is still unread, so the check is repeated once, after the same time.
 */
const LATE = 1_000;

/**
 * Maximum step in ms to whose multiples checks are rounded, so that one timer serves many clients. It halves the CPU of pinging 10,000 idle
 * clients, or better.
 */
const MAX_STEP = 50;

/**
 * Finds dead peers among all connections of a controller. Only inbound traffic counts: a peer that accepts writes but never answers
 * is dead, and a peer that only answers protocol pings is alive.
 */
export class Heartbeat {
  readonly #period: number;
  readonly #timeout: number;
  readonly #step: number;
  readonly #now: () => number;

  /**
   * @param period silence after which a peer is pinged, in ms.
   * @param timeout time to answer, in ms.
   * @param now the monotonic clock, in ms.
   */
  constructor({ period, timeout }: { period: number; timeout: number }, now: () => number) {
    this.#period = period;
    this.#timeout = timeout;
    this.#step = Math.max(1, Math.min(MAX_STEP, Math.floor(Math.min(period, timeout) / 100)));
    this.#now = now;
  }

  start(owner: Checked): void {
    // Spread over half a period, so that clients that reconnect together after a restart are not always pinged together.
    owner.receivedAt = Math.floor(this.#now() - this.#period * Math.random() / 2);
    owner.nextPingAt = this.#stepBefore(owner.receivedAt + this.#period);
  }

  /** Time until {@link due} must be called, in ms; `Infinity` if there is no check. */
  remaining({ nextPingAt }: Checked): number {
    return nextPingAt === undefined ? Infinity : Math.max(0, nextPingAt - this.#now());
  }

  due(owner: Checked): void {
    const now = this.#now();
    if (owner.nextPingAt === undefined || owner.nextPingAt > now) return;
    if (owner.receivedAt === AWAITS_ANSWER && now - owner.nextPingAt > LATE) {
      owner.receivedAt = CHECKED_LATE;
      owner.nextPingAt = this.#stepBefore(now + LATE);
      return;
    }
    if (owner.receivedAt <= CHECKED_LATE) return owner.timedOut();
    // A peer that has sent anything is pinged a full period after that.
    owner.nextPingAt = this.#stepBefore(owner.receivedAt + this.#period);
    if (owner.nextPingAt > now) return;
    owner.receivedAt = AWAITS_ANSWER;
    owner.nextPingAt = this.#stepBefore(now + this.#timeout);
    owner.probe();
  }

  #stepBefore(time: number): number {
    return Math.floor(time / this.#step) * this.#step;
  }
}
