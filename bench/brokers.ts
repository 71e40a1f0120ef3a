/**
 * What one broker carries: its CPU for each publication, by how many nodes listen, and what a channel with a history takes of its memory and CPU.
 *
 * `node --import tsx bench/brokers.ts [--publications=20000] [--channels=10000] [--only=redis] [--lock=FILE]`
 *
 * The nodes are engines in this process, so that what is reached a second is theirs and the broker's together; only the CPU and the memory
 * of the broker are its own.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import pg from "pg";
import { createClient } from "redis";
import { Deadlines, systemClock } from "../src/base/clock.ts";
import type { EngineHost, HistoryOptions } from "../src/engines/engine.ts";
import type { BrokerEngine } from "../src/engines/broker/broker-engine.ts";
import { natsEngine } from "../src/engines/nats/nats.ts";
import { postgresEngine } from "../src/engines/postgres/postgres.ts";
import { redisEngine } from "../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../tests/support/brokers.ts";
import { lacksPostgres, PostgresProcess } from "../tests/support/postgres.ts";
import { lock } from "./lock.ts";
import { cpuOf, memoryOf } from "./process.ts";
import { said } from "./servers/message.ts";

const { values } = parseArgs({
  options: {
    publications: { type: "string", default: "20000" },
    channels: { type: "string", default: "10000" },
    only: { type: "string" },
    lock: { type: "string" },
  },
});
const count = Number(values.publications);
const channelCount = Number(values.channels);

const NODES = [1, 4, 16];
/** Publications under way, as of a node that many clients publish by. */
const WINDOW = 64;
/** How often the ends of histories are compared, in ms: the default. */
const CHECK_INTERVAL = 5000;
const LOOKS = 3;
const HISTORY: HistoryOptions = { size: 100, ttl: 3_600_000 };
const KINDS = ["broadcast", "publish", "publish, history"] as const;

const BROKERS = {
  redis: { lack: lacks("redis-server"), start: () => BrokerProcess.redis() },
  nats: { lack: lacks("nats-server"), start: () => BrokerProcess.nats() },
  // As it is installed: a publication is on the disk when it is answered.
  postgres: { lack: lacksPostgres(), start: () => PostgresProcess.postgres({ flags: ["-c", "fsync=on"] }) },
};

type BrokerName = keyof typeof BROKERS;

function engineOf(name: BrokerName, port: number): BrokerEngine {
  if (name === "postgres") {
    return postgresEngine({ client: new pg.Pool({ connectionString: `postgres://noroshi@127.0.0.1:${port}/postgres` }) });
  }
  const url = `${name}://127.0.0.1:${port}`;
  return name === "nats" ? natsEngine({ servers: url }) : redisEngine({ client: createClient({ url }) });
}

/** A node without clients, which counts what it is told. */
class Node {
  received = 0;
  readonly engine: BrokerEngine;

  constructor(name: BrokerName, port: number) {
    this.engine = engineOf(name, port);
    const count = () => {
      this.received++;
    };
    const host: EngineHost = {
      node: crypto.randomUUID(),
      now: Date.now,
      deadlines: new Deadlines(systemClock, console.error),
      published: count,
      received: count,
      gap: () => {},
      present: () => {},
      status: () => {},
      report: console.error,
    };
    this.engine.start(host);
  }

  async ready(): Promise<void> {
    while (this.engine.status !== "ready") await sleep(5);
  }
}

async function withNodes(
  name: BrokerName,
  number: number,
  work: (nodes: Node[], pids: number[]) => Promise<void>,
): Promise<void> {
  const release = values.lock === undefined ? () => {} : await lock(values.lock);
  const broker = await BROKERS[name].start();
  const nodes = Array.from({ length: number }, () => new Node(name, broker.port));
  try {
    for (const node of nodes) await node.ready();
    await work(nodes, processesOf(broker.pid!)); // It runs.
  } finally {
    for (const { engine } of nodes) await engine.close();
    await broker.close();
    release();
  }
}

/** The process and its children: PostgreSQL has one for each connection. */
function processesOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
  return [pid, ...children.map(Number)];
}

/** Calls so often, with so many calls under way. */
async function repeat(times: number, call: (number: number) => unknown): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: WINDOW }, async () => {
    while (next < times) await call(next++);
  }));
}

async function publications(name: BrokerName, kind: (typeof KINDS)[number], listening: number): Promise<void> {
  await withNodes(name, listening + 1, async ([publisher, ...listeners], pids) => {
    const { engine } = publisher!; // There is one more than listen.
    const history = kind === "publish, history" ? HISTORY : null;
    if (kind !== "broadcast") { for (const listener of listeners) await listener.engine.subscribe("load", history); }
    const data = JSON.stringify(said(1));
    const send = () => kind === "broadcast" ? engine.send(data) : engine.publish("load", { event: "said", data }, history);
    const arrive = async (times: number) => {
      while (listeners.some(({ received }) => received < times)) await sleep(1);
    };
    const warmUp = count / 5;
    await repeat(warmUp, send);
    await arrive(warmUp);
    const [cpu, own, begin] = [cpuOf(pids), process.cpuUsage(), performance.now()];
    await repeat(count, send);
    await arrive(warmUp + count);
    const seconds = (performance.now() - begin) / 1000;
    const { user, system } = process.cpuUsage(own);
    const micros = (cpuOf(pids) - cpu) * 1e6 / count;
    row(name, kind, `${listening}`, micros.toFixed(1), ((user + system) / count).toFixed(0), (count / seconds).toFixed(0));
  });
}

async function histories(name: BrokerName): Promise<void> {
  await withNodes(name, 1, async ([node], pids) => {
    const { engine } = node!;
    const data = JSON.stringify(said(1));
    const before = memoryOf(pids);
    const memory = async (each: number, from: number) => {
      await repeat(channelCount * (each - from), (number) => {
        return engine.publish(`channel:${number % channelCount}`, { event: "said", data }, HISTORY);
      });
      await sleep(1500);
      return ((memoryOf(pids) - before) / channelCount).toFixed(2);
    };
    const [one, ten] = [await memory(1, 0), await memory(10, 1)];
    await repeat(channelCount, (number) => engine.subscribe(`channel:${number}`, HISTORY));
    await sleep(1500);
    const cpu = cpuOf(pids);
    await sleep(LOOKS * CHECK_INTERVAL);
    const look = ((cpuOf(pids) - cpu) * 1e6 / LOOKS / channelCount).toFixed(1);
    console.log(
      `${name}, ${channelCount} channels with a history: with 1 publication ${one} kB each, with 10 ${ten} kB; ${look} µs each to be looked after`,
    );
  });
}

function row(...cells: string[]): void {
  console.log(`| ${cells.join(" | ")} |`);
}

row("broker", "sends", "nodes that listen", "broker µs", "nodes µs, all", "reached a second");
row("---", "---", "---:", "---:", "---:", "---:");
const names = (Object.keys(BROKERS) as BrokerName[]).filter((name) => values.only === undefined || name === values.only);
for (const name of names) {
  const { lack } = BROKERS[name];
  if (lack) console.log(lack);
  else for (const kind of KINDS) for (const listening of NODES) await publications(name, kind, listening);
}
for (const name of names) if (!BROKERS[name].lack) await histories(name);
process.exit(0);
