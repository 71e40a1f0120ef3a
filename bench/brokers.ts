/**
 * What one broker carries: its CPU for each publication, by how many nodes listen, and what a channel with a history takes of its memory and CPU.
 *
 * `node --import tsx bench/brokers.ts [--publications=20000] [--channels=10000] [--lock=FILE]`
 *
 * The nodes are engines in this process, so that what is reached a second is theirs and the broker's together; only the CPU and the memory
 * of the broker are its own.
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createClient } from "redis";
import { Deadlines, systemClock } from "../src/base/clock.ts";
import type { EngineHost, HistoryOptions } from "../src/engines/engine.ts";
import type { BrokerEngine } from "../src/engines/broker/broker-engine.ts";
import { natsEngine } from "../src/engines/nats/nats.ts";
import { redisEngine } from "../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../tests/support/brokers.ts";
import { lock } from "./lock.ts";
import { cpuOf, memoryOf } from "./process.ts";
import { said } from "./servers/message.ts";

const { values } = parseArgs({
  options: {
    publications: { type: "string", default: "20000" },
    channels: { type: "string", default: "10000" },
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

type BrokerName = "redis" | "nats";

/** A node without clients, which counts what it is told. */
class Node {
  received = 0;
  readonly engine: BrokerEngine;

  constructor(name: BrokerName, port: number) {
    const url = `${name}://127.0.0.1:${port}`;
    this.engine = name === "nats" ? natsEngine({ servers: url }) : redisEngine({ client: createClient({ url }) });
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

async function withNodes(name: BrokerName, number: number, work: (nodes: Node[], pid: number) => Promise<void>): Promise<void> {
  const release = values.lock === undefined ? () => {} : await lock(values.lock);
  const broker = await BrokerProcess[name]();
  const nodes = Array.from({ length: number }, () => new Node(name, broker.port));
  try {
    for (const node of nodes) await node.ready();
    await work(nodes, broker.pid!); // It runs.
  } finally {
    for (const { engine } of nodes) await engine.close();
    await broker.close();
    release();
  }
}

/** Calls so often, with so many calls under way. */
async function repeat(times: number, call: (number: number) => unknown): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: WINDOW }, async () => {
    while (next < times) await call(next++);
  }));
}

async function publications(name: BrokerName, kind: (typeof KINDS)[number], listening: number): Promise<void> {
  await withNodes(name, listening + 1, async ([publisher, ...listeners], pid) => {
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
    const [cpu, own, begin] = [cpuOf([pid]), process.cpuUsage(), performance.now()];
    await repeat(count, send);
    await arrive(warmUp + count);
    const seconds = (performance.now() - begin) / 1000;
    const { user, system } = process.cpuUsage(own);
    const micros = (cpuOf([pid]) - cpu) * 1e6 / count;
    row(name, kind, `${listening}`, micros.toFixed(1), ((user + system) / count).toFixed(0), (count / seconds).toFixed(0));
  });
}

async function histories(name: BrokerName): Promise<void> {
  await withNodes(name, 1, async ([node], pid) => {
    const { engine } = node!;
    const data = JSON.stringify(said(1));
    const before = memoryOf([pid]);
    const memory = async (each: number, from: number) => {
      await repeat(channelCount * (each - from), (number) => {
        return engine.publish(`channel:${number % channelCount}`, { event: "said", data }, HISTORY);
      });
      await sleep(1500);
      return ((memoryOf([pid]) - before) / channelCount).toFixed(2);
    };
    const [one, ten] = [await memory(1, 0), await memory(10, 1)];
    await repeat(channelCount, (number) => engine.subscribe(`channel:${number}`, HISTORY));
    await sleep(1500);
    const cpu = cpuOf([pid]);
    await sleep(LOOKS * CHECK_INTERVAL);
    const look = ((cpuOf([pid]) - cpu) * 1e6 / LOOKS / channelCount).toFixed(1);
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
for (const name of ["redis", "nats"] as const) {
  const lack = lacks(`${name}-server`);
  if (lack) console.log(lack);
  else for (const kind of KINDS) for (const listening of NODES) await publications(name, kind, listening);
}
for (const name of ["redis", "nats"] as const) if (!lacks(`${name}-server`)) await histories(name);
process.exit(0);
