/**
 * A cluster, or a Durable Object that hibernates, in one process and in virtual time, under faults that a seed decides. The nodes, their
 * engines and the protocol between them are real; the clock, the sockets and the broker are of `noroshi/testing`.
 */
import { replaceGlobals } from "../../src/testing/globals.ts";
import { VirtualClock, VirtualTime } from "../../src/testing/virtual-time.ts";
import { Checker } from "../support/checker.ts";
import { Dice } from "./dice.ts";
import { type FaultKind, FAULTS as CLUSTER_FAULTS } from "./faults.ts";
import { Inspection } from "./inspection.ts";
import { SeededTurns } from "./seeded-turns.ts";
import { replaceHmac, withoutStacks } from "./replacements.ts";
import { LibraryClient } from "./library-client.ts";
import { type AnyClient, type ClientNode, PAD, type Position, SimulatedClient, type World } from "./simulated-client.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import { OBJECT_FAULTS, type ObjectFaultKind, SimulatedObject } from "./simulated-object.ts";
import { replaceWorkerd } from "./hibernating-object.ts";
import { AUTHENTICATION, HOUR, MINUTE, SECOND } from "./sizes.ts";
import { type Ground, pairOf, type Site } from "./site.ts";

/** Everything that may fail, in a cluster or in an object. */
export const FAULTS: readonly AnyFault[] = [...new Set<AnyFault>([...CLUSTER_FAULTS, ...OBJECT_FAULTS])];

export type AnyFault = FaultKind | ObjectFaultKind;

/** What a simulation consists of. */
export interface SimulationOptions {
  readonly seed: number;
  /** Virtual time with faults, in hours. */
  readonly hours: number;
  readonly nodes: number;
  /** Simulates a Durable Object that hibernates, in place of the nodes. @default {false} */
  readonly object?: boolean | undefined;
  /** Clients without a library. */
  readonly clients: number;
  /** Clients of `noroshi/client`. @default 0 */
  readonly library?: number | undefined;
  /** Publications that the application publishes at once, on average. @default {25} */
  readonly burst?: number | undefined;
  /** The faults that may happen. @default all */
  readonly faults?: readonly AnyFault[] | undefined;
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

/** A round begins with some busy seconds. What began in them lasts on, sometimes for minutes; then it is quiet. */
const BUSY = [2 * SECOND, 15 * SECOND] as const;
const LONGEST = 10 * MINUTE;

/** Time after the last fault until each node has caught up, unless something was lost without a sign. */
const RECONNECTED = 30 * SECOND;
const TOO_LATE = 30 * MINUTE;

/** An order may concern a client that authenticated up to the timeout later, and clocks run at different rates. */
const ORDER_SLACK = AUTHENTICATION + 5 * SECOND;
const FORBIDDEN = 4403;

const CHANNELS_A_CLIENT = 2;
const CLIENTS_A_CHANNEL = 3;
const CLIENTS_A_ROOM = 6;

/** What the application publishes on its nodes, in bursts a round for each client. */
const BURSTS_A_CLIENT = 1.5;

/** How likely a client without a library never answers a close frame of an object. */
const NEGLECTS = 0.5;

/** Pauses of a client between two things that it does, in ms. */
const PAUSES = [0, 0, 1, 5, 50, 500, 3_000];

/** Runs one simulation. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const simulation = new Simulation(options);
  try {
    return await simulation.run();
  } finally {
    simulation.release();
  }
}

class Simulation implements World, Ground {
  readonly options: SimulationOptions;
  readonly checker: Checker;
  readonly turns: SeededTurns;
  readonly time: VirtualTime;
  readonly dice: Dice;
  readonly clients: readonly AnyClient[];
  readonly channels: readonly string[];
  readonly banned: Set<string> = new Set();
  readonly withdrawn: Set<string> = new Set();
  readonly #site: Site;
  readonly #inspection: Inspection;
  readonly #release: readonly (() => void)[];
  /** Whether nothing fails and nobody does anything. */
  #isCalm = false;
  readonly #publisher: Dice;
  #published = 0;
  #hash = 0;
  #other = 0;
  /** When this round has begun. */
  #round = 0;
  /** Members that are said to have left, with the connections that they had. */
  #left: { readonly client: AnyClient; readonly openedAt: number; readonly watcher: string }[] = [];

  constructor(options: SimulationOptions) {
    const { seed, clients, library = 0 } = this.options = options;
    this.dice = new Dice(seed, "schedule");
    this.turns = new SeededTurns(new Dice(seed, "turns"), (error) => this.failed(error));
    const time = this.time = new VirtualTime(1_800_000_000_000, () => this.turns.settle());
    this.#release = [
      replaceGlobals(time, new Dice(seed, "globals").random),
      this.turns.replaceImmediate(),
      ...(options.log ? [] : [withoutStacks()]),
      replaceHmac(),
      ...(options.object ? [replaceWorkerd()] : []),
    ];
    this.checker = new Checker(); // Its clock is virtual now.
    const site = this.#site = options.object ? new SimulatedObject(this) : new SimulatedCluster(this);
    const all = clients + library;
    const count = Math.max(1, Math.ceil(all * CHANNELS_A_CLIENT / CLIENTS_A_CHANNEL));
    this.channels = Array.from({ length: count }, (_, number) => `log:${number}`);
    this.clients = Array.from({ length: all }, (_, number) => {
      const own = new Dice(seed, `client ${number}`);
      const Client = number < clients ? SimulatedClient : LibraryClient;
      return new Client(number, this, {
        channels: [...new Set(Array.from({ length: CHANNELS_A_CLIENT }, () => own.pick(this.channels)))],
        room: `room:${Math.floor(number / CLIENTS_A_ROOM)}`,
        // Of three clients two are of the same user, and one is anonymous.
        user: number % 3 === 2 ? undefined : `user${Math.floor(number / 3)}`,
        watches: number % 4 === 0,
        dice: own,
        // A node ends such a connection, workerd does not.
        ...(options.object && { neglects: NEGLECTS }),
      });
    });
    this.#publisher = new Dice(seed, "publisher");
    this.#inspection = new Inspection(site, this.clients, this.checker);
  }

  get nodes(): readonly ClientNode[] {
    return this.#site.nodes;
  }

  get elapsed(): number {
    return this.time.elapsed;
  }

  clock(owner: string): VirtualClock {
    return new VirtualClock(this.time, owner);
  }

  readonly wait = (ms: number): Promise<void> => new Promise((resolve) => void this.time.set(resolve, ms, "the simulation"));

  record(who: number, direction: number, text: string): void {
    let hash = Math.imul(this.#hash ^ who, 0x01000193) ^ direction;
    for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
    const other = Math.imul(this.#other ^ hash ^ Math.floor(this.elapsed), 0x85ebca6b);
    this.#hash = hash;
    this.#other = other ^ (other >>> 15);
  }

  ended(client: AnyClient, code: number): void {
    if (!this.#isCalm && client.dice.chance(0.5)) this.#return(client);
    if (code !== FORBIDDEN) return;
    const isDue = this.#site.orders.some(({ user, at }) => user === client.user && client.openedAt <= at + ORDER_SLACK);
    if (!isDue) this.#problem(`${client.name}, who was connected since ${client.openedAt} ms, was disconnected without an order`);
  }

  lost({ name }: AnyClient, channel: string, position: Position | undefined): void {
    if (this.#site.isLossy || (position && !this.#site.reaches(channel, position))) return;
    this.#problem(`${name} could not recover from ${position?.offset} of ${channel}, though nothing was lost`);
  }

  left({ name: watcher }: AnyClient, left: string): void {
    if (!this.#site.isHarmless) return;
    for (const client of this.clients) {
      const { user, openedAt, isMember } = client;
      if (user === left && isMember && openedAt < this.#round) this.#left.push({ client, openedAt, watcher });
    }
  }

  mayExpire(user: string | undefined): boolean {
    return user !== undefined && (this.banned.has(user) || this.#site.hasExpiry);
  }

  isWithdrawn(user: string | undefined, channel: string): boolean {
    return user !== undefined && this.withdrawn.has(pairOf(user, channel));
  }

  say(text: string): void {
    this.options.log?.(`${Math.floor(this.elapsed / 10) / 100} s ${text}`);
  }

  failed(error: unknown): void {
    this.#problem(`Something threw: ${error instanceof Error ? error.stack : String(error)}`);
  }

  release(): void {
    for (const release of this.#release) release();
  }

  async run(): Promise<SimulationResult> {
    this.#site.start();
    await this.time.advance(SECOND);
    const end = this.options.hours * HOUR;
    for (let isFirst = true; isFirst || (this.elapsed < end && this.checker.isSound); isFirst = false) await this.#runRound();
    if (this.checker.isSound) await this.#comeBack();
    for (const problem of await this.#site.stop()) this.#problem(problem);
    await this.turns.settle();
    const { counts, histories } = this.checker;
    const hash = `${(this.#hash >>> 0).toString(16)}${(this.#other >>> 0).toString(16)}`;
    return {
      problems: this.checker.problems(),
      hash,
      counts: { ...counts, histories, hours: this.elapsed / HOUR, ...this.#site.counts },
    };
  }

  async #runRound(): Promise<void> {
    const dice = this.dice;
    this.#round = this.elapsed;
    this.#left = [];
    this.#isCalm = false;
    this.banned.clear();
    this.withdrawn.clear();
    const busy = between(dice, BUSY);
    const end = this.elapsed + busy + (dice.chance(0.4) ? dice.below(LONGEST) : 5 * SECOND);
    this.#site.begin(busy, end);
    for (const client of this.clients) this.#wander(client, busy, end);
    for (let count = this.clients.length * BURSTS_A_CLIENT; count > 0; count--) {
      const length = this.#publisher.chance(0.8) ? busy : end - this.elapsed;
      this.time.set(() => this.#publish(), this.#publisher.below(length), "the application");
    }
    await this.time.advance(end - this.elapsed);
    for (const late = end + TOO_LATE; this.#site.isActive; await this.time.advance(SECOND)) {
      if (this.elapsed > late) return this.#problem("A fault does not end");
    }
    await this.#calm();
    if (dice.chance(0.3)) await this.time.advance(dice.below(20 * MINUTE));
  }

  /** Lets a client do some things in this round: most of them soon, and the last one at any time. */
  #wander(client: AnyClient, busy: number, end: number): void {
    const { dice } = client;
    let left = 1 + dice.below(5);
    const later = (ms: number) => void this.time.set(act, ms, client.name);
    const act = () => {
      if (this.#isCalm) return;
      client.act();
      if (--left > 0) later(dice.pick(PAUSES));
      else if (left === 0 && dice.chance(0.5)) later(dice.below(Math.max(1, end - this.elapsed)));
    };
    later(dice.below(busy));
  }

  /** Lets a client come back soon, and publishes at the same time: what arrives in one turn arrives in any order. */
  #return(client: AnyClient): void {
    const { dice, followers } = client;
    const pause = dice.pick(PAUSES);
    this.time.set(() => this.#isCalm || client.act(), pause, client.name);
    const channel = dice.pick([...followers.keys()]);
    if (dice.chance(0.3)) this.time.set(() => this.#publish(channel), pause, "the application");
  }

  /** The application publishes some at once on a node, most of them to one channel. */
  #publish(most: string = this.#publisher.pick(this.channels)): void {
    if (this.#isCalm) return;
    const dice = this.#publisher;
    const publish = this.#site.publisher(dice);
    if (!publish) return;
    const { burst = 25 } = this.options;
    for (let count = 1 + dice.below(2 * burst); count > 0; count--) {
      const channel = dice.chance(0.95) ? most : dice.pick(this.channels);
      const id = `s/${this.#published++}`;
      publish(channel, "wrote", dice.chance(0.05) ? { id, pad: PAD.slice(dice.below(PAD.length)) } : { id }).then(
        (position) => position && this.checker.published(channel, position, id),
        () => {}, // It is not known whether it was published.
      );
    }
  }

  /** Nothing fails any more. Everything that is promised has to be so within a known time. */
  async #calm(): Promise<void> {
    const start = this.elapsed;
    this.#isCalm = true;
    const site = this.#site;
    site.calm();
    for (const client of this.clients) client.unstall();
    await this.time.advance(RECONNECTED);
    if (site.isPrompt) this.#inspection.positions(start);
    await this.time.advance(site.settled - RECONNECTED);
    this.#inspection.positions(start);
    this.checker.review();
    await this.#drive(this.#inspection.members());
    this.#inspection.orders(site.dueOrders(this.#round));
    this.#inspection.permissions((client, channel) => this.isWithdrawn(client.user, channel));
    for (const { client, openedAt, watcher } of this.#left) {
      if (client.isMember && client.openedAt === openedAt) {
        this.#problem(`${watcher} received that ${client.name} had left, who is there`);
      }
    }
  }

  /** Everybody comes back. */
  async #comeBack(): Promise<void> {
    this.banned.clear();
    this.withdrawn.clear();
    const start = this.elapsed;
    for (let away: readonly AnyClient[] = this.clients; away.length > 0;) {
      away = this.clients.filter((client) => !client.comeBack());
      await this.time.advance(2 * SECOND);
      if (this.elapsed < start + TOO_LATE) continue;
      return this.#problem(`${away.map(({ name }) => name).join(", ")} did not come back`);
    }
    this.#round = this.elapsed;
    await this.#calm();
  }

  async #drive<Value>(promise: Promise<Value>): Promise<Value> {
    let isOver = false;
    const driven = promise.finally(() => isOver = true);
    driven.catch(() => {}); // Returned below.
    while (!isOver) await this.time.advance(SECOND);
    return await driven;
  }

  #problem(text: string): void {
    this.say(text);
    this.checker.problem(text);
  }
}

const between = (dice: Dice, [from, to]: readonly [from: number, to: number]): number => from + dice.below(to - from);
