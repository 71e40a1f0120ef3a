/**
 * Measures servers of one runtime side by side: each has its process and its clients all the time, and they do the work by turns of a
 * tenth of a second or so. What else the machine does meanwhile meets all of them, so that a ratio is certain where rounds of many
 * seconds, as in `run.ts`, differ by more than what is looked for.
 *
 * The generator does not sleep: whoever sends to one that sleeps wakes it, which the kernel counts as the sender's CPU, and the slower a
 * server is the more often it finds the generator asleep.
 *
 * `node --import tsx bench/pair.ts --work=echo --runtime=bun [--servers=noroshi,raw] [--turns=60] [--count=N] [--from=COMMIT]`
 *
 * The work is done `--count` times in all: more of it shows what a server costs that has compiled its code.
 *
 * With `--from` this project is also measured as it was at that commit.
 */
import { rmSync } from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { buildServers } from "./build.ts";
import { buildGenerator, type Program, readDone, startLoad, startServer } from "./measure.ts";
import { checkOut } from "./check-out.ts";
import { cpuOf, maxDescriptors } from "./process.ts";
import { root, RUNTIME_TITLES, type Server, SERVERS } from "./servers.ts";
import { fitWorks, WORKS } from "./works.ts";

const { values } = parseArgs({
  options: {
    work: { type: "string", default: "echo" },
    runtime: { type: "string", default: "bun" },
    servers: { type: "string", default: "noroshi,raw" },
    turns: { type: "string", default: "60" },
    count: { type: "string" },
    from: { type: "string" },
  },
});

// An exit ends the servers too.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
const programs: Program[] = [];
const from = values.from === undefined ? undefined : checkOut(values.from);
try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  for (const program of programs.reverse()) program.end();
  if (from !== undefined) rmSync(from, { recursive: true, force: true });
}

interface Measured {
  readonly server: Server;
  readonly pids: readonly number[];
  readonly load: Program;
  /** In s a million, by turn. */
  readonly cpu: number[];
}

async function main(): Promise<void> {
  const turns = Number(values.turns);
  const [work] = fitWorks(WORKS.filter(({ name }) => name === values.work), maxDescriptors());
  if (!work || work.figure !== "cpu" || work.isCrossNode || work.channels || work.isHeartbeat) {
    throw new Error(
      "Cannot measure: --work takes the name of one of which the CPU is compared, on one node, and which raw servers do",
    );
  }
  const count = Math.floor(Number(values.count ?? work.settings.count) / turns);
  if (!(count >= 1)) throw new Error("Cannot measure: --turns takes a number up to the work's count");
  // Some names have a comma, with a space after it.
  const parts = values.servers.split(/,(?! )/);
  // One of some works only is named in full.
  const servers = SERVERS.filter(({ name, runtime, works }) =>
    runtime === values.runtime &&
    parts.some((part) => works ? works.includes(work.name) && name === part : name.includes(part))
  );
  if (from !== undefined) {
    // What is built for Node is as far below the root as the source is: the path leads to that of the commit from both.
    const file = relative(join(root, "bench/servers"), join(from, "bench/servers/noroshi.ts"));
    servers.push({ name: `noroshi of ${values.from}`, runtime: values.runtime as Server["runtime"], kind: "noroshi", file });
  }
  if (servers.length < 2) throw new Error("Cannot measure: there are not two such servers of that runtime");
  await buildServers(servers);
  const generator = buildGenerator();

  console.log(`${work.title}: ${turns} turns of ${count}, ${RUNTIME_TITLES[servers[0]!.runtime]}`); // There are two.
  const all: Measured[] = [];
  for (const server of servers) {
    const { port, pids } = await startServer(server, programs);
    const load = startLoad(generator, port, work.load, { ...work.settings, ...server.settings, count, turns, polls: 1 });
    programs.push(load);
    await load.next("READY");
    all.push({ server, pids, load, cpu: [] });
  }
  for (const { load } of all) {
    load.go();
    await load.next("WARM");
  }
  const begin = performance.now();
  for (let turn = 0; turn < turns; turn++) {
    // Each has each place in the order as often as the others.
    for (const each of all.map((_, place) => all[(place + turn) % all.length]!)) { // Within its length.
      const before = cpuOf(each.pids);
      each.load.go();
      const { delivered, faults } = readDone(await each.load.next("DONE "));
      if (faults > 0) throw new Error(`${each.server.name} had ${faults} faults`);
      each.cpu.push((cpuOf(each.pids) - before) / (delivered / 1e6));
    }
  }
  report(all);
  const stay = Number(work.settings.stay ?? 0);
  if (stay > 0) console.log(`each stayed for ${((performance.now() - begin) / 1000 * stay / (turns * count)).toFixed(1)} s`);
}

/** Of each the median, and its ratio to the cheapest raw server, or to the commit: the median of those of the turns, and the middle half of them. */
function report(all: readonly Measured[]): void {
  const raw = all.filter(({ server }) => from === undefined ? server.kind === "raw" : server === all.at(-1)!.server).sort((
    a,
    b,
  ) => quantile(a.cpu, 0.5) - quantile(b.cpu, 0.5));
  const base = raw[0] ?? all[0]!; // There are two.
  for (const { server, cpu } of all) {
    const ratios = cpu.map((value, turn) => value / base.cpu[turn]!); // All have as many turns.
    const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(ratios, part).toFixed(2));
    const mark = server === base.server ? " *" : "";
    console.log(`${server.name}${mark}: ${quantile(cpu, 0.5).toFixed(2)} s a million, ratio ${middle} (${low}–${high})`);
  }
}

function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = part * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!]; // Within its length.
  return below + (above - below) * (at - Math.floor(at));
}
