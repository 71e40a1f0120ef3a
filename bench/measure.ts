/** One server doing one work once. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { BrokerProcess } from "../tests/support/brokers.ts";
import { builtFile } from "./build.ts";
import { cpuOf, memoryOf, named, resetPeak, tree } from "./process.ts";
import { type BrokerName, COMMANDS, root, type Server } from "./servers.ts";
import type { Work } from "./works.ts";

export interface Sample {
  round: number;
  /** Server CPU, in s per million: of both nodes where there are two. */
  cpu: number;
  /** Of it that of the node with the publisher, where there are two. */
  origin: number;
  /** CPU of the broker, in s per million. */
  broker: number;
  /** In thousands a second. */
  rate: number;
  /** In ms. */
  p50: number;
  p99: number;
  /** Per connection, in kB. */
  memory: number;
  /** What memory rose by at most while it worked, in MiB. */
  peak: number;
  /** The part of the time in which the generator was idle. */
  idle: number;
  /** Messages that were lost, doubled or out of order, and connections that were closed or failed. */
  faults: number;
}

/** Longest that a server may take to listen, or a part of the work may last (ms). The generator gives up before. */
const TIMEOUT = 300_000;
/** For memory to come to rest, in ms. */
const SETTLE = 1500;

/** What the generator prints. */
interface Done {
  seconds: number;
  cpu: number;
  delivered: number;
  faults: number;
  p50: number;
  p99: number;
}

/** Compiles the load generator unless that is done, and returns its path. */
export function buildGenerator(): string {
  const source = join(root, "bench/load.c");
  const program = join(root, "bench/results/load");
  const compiled = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (compiled > statSync(source).mtimeMs) return program;
  mkdirSync(join(root, "bench/results"), { recursive: true });
  const { error, status } = spawnSync("cc", ["-O2", "-o", program, source], { stdio: "inherit" });
  if (error) {
    throw new Error("Cannot compile bench/load.c: there is no cc; install a C compiler such as gcc or clang", { cause: error });
  }
  if (status !== 0) throw new Error(`Cannot compile bench/load.c: cc exited with ${status}`);
  return program;
}

const running = new Set<ChildProcess>();
const brokers = new Set<BrokerProcess>();
process.once("exit", () => {
  for (const child of running) kill(child);
  for (const broker of brokers) broker.signal("SIGKILL");
});

export async function measure(server: Server, work: Work, generator: string, round: number): Promise<Sample> {
  const broker = server.broker && await startBroker(server.broker);
  const programs: Program[] = [];
  const serve = () => startServer(server, programs, broker);
  try {
    const [{ port, pids }, origin] = await Promise.all([serve(), work.isCrossNode ? serve() : undefined]);
    const isMemory = work.figure === "memory";
    if (isMemory) await sleep(SETTLE);
    const before = memoryOf(pids);
    const load = startLoad(generator, port, work.load, {
      ...work.settings,
      ...server.settings,
      ...origin && { origin: origin.port },
    });
    programs.push(load);
    await load.next("READY");
    if (isMemory) await sleep(SETTLE);
    const connected = memoryOf(pids);
    if (work.figure === "peak") resetPeak(pids);
    load.go();
    await load.next("WARM");
    const cpu = () => [pids, origin?.pids ?? [], broker?.pid ? [broker.pid] : []].map(cpuOf);
    const cpuBefore = cpu();
    load.go();
    const done = readDone(await load.next("DONE "));
    const [own = 0, originCpu = 0, brokerCpu = 0] = cpu().map((after, which) =>
      per(after - cpuBefore[which]!, done.delivered / 1e6)
    );
    return {
      round,
      cpu: own + originCpu,
      origin: originCpu,
      broker: brokerCpu,
      rate: per(done.delivered / 1000, done.seconds),
      p50: done.p50,
      p99: done.p99,
      memory: (connected - before) / Number(work.settings.clients ?? 1),
      peak: (memoryOf(pids, "VmHWM") - connected) / 1024,
      idle: 1 - per(done.cpu, done.seconds),
      faults: done.faults,
    };
  } finally {
    for (const program of programs.reverse()) program.end();
    if (broker) {
      brokers.delete(broker);
      await broker.close();
    }
  }
}

export type Program = ReturnType<typeof start>;

/** Starts a server and resolves when it listens. @param programs what is to be ended, which it is added to. */
export async function startServer(
  server: Server,
  programs: Program[],
  broker?: BrokerProcess,
): Promise<{ port: number; pids: readonly number[] }> {
  const [command = "", ...args] = COMMANDS[server.runtime];
  const file = server.runtime === "node" ? builtFile(server) : join(root, "bench/servers", server.file);
  const address = broker ? [`${server.broker}://127.0.0.1:${broker.port}`] : [];
  const serving = start(command, [...args, file, ...server.args ?? [], ...address], ["ignore", "pipe", "pipe"]);
  programs.push(serving);
  const port = Number((await serving.next("PORT ")).slice(5));
  const pids = server.runtime === "durable-object" ? named(tree(serving.pid), "workerd") : tree(serving.pid);
  if (pids.length === 0) throw new Error("Its process is not to be found");
  return { port, pids };
}

/** Starts the generator. */
export function startLoad(generator: string, port: number, load: string, settings: Record<string, string | number>): Program {
  const words = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return start(generator, [String(port), load, ...words], ["pipe", "pipe", "pipe"]);
}

/** Reads the generator's last line, as load.c writes it. */
export const readDone = (line: string): Done => JSON.parse(line.slice("DONE ".length));

/** One of its own for each measurement, with the defaults of its package: Redis keeps nothing on the disk, NATS its streams. */
async function startBroker(name: BrokerName): Promise<BrokerProcess> {
  const broker = await BrokerProcess[name]();
  brokers.add(broker);
  return broker;
}

/** `0` where there is nothing to divide by: idle connections deliver nothing. */
function per(value: number, of: number): number {
  return of > 0 ? value / of : 0;
}

/** Starts a program whose lines are awaited one by one. */
function start(command: string, args: string[], stdio: ("ignore" | "pipe")[]) {
  const child = spawn(command, args, { cwd: root, stdio });
  running.add(child);
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  let errors = "";
  child.stderr!.on("data", (chunk) => errors = (errors + chunk).slice(-2000));
  child.on("error", (error) => errors += error.message);
  child.stdin?.on("error", () => {}); // The end of its output tells.
  return {
    pid: child.pid ?? 0,
    /** The next line that begins so. */
    async next(prefix: string): Promise<string> {
      const controller = new AbortController();
      const late = sleep(TIMEOUT, null, { signal: controller.signal }).then(
        () => ({ done: true, value: undefined }) as const,
        () => ({ done: true, value: undefined }) as const,
      );
      try {
        for (;;) {
          const { done, value } = await Promise.race([lines.next(), late]);
          if (done) {
            throw new Error(`No ${prefix.trim()} within ${TIMEOUT / 1000} s, or before its end. ${errors.trim()}`);
          }
          if (value.startsWith(prefix)) return value;
        }
      } finally {
        controller.abort();
      }
    },
    go(): void {
      child.stdin!.write("\n");
    },
    end(): void {
      kill(child);
      running.delete(child);
    },
  };
}

/** With all below it, as Miniflare's workerd: SIGKILL, for a graceful end is not what is measured. */
function kill({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  for (const each of tree(pid)) {
    try {
      process.kill(each, "SIGKILL");
    } catch {
      // It has ended already.
    }
  }
}
