import type { ResolvedOptions } from "./options.ts";

type BackoffOptions = Pick<ResolvedOptions, "backoff" | "random">;

/** Delay before the next attempt, in ms: random up to a ceiling that doubles, so that clients do not return at once ("full jitter"). */
export function backoffDelay(attempt: number, { backoff: { base, cap }, random }: BackoffOptions): number {
  // 2e9 plus the server's `retry_after` still fits a timer (2³¹−1 ms).
  return random() * Math.min(cap, base * 2 ** attempt, 2e9);
}
