/**
 * Measures this project, what each runtime can do at best without it, and its peers, at the same works in alternating rounds.
 *
 * `npm run bench -- [--quick] [--rounds=5] [--only=fanout,echo] [--runtimes=bun,node] [--servers=noroshi,crossws] [--out=bench/results]
 * [--polls] [--lock=FILE]`
 *
 * A server is named by a part of its name. The lock is held for each single measurement, so that two benchmarks never measure at once. It never fails on a time; README.md says how it measures.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, type } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { lacks } from "../tests/support/brokers.ts";
import { buildServers } from "./build.ts";
import { chart } from "./chart.ts";
import { lock } from "./lock.ts";
import { buildGenerator, measure } from "./measure.ts";
import { maxDescriptors } from "./process.ts";
import { report, round } from "./report.ts";
import { type Results, type Rounds, sumUp } from "./results.ts";
import { COMMANDS, root, RUNTIME_TITLES, type RuntimeName, type Server, SERVERS } from "./servers.ts";
import { fitWorks, withCount, type Work, WORKS } from "./works.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string" },
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    runtimes: { type: "string" },
    servers: { type: "string" },
    out: { type: "string", default: join(root, "bench/results") },
    polls: { type: "boolean", default: false },
    lock: { type: "string" },
  },
});
const { quick } = values;
const rounds = Number(values.rounds ?? (quick ? 3 : 5));

// An exit ends the servers too.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

async function main(): Promise<number> {
  if (process.platform !== "linux") {
    throw new Error("Cannot measure here: the bench reads /proc and uses epoll, so run it on Linux");
  }
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("Cannot measure: --rounds takes a number from 1 on");
  const works = fitWorks(
    chosen(WORKS.filter(({ quickCount }) => !quick || quickCount), "only", ({ name }) => name),
    maxDescriptors(),
  )
    .map((work) => quick && work.quickCount ? withCount(work, work.quickCount) : work)
    .map((work) => values.polls ? { ...work, settings: { ...work.settings, polls: 1 } } : work);
  const runtimes = chosen([...new Set(SERVERS.map(({ runtime }) => runtime))], "runtimes", (name) => name);
  const servers = chosen(SERVERS, "servers", ({ name }) => name, true)
    .filter((server) => runtimes.includes(server.runtime) && (!quick || server.quick));
  if (servers.some(({ kind }) => kind === "peer")) installPeers();
  await buildServers(servers);
  const generator = buildGenerator();

  const date = new Date().toISOString();
  const results: Results = { date, rounds, quick, machine: machine(), versions: versions(runtimes), works: [] };
  for (const [index, work] of works.entries()) {
    console.log(`\n${index + 1}/${works.length} ${work.title}`);
    results.works.push(sumUp(work, await alternate(work, servers, generator)));
    write(results); // After each work: a long run that is ended has something to show.
  }
  console.log(`\nWritten to ${join(values.out, "results.md")}`);
  return 0;
}

/** Every server once, then every server again: what changes on the machine meanwhile meets all of them. */
async function alternate(work: Work, servers: readonly Server[], generator: string): Promise<Rounds[]> {
  const all = servers
    .filter((server) => does(server, work) && hasBroker(server))
    .map((server): Rounds => ({ server, samples: [], errors: [] }));
  for (let number = 1; number <= rounds; number++) {
    for (const { server, samples, errors } of all) {
      const label = `  ${number}/${rounds} ${RUNTIME_TITLES[server.runtime]}, ${server.name}: `;
      const release = values.lock === undefined ? () => {} : await lock(values.lock);
      try {
        const sample = await measure(server, work, generator, number);
        samples.push(sample);
        const faults = sample.faults > 0 ? `, ${sample.faults} faults` : "";
        console.log(label + summary(work, sample[work.figure]) + faults);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        errors.push(message);
        console.log(label + `failed: ${message}`);
      } finally {
        release();
      }
    }
  }
  return all;
}

function does({ kind, works, quick: isQuick }: Server, { name, ownOnly, channels, isHeartbeat, isCrossNode }: Work): boolean {
  if (quick && Array.isArray(isQuick) && !isQuick.includes(name)) return false;
  return works ? works.includes(name) : !channels && !isHeartbeat && !isCrossNode && !(ownOnly && kind === "peer");
}

function hasBroker({ name, runtime, broker }: Server): boolean {
  const lack = broker !== undefined && lacks(`${broker}-server`);
  if (lack) console.log(`  skipped ${RUNTIME_TITLES[runtime]}, ${name}: ${lack}`);
  return !lack;
}

function summary({ figure, unit }: Work, value: number): string {
  if (figure === "memory") return `${round(value, 1)} kB per connection`;
  if (figure === "peak") return `memory rose by ${round(value, 1)} MiB`;
  return `${round(value, 2)} s CPU per million ${unit}`;
}

/** What an option names, all without it. */
function chosen<T>(all: readonly T[], option: "only" | "runtimes" | "servers", nameOf: (each: T) => string, partly = false): T[] {
  const names = values[option]?.split(",");
  if (!names) return [...all];
  const fits = (each: T, name: string) =>
    partly ? nameOf(each).toLowerCase().includes(name.toLowerCase()) : nameOf(each) === name;
  const unknown = names.find((name) => !all.some((each) => fits(each, name)));
  if (unknown !== undefined) {
    throw new Error(`Cannot find "${unknown}": --${option} takes of ${[...new Set(all.map(nameOf))].join(", ")}`);
  }
  return all.filter((each) => names.some((name) => fits(each, name)));
}

/** Their packages are not part of a plain install. */
function installPeers(): void {
  const directory = join(root, "bench");
  const modified = (file: string) => statSync(join(directory, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (modified("node_modules/.package-lock.json") > modified("package-lock.json")) return;
  console.log("Installing the peers' packages");
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts"], {
    cwd: directory,
    stdio: "inherit",
  });
  if (status !== 0) {
    throw new Error("Cannot install the peers' packages: npm ci failed in bench; --servers=noroshi,raw does without them");
  }
}

function machine(): Results["machine"] {
  return {
    cores: availableParallelism(),
    model: cpus()[0]?.model.trim() || "CPU",
    system: `${type()} ${release().split("-")[0]}`,
  };
}

function versions(runtimes: readonly RuntimeName[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const runtime of ["bun", "deno", "node"] as const) {
    if (!runtimes.includes(runtime)) continue;
    const { stdout } = spawnSync(COMMANDS[runtime][0]!, ["--version"], { encoding: "utf8" });
    found[RUNTIME_TITLES[runtime]] = stdout?.match(/\d+\.\d+\.\d+/)?.[0] ?? "?";
  }
  const packages = [
    ...["ws", "hono", "@hono/node-server", "miniflare", "crossws", "socket.io", "@socket.io/bun-engine"],
    ...["@socket.io/redis-adapter", "@socket.io/redis-streams-adapter", "redis", "@nats-io/nats-core"],
  ];
  for (const name of packages) {
    const places = ["node_modules", "bench/node_modules"].map((modules) => join(root, modules, name, "package.json"));
    const file = places.find((place) => existsSync(place));
    if (file) found[name] = JSON.parse(readFileSync(file, "utf8")).version;
  }
  return found;
}

function write(results: Results): void {
  const out = resolve(values.out);
  mkdirSync(out, { recursive: true });
  const charts = new Map<string, string>();
  for (const work of results.works) {
    charts.set(work.name, `${work.name}.svg`);
    writeFileSync(join(out, `${work.name}.svg`), chart(work));
  }
  writeFileSync(join(out, `${results.date.slice(0, 10)}.json`), JSON.stringify(results, null, 2) + "\n");
  writeFileSync(join(out, "results.md"), report(results, charts));
}
