import type { Durations } from "./shown.ts";

/** Maximum number of durations between two readings. */
const MAX_SAMPLES = 500;

/** Collects durations in ms, and computes their percentiles from the first {@link MAX_SAMPLES} of them. */
export class DurationSamples {
  #samples: number[] = [];
  #count = 0;

  add(ms: number): void {
    if (this.#count++ < MAX_SAMPLES) this.#samples.push(ms);
  }

  /** The durations since the last call. */
  take(): Durations {
    const sorted = this.#samples.sort((a, b) => a - b);
    const at = (share: number) => round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);
    const taken = { count: this.#count, p50: at(0.5), p99: at(0.99) };
    this.#samples = [];
    this.#count = 0;
    return taken;
  }
}

/** Rounds to a hundredth. */
export const round = (value: number): number => Math.round(value * 100) / 100;
