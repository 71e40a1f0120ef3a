/**
 * Simulates clusters in virtual time, under faults that a seed decides, and checks the promises of docs/internals/reliability.md:
 *
 *     npm run simulate -- --seed 7 --hours 24 --nodes 5 --clients 300
 *
 * Longer runs consist of episodes of `--episode 10` hours, each a cluster of its own with the next seed. `--library 4` adds as many clients
 * of `noroshi/client` to those without a library, and `--burst 25` is how many publications come at once, on average. A failure prints the
 * command that repeats its episode, and `--shrink` looks for a smaller one. `--mutation <name>` puts a known fault into the code, and
 * expects that an episode finds it; `--mutation all` tries each, and `--mutation known` those whose seed is recorded, with that seed.
 * `--log` prints what happens when. With `--object` it is a Durable Object that hibernates, in place of the nodes. That needs a runtime with
 * SQLite: `npm run simulate:object` runs it with Bun.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { buildSimulation, type SimulationModule } from "../tests/simulation/mutant.ts";
import { MUTATIONS } from "../tests/simulation/mutations.ts";
import type { AnyFault } from "../tests/simulation/simulation.ts";
import { shrink, type Size } from "../tests/simulation/shrink.ts";

/** Hours of an episode. */
const EPISODE = "10";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    hours: { type: "string", default: "24" },
    episode: { type: "string", default: EPISODE },
    nodes: { type: "string", default: "3" },
    clients: { type: "string", default: "12" },
    library: { type: "string", default: "0" },
    burst: { type: "string" },
    faults: { type: "string" },
    object: { type: "boolean", default: false },
    mutation: { type: "string" },
    shrink: { type: "boolean", default: false },
    log: { type: "boolean", default: false },
  },
});
const given: Size = {
  seed: Number(values.seed),
  hours: Number(values.hours),
  nodes: values.object ? 1 : Number(values.nodes),
  object: values.object,
  clients: Number(values.clients),
  library: Number(values.library),
  burst: values.burst === undefined ? undefined : Number(values.burst),
  faults: values.faults?.split(",").filter((name) => name !== "") as AnyFault[] | undefined, // Other names have no effect.
};
const log = values.log ? (line: string) => console.log(line) : undefined;
const folder = mkdtempSync(join(tmpdir(), "noroshi-simulation-"));
try {
  process.exitCode = values.mutation === undefined ? await check() : await tryMutations(values.mutation);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

interface Run {
  readonly counts: Record<string, number>;
  /** The first episode that failed. */
  readonly failure?: { readonly size: Size; readonly problems: readonly string[] };
}

/** Runs episodes until one fails, or the hours are over. */
async function run({ simulate }: SimulationModule, whole: Size): Promise<Run> {
  const counts: Record<string, number> = {};
  const before = process.cpuUsage();
  for (const size of episodes(whole)) {
    const result = await simulate({ ...size, log });
    for (const [name, count] of Object.entries(result.counts)) counts[name] = (counts[name] ?? 0) + count;
    const { user, system } = process.cpuUsage(before);
    counts["seconds of CPU"] = Math.round((user + system) / 1e5) / 10;
    if (values.mutation === undefined) {
      console.log(`seed ${size.seed}: ${result.problems.length} problems, transcript ${result.hash}`);
    }
    if (result.problems.length > 0) return { counts, failure: { size, problems: result.problems } };
  }
  return { counts };
}

async function check(): Promise<number> {
  const built = await buildSimulation(folder, "plain");
  const { counts, failure } = await run(built, given);
  if (failure) await report(built, failure);
  counts["hours"] = Math.round(counts["hours"] ?? 0);
  console.log(JSON.stringify(counts));
  return failure ? 1 : 0;
}

async function report({ simulate, FAULTS }: SimulationModule, { size, problems }: NonNullable<Run["failure"]>): Promise<void> {
  for (const problem of problems.slice(0, 10)) console.log(`  ${problem.slice(0, 500)}`);
  if (problems.length > 10) console.log(`  and ${problems.length - 10} more`);
  console.log(`Repeat it: ${commandOf(size)}`);
  if (!values.shrink) return;
  const smallest = await shrink(
    simulate,
    size,
    problems,
    FAULTS,
    (smaller) => console.log(`  still fails: ${commandOf(smaller)}`),
  );
  console.log(`Smaller: ${commandOf(smallest)}`);
}

async function tryMutations(name: string): Promise<number> {
  const isKnown = name === "known";
  const all = Object.entries(MUTATIONS).filter(([, { seed }]) => !isKnown || seed !== undefined).map(([each]) => each);
  const names = isKnown || name === "all" ? all : name.split(",");
  let unfound = 0;
  for (const each of names) {
    const mutation = MUTATIONS[each];
    if (!mutation) throw new Error(`No such mutation: use one of ${Object.keys(MUTATIONS).join(", ")}`);
    if (names.length > 1 && (mutation.object ?? false) !== values.object) continue; // Found by the other command.
    const built = await buildSimulation(folder, each, mutation);
    const { seed = given.seed } = isKnown ? mutation : given;
    const { library = given.library, object = given.object, size } = mutation;
    const whole = { ...given, library, object, ...size, seed };
    const { counts: { hours, "seconds of CPU": seconds }, failure } = await run(built, whole);
    const after = `${each} after ${hours?.toFixed(1)} h from seed ${seed} on, ${seconds} s of CPU`;
    if (failure) console.log(`found     ${after}, seed ${failure.size.seed}: ${failure.problems[0]?.slice(0, 200)}`);
    else console.log(`not found ${after}`);
    if (failure && values.shrink) await report(built, failure);
    if (!failure) unfound++;
  }
  return unfound > 0 ? 1 : 0;
}

function* episodes(size: Size): Generator<Size> {
  const longest = Number(values.episode);
  for (let left = size.hours, { seed } = size; left > 0; left -= longest, seed++) {
    yield { ...size, seed, hours: Math.min(left, longest) };
  }
}

function commandOf({ seed, hours, nodes, object, clients, library, burst, faults }: Size): string {
  const options = [
    `--seed ${seed}`,
    `--hours ${Number(hours.toFixed(2))}`,
    ...(object ? [] : [`--nodes ${nodes}`]),
    `--clients ${clients}`,
  ];
  if (library) options.push(`--library ${library}`);
  if (burst !== undefined) options.push(`--burst ${burst}`);
  if (hours > Number(EPISODE)) options.push(`--episode ${values.episode}`);
  const quoted = faults ? [`--faults "${faults.join(",")}"`] : [];
  const mutation = values.mutation === undefined ? [] : [`--mutation ${values.mutation}`];
  return `npm run simulate${object ? ":object" : ""} -- ${[...options, ...quoted, ...mutation].join(" ")}`;
}
