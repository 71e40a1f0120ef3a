import { Ring } from "./ring.ts";
import type { Incident } from "./shown.ts";

/** Maximum number of incidents. */
const MAX_INCIDENTS = 200;

/** Incidents of one kind within so many ms are one entry with a count, so that a flood does not push out others. */
const PERIOD = 1_000;

/** The latest refusals, or the latest errors. */
export class Journal {
  readonly #incidents = new Ring<{ incident: Omit<Incident, "count">; count: number }>(MAX_INCIDENTS);
  readonly #last = new Map<string, { incident: Omit<Incident, "count">; count: number }>();
  /** Number of incidents so far. */
  total = 0;

  /** @param kind counted together within a second. @param describe called only if the incident is kept. */
  add(at: number, kind: string, describe: () => Omit<Incident, "count" | "at">): void {
    this.total++;
    const last = this.#last.get(kind);
    if (last && Math.abs(at - last.incident.at) < PERIOD) return void last.count++;
    const kept = { incident: { at, ...describe() }, count: 1 };
    if (this.#last.size >= MAX_INCIDENTS) this.#last.clear();
    this.#last.set(kind, kept);
    this.#incidents.push(kept);
  }

  /** Newest first. */
  list(): Incident[] {
    return this.#incidents.list().reverse().map(({ incident, count }) => ({ ...incident, count }));
  }
}
