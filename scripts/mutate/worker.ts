/** The process of one test file: loads the file once, and runs one of its tests against a change for each order. */
import process from "node:process";
import { setImmediate as turn } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { endSuites, tests } from "./test-tree.ts";

/** Run the test with this number. */
export interface Order {
  readonly test: number;
  /** Against the change with this number, if not negative. */
  readonly change: number;
  /** Say which changes it reaches. */
  readonly explore?: true;
}

/** How a test ended. */
export interface Outcome {
  readonly result: "passed" | "failed" | "threw outside of the test";
  /** Why it has not passed. */
  readonly error?: string;
  /** The numbers of the changes that it reached, if asked for. */
  readonly reached: readonly number[];
  /** In ms. */
  readonly took: number;
}

/** What has been loaded. */
export interface Loaded {
  /** The names of the tests. */
  readonly tests: readonly string[];
  readonly reached: readonly number[];
}

const [bundle, first] = process.argv.slice(2) as [string, string];
let change = Number(first);
/** The changes that were reached, as long as they are asked for. */
let reached: Set<number> | undefined = new Set();
let fail: ((error: unknown) => void) | undefined;

Object.assign(globalThis, {
  __change: (number: number) => {
    reached?.add(number);
    return number === change;
  },
});

async function run(order: Order): Promise<Outcome> {
  const begun = performance.now();
  reached = order.explore && new Set();
  ({ change } = order);
  const end = (result: Outcome["result"], error?: unknown): Outcome => {
    const took = performance.now() - begun;
    return { result, reached: [...reached ?? []], took, ...error !== undefined && { error: String(error) } };
  };
  const outside = new Promise<Outcome>((resolve) => fail = (error) => resolve(end("threw outside of the test", error)));
  const inside = (async () => {
    await tests[order.test]!.run();
    await turn(); // A promise that the test has not awaited may reject within a turn.
    return end("passed");
  })();
  const outcome = await Promise.race([inside.catch((error: unknown) => end("failed", error)), outside]);
  fail = undefined;
  change = -1;
  return outcome;
}

// A test may still throw after its end. The next outcome then says so, and that test runs again in a new process.
let hasThrownLate = false;
process.on("uncaughtException", (error) => fail ? fail(error) : hasThrownLate = true);

await import(pathToFileURL(bundle).href);
process.send!({ tests: tests.map(({ name }) => name), reached: [...reached ?? []] } satisfies Loaded);
process.on("message", async (order: Order) => {
  const outcome = await run(order);
  process.send!(hasThrownLate ? { ...outcome, result: "threw outside of the test" } : outcome);
  hasThrownLate = false;
});
process.once("disconnect", () => void endSuites().finally(() => process.exit()));
