/** Runs the stages of a test run beside each other, as long as the machine has room for more. */
import { cpus } from "node:os";
import { setTimeout } from "node:timers/promises";

export interface Stage {
  name: string;
  run(): Promise<Outcome>;
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
  /** When it began, in seconds since the first one did. */
  from: number;
  seconds: number;
}

/**
 * Those that take longest, the longest first: they start first, and what runs last is short. Fault runs take all of the machine, and start
 * alone.
 */
const LONGEST = [
  "runtimes nodes",
  "runtimes resuming-nodes",
  "engines node",
  "runtimes fallback",
  "unit deno",
  "docs snippets",
  "simulation",
  "docs tutorial",
  "unit node",
  "runtimes cloudflare",
  "engines deno",
  "engines bun",
  "inspector",
  "runtimes deno",
  "runtimes testkit",
  "demo",
  "worker",
  "runtimes unread",
  "runtimes unread-streams",
  "unit bun",
  "create",
  "runtimes pacing",
  "runtimes serve",
  "chat",
  "asyncapi",
  "docs site",
  "runtimes rolling",
  "check",
  "runtimes upgrade-leaks",
  "package",
  "chat-ai-nodes",
  "runtimes client",
];

/** What more would take of memory is not worth what little they wait for each other. */
const MOST_AT_ONCE = 8;

/** The part of the machine that must be idle for another stage to start: two stages leave about a quarter of two cores. */
const ENOUGH_IDLE = 0.2;

/** After this many ms a stage shows what it takes, and the machine is looked at again. */
const PAUSE = 2_000;

export interface RunOptions {
  /** The part of the machine that was idle since the last call, from 0 to 1. */
  idle?: () => number;
  /** Resolves when it is time to look at the machine. */
  pause?: () => Promise<void>;
  print?: (text: string) => void;
}

/**
 * Runs all stages, the longest first. Another one starts whenever part of the machine is idle: many stages wait most of the time, and a
 * machine that does other work gets them one at a time. Resolves with a row for each in the order given. Prints what a stage has printed when
 * it ends, so that the output of two never mixes.
 */
export async function runStages(
  stages: readonly Stage[],
  { idle = idleOfMachine(), pause = () => setTimeout(PAUSE, undefined, { ref: false }), print = console.log }: RunOptions = {},
): Promise<Row[]> {
  const rows = new Map<Stage, Row>();
  const waiting = [...stages].sort((one, other) => placeOf(one) - placeOf(other));
  const running = new Map<Stage, Promise<void>>();
  const begin = performance.now();
  let isIdle = false;
  let looking: Promise<void> | undefined;
  while (rows.size < stages.length) {
    if (waiting.length > 0 && (running.size === 0 || isIdle && running.size < MOST_AT_ONCE)) {
      const stage = waiting.shift()!; // It is not empty.
      // What was before does not count.
      isIdle = false;
      idle();
      running.set(
        stage,
        run(stage, begin, print, stages.length === 1).then((row) => {
          rows.set(stage, row);
          running.delete(stage);
        }),
      );
    }
    looking ??= pause().then(() => {
      looking = undefined;
      isIdle = idle() >= ENOUGH_IDLE;
    });
    await Promise.race([...running.values(), looking]);
  }
  return stages.map((stage) => rows.get(stage)!); // All have run.
}

function placeOf({ name }: Stage): number {
  const place = LONGEST.indexOf(name);
  return place < 0 ? LONGEST.length : place;
}

/** Reads the times of all cores. It returns the part of the machine that was idle since the last call, from 0 to 1. */
export function idleOfMachine(): () => number {
  const read = () => {
    const all = cpus().map(({ times }) => times);
    const sum = (times: readonly number[]) => times.reduce((total, time) => total + time, 0);
    return { idle: sum(all.map(({ idle }) => idle)), total: sum(all.flatMap((times) => Object.values(times))) };
  };
  let last = read();
  return () => {
    const before = last;
    last = read();
    return last.total > before.total ? (last.idle - before.idle) / (last.total - before.total) : 0;
  };
}

async function run(stage: Stage, begin: number, print: (text: string) => void, isAlone: boolean): Promise<Row> {
  const head = `\n━━ ${stage.name} ${"━".repeat(Math.max(0, 76 - stage.name.length))}\n`;
  // One that is alone may print while it runs.
  if (isAlone) print(head);
  const start = performance.now();
  const outcome = await stage.run();
  if (outcome.passed + outcome.failures.length === 0) outcome.failures.push("No test ran");
  print(isAlone ? outcome.output : `${head}\n${outcome.output}`);
  return { name: stage.name, ...outcome, from: (start - begin) / 1000, seconds: (performance.now() - start) / 1000 };
}
