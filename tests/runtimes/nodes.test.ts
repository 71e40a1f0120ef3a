/**
 * Three nodes, on Bun, Deno and Node, meet at a real broker, and 300 clients wander from one to another while nodes are killed, stopped and
 * continued, and cut off from the broker, the broker is killed and stopped, and clients are cut off, as the seed says. Everything that clients
 * were sent is held against what was published, and whom the nodes tell of against who is there. `FAULT_SECONDS=3600` does it for longer than
 * two minutes, with both brokers at once, `SEED=…` begins as another run did, and `FAULT_KIND` has only one kind of fault, or with `none` none.
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
import { Proxy } from "../proxy.ts";
import { Random } from "../random.ts";
import { COMMANDS } from "./server.ts";
import { WanderingClient } from "./wandering-client.ts";
import { Wire } from "./wire.ts";

const SECONDS = Number(process.env["FAULT_SECONDS"] ?? 120);
const KIND = process.env["FAULT_KIND"];
const CLIENTS = Number(process.env["FAULT_CLIENTS"] ?? 300);
/** Each client has some of them. */
const CHANNELS = Array.from({ length: 24 }, (_, index) => `log:${index}`);
/** After the last fault: whoever was cut off is to be back after this, and whoever is gone is to be told of as gone after that, in ms. */
const BACK = 7_000;
const SETTLED = 15_000;
/** For so long nobody has come or gone when it is looked at who is there, in ms: whoever was late is no ghost. */
const QUIET = 5_000;
const here = dirname(fileURLToPath(import.meta.url));

const BROKERS: Record<string, { skip: string | false; start(): Promise<BrokerProcess> }> = {
  redis: { skip: lacks("redis-server"), start: () => BrokerProcess.redis("--appendonly", "yes", "--appendfsync", "always") },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
};

/** A node in a process of its own, on a port that it keeps, with a proxy before itself and one before its broker. */
class NodeProcess {
  readonly #runtime: string;
  readonly #broker: string;
  readonly port: number;
  readonly front: Proxy;
  readonly back: Proxy;
  #child: ChildProcess | undefined;

  private constructor(runtime: string, broker: string, port: number, front: Proxy, back: Proxy) {
    this.#runtime = runtime;
    this.#broker = broker;
    this.port = port;
    this.front = front;
    this.back = back;
  }

  /** Resolves when it listens. */
  static async start(runtime: string, broker: string, brokerPort: number): Promise<NodeProcess> {
    const port = await freePort();
    const node = new NodeProcess(runtime, broker, port, await Proxy.open(port), await Proxy.open(brokerPort));
    await node.start();
    return node;
  }

  async start(): Promise<void> {
    const [command = "", ...args] = COMMANDS[this.#runtime] ?? [];
    const env = { ...process.env, BROKER: `${this.#broker}:${this.back.port}`, PORT: `${this.port}` };
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

  /** The members that it tells of. */
  async members(): Promise<string[]> {
    const response = await fetch(`http://127.0.0.1:${this.port}/members`, { headers: { connection: "close" } });
    return await response.json() as string[];
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

  async close(): Promise<void> {
    await this.kill();
    await Promise.all([this.front.close(), this.back.close()]);
  }
}

/** What goes wrong, one after the other. */
class Faults {
  readonly counts: Record<string, number> = {};
  readonly #random: Random;
  readonly #broker: BrokerProcess;
  readonly #nodes: readonly NodeProcess[];
  readonly #clients: readonly WanderingClient[];
  readonly #kinds: Record<string, () => Promise<void>> = {
    "nodes killed": async () => {
      const node = this.#random.pick(this.#nodes);
      await node.kill();
      await node.start();
    },
    "nodes stopped": async () => {
      const node = this.#random.pick(this.#nodes);
      node.signal("SIGSTOP");
      await pause(500 + this.#random.below(4_000));
      node.signal("SIGCONT");
    },
    "nodes cut off": async () => {
      const { back } = this.#random.pick(this.#nodes);
      back.freeze();
      await pause(500 + this.#random.below(4_000));
      back.thaw();
    },
    "broker killed": async () => {
      await this.#broker.stop();
      await pause(this.#random.below(1_000));
      await this.#broker.start();
    },
    "broker stopped": async () => {
      this.#broker.signal("SIGSTOP");
      await pause(500 + this.#random.below(3_000));
      this.#broker.signal("SIGCONT");
    },
    "clients cut off": () => {
      const clients = Array.from({ length: 1 + this.#random.below(20) }, () => this.#random.pick(this.#clients));
      this.cutOff(clients);
      return Promise.resolve();
    },
  };

  constructor(broker: BrokerProcess, nodes: readonly NodeProcess[], clients: readonly WanderingClient[], seed: number) {
    // Its own, for how often the clients draw depends on the time.
    this.#random = new Random(seed);
    this.#broker = broker;
    this.#nodes = nodes;
    this.#clients = clients;
    for (const kind of Object.keys(this.#kinds)) this.counts[kind] = 0;
  }

  /** Goes on until the time has come. */
  async happen(isOver: () => boolean): Promise<void> {
    const kinds = Object.keys(this.#kinds).filter((kind) => KIND === undefined || kind === KIND);
    while (!isOver()) {
      await pause(200 + this.#random.below(1_500));
      if (kinds.length === 0) continue;
      const kind = this.#random.pick(kinds);
      this.counts[kind]!++;
      await this.#kinds[kind]!(); // One of them.
    }
  }

  /** Their connections are black holes. */
  cutOff(clients: readonly WanderingClient[]): void {
    const ports = new Set(clients.flatMap(({ port }) => port ?? []));
    for (const { front } of this.#nodes) front.blackHole(ports);
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

describe("Nodes", { concurrency: true }, () => {
  after(() => Wire.resetAll());

  for (const [name, { skip, start }] of Object.entries(BROKERS)) {
    it(`lose, double and reorder nothing, and tell of no ghosts, over faults of theirs, of clients and of ${name}`, {
      skip,
      timeout: (SECONDS + 120) * 1_000,
    }, async () => {
      const random = new Random();
      const checker = new Checker();
      const broker = await start();
      const nodes: NodeProcess[] = [];
      let last = Infinity;
      try {
        nodes.push(...await Promise.all(["bun", "deno", "node"].map((runtime) => NodeProcess.start(runtime, name, broker.port))));
        const ports = () => nodes.map(({ front }) => front.port);
        const clients = Array.from({ length: CLIENTS }, (_, index) => {
          const channels = [0, 1, 2].map((third) => CHANNELS[third * 8 + random.below(8)]!); // There are 24.
          const options = { ports, channels, random, checker, slowness: CLIENTS / 3, room: "room" };
          // Every other one is nobody, and a member by its connection.
          const who = { watches: index % 10 === 0, ...(index % 2 === 0 && { user: `user${index}` }) };
          return new WanderingClient(`c${index}`, options, who);
        });
        const faults = new Faults(broker, nodes, clients, random.seed);
        const end = performance.now() + SECONDS * 1_000;
        // Some are gone without a word at the end.
        const staying = clients.slice(CLIENTS / 10);
        const gone = clients.slice(0, CLIENTS / 10);
        const wandering = Promise.all(staying.map((client) => client.wander(() => performance.now() >= last + BACK)));
        const going = Promise.all(gone.map((client) => client.wander(() => performance.now() >= Math.min(end, last))));
        await Promise.all([going, faults.happen(() => performance.now() >= end)]);
        faults.cutOff(gone);
        for (const client of gone) client.vanish();
        last = performance.now();
        await wandering;
        const isTooLate = () => performance.now() >= last + 60_000;
        // Who was given up once more, by a machine that was busy for seconds, comes back once more.
        for (let away = staying; away.length > 0; away = staying.filter(({ isConnected }) => !isConnected)) {
          await Promise.all(away.map((client) => client.settle(isTooLate)));
          await pause(Math.max(QUIET, last + SETTLED - performance.now()));
          if (isTooLate()) break;
        }
        const there = new Set(staying.map(({ member }) => member));
        for (const node of nodes) checker.members(`The node at ${node.port}`, await node.members(), there);
        for (const { name, members } of staying) if (members) checker.members(name, members, there);
        await Promise.all(staying.map((client) => client.leave()));
        console.log(`${name}: ${JSON.stringify({ ...checker.counts, ...faults.counts })}, SEED=${random.seed}`);
        assert.deepEqual(checker.problems(), [], `SEED=${random.seed}`);
        // Redis may have lost what it had written last. Where no node is there that knew it, another history begins, and clients are told so.
        if (name === "redis") assert.ok(checker.histories >= CHANNELS.length, "a history was never begun");
        else assert.equal(checker.histories, CHANNELS.length, "a history was lost");
        assert.ok(checker.counts.published > 100, "little was tried");
      } finally {
        last = -Infinity;
        await Promise.all(nodes.map((node) => node.close()));
        await broker.close();
      }
    });
  }
});
