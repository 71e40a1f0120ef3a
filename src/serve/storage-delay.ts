/** How long to wait for a storage that has failed so many times in a row, in ms: 1 s at first, twice as long each time, a minute at most. */
export const storageDelay = (failures: number): number => failures > 0 ? Math.min(60_000, 500 * 2 ** failures) : 0;
