/** How long a connection may be open, in ms: up to a tenth less than `maxAge`, so that clients that connected together do not reconnect together. */
export const ageLimit = (maxAge: number): number => maxAge * (1 - Math.random() / 10);

/**
 * How long a connection that hibernated may still be open, in ms. A wall clock that was set back meanwhile must not prolong it.
 *
 * @param endsAt when it was to end, in ms since 1970; absent if there was no `maxAge` then.
 * @param now ms since 1970.
 */
export function remainingAge(endsAt: number | undefined, maxAge: number, now: number): number {
  if (endsAt === undefined || maxAge === Infinity) return ageLimit(maxAge);
  return Math.min(Math.max(0, endsAt - now), maxAge);
}
