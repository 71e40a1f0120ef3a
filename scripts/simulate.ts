/**
 * Simulates clusters in virtual time, under faults that a seed decides, and checks the promises of docs/internals/reliability.md:
 *
 *     npm run simulate -- --seed 7 --hours 24 --nodes 5 --clients 300
 *
 * Longer runs consist of episodes of `--episode 24` hours, each a cluster of its own with the next seed. A failure prints the command that repeats its episode,
 * and `--shrink` looks for a smaller one. `--mutation <name>` puts a known fault into the code, and expects that an episode finds it;
 * `--mutation all` tries each. `--log` prints what happens when.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { type Mutation, MUTATIONS } from "../tests/simulation/mutations.ts";
import type { SimulationOptions, SimulationResult } from "../tests/simulation/simulation.ts";

type Simulate = (options: SimulationOptions) => Promise<SimulationResult>;
type Size = Omit<SimulationOptions, "log">;

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    hours: { type: "string", default: "24" },
    episode: { type: "string", default: "24" },
    nodes: { type: "string", default: "5" },
    clients: { type: "string", default: "300" },
    faults: { type: "string" },
    mutation: { type: "string" },
    shrink: { type: "boolean", default: false },
    log: { type: "boolean", default: false },
  },
});
const given: Size = {
  seed: Number(values.seed),
  hours: Number(values.hours),
  nodes: Number(values.nodes),
  clients: Number(values.clients),
  faults: values.faults?.split(",").filter((name) => name !== ""),
};
const log = values.log ? (line: string) => console.log(line) : undefined;
const folder = mkdtempSync(join(tmpdir(), "noroshi-simulation-"));
try {
  process.exitCode = values.mutation === undefined ? await check() : await tryMutations(values.mutation);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Runs episodes until one fails, or the hours are over. */
async function check(): Promise<number> {
  const simulate = await load("plain");
  const counts: Record<string, number> = {};
  const before = process.cpuUsage();
  for (const size of episodes(given)) {
    const result = await simulate({ ...size, log });
    for (const [name, count] of Object.entries(result.counts)) counts[name] = (counts[name] ?? 0) + count;
    console.log(`seed ${size.seed}: ${result.problems.length} problems, transcript ${result.hash}`);
    if (result.problems.length === 0) continue;
    await report(simulate, size, result);
    return 1;
  }
  const { user, system } = process.cpuUsage(before);
  counts["hours"] = Math.round(counts["hours"] ?? 0);
  console.log(`${JSON.stringify(counts)}, ${((user + system) / 1e6).toFixed(1)} s of CPU`);
  return 0;
}

async function report(simulate: Simulate, size: Size, { problems }: SimulationResult): Promise<void> {
  for (const problem of problems.slice(0, 10)) console.log(`  ${problem.slice(0, 500)}`);
  if (problems.length > 10) console.log(`  and ${problems.length - 10} more`);
  console.log(`Repeat it: ${commandOf(size)}`);
  if (values.shrink) console.log(`Smaller: ${commandOf(await shrink(simulate, size, problems.map(kindOf)))}`);
}

/** A smaller episode that fails in one of the same ways: fewer faults, clients, nodes and hours. */
async function shrink(simulate: Simulate, size: Size, kinds: readonly string[]): Promise<Size> {
  const fails = async (smaller: Size) => (await simulate(smaller)).problems.some((problem) => kinds.includes(kindOf(problem)));
  let best = size;
  const attempt = async (smaller: Size): Promise<boolean> => {
    if (!await fails(smaller)) return false;
    best = smaller;
    console.log(`  still fails: ${commandOf(best)}`);
    return true;
  };
  while (best.hours > 1 && await attempt({ ...best, hours: Math.max(1, Math.floor(best.hours / 2)) }));
  while (best.clients > 1 && await attempt({ ...best, clients: Math.max(1, Math.floor(best.clients / 2)) }));
  while (best.nodes > 1 && await attempt({ ...best, nodes: best.nodes - 1 }));
  const { FAULTS } = await module("plain");
  for (const fault of best.faults ?? FAULTS) {
    await attempt({ ...best, faults: (best.faults ?? FAULTS).filter((each) => each !== fault) });
  }
  return best;
}

/** The words of a problem without its numbers and names. */
function kindOf(problem: string): string {
  return problem.replace(/\S*\d\S*/g, "…").slice(0, 60);
}

async function tryMutations(name: string): Promise<number> {
  const names = name === "all" ? Object.keys(MUTATIONS) : [name];
  let unfound = 0;
  for (const each of names) {
    const mutation = MUTATIONS[each];
    if (!mutation) throw new Error(`No such mutation: use one of ${Object.keys(MUTATIONS).join(", ")}`);
    const simulate = await load(each, mutation);
    let hours = 0;
    let found: string | undefined;
    for (const size of episodes(given)) {
      const result = await simulate({ ...size, log });
      hours += result.counts["hours"] ?? 0;
      const [problem] = result.problems;
      if (problem === undefined) continue;
      found = `seed ${size.seed}: ${problem.slice(0, 160)}`;
      if (values.shrink) await report(simulate, size, result);
      break;
    }
    if (!found) unfound++;
    console.log(`${found ? "found    " : "not found"} ${each} after ${Math.round(hours)} h${found ? `, ${found}` : ""}`);
  }
  return unfound > 0 ? 1 : 0;
}

function* episodes(size: Size): Generator<Size> {
  const longest = Number(values.episode);
  for (let left = size.hours, { seed } = size; left > 0; left -= longest, seed++) {
    yield { ...size, seed, hours: Math.min(left, longest) };
  }
}

function commandOf({ seed, hours, nodes, clients, faults }: Size): string {
  const options = [`--seed ${seed}`, `--hours ${hours}`, `--nodes ${nodes}`, `--clients ${clients}`];
  const quoted = faults ? [`--faults "${faults.join(",")}"`] : [];
  const mutation = values.mutation === undefined ? [] : [`--mutation ${values.mutation}`];
  return `npm run simulate -- ${[...options, ...quoted, ...mutation].join(" ")}`;
}

async function load(name: string, mutation?: Mutation): Promise<Simulate> {
  return (await module(name, mutation)).simulate;
}

/** The simulation with a change in the source. Bundled, so that each has its own copy of all modules. */
async function module(name: string, mutation?: Mutation): Promise<{ simulate: Simulate; FAULTS: readonly string[] }> {
  const file = join(folder, `${name}.mjs`);
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: ["tests/simulation/simulation.ts"],
    bundle: true,
    platform: "node",
    format: "esm",
    write: false,
    plugins: [{
      name: "mutation",
      setup({ onLoad }) {
        onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, ({ path }) => {
          if (!mutation || path !== join(root, "src", mutation.file)) return undefined;
          const text = readFileSync(path, "utf8");
          if (text.split(mutation.before).length !== 2) {
            throw new Error(`Cannot change ${path}: "${mutation.before}" is not there once`);
          }
          return { contents: text.replace(mutation.before, () => mutation.after), loader: "ts" };
        });
      },
    }],
  });
  writeFileSync(file, outputFiles[0]!.contents); // There is one.
  return await import(pathToFileURL(file).href);
}
