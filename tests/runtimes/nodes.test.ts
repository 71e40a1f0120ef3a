/**
 * Three nodes, on Bun, Deno and Node, share a real broker, and 300 clients move from one to another. Meanwhile a schedule made from the seed
 * kills, stops and cuts off nodes and the broker, deletes data of the broker, cuts off clients, and attacks. The test compares what clients
 * received with what was published, the members that nodes list with the clients that are connected, and the memory of the nodes at the end
 * with that at the start. The clocks of the nodes differ.
 *
 * - `FAULT_SECONDS=3600` runs for an hour instead of 30 s, with Redis and NATS concurrently; `FAULT_BROKER=redis` runs with one, and
 *   `FAULT_BROKER=postgres` with PostgreSQL. `npm run test:long` runs for ten minutes.
 * - `SEED=…` repeats the random choices of another run.
 * - `FAULTS=all` has every fault, also what a broker loses.
 * - `FAULTS="nodes killed,backup restored"` has only these faults, and `FAULTS=none` none; `-backup restored` all but this one.
 * - `FAULT_SKEW=7200` sets the clocks wrong by this many seconds, and `FAULT_SIGNED=true` makes the nodes sign. By default odd seeds sign, with
 *   clocks that are 20 s off; with even seeds they are 2 h off.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, describe, it } from "node:test";
import { Checker } from "../support/checker.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { Random } from "../support/random.ts";
import { exceedLimits, recoverWithoutReading } from "./hostile-clients.ts";
import { NodeProcess } from "./node-process.ts";
import { NATS_LOSSES, REDIS_FLAGS, REDIS_LOSSES, type Store, type StoreLoss } from "./store-losses.ts";
import { WanderingClient } from "./wandering-client.ts";
import { Wire } from "./wire.ts";

const SECONDS = Number(process.env["FAULT_SECONDS"] ?? 30);
const FAULTS = process.env["FAULTS"]?.split(",").map((name) => name.trim());
const ONLY = process.env["FAULT_BROKER"];
const CLIENTS = Number(process.env["FAULT_CLIENTS"] ?? 300);
/** The pauses of a client are longer by `CLIENTS / TEMPO`, so that all clients together publish some 70 times per second. */
const TEMPO = 1.5;
/** Each client subscribes to some of them. */
const CHANNELS = Array.from({ length: 24 }, (_, index) => `log:${index}`);
/** After the last fault, disconnected clients must be back after `BACK`, and members that left reported after `SETTLED`, in ms. */
const BACK = 7_000;
const SETTLED = 15_000;
/** How long no client has connected or left when members are compared, in ms, so that a late leave is no error. */
const QUIET = 5_000;
/** How often members are compared until they are right, and the time between two comparisons, in ms. */
const [LOOKS, LOOK] = [20, 500];
/** The least that a run must have tried. */
const ENOUGH = { published: 100, recovered: 10, faults: 5 };
/** The longest extension of a run that has not tried enough, in ms. */
const EXTENSION = 90_000;
/** A client that is not back this long after the last fault is lost, in ms. */
const TOO_LATE = 120_000;
/** Time between two measurements of the nodes' memory, in ms. */
const WEIGHED = 250;
/** Measurements that each third of a run must have. */
const MIN_WEIGHED = 10;
/** How much more memory a node may have in the last third of a run than in the first: in MB, and as a factor. */
const GROWTH = [100, 1.25] as const;

/** Left out by default: each restarts all histories, so a short run would have little to recover. `FAULTS=all` includes them. */
const LOSSES = [...Object.keys(REDIS_LOSSES), ...Object.keys(NATS_LOSSES)];

interface BrokerKind {
  readonly skip: string | false;
  readonly losses: Readonly<Record<string, StoreLoss>>;
  /**
   * A restart may begin all histories again: on a busy machine the leases of all nodes may be over, and then none of them can say whether
   * the broker has lost anything.
   */
  readonly mayEndHistories?: true;
  start(): Promise<BrokerProcess>;
}

const BROKERS: Record<string, BrokerKind> = {
  redis: {
    skip: lacks("redis-server"),
    losses: REDIS_LOSSES,
    mayEndHistories: true,
    start: () => BrokerProcess.redis(...REDIS_FLAGS),
  },
  nats: { skip: lacks("nats-server"), losses: NATS_LOSSES, start: () => BrokerProcess.nats() },
  postgres: {
    // Three brokers with three nodes each are too much for two cores.
    skip: lacksPostgres() || (ONLY !== "postgres" && "it has runs of its own: FAULT_BROKER=postgres"),
    losses: {},
    start: () => PostgresProcess.postgres({ keeps: true }),
  },
};

/** The faults, which happen one after the other. */
class Faults {
  readonly counts: Record<string, number> = {};
  /** The number of histories that may have begun again after a loss. */
  lostHistories = 0;
  /** The faults with their times. */
  readonly history: string[] = [];
  /** Unexpected answers to clients that exceeded a limit. */
  readonly problems: string[] = [];
  readonly #random: Random;
  readonly #store: Store;
  readonly #seconds: () => number;
  readonly #nodes: readonly NodeProcess[];
  /** The positions of clients at the last attack. */
  readonly #positions = new Map<string, { epoch: string; offset: number }>();
  readonly #clients: readonly WanderingClient[];
  /** The number of histories that a restart of the broker may begin again. */
  readonly #endedByRestart: number;
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
      this.lostHistories += this.#endedByRestart;
      await this.#store.broker.stop();
      await pause(this.#random.below(1_000));
      await this.#store.broker.start();
    },
    "broker stopped": async () => {
      this.#store.broker.signal("SIGSTOP");
      await pause(500 + this.#random.below(3_000));
      this.#store.broker.signal("SIGCONT");
    },
    "attacked by clients that do not read": async () => {
      const { front } = this.#random.pick(this.#nodes);
      const positions = new Map(this.#positions);
      for (const client of this.#clients) {
        for (const [channel, position] of client.positions) this.#positions.set(channel, position);
      }
      await Promise.all([1, 2, 3].map(() => recoverWithoutReading(front.port, positions, 2_000)));
    },
    "limits exceeded": async () => {
      this.problems.push(...await exceedLimits(this.#random.pick(this.#nodes).port));
    },
    "clients cut off": () => {
      const clients = Array.from({ length: 1 + this.#random.below(20) }, () => this.#random.pick(this.#clients));
      this.cutOff(clients);
      return Promise.resolve();
    },
  };

  constructor(
    store: Store,
    { losses, mayEndHistories }: BrokerKind,
    clients: readonly WanderingClient[],
    seconds: () => number,
  ) {
    this.#seconds = seconds;
    this.#endedByRestart = mayEndHistories ? store.channels.length : 0;
    this.#random = store.random;
    this.#store = store;
    this.#nodes = store.nodes;
    this.#clients = clients;
    for (const [kind, { channels = store.channels.length, run }] of Object.entries(losses)) {
      this.#kinds[kind] = async () => {
        this.lostHistories += channels;
        await run(store);
      };
    }
    for (const kind of Object.keys(this.#kinds)) this.counts[kind] = 0;
  }

  /** Injects faults until the run is over. */
  async happen(isOver: () => boolean): Promise<void> {
    const without = FAULTS?.filter((name) => name.startsWith("-")).map((name) => name.slice(1)) ?? LOSSES;
    const only = FAULTS?.filter((name) => !name.startsWith("-") && name !== "all") ?? [];
    const unknown = [...without, ...only].filter((name) => name !== "none" && !(name in this.#kinds));
    if (FAULTS && unknown.length > 0) console.log(`No such faults: ${unknown.join(", ")}`); // The other broker may have them.
    const kinds = Object.keys(this.#kinds).filter((kind) =>
      !without.includes(kind) && (only.length === 0 || only.includes(kind))
    );
    while (!isOver()) {
      await pause(200 + this.#random.below(1_500));
      if (kinds.length === 0) continue;
      // A broker may exit by itself, as over a backup that was copied during a write. That is one more fault.
      if (!this.#store.broker.isRunning) {
        this.counts["broker ended by itself"] = (this.counts["broker ended by itself"] ?? 0) + 1;
        await this.#store.broker.start();
      }
      const kind = this.#random.pick(kinds);
      this.counts[kind]!++;
      this.history.push(`${this.#seconds()} s ${kind}`);
      try {
        await this.#kinds[kind]!(); // One of them.
      } catch (error) {
        if (this.#store.broker.isRunning) throw error;
      }
      const crashed = this.#nodes.filter(({ isRunning }) => !isRunning);
      if (crashed.length > 0) throw new Error(`${kind}: the node on ${crashed.map(({ runtime }) => runtime)} has ended`);
    }
  }

  /** Turns the connections of these clients into black holes. */
  cutOff(clients: readonly WanderingClient[]): void {
    const ports = new Set(clients.flatMap(({ port }) => port ?? []));
    for (const { front } of this.#nodes) front.blackHole(ports);
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

/** Whether these are all members, and no others. */
function areThese(told: readonly string[] | string, there: ReadonlySet<string>): boolean {
  const known = new Set(told);
  return typeof told !== "string" && known.size === there.size && told.every((member) => there.has(member));
}

describe("Nodes", { concurrency: true }, () => {
  after(() => Wire.resetAll());

  for (const [name, kind] of Object.entries(BROKERS)) {
    const { skip, start } = kind;
    if (ONLY !== undefined && name !== ONLY) continue;
    it(`lose, repeat and reorder nothing, and list no member that left, under faults of nodes, clients and ${name}`, {
      skip,
      timeout: SECONDS * 1_000 + EXTENSION + TOO_LATE + 60_000,
    }, async () => {
      const random = new Random();
      const checker = new Checker();
      const nodes: NodeProcess[] = [];
      // A random source of its own, because the clients draw a number of values that depends on timing.
      const store: Store = { broker: await start(), nodes, channels: CHANNELS, random: new Random(random.seed) };
      const isSigned = (process.env["FAULT_SIGNED"] ?? `${random.seed % 2 === 1}`) === "true";
      const skew = 1_000 * Number(process.env["FAULT_SKEW"] ?? (isSigned ? 20 : 7_200));
      console.log(`${name}: SEED=${random.seed}, ${isSigned ? "signed" : "not signed"}, clocks ${skew / 1_000} s apart`);
      let last = Infinity;
      let weighing: ReturnType<typeof setInterval> | undefined;
      try {
        const started = ["bun", "deno", "node"].map((runtime, number) =>
          NodeProcess.start({ runtime, broker: name, brokerPort: store.broker.port, skew: (number - 1) * skew, isSigned })
        );
        nodes.push(...await Promise.all(started));
        weighing = setInterval(() => void Promise.all(nodes.map((node) => node.weigh())), WEIGHED);
        const ports = () => nodes.map(({ front }) => front.port);
        const clients = Array.from({ length: CLIENTS }, (_, index) => {
          const channels = [0, 1, 2].map((third) => CHANNELS[third * 8 + random.below(8)]!); // There are 24.
          const options = { ports, channels, random, checker, slowness: CLIENTS / TEMPO, room: "room" };
          // Every second client is anonymous, and a member by its connection.
          const who = { watches: index % 10 === 0, ...(index % 2 === 0 && { user: `user${index}` }) };
          return new WanderingClient(`c${index}`, options, who);
        });
        const faults = new Faults(store, kind, clients, () => checker.seconds);
        const hasTriedEnough = () =>
          checker.counts.published > ENOUGH.published && checker.counts.recovered > ENOUGH.recovered &&
          (faults.history.length >= ENOUGH.faults || FAULTS?.includes("none") === true);
        // A busy machine does less in the same time, so the run continues for longer.
        const end = performance.now() + SECONDS * 1_000;
        const isOver = () => performance.now() >= end && (hasTriedEnough() || performance.now() >= end + EXTENSION);
        // Some clients vanish without a close at the end.
        const staying = clients.slice(CLIENTS / 10);
        const gone = clients.slice(0, CLIENTS / 10);
        const wandering = Promise.all(staying.map((client) => client.wander(() => performance.now() >= last + BACK)));
        const going = Promise.all(gone.map((client) => client.wander(() => isOver() || performance.now() >= last)));
        await Promise.all([going, faults.happen(isOver)]);
        faults.cutOff(gone);
        for (const client of gone) client.vanish();
        last = performance.now();
        await wandering;
        const isTooLate = () => performance.now() >= last + TOO_LATE;
        // A client that was closed again, because the machine was busy for seconds, reconnects again.
        for (let away = staying; away.length > 0; away = staying.filter(({ isConnected }) => !isConnected)) {
          await Promise.all(away.map((client) => client.settle(isTooLate)));
          await pause(Math.max(QUIET, last + SETTLED - performance.now()));
          if (isTooLate()) break;
        }
        const tell = async () => [
          ...await Promise.all(nodes.map(async (node) => [`The node on ${node.runtime}`, await node.members()] as const)),
          ...staying.flatMap(({ name, members }) => members ? [[name, [...members]] as const] : []),
        ];
        const there = () => new Set(staying.map(({ member }) => member));
        let told = await tell();
        // A node that stood still until now lists members whose time is over.
        for (let looks = 1; looks < LOOKS && !told.every(([, members]) => areThese(members, there())); looks++) {
          await pause(LOOK);
          told = await tell();
        }
        for (const [teller, members] of told) {
          if (typeof members === "string") faults.problems.push(`${teller} does not name its members: ${members}`);
          else checker.members(teller, members, there());
        }
        await Promise.all(staying.map((client) => client.leave()));
        const memory = nodes.map(({ runtime, memory }) => {
          const third = Math.floor(memory.length / 3);
          assert.ok(third >= MIN_WEIGHED, `The memory of the node on ${runtime} was measured ${memory.length} times only`);
          return { runtime, first: Math.max(...memory.slice(0, third)), last: Math.max(...memory.slice(-third)) };
        });
        const { histories, counts } = checker;
        const { lostHistories } = faults;
        console.log(
          `${name}: ${JSON.stringify({ ...counts, histories, lostHistories, ...faults.counts, memory })}, SEED=${random.seed}`,
        );
        const problems = [...checker.problems(), ...faults.problems];
        if (problems.length > 0) console.log(`${name}: ${faults.history.join(", ")}`);
        assert.deepEqual(problems, [], `SEED=${random.seed}`);
        // Histories that the broker has kept continue, and each that it has lost begins again.
        assert.ok(histories >= CHANNELS.length, "a history was never begun");
        assert.ok(histories <= CHANNELS.length + 2 * lostHistories, `${histories} histories for ${lostHistories} that were lost`);
        for (const { runtime, first, last } of memory) {
          assert.ok(last <= GROWTH[0] + GROWTH[1] * first, `The node on ${runtime} has grown from ${first} to ${last} MB`);
        }
        assert.ok(hasTriedEnough(), "little was tried");
      } finally {
        last = -Infinity;
        clearInterval(weighing);
        await Promise.all(nodes.map((node) => node.close()));
        await store.broker.close();
      }
    });
  }
});
