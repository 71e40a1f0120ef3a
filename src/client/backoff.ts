import type { ResolvedOptions } from "./options.ts";

type BackoffOptions = Pick<ResolvedOptions, "backoff" | "random">;

/** How long to wait for the next try, in ms: anything up to a ceiling that doubles, so that not all come back at once ("full jitter"). */
export function backoffDelay(attempt: number, { backoff: { base, cap }, random }: BackoffOptions): number {
  // With what a server asks for it still is what a timer takes.
  return random() * Math.min(cap, base * 2 ** attempt, 2e9);
}
