/** Sizes and times of all simulations. */

export const SECOND = 1_000;
export const MINUTE: number = 60 * SECOND;
export const HOUR: number = 60 * MINUTE;

export const HISTORY_SIZE = 150;
export const MAX_BUFFERED_BYTES = 4_096;
/** How long a member stays whose connection was lost, in ms. */
export const GRACE: number = 2 * SECOND;
/** The option `timeout`, in ms. */
export const AUTHENTICATION: number = 10 * SECOND;

/** The seeds that tests simulate. A seed takes the same course on each runtime, to the byte: Deno, the fastest, runs all of them. */
export const SEEDS: readonly number[] = "Deno" in globalThis ? [1, 2, 3, 4] : [1];
