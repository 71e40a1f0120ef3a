import type { BroadcastFilter } from "./delivery.ts";
import type { Accountability } from "./websocket-client.ts";

/** Who was disconnected lately: an authentication that began before must not let them in again. */
export class Disconnections {
  readonly #keep: number;
  #recent: { filter: BroadcastFilter; number: number; at: number }[] = [];
  #number = 0;

  /** @param keep ms for which one is remembered. */
  constructor(keep: number) {
    this.#keep = keep;
  }

  /** How many there have been. They are numbered, for two things may happen within one millisecond. */
  get number(): number {
    return this.#number;
  }

  /** @param now ms of the monotonic clock. */
  add(filter: BroadcastFilter, now: number): void {
    this.#recent = this.#recent.filter(({ at }) => now - at < this.#keep);
    this.#recent.push({ filter, number: ++this.#number, at: now });
  }

  /** Whether this user or role was disconnected since there had been so many. */
  includes({ user, role }: Accountability, since: number): boolean {
    return this.#recent.some(({ filter, number }) =>
      number > since && (filter.user === undefined || filter.user === user) && (filter.role === undefined || filter.role === role)
    );
  }
}
