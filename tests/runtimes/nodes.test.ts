/**
 * Three nodes, on Bun, Deno and Node, meet at a real broker, and clients wander from one to another while nodes are killed, stopped and
 * continued, and the broker is killed and started again, as the seed says. Everything that clients were sent is held against what was
 * published. `FAULT_SECONDS=3600` does it for longer than the 20 s with each broker, `SEED=…` begins as another run did, and `FAULT_KIND`
 * has only one kind of fault, 0 to 3, or with 4 none.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Checker } from "../checker.ts";
import { BrokerProcess, freePort, lacks } from "../engines/brokers.ts";
import { Random } from "../random.ts";
import { COMMANDS } from "./server.ts";
import { WanderingClient } from "./wandering-client.ts";
import { Wire } from "./wire.ts";

const SECONDS = Number(process.env["FAULT_SECONDS"] ?? 20);
const KIND = process.env["FAULT_KIND"];
const CLIENTS = Number(process.env["FAULT_CLIENTS"] ?? 30);
const here = dirname(fileURLToPath(import.meta.url));

const BROKERS: Record<string, { skip: string | false; start(): Promise<BrokerProcess> }> = {
  redis: { skip: lacks("redis-server"), start: () => BrokerProcess.redis("--appendonly", "yes", "--appendfsync", "always") },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
};

/** A node in a process of its own, on a port that it keeps. */
class NodeProcess {
  readonly port: number;
  readonly #runtime: string;
  readonly #broker: string;
  #child: ChildProcess | undefined;

  constructor(port: number, runtime: string, broker: string) {
    this.port = port;
    this.#runtime = runtime;
    this.#broker = broker;
  }

  /** Resolves when it listens. */
  async start(): Promise<void> {
    const [command = "", ...args] = COMMANDS[this.#runtime] ?? [];
    const env = { ...process.env, BROKER: this.#broker, PORT: `${this.port}` };
    const child = this.#child = spawn(command, [...args, join(here, "fixture/node-serve.ts")], {
      cwd: join(here, "../.."),
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise<void>((resolve, reject) => {
      child.stdout!.on("data", (text) => String(text).includes("PORT ") && resolve()); // Piped.
      child.on("exit", (code) => reject(new Error(`Cannot start a node on ${this.#runtime}: it exited with ${code}`)));
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

describe("Nodes", () => {
  after(() => Wire.resetAll());

  for (const [name, { skip, start }] of Object.entries(BROKERS)) {
    it(`lose, double and reorder nothing over faults of theirs and of ${name}`, {
      skip,
      timeout: (SECONDS + 120) * 1_000,
    }, async () => {
      const random = new Random();
      const checker = new Checker();
      const broker = await start();
      const nodes: NodeProcess[] = [];
      const faults = { "node killed": 0, "node stopped": 0, "broker restarted": 0, "broker stopped": 0 };
      try {
        for (const runtime of ["bun", "deno", "node"]) {
          nodes.push(new NodeProcess(await freePort(), runtime, `${name}:${broker.port}`));
        }
        await Promise.all(nodes.map((node) => node.start()));
        const options = { ports: () => nodes.map(({ port }) => port), channels: ["log:a", "log:b", "log:c"], random, checker };
        const clients = Array.from({ length: CLIENTS }, (_, index) => new WanderingClient(`c${index}`, options));
        const end = performance.now() + SECONDS * 1_000;
        const isOver = () => performance.now() >= end;
        const wandering = Promise.all(clients.map((client) => client.wander(isOver)));
        // Its own, for how often the clients draw depends on the time.
        const schedule = new Random();
        while (!isOver()) {
          await pause(200 + schedule.below(1_500));
          const node = schedule.pick(nodes);
          const choice = KIND === undefined ? schedule.below(4) : Number(KIND);
          if (choice === 0) {
            faults["node killed"]++;
            await node.kill();
            await node.start();
          } else if (choice === 1) {
            faults["node stopped"]++;
            node.signal("SIGSTOP");
            await pause(500 + schedule.below(4_000));
            node.signal("SIGCONT");
          } else if (choice === 2) {
            faults["broker restarted"]++;
            await broker.stop();
            await pause(schedule.below(1_000));
            await broker.start();
          } else if (choice === 3) {
            faults["broker stopped"]++;
            broker.signal("SIGSTOP");
            await pause(500 + schedule.below(3_000));
            broker.signal("SIGCONT");
          }
        }
        await wandering;
        // Whoever was told that the broker is away asks again.
        await pause(6_000);
        await Promise.all(clients.map((client) => client.settle()));
        await Promise.all(clients.map((client) => client.leave()));
        console.log(`${name}: ${JSON.stringify({ ...checker.counts, ...faults })}, SEED=${random.seed}`);
        assert.deepEqual(checker.problems(), [], `SEED=${random.seed}`);
        assert.ok(checker.counts.published > 100, "little was tried");
      } finally {
        await Promise.all(nodes.map((node) => node.kill()));
        await broker.close();
      }
    });
  }
});
