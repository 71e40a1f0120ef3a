import type { Position } from "../../src/engines/engine.ts";

/** One row of the table of what a recovery returns. */
export interface PositionCase {
  readonly title: string;
  /** Publications kept. */
  readonly size: number;
  /** Publications asked for, at most. */
  readonly limit: number;
  /** The position recovered from; `positions[0]` is before the first publication, `positions[6]` of the sixth and last. */
  place(positions: readonly Position[]): Position;
  /** The answer: which publications, by number from 0. */
  readonly publications: readonly number[];
  readonly isComplete: boolean;
}

const SIZES = [1, 3, 6, 100];
const LIMITS = [0, 1, 3, 6, 100];

/** How many of the six publications a client has seen. A small history has dropped what a client far behind needs. */
const SEEN = {
  fresh: 0,
  "behind by 5": 1,
  "behind by 4": 2,
  "behind by 3": 3,
  "behind by 2": 4,
  "behind by 1": 5,
  "at the top": 6,
};

/**
 * The table: history size × limit × position. A recovery returns all missed publications if the history has them within the limit;
 * otherwise it returns none.
 */
export function positionCases(): PositionCase[] {
  const cases: PositionCase[] = [];
  for (const size of SIZES) {
    for (const limit of LIMITS) {
      for (const [name, seen] of Object.entries(SEEN)) {
        const isComplete = 6 - seen <= size && 6 - seen <= limit;
        cases.push({
          title: `${isComplete ? "recovers" : "refuses"} a client that is ${name}: history of ${size}, limit of ${limit}`,
          size,
          limit,
          place: (positions) => positions[seen]!,
          publications: isComplete ? [0, 1, 2, 3, 4, 5].slice(seen) : [],
          isComplete,
        });
      }
    }
    for (const [name, change] of Object.entries(IMPOSSIBLE)) {
      cases.push({
        title: `refuses a client that is ${name}: history of ${size}`,
        size,
        limit: 100,
        place: (positions) => change(positions.at(-1)!),
        publications: [],
        isComplete: false,
      });
    }
  }
  return cases;
}

const IMPOSSIBLE: Record<string, (top: Position) => Position> = {
  "one ahead": ({ epoch, offset }) => ({ epoch, offset: offset + 1 }),
  "far ahead": ({ epoch, offset }) => ({ epoch, offset: offset + 1_000_000 }),
  "in another epoch": ({ offset }) => ({ epoch: "another", offset }),
};
