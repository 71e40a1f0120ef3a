import type { Position } from "../../src/engines/engine.ts";

/** One row of the table that says what recovery answers. */
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

/** How many of the six publications someone has seen. Who has seen few is evicted from a history of few. */
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
 * The table: history size × limit × position. Either all that was missed is there, and is kept, and is asked for, or nothing is given:
 * never a part.
 */
export function positionCases(): PositionCase[] {
  const cases: PositionCase[] = [];
  for (const size of SIZES) {
    for (const limit of LIMITS) {
      for (const [name, seen] of Object.entries(SEEN)) {
        const isComplete = 6 - seen <= size && 6 - seen <= limit;
        cases.push({
          title: `${isComplete ? "gives" : "refuses"} who is ${name}, of ${size} kept, ${limit} at most`,
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
        title: `refuses who is ${name}, of ${size} kept`,
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
  "of another epoch": ({ offset }) => ({ epoch: "another", offset }),
};
