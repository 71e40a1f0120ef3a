import type { AnyFault, SimulationOptions, SimulationResult } from "./simulation.ts";

export type Simulate = (options: SimulationOptions) => Promise<SimulationResult>;

/** What a simulation consists of, without how it is watched. */
export type Size = Omit<SimulationOptions, "log">;

/** Seeds that are tried with each smaller size: fewer clients or faults make another schedule. */
const SEEDS = 4;

/** Steps of `hours`. */
const STEP = 0.1;

/**
 * Looks for a smaller simulation that fails in one of the same ways: with fewer hours, faults, clients and nodes.
 *
 * @param all the faults, if the size does not name them.
 * @param found called with each smaller one.
 */
export async function shrink(
  simulate: Simulate,
  size: Size,
  problems: readonly string[],
  all: readonly AnyFault[],
  found: (smaller: Size) => void,
): Promise<Size> {
  const kinds = new Set(problems.map(kindOf));
  let best: Size = { ...size, faults: size.faults ?? all };
  const attempt = async (change: Partial<Size>): Promise<boolean> => {
    for (let seed = best.seed; seed < best.seed + SEEDS; seed++) {
      const smaller = { ...best, ...change, seed };
      const { problems, counts } = await simulate(smaller);
      if (!problems.some((problem) => kinds.has(kindOf(problem)))) continue;
      // It has ended with the round that failed.
      best = { ...smaller, hours: Math.min(smaller.hours, Math.ceil(counts["hours"]! / STEP) * STEP) }; // Counted in each.
      found(best);
      return true;
    }
    return false;
  };
  await attempt({});
  for (const fault of best.faults!) await attempt({ faults: best.faults!.filter((each) => each !== fault) }); // Set above.
  while (best.clients > 1 && await attempt({ clients: Math.floor(best.clients / 2) }));
  while (best.clients > 1 && await attempt({ clients: best.clients - 1 }));
  while (best.library && await attempt({ library: best.library - 1 }));
  while (best.nodes > 1 && await attempt({ nodes: best.nodes - 1 }));
  while (best.hours > STEP && await attempt({ hours: best.hours / 2 }));
  return best;
}

/** The words of a problem without its numbers and names. */
export function kindOf(problem: string): string {
  return problem.replace(/\S*\d\S*/g, "…").slice(0, 60);
}
