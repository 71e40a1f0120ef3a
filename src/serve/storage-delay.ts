/** Delay before the storage is tried again after consecutive failures, in ms: 1 s, doubled with each failure, up to a minute. */
export const storageDelay = (failures: number): number => failures > 0 ? Math.min(60_000, 500 * 2 ** failures) : 0;
