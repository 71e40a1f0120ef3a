/** Runs the stages of a test run beside each other, as far as the machine has room for them. */
import { availableParallelism } from "node:os";

export interface Stage {
  name: string;
  run(): Promise<Outcome>;
  /** @default of the stage's name */
  cost?: Cost;
}

export interface Outcome {
  passed: number;
  /** The name of each test that failed, and what its report says. */
  failures: string[];
  skipped: number;
  /** What the stage has printed. */
  output: string;
}

export interface Row extends Outcome {
  name: string;
  seconds: number;
}

/** What a stage takes on a machine of two cores. */
export interface Cost {
  /** How many cores it keeps busy: its CPU seconds by its seconds. */
  cores: number;
  seconds: number;
}

/** Decides which stages run at the same time, and which start first. Wrong values cost time and change no outcome. */
const COSTS: Record<string, Cost> = {
  "engines node": { cores: 1, seconds: 95 },
  "runtimes nodes": { cores: 2, seconds: 70 },
  "runtimes client": { cores: 0.2, seconds: 67 },
  "runtimes unread": { cores: 0.6, seconds: 66 },
  "deploy": { cores: 0.7, seconds: 60 },
  "demo": { cores: 0.5, seconds: 50 },
  "runtimes pacing": { cores: 0.2, seconds: 49 },
  "runtimes deno": { cores: 0.5, seconds: 44 },
  "unit deno": { cores: 0.9, seconds: 43 },
  "runtimes cloudflare": { cores: 0.7, seconds: 43 },
  "engines deno": { cores: 0.7, seconds: 41 },
  "engines bun": { cores: 0.7, seconds: 38 },
  "runtimes door": { cores: 0.7, seconds: 34 },
  "unit node": { cores: 1.5, seconds: 30 },
  "runtimes serve": { cores: 0.4, seconds: 30 },
  "package": { cores: 1, seconds: 21 },
  "runtimes node": { cores: 0.5, seconds: 20 },
  "runtimes checker": { cores: 0.9, seconds: 18 },
  "runtimes frames": { cores: 0.5, seconds: 17 },
  "unit bun": { cores: 1, seconds: 16 },
  "check": { cores: 1.8, seconds: 15 },
  "demo-cluster": { cores: 0.6, seconds: 15 },
  "runtimes directus-clients": { cores: 0.5, seconds: 14 },
  "runtimes directus": { cores: 0.5, seconds: 13 },
  "runtimes neighbours": { cores: 0.4, seconds: 12 },
  "docs tutorial": { cores: 0.5, seconds: 90 },
  "docs snippets": { cores: 0.5, seconds: 80 },
  "create": { cores: 0.5, seconds: 60 },
  "runtimes testkit": { cores: 0.5, seconds: 60 },
  "asyncapi": { cores: 0.5, seconds: 60 },
  "chat": { cores: 0.5, seconds: 45 },
};

/** Of a stage that is not listed. */
const UNKNOWN: Cost = { cores: 1, seconds: 15 };

/**
 * Runs all stages, the longest first, on half of the machine: the costs leave out what a browser or a broker takes, and many tests have
 * a limit for what hangs. Resolves with a row for each in the order given. Prints what a stage has printed when it ends, so that
 * the output of two never mixes.
 */
export async function runStages(
  stages: readonly Stage[],
  { cores = availableParallelism() / 2, print = console.log }: { cores?: number; print?: (text: string) => void } = {},
): Promise<Row[]> {
  const rows = new Map<Stage, Row>();
  const waiting = new Set([...stages].sort((one, other) => costOf(other).seconds - costOf(one).seconds));
  const running = new Map<Stage, Promise<void>>();
  const busy = () => [...running.keys()].reduce((sum, stage) => sum + costOf(stage).cores, 0);
  while (rows.size < stages.length) {
    for (const stage of waiting) {
      // One that takes more than the machine has runs alone.
      if (running.size > 0 && busy() + costOf(stage).cores > cores) continue;
      waiting.delete(stage);
      running.set(
        stage,
        run(stage, print, stages.length === 1).then((row) => {
          rows.set(stage, row);
          running.delete(stage);
        }),
      );
    }
    await Promise.race(running.values());
  }
  return stages.map((stage) => rows.get(stage)!); // All have run.
}

const costOf = ({ name, cost }: Stage): Cost => cost ?? COSTS[name] ?? UNKNOWN;

async function run(stage: Stage, print: (text: string) => void, isAlone: boolean): Promise<Row> {
  const head = `\n━━ ${stage.name} ${"━".repeat(Math.max(0, 76 - stage.name.length))}\n`;
  // One that is alone may print while it runs.
  if (isAlone) print(head);
  const start = performance.now();
  const outcome = await stage.run();
  if (outcome.passed + outcome.failures.length === 0) outcome.failures.push("No test ran");
  print(isAlone ? outcome.output : `${head}\n${outcome.output}`);
  return { name: stage.name, ...outcome, seconds: (performance.now() - start) / 1000 };
}
