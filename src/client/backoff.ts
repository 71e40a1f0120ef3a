import type { ResolvedOptions } from "./options.ts";

type BackoffOptions = Pick<ResolvedOptions, "backoff" | "random">;

/** Ceiling of the first delay after the server has asked to come back at once, in ms. */
const AT_ONCE = 250;

/**
 * Delay before the next attempt, in ms: random up to a ceiling that doubles, so that clients do not return at once ("full jitter").
 *
 * @param code the close code; after 1001 and 1012 the first attempt is early, because other servers are there
 */
export function backoffDelay(attempt: number, { backoff: { base, cap }, random }: BackoffOptions, code?: number): number {
  const isEarly = !attempt && (code === 1001 || code === 1012);
  // 2e9 plus the server's `retry_after` still fits a timer (2³¹−1 ms).
  return random() * Math.min(cap, base * 2 ** attempt, isEarly ? AT_ONCE : 2e9);
}
