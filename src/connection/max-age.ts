/** The age limit of one connection, in ms: up to a tenth below `maxAge`, so that clients do not all reconnect together. */
export const ageLimit = (maxAge: number): number => maxAge * (1 - Math.random() / 10);

/**
 * The time left for a connection that has hibernated, in ms. A wall clock that was set back meanwhile must not extend it.
 *
 * @param endsAt the saved end, in ms since 1970; absent if `maxAge` was not set then.
 * @param now the wall clock, in ms since 1970.
 */
export function remainingAge(endsAt: number | undefined, maxAge: number, now: number): number {
  if (endsAt === undefined || maxAge === Infinity) return ageLimit(maxAge);
  return Math.min(Math.max(0, endsAt - now), maxAge);
}

/** The end of the time left, in ms of the clock of `now`; `undefined` without a limit. */
export const endAfter = (left: number, now: number): number | undefined => left < Infinity ? now + left : undefined;
