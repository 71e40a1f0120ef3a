import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { HistoryOptions, Position } from "../../src/engines/engine.ts";
import { TestNode } from "../../src/testing/node.ts";
import { Dice } from "./dice.ts";
import { type Cluster, FAULTS, Faults, type Order, type Running } from "./faults.ts";
import { NodeTime } from "./node-time.ts";
import type { AnyClient } from "./simulated-client.ts";
import { AUTHENTICATION, GRACE, HISTORY_SIZE, HOUR, MAX_BUFFERED_BYTES, MINUTE, SECOND } from "./sizes.ts";
import type { Ground, Publish, Site } from "./site.ts";
import { NO_FAULTS, UnreliableBroker } from "./unreliable-broker.ts";

/** Longer than the defaults: virtual hours would consist of beats and checks. */
const ENGINE = { lease: 6 * MINUTE, checkInterval: 3 * MINUTE, timeout: 5 * SECOND, linger: 30 * SECOND };
const HEARTBEAT = { period: 10 * MINUTE, timeout: MINUTE };
/** Histories of a broker that loses data run out too. The others are kept, so that no recovery may fail. */
const HISTORIES = { lossy: [10 * SECOND, 10 * MINUTE, 3 * HOUR], lasting: [500 * HOUR] };

/** Nodes that a broker joins. */
export class SimulatedCluster implements Site, Cluster {
  readonly isLossy: boolean;
  readonly hasExpiry = false;
  readonly nodes: readonly TestNode[];
  readonly running: Running[] = [];
  readonly clocks: readonly NodeTime[];
  readonly broker: UnreliableBroker;
  /** A few checks, and three leases in which the members of a dead node are removed. */
  readonly settled: number = 3 * ENGINE.lease + 2 * ENGINE.checkInterval;
  readonly wait: Ground["wait"];
  readonly #ground: Ground;
  readonly #authenticator: Dice;
  readonly #faults: Faults;
  readonly #history: HistoryOptions;
  readonly #secret: string | undefined;

  constructor(ground: Ground) {
    this.#ground = ground;
    this.wait = ground.wait;
    const { dice, time, turns, options: { seed, nodes, faults = FAULTS } } = ground;
    // In half of the episodes the broker keeps what it has acknowledged: then no recovery may fail.
    this.isLossy = dice.chance(0.5);
    this.#secret = dice.chance(0.5) ? "a secret of the simulation" : undefined;
    this.#history = { size: HISTORY_SIZE, ttl: dice.pick(HISTORIES[this.isLossy ? "lossy" : "lasting"]) };
    const hasClocks = faults.includes("clocks");
    this.clocks = Array.from(
      { length: nodes },
      () => new NodeTime(time, hasClocks ? 0.99 + dice.random() / 50 : 1, hasClocks ? dice.below(4 * HOUR) - 2 * HOUR : 0),
    );
    this.broker = new UnreliableBroker(turns, () => time.now, new Dice(seed, "broker"), this.#secret);
    const build = (number: number) => this.#build(number);
    this.nodes = this.clocks.map((clock, number) =>
      new TestNode(number, { time: clock, env: {}, broker: undefined, sqlite: undefined, build })
    );
    this.#authenticator = new Dice(seed, "authenticator");
    const kinds = FAULTS.filter((kind) => faults.includes(kind));
    this.#faults = new Faults(this, new Dice(seed, "faults"), kinds, this.isLossy);
  }

  get elapsed(): number {
    return this.#ground.elapsed;
  }

  get clients(): readonly AnyClient[] {
    return this.#ground.clients;
  }

  get channels(): readonly string[] {
    return this.#ground.channels;
  }

  get banned(): Set<string> {
    return this.#ground.banned;
  }

  get orders(): readonly Order[] {
    return this.#faults.orders;
  }

  get counts(): Readonly<Record<string, number>> {
    return this.#faults.counts;
  }

  get isActive(): boolean {
    return this.#faults.isActive;
  }

  get isPrompt(): boolean {
    return this.#faults.isPrompt;
  }

  get isHarmless(): boolean {
    return this.#faults.isHarmless;
  }

  say(text: string): void {
    this.#ground.say(text);
  }

  failed(error: unknown): void {
    this.#ground.failed(error);
  }

  start(): void {
    for (const node of this.nodes) node.start();
  }

  begin(busy: number, end: number): void {
    this.#faults.begin(busy, end);
  }

  calm(): void {
    this.broker.faults = NO_FAULTS;
  }

  publisher(dice: Dice): Publish | undefined {
    const running = this.nodes.filter(({ isUp }) => isUp);
    if (running.length === 0) return undefined;
    const { channels } = this.running[dice.pick(running).number]!; // It runs.
    return (...publication) => channels.publish(...publication);
  }

  end(channel: string): Position | undefined {
    return this.broker.memory.histories?.end(channel);
  }

  reaches(channel: string, position: Position): boolean {
    return this.broker.memory.histories?.reaches(channel, position) ?? false;
  }

  memberLists(channel: string): ReturnType<Site["memberLists"]> {
    const running = this.nodes.filter(({ isUp }) => isUp);
    return running.map(({ number }) => [`node ${number}`, () => this.running[number]!.channels.presence(channel)]); // It runs.
  }

  dueOrders(since: number): readonly Order[] {
    // Nodes that do not sign carry out no orders of others.
    return this.#secret === undefined ? [] : this.orders.filter(({ at }) => at >= since);
  }

  stop(): Promise<readonly string[]> {
    for (const { number, isUp } of this.nodes) {
      if (isUp) this.nodes[number]!.kill(); // One of them.
      this.broker.kill(number);
    }
    return Promise.resolve([]);
  }

  #build(number: number) {
    const engine = new BrokerEngine(this.broker.of(number), {
      ...ENGINE,
      ...(this.#secret !== undefined && { secret: this.#secret }),
    });
    const controller = new WebSocketController({
      engine,
      node: `n${number}`,
      logger: false,
      mode: "public",
      rateLimit: false,
      heartbeat: HEARTBEAT,
      timeout: AUTHENTICATION,
      maxBufferedBytes: MAX_BUFFERED_BYTES,
      authenticate: (credentials) => "access_token" in credentials ? this.#authenticate(credentials.access_token) : null,
      revalidate: ({ accountability: { user } }) =>
        user === null ? { accountability: { user, role: null } } : this.#authenticate(user),
    });
    // What fails is in the answers to the clients, and in what they receive.
    controller.on("error", ({ error }) => this.#ground.options.log && this.say(`node ${number}: ${String(error)}`));
    const channels = new Channels(controller, {
      "log:*": { authorize: () => true, history: this.#history },
      "room:*": { authorize: () => true, presence: { data: "client", grace: GRACE } },
    });
    this.running[number] = { controller, channels };
    return new Hono().get("/websocket", controller.upgrade);
  }

  /** Some answers take so long that the rights change meanwhile. */
  async #authenticate(user: string) {
    const isBanned = this.banned.has(user);
    const dice = this.#authenticator;
    if (dice.chance(0.2)) await this.wait(dice.below(3 * SECOND));
    return isBanned ? null : { accountability: { user, role: null } };
  }
}
