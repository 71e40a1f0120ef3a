/**
 * A cluster in one process and in virtual time, under faults that a seed decides. The nodes, their engines and the protocol between them are
 * real; the clock, the sockets and the broker are of `noroshi/testing`.
 */
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { replaceGlobals } from "../../src/testing/globals.ts";
import { TestNode } from "../../src/testing/node.ts";
import { VirtualTime } from "../../src/testing/virtual-time.ts";
import { Checker } from "../support/checker.ts";
import { Dice } from "./dice.ts";
import { NodeTime } from "./node-time.ts";
import { SeededTurns } from "./seeded-turns.ts";
import { SimulatedClient, type World } from "./simulated-client.ts";
import { type BrokerFaults, NO_FAULTS, UnreliableBroker } from "./unreliable-broker.ts";

/** What a simulation consists of. */
export interface SimulationOptions {
  readonly seed: number;
  /** Virtual time with faults, in hours. */
  readonly hours: number;
  readonly nodes: number;
  readonly clients: number;
  /** The faults that may happen. @default all */
  readonly faults?: readonly FaultKind[] | undefined;
  /** Prints what happens when. */
  readonly log?: ((line: string) => void) | undefined;
}

/** The outcome. */
export interface SimulationResult {
  readonly problems: readonly string[];
  /** Identifies everything that was sent and received, in order. */
  readonly hash: string;
  readonly counts: Readonly<Record<string, number>>;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Things happen in bursts: a busy time of some seconds, then minutes in which leases, heartbeats and histories run out. */
const BUSY = [5 * SECOND, 40 * SECOND] as const;
const QUIET = [10 * MINUTE, 45 * MINUTE] as const;

/** Longer than the defaults: virtual hours would consist of heartbeats. */
const ENGINE = { lease: 4 * MINUTE, checkInterval: 2 * MINUTE, timeout: 5 * SECOND, linger: 30 * SECOND };
const HEARTBEAT = { period: 30 * MINUTE, timeout: MINUTE };
/** Histories of a broker that loses data run out too. The others are kept, so that no recovery may fail. */
const HISTORY = { lossy: { size: 50, ttl: 3 * HOUR }, lasting: { size: 2_000, ttl: 500 * HOUR } };
const GRACE = 2 * SECOND;

/** The members of a room are read anew at every 12th check, so that everybody agrees by then. */
const SETTLED = Math.max(14 * ENGINE.checkInterval, HEARTBEAT.period + 2 * HEARTBEAT.timeout, 3 * ENGINE.lease);
const TOO_LATE = 2 * HOUR;

/** An order may concern a client that authenticated up to `timeout` later, and clocks run at different rates. */
const ORDER_SLACK = 60 * SECOND;
const FORBIDDEN = 4403;

const CHANNELS_A_CLIENT = 2;
const CLIENTS_A_CHANNEL = 4;
const CLIENTS_A_ROOM = 30;

/** How often connections to the broker fail by themselves, in an episode with such faults. */
const UNRELIABLE: BrokerFaults = { lost: 0.01, doubled: 0.01, late: 0.02, refused: 0.0005, unanswered: 0.0005 };

/** The faults, and those by which the broker loses what it has acknowledged. */
export const FAULTS = [
  ...["network", "clocks", "node killed", "node stopped", "node cut off", "broker restarted", "broker cut off"],
  ...["clients cut off", "order", "everything lost", "backup restored", "history lost", "tail lost"],
] as const;
export type FaultKind = string;
const LOSSES: readonly FaultKind[] = ["everything lost", "backup restored", "history lost", "tail lost"];

/** An order to end the connections of a user. */
interface Order {
  readonly user: string;
  readonly at: number;
  /** Who was connected, with the time since when. */
  readonly clients: ReadonlyMap<SimulatedClient, number>;
  /** Whether the order was sent, so that every node has to carry it out. */
  isSent: boolean;
  /** Whether the broker has lost it since. */
  isLost: boolean;
}

interface Running {
  controller: WebSocketController;
  channels: Channels;
}

/** Runs one simulation. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const simulation = new Simulation(options);
  try {
    return await simulation.run();
  } finally {
    simulation.release();
  }
}

class Simulation implements World {
  readonly checker: Checker;
  readonly turns: SeededTurns;
  readonly nodes: readonly TestNode[];
  isSettling = false;
  readonly #options: SimulationOptions;
  readonly #dice: Dice;
  readonly #time: VirtualTime;
  readonly #broker: UnreliableBroker;
  readonly #running: Running[] = [];
  readonly #clocks: readonly NodeTime[];
  /** Nodes with a fault that is not over. */
  readonly #troubled = new Set<number>();
  readonly #channels: readonly string[];
  readonly #clients: readonly SimulatedClient[];
  readonly #orders: Order[] = [];
  readonly #kinds: readonly FaultKind[];
  readonly #isSigned: boolean;
  readonly #history: HistoryOptions;
  readonly #release: readonly (() => void)[];
  readonly #problems: string[] = [];
  readonly #faults: Record<string, number> = {};
  #hash = 0;
  #other = 0;
  /** The current burst. */
  #busy: readonly [from: number, to: number] = [0, 0];
  #backup: ((channel?: string) => void) | undefined;

  constructor(options: SimulationOptions) {
    const { seed, nodes, clients } = options;
    this.#options = options;
    const dice = this.#dice = new Dice(seed, "schedule");
    this.turns = new SeededTurns(new Dice(seed, "turns"), (error) => this.#failed(error));
    const time = this.#time = new VirtualTime(1_800_000_000_000, () => this.turns.settle());
    this.#release = [replaceGlobals(time, new Dice(seed, "globals").random), this.turns.replaceImmediate()];
    this.checker = new Checker();
    // In half of the episodes the broker keeps what it has acknowledged: then no recovery may fail.
    const isLossy = dice.chance(0.5);
    this.#isSigned = seed % 4 !== 0;
    this.#history = HISTORY[isLossy ? "lossy" : "lasting"];
    this.#kinds = (options.faults ?? FAULTS).filter((kind) => isLossy || !LOSSES.includes(kind));
    const hasClocks = this.#kinds.includes("clocks");
    this.#clocks = Array.from(
      { length: nodes },
      () => new NodeTime(time, hasClocks ? 0.99 + dice.random() / 50 : 1, hasClocks ? dice.below(4 * HOUR) - 2 * HOUR : 0),
    );
    this.#broker = new UnreliableBroker(this.turns, () => time.now, new Dice(seed, "broker"));
    const build = (number: number) => this.#build(number);
    this.nodes = this.#clocks.map((clock, number) =>
      new TestNode(number, { time: clock, env: {}, broker: undefined, sqlite: undefined, build })
    );
    const count = Math.max(1, Math.ceil(clients * CHANNELS_A_CLIENT / CLIENTS_A_CHANNEL));
    this.#channels = Array.from({ length: count }, (_, number) => `log:${number}`);
    this.#clients = Array.from({ length: clients }, (_, number) => {
      const own = new Dice(seed, `client ${number}`);
      return new SimulatedClient(`c${number}`, this, {
        channels: [...new Set(Array.from({ length: CHANNELS_A_CLIENT }, () => own.pick(this.#channels)))],
        room: `room:${Math.floor(number / CLIENTS_A_ROOM)}`,
        user: number % 2 === 0 ? `user${number}` : undefined,
        watches: number % 10 === 0,
        dice: own,
      });
    });
  }

  get elapsed(): number {
    return this.#time.elapsed;
  }

  wait(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#time.set(resolve, ms, "the simulation"));
  }

  pause(dice: Dice): number {
    const [from, to] = this.#busy;
    if (this.elapsed < to && dice.chance(0.3)) return dice.pick([0, 0, 1, 5, 50, 500, 3_000]);
    // Once in the next burst.
    return Math.max(0, from + dice.random() * (to - from) - this.elapsed) + (this.elapsed < from ? 0 : MINUTE);
  }

  record(text: string): void {
    let [hash, other] = [this.#hash, this.#other];
    for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
    other = Math.imul(other ^ hash ^ Math.floor(this.elapsed), 0x85ebca6b);
    this.#hash = hash;
    this.#other = other ^ (other >>> 15);
  }

  ended(client: SimulatedClient, code: number): void {
    if (code !== FORBIDDEN) return;
    const isDue = this.#orders.some(({ user, at }) => user === client.user && client.openedAt <= at + ORDER_SLACK);
    if (!isDue) this.#problem(`${client.name}, who was connected since ${client.openedAt} ms, was disconnected without an order`);
  }

  release(): void {
    for (const release of this.#release) release();
  }

  async run(): Promise<SimulationResult> {
    for (const node of this.nodes) node.start();
    await this.#time.advance(SECOND);
    const { hours } = this.#options;
    const isUnreliable = this.#kinds.includes("network");
    const end = hours * HOUR;
    for (let isFirst = true; isFirst || this.elapsed < end; isFirst = false) {
      const length = between(this.#dice, BUSY);
      this.#busy = [this.elapsed + SECOND, this.elapsed + SECOND + length];
      if (isFirst) { for (const client of this.#clients) this.#go(client.wander()); }
      this.#broker.faults = isUnreliable ? UNRELIABLE : NO_FAULTS;
      this.#backup = this.#broker.memory.backup();
      for (let count = 1 + this.#dice.below(6); count > 0; count--) this.#plan(length);
      await this.#time.advance(SECOND + length);
      if (this.#dice.chance(0.5)) this.#broker.faults = NO_FAULTS;
      const quiet = between(this.#dice, QUIET);
      this.#busy = [this.elapsed + quiet, this.elapsed + quiet + 1];
      await this.#time.advance(quiet - SECOND);
    }
    await this.#settle();
    await this.#verify();
    for (const node of this.nodes) this.#kill(node.number);
    const problems = [...this.#problems, ...this.checker.problems()];
    const { counts, histories } = this.checker;
    if (this.#history === HISTORY.lasting && counts.lost > 0) {
      problems.push(`${counts.lost} recoveries failed, though the broker lost nothing`);
    }
    const hash = `${(this.#hash >>> 0).toString(16)}${(this.#other >>> 0).toString(16)}`;
    return { problems, hash, counts: { ...counts, histories, hours: this.elapsed / HOUR, ...this.#faults } };
  }

  #build(number: number) {
    const engine = new BrokerEngine(this.#broker.of(number), {
      ...ENGINE,
      ...(this.#isSigned && { secret: "a secret of the simulation" }),
    });
    const controller = new WebSocketController({
      engine,
      node: `n${number}`,
      logger: false,
      mode: "public",
      rateLimit: false,
      heartbeat: HEARTBEAT,
      maxBufferedBytes: 4_096,
      authenticate: (credentials) =>
        "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
    });
    // What fails is in the answers to the clients, and in what they receive.
    controller.on("error", ({ error }) => this.#options.log?.(`${this.#seconds} s node ${number}: ${String(error)}`));
    const channels = new Channels(controller, {
      "log:*": { authorize: () => true, history: this.#history },
      "room:*": { authorize: () => true, presence: { data: "client", grace: GRACE } },
    });
    this.#running[number] = { controller, channels };
    return new Hono().get("/websocket", controller.upgrade);
  }

  // Faults

  #plan(length: number): void {
    const kinds = this.#kinds.filter((kind) => kind !== "network");
    if (kinds.length === 0) return;
    const kind = this.#dice.pick(kinds);
    const at = this.#dice.below(length);
    this.#go(
      this.wait(at).then(() => {
        if (this.isSettling) return;
        this.#faults[kind] = (this.#faults[kind] ?? 0) + 1;
        this.#say(kind);
        return this.#happen(kind);
      }),
    );
  }

  async #happen(kind: FaultKind): Promise<void> {
    const dice = this.#dice;
    const { memory } = this.#broker;
    // Most are over before anybody gives up; some last.
    const duration = dice.chance(0.7) ? dice.below(4 * SECOND) : dice.below(10 * MINUTE);
    switch (kind) {
      case "node killed":
        return await this.#trouble(async (number) => {
          this.#kill(number);
          await this.wait(duration);
          this.nodes[number]!.start(); // One of them.
        });
      case "node stopped":
        return await this.#trouble(async (number) => {
          await this.nodes[number]!.stop(); // As above.
          await this.wait(duration);
          this.#broker.kill(number);
          this.nodes[number]!.start();
        });
      case "node cut off":
        return await this.#trouble(async (number) => {
          memory.cut(number);
          await this.wait(duration);
          memory.restore(number);
        });
      case "clocks":
        return dice.pick(this.#clocks).turn(dice.below(2 * HOUR) - HOUR);
      case "broker restarted":
        return this.#broker.restart();
      case "broker cut off":
        for (const { number } of this.nodes) memory.cut(number);
        await this.wait(duration);
        for (const { number } of this.nodes) if (!this.#troubled.has(number)) memory.restore(number);
        return;
      case "clients cut off":
        for (let count = 1 + dice.below(1 + this.#clients.length / 10); count > 0; count--) {
          dice.pick(this.#clients).cut(dice.chance(0.5));
        }
        return;
      case "order":
        return await this.#order(dice.pick(this.#clients));
      case "everything lost":
        this.#lose();
        memory.forget();
        return this.#broker.restart();
      case "backup restored":
        this.#lose();
        this.#backup!(); // Made before each burst.
        return this.#broker.restart();
      case "history lost":
      case "tail lost": {
        const channel = dice.pick(this.#channels);
        const restore = kind === "tail lost" ? memory.backup() : this.#backup!; // As above.
        await this.wait(kind === "tail lost" ? dice.below(3 * SECOND) : 0);
        return restore(channel);
      }
    }
  }

  /** A fault of a node that has none. */
  async #trouble(happen: (number: number) => Promise<void>): Promise<void> {
    const free = this.nodes.filter(({ number, isUp }) => isUp && !this.#troubled.has(number));
    if (free.length === 0) return;
    const { number } = this.#dice.pick(free);
    this.#troubled.add(number);
    this.#say(`node ${number}`);
    await happen(number);
    this.#troubled.delete(number);
    this.#say(`node ${number} is well`);
  }

  #kill(number: number): void {
    if (this.nodes[number]!.isUp) this.nodes[number]!.kill(); // One of them.
    this.#broker.kill(number);
  }

  #lose(): void {
    for (const order of this.#orders) order.isLost = true;
  }

  async #order({ user }: SimulatedClient): Promise<void> {
    const free = this.nodes.filter(({ number, isUp }) => isUp && !this.#troubled.has(number));
    if (user === undefined || free.length === 0) return;
    const { number } = this.#dice.pick(free);
    const connected = this.#clients.filter((client) => client.user === user && client.isConnected);
    const clients = new Map(connected.map((client) => [client, client.openedAt]));
    const order: Order = { user, at: this.elapsed, clients, isSent: false, isLost: false };
    this.#orders.push(order);
    const { isSent } = await this.#running[number]!.controller.disconnect({ user }); // It is running.
    order.isSent = isSent;
  }

  // The end

  async #settle(): Promise<void> {
    this.isSettling = true;
    this.#broker.faults = NO_FAULTS;
    // Everything that was planned is over by then.
    await this.#time.advance(BUSY[1] + 11 * MINUTE);
    const start = this.elapsed;
    const isTooLate = () => this.elapsed > start + TOO_LATE;
    for (let away: readonly SimulatedClient[] = this.#clients; away.length > 0 && !isTooLate();) {
      let isOver = false;
      this.#go(Promise.all(away.map((client) => client.settle(isTooLate))).then(() => void (isOver = true)));
      while (!isOver) await this.#time.advance(10 * SECOND);
      await this.#time.advance(SETTLED);
      // A connection that was lost in silence is noticed by its heartbeat only.
      away = this.#clients.filter(({ isConnected }) => !isConnected);
    }
  }

  async #verify(): Promise<void> {
    const { checker } = this;
    for (const { user, at, clients, isSent, isLost } of this.#orders) {
      if (!isSent || isLost) continue;
      for (const [client, openedAt] of clients) {
        if (client.isConnected && client.openedAt === openedAt) {
          this.#problem(`${client.name} is still connected, though ${user} was disconnected at ${Math.floor(at / SECOND)} s`);
        }
      }
    }
    for (const room of new Set(this.#clients.map(({ room }) => room))) {
      const clients = this.#clients.filter((client) => client.room === room);
      const there = new Set(clients.map(({ member }) => member));
      for (const { number } of this.nodes) {
        const members = await this.#drive(this.#running[number]!.channels.presence(room)); // All are running.
        checker.members(`node ${number}, in ${room},`, members.map(({ data }) => String(data)), there);
      }
      for (const { name, members } of clients) if (members) checker.members(`${name}, in ${room},`, members, there);
    }
    for (const channel of this.#channels) {
      const followers = this.#clients.filter((client) => client.followers.has(channel));
      if (followers.length === 0) continue;
      const { engine } = this.#running[this.#dice.below(this.nodes.length)]!.controller; // As above.
      const { position } = await this.#drive(Promise.resolve(engine.read(channel, this.#history, null, 0)));
      for (const client of followers) {
        const own = client.followers.get(channel)!.position; // As filtered.
        if (own?.epoch === position.epoch && own.offset === position.offset) continue;
        const [is, end] = [own, position].map((at) => at && `${at.offset} in ${at.epoch}`);
        this.#problem(`${client.name} is at ${is} of ${channel}, which ends at ${end}`);
      }
    }
  }

  async #drive<Value>(promise: Promise<Value>): Promise<Value> {
    let isOver = false;
    const driven = promise.finally(() => isOver = true);
    driven.catch(() => {}); // Returned below.
    while (!isOver) await this.#time.advance(SECOND);
    return await driven;
  }

  #go(promise: Promise<unknown>): void {
    promise.catch((error) => this.#failed(error));
  }

  #failed(error: unknown): void {
    this.#problem(`Something threw: ${error instanceof Error ? error.stack : String(error)}`);
  }

  #problem(text: string): void {
    this.#say(text);
    this.#problems.push(text);
  }

  get #seconds(): number {
    return Math.floor(this.elapsed / 10) / 100;
  }

  #say(text: string): void {
    this.#options.log?.(`${this.#seconds} s ${text}`);
  }
}

const between = (dice: Dice, [from, to]: readonly [from: number, to: number]): number => from + dice.below(to - from);
