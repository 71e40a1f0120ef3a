/**
 * How honest clients fare while a server is attacked. A short attack comes first, so that what a process allocates once is there; then, of the
 * same length each, a calm phase, one in which the attackers go to a second server of the same kind (the decoy), and the hostile one; then a
 * recovery. What the decoy's clients feel is that of sharing the machine, what is beyond it the server's.
 *
 * `node --import tsx bench/hostile.ts [--seconds=60] [--runtime=bun,deno,node] [--attacks=flood,junk]
 * [--flooders=20] [--output=bench/results]`
 *
 * It never fails on a time: it exits with 1 when the server died, an honest client was closed or lost a message, or the
 * counters do not add up. All of it stays on the loopback interface.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { ControllerStats } from "../mod.ts";
import type { Told } from "./hostile-honest.ts";

const HONEST = 100;
/** Between two pings of an honest client, in ms. */
const INTERVAL = 500;

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);
const COMMANDS: Record<string, string[]> = {
  bun: [bin("bun"), "run"],
  deno: [join(root, "node_modules/deno/deno"), "run", "-A", "--no-lock"],
  node: [process.execPath, "--import", "tsx"],
};

interface State {
  stats: ControllerStats[];
  connects: number;
  closes: Record<string, number>;
  errors: Record<string, number>;
}

interface Phase {
  pings: number;
  p50: number;
  p99: number;
  max: number;
  lost: number;
  closed: number;
  /** CPU of the server: cores in use. */
  serverCpu: number | null;
  /** The part of the time in which the honest clients' process was idle. */
  honestIdle: number;
}

interface Result {
  runtime: string;
  seconds: number;
  date: string;
  cores: number;
  calm: Phase;
  decoy: Phase;
  hostile: Phase;
  recovery: Phase;
  /** Of the hostile phase's p99, to the calm one's and to that beside the decoy. */
  ratio: { calm: number; decoy: number };
  /** Of the server, in MiB: before the attack, at its peak, after it, after the recovery; the first and last after a collection. */
  rss: { before: number; peak: number; end: number; after: number };
  heap: { before: number; after: number };
  attackers: { idle: number; ticks: number; done: Record<string, number> };
  closes: Record<string, number>;
  /** Error events, by what they say. */
  errors: Record<string, number>;
  /** What is wrong; empty is what it should be. */
  problems: string[];
}

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    runtime: { type: "string", default: "bun,deno,node" },
    attacks: { type: "string", default: "" },
    flooders: { type: "string", default: "20" },
    output: { type: "string", default: join(here, "results") },
  },
});
const seconds = Math.min(600, Math.max(2, Number(values.seconds)));
const runtimes = values.runtime.split(",");
for (const runtime of runtimes) {
  if (!COMMANDS[runtime]) {
    throw new Error(`Cannot run on "${runtime}": use bun, deno or node`);
  }
}

const results: Result[] = [];
for (const runtime of runtimes) results.push(await run(runtime));
mkdirSync(values.output, { recursive: true });
writeFileSync(
  join(values.output, "hostile.json"),
  `${JSON.stringify(results, null, 2)}\n`,
);
const table = toTable(results);
writeFileSync(join(values.output, "hostile.md"), table);
console.log(`\n${table}`);
for (const { runtime, problems } of results) {
  for (const problem of problems) console.error(`✖ ${runtime}: ${problem}`);
}
process.exit(results.some(({ problems }) => problems.length > 0) ? 1 : 0);

async function run(runtime: string): Promise<Result> {
  const [command = "", ...args] = COMMANDS[runtime]!;
  const server = spawn(command, [...args, join(here, "hostile-server.ts")], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const children: ChildProcess[] = [server];
  const problems: string[] = [];
  let stopping = false;
  server.once("exit", (code, signal) => {
    if (!stopping) problems.push(`the server died with ${code ?? signal}`);
  });
  try {
    const port = await readPort(server);
    const honest = start("hostile-honest.ts", port, HONEST, INTERVAL);
    children.push(honest);
    await messageOf(honest);
    const attack = (target: number, length: number) => {
      const attackers = start(
        "hostile-attackers.ts",
        target,
        length,
        Number(values.flooders),
        ...values.attacks.split(",").filter(Boolean),
      );
      children.push(attackers);
      return messageOf<Result["attackers"]>(attackers);
    };
    const short = Math.min(10, seconds);
    const warmed = attack(port, short);
    await phase(runtime, "warm-up", honest, server, short);
    await warmed;
    await phase(runtime, "settling", honest, server, short);

    const calm = await phase(runtime, "calm", honest, server, seconds);
    const before = await collect(port);
    const rssBefore = rssOf(server);

    const second = startServer(runtime);
    children.push(second);
    const decoyed = attack(await readPort(second), seconds);
    const decoy = await phase(runtime, "decoy", honest, server, seconds);
    await decoyed;
    second.kill("SIGKILL");

    const attacked = attack(port, seconds);
    let peak = 0;
    const hostile = await phase(
      runtime,
      "hostile",
      honest,
      server,
      seconds,
      () => peak = Math.max(peak, rssOf(server)),
    );
    const attackers = await attacked;
    const end = rssOf(server);

    const recovery = await phase(
      runtime,
      "recovery",
      honest,
      server,
      Math.min(45, seconds),
    );
    const after = await collect(port);
    const rssAfter = rssOf(server);
    const state = await get<State>(port, "/state");
    problems.push(...reconcile(state, HONEST));

    honest.send("leave");
    await once(honest, "exit");
    // The closes are on their way; those of the honest clients are all there is to wait for.
    const last = await until(
      () => get<State>(port, "/state"),
      ({ stats }) => stats.every(({ active }) => active === 0),
    );
    problems.push(...reconcile(last, 0));
    for (
      const [name, { lost, closed }] of Object.entries({
        calm,
        decoy,
        hostile,
        recovery,
      })
    ) {
      if (lost > 0) {
        problems.push(`${lost} pings were not answered in the ${name} phase`);
      }
      if (closed > 0) {
        problems.push(
          `${closed} honest clients were closed in the ${name} phase`,
        );
      }
    }
    return {
      ...{
        runtime,
        seconds,
        date: new Date().toISOString().slice(0, 10),
        cores: availableParallelism(),
      },
      ...{ calm, decoy, hostile, recovery },
      ratio: {
        calm: round(hostile.p99 / calm.p99),
        decoy: round(hostile.p99 / decoy.p99),
      },
      rss: {
        before: rssBefore,
        peak: Math.max(peak, end),
        end,
        after: rssAfter,
      },
      heap: {
        before: mebibytes(before.heapUsed),
        after: mebibytes(after.heapUsed),
      },
      attackers: { ...attackers, idle: round(attackers.idle) },
      closes: last.closes,
      errors: last.errors,
      problems,
    };
  } finally {
    stopping = true;
    for (const child of children) {
      if (child.exitCode === null) child.kill("SIGKILL");
    }
  }
}

function startServer(runtime: string): ChildProcess {
  const [command = "", ...args] = COMMANDS[runtime]!;
  return spawn(command, [...args, join(here, "hostile-server.ts")], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
}

/** What the process says next. */
async function messageOf<T>(child: ChildProcess): Promise<T> {
  const exited = once(child, "exit").then(([code]) => {
    throw new Error(`A process of the bench exited with ${code} and said nothing`);
  });
  const [message] = await Promise.race([once(child, "message"), exited]);
  return message as T; // Each caller knows whom it asks.
}

function start(file: string, ...args: (number | string)[]): ChildProcess {
  return fork(join(here, file), args.map(String), {
    execArgv: ["--import", "tsx"],
    cwd: root,
  });
}

/** Lets so many seconds pass, and asks the honest clients how they fared. */
async function phase(
  runtime: string,
  name: string,
  honest: ChildProcess,
  server: ChildProcess,
  length: number,
  look: () => void = () => {},
): Promise<Phase> {
  const cpu = cpuOf(server);
  const begin = performance.now();
  for (
    let passed = 0;
    passed < length;
    passed = (performance.now() - begin) / 1000
  ) {
    look();
    const line = `${runtime.padEnd(5)} ${name.padEnd(9)} ${passed.toFixed(0).padStart(3)}/${length} s  rss ${rssOf(server)} MiB`;
    if (process.stdout.isTTY) process.stdout.write(`\r${line}  `);
    else if (Math.floor(passed) % 10 === 0 && passed % 1 < 0.5) {
      console.log(line);
    }
    if (server.exitCode !== null) {
      throw new Error(`The ${runtime} server died in the ${name} phase`);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  if (process.stdout.isTTY) process.stdout.write("\n");
  const elapsed = (performance.now() - begin) / 1000;
  const used = cpuOf(server);
  const answer = messageOf<Told>(honest);
  honest.send("tell");
  const { times, sent, lost, closed, idle } = await answer;
  times.sort((a, b) => a - b);
  const at = (part: number) =>
    round(
      times[Math.min(times.length - 1, Math.floor(part * times.length))] ?? NaN,
    );
  return {
    ...{ pings: sent, p50: at(0.5), p99: at(0.99), max: at(1), lost, closed },
    serverCpu: cpu === null || used === null ? null : round((used - cpu) / elapsed),
    honestIdle: round(idle),
  };
}

/** What does not add up when only the honest clients are there. */
function reconcile(
  { stats, connects, closes }: State,
  clients: number,
): string[] {
  const problems: string[] = [];
  for (
    const [i, { opened, closed, active, pending, reserved }] of stats.entries()
  ) {
    const expected = i === 0 ? clients : 0;
    if (opened !== closed + active) {
      problems.push(
        `${opened} opened are not ${closed} closed and ${active} active`,
      );
    }
    if (active !== expected || reserved !== expected || pending !== 0) {
      problems.push(
        `${active} active, ${reserved} reserved, ${pending} pending where ${expected} should be`,
      );
    }
  }
  const closed = Object.values(closes).reduce((sum, number) => sum + number, 0);
  if (connects !== closed + clients) {
    problems.push(
      `${connects} connect events, ${closed} close events, ${clients} clients`,
    );
  }
  return problems;
}

async function readPort({ stdout }: ChildProcess): Promise<number> {
  for await (const line of createInterface({ input: stdout! })) {
    const [, port] = line.match(/^PORT (\d+)$/) ?? [];
    if (port) return Number(port);
  }
  throw new Error("The server ended before it listened");
}

async function get<T>(port: number, path: string): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    headers: { connection: "close" },
  });
  return await response.json() as T; // What hostile-server.ts answers.
}

function collect(port: number): Promise<{ heapUsed: number }> {
  return get(port, "/collect");
}

/** Asks until the answer is as it should be, for at most 10 s, and returns the last one. */
async function until<T>(
  ask: () => Promise<T>,
  isRight: (answer: T) => boolean,
): Promise<T> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const answer = await ask();
    if (isRight(answer) || performance.now() > deadline) return answer;
  }
}

/** Resident memory in MiB, 0 where the system does not tell. */
function rssOf({ pid }: ChildProcess): number {
  return mebibytes(
    1024 * Number(readProc(pid, "status").match(/VmRSS:\s+(\d+) kB/)?.[1] ?? 0),
  );
}

/** CPU time in seconds: user and system, in ticks of 10 ms (proc(5)). */
function cpuOf({ pid }: ChildProcess): number | null {
  const fields = readProc(pid, "stat").split(") ")[1]?.split(" ");
  return fields ? (Number(fields[11]) + Number(fields[12])) / 100 : null;
}

function readProc(pid: number | undefined, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return ""; // Not Linux, or the process is gone.
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}

function toTable(results: Result[]): string {
  const rows = [
    ["", ...results.map(({ runtime }) => runtime)],
    [
      "honest p50 calm → decoy → hostile (ms)",
      ...results.map(({ calm, decoy, hostile }) => `${calm.p50} → ${decoy.p50} → ${hostile.p50}`),
    ],
    [
      "honest p99 calm → decoy → hostile (ms)",
      ...results.map(({ calm, decoy, hostile }) => `${calm.p99} → ${decoy.p99} → ${hostile.p99}`),
    ],
    [
      "p99 hostile ÷ decoy (target: at most 2)",
      ...results.map(({ ratio }) => `${ratio.decoy}`),
    ],
    [
      "p99 hostile ÷ calm",
      ...results.map(({ ratio }) => `${ratio.calm}`),
    ],
    [
      "longest calm → decoy → hostile (ms)",
      ...results.map(({ calm, decoy, hostile }) => `${calm.max} → ${decoy.max} → ${hostile.max}`),
    ],
    [
      "p99 in recovery (ms)",
      ...results.map(({ recovery }) => `${recovery.p99}`),
    ],
    [
      "honest pings lost / clients closed",
      ...results.map(({ hostile }) => `${hostile.lost} of ${hostile.pings} / ${hostile.closed}`),
    ],
    [
      "server RSS before → peak → after (MiB)",
      ...results.map(({ rss }) => `${rss.before} → ${rss.peak} → ${rss.after}`),
    ],
    [
      "after ÷ before (target: at most 1.2)",
      ...results.map(({ rss }) => `${round(rss.after / rss.before)}`),
    ],
    [
      "heap after a collection before → after (MiB)",
      ...results.map(({ heap }) => `${heap.before} → ${heap.after}`),
    ],
    [
      "server CPU calm → hostile (cores)",
      ...results.map(({ calm, hostile }) => `${calm.serverCpu} → ${hostile.serverCpu}`),
    ],
    [
      "idle: honest / attackers",
      ...results.map(({ hostile, attackers }) => `${hostile.honestIdle} / ${attackers.idle}`),
    ],
    [
      "counters add up",
      ...results.map(({ problems }) => problems.length === 0 ? "yes" : "no"),
    ],
  ];
  // As deno fmt wants it.
  const widths = rows[0]!.map((_, column) => Math.max(3, ...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) => row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)));
  lines.splice(1, 0, widths.map((width, i) => i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  return lines.map((line) => `| ${line.join(" | ")} |\n`).join("");
}
