import type { ResolvedOptions } from "./options.ts";

type BackoffOptions = Pick<ResolvedOptions, "backoff" | "random">;

/** Ceiling of the first delay after close code 1001 or 1012, in ms. */
const EARLY_CEILING = 250;

/**
 * Delay before the next attempt, in ms: random up to a ceiling that doubles ("full jitter"), so that clients do not reconnect together.
 *
 * @param code the close code. After 1001 and 1012 the first attempt is early, because other servers are available.
 */
export function backoffDelay(attempt: number, { backoff: { base, cap }, random }: BackoffOptions, code?: number): number {
  const isEarly = !attempt && (code === 1001 || code === 1012);
  // 2e9 plus the server's `retry_after` fits into a timer (2³¹−1 ms).
  return random() * Math.min(cap, base * 2 ** attempt, isEarly ? EARLY_CEILING : 2e9);
}
