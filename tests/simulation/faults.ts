import type { WebSocketController } from "../../mod.ts";
import type { Channels } from "../../src/channels/channels.ts";
import type { TestNode } from "../../src/testing/node.ts";
import type { Dice } from "./dice.ts";
import type { NodeTime } from "./node-time.ts";
import type { AnyClient } from "./simulated-client.ts";
import { HOUR, SECOND } from "./sizes.ts";
import { type BrokerFaults, NO_FAULTS, type UnreliableBroker } from "./unreliable-broker.ts";

/** How likely each fault is, compared with the others. */
const WEIGHTS = {
  "clocks": 1,
  "node killed": 3,
  "node stopped": 2,
  "node cut off": 5,
  "broker restarted": 2,
  "broker cut off": 1,
  "clients cut off": 3,
  "order": 3,
  "refresh": 3,
  "members evicted": 1,
  "everything lost": 1,
  "backup restored": 2,
  "history lost": 2,
  "tail lost": 2,
};

/** A fault that happens at some time. */
type Incident = keyof typeof WEIGHTS;

/** A fault, or a way in which a whole round is unreliable. */
export type FaultKind = Incident | "network" | "unreadable" | "upgrade";

export const FAULTS = [...Object.keys(WEIGHTS), "network", "unreadable", "upgrade"] as FaultKind[]; // The keys are of this type.

/** The broker loses what it has acknowledged. */
const LOSSES: ReadonlySet<FaultKind> = new Set(["everything lost", "backup restored", "history lost", "tail lost", "unreadable"]);

/** No node loses its connection to the broker. */
const HARMLESS: ReadonlySet<FaultKind> = new Set([
  ...["clocks", "clients cut off", "order", "refresh", "members evicted", "history lost", "tail lost"] as const,
]);

/** An order to end the connections of a user, or to ask for its rights anew, which have been taken. */
export interface Order {
  readonly kind: "order" | "refresh";
  readonly user: string;
  readonly at: number;
  /** The node that was asked. */
  readonly node: number;
  /** Who was connected, with the time since when. */
  readonly clients: ReadonlyMap<AnyClient, number>;
  /** Whether it was sent; until then only that node has it. */
  isSent: boolean;
  /** Whether it is lost, so that nobody has to carry it out. */
  isLost: boolean;
}

/** What runs on a node. */
export interface Running {
  readonly controller: WebSocketController;
  readonly channels: Channels;
}

/** The cluster in which the faults happen. */
export interface Cluster {
  readonly elapsed: number;
  readonly nodes: readonly TestNode[];
  readonly running: readonly Running[];
  readonly clocks: readonly NodeTime[];
  readonly clients: readonly AnyClient[];
  readonly channels: readonly string[];
  readonly broker: UnreliableBroker;
  /** Users whose rights are taken in this round. */
  readonly banned: Set<string>;
  wait(ms: number): Promise<void>;
  say(text: string): void;
  failed(error: unknown): void;
}

/** Decides what fails. In each round some faults happen, and all are over at its end. */
export class Faults {
  /** How often each has happened. */
  readonly counts: Record<string, number> = {};
  orders: Order[] = [];
  readonly #cluster: Cluster;
  readonly #dice: Dice;
  readonly #kinds: ReadonlySet<FaultKind>;
  /** The faults of this round. */
  #round: ReadonlySet<FaultKind> = new Set();
  #rates: BrokerFaults = NO_FAULTS;
  #end = 0;
  #active = 0;
  /** Nodes with a fault that is not over. */
  readonly #troubled = new Set<number>();
  #backup: ((channel?: string) => void) | undefined;

  /** @param isLossy whether the broker may lose what it has acknowledged. */
  constructor(cluster: Cluster, dice: Dice, kinds: readonly FaultKind[], isLossy: boolean) {
    this.#cluster = cluster;
    this.#dice = dice;
    this.#kinds = new Set(kinds.filter((kind) => isLossy || !LOSSES.has(kind)));
  }

  /** Whether a fault of this round is not over. */
  get isActive(): boolean {
    return this.#active > 0;
  }

  /** Whether nothing was lost without a sign in this round, so that no node has to wait for a check to notice it. */
  get isPrompt(): boolean {
    return this.#rates.lost + this.#rates.unreadable === 0 && ![...this.#round].some((kind) => LOSSES.has(kind));
  }

  /** Whether no node has lost its connection to the broker in this round. */
  get isHarmless(): boolean {
    return this.#rates.refused === 0 && [...this.#round].every((kind) => HARMLESS.has(kind));
  }

  /** @param busy time in which faults begin, in ms. @param end when all are over, in ms since the start. */
  begin(busy: number, end: number): void {
    const dice = this.#dice;
    this.#end = end;
    this.orders = this.orders.slice(-100);
    const kinds = Array.from({ length: 1 + dice.below(4) }, () => this.#pick()).filter((kind) => kind !== undefined);
    this.#round = new Set(kinds);
    const hasNetwork = this.#kinds.has("network") && dice.chance(0.7);
    const isFlaky = hasNetwork && dice.chance(0.4);
    this.#rates = {
      lost: hasNetwork && dice.chance(0.5) ? 0.005 : 0,
      doubled: hasNetwork ? 0.01 : 0,
      late: hasNetwork ? 0.03 : 0,
      refused: isFlaky ? 0.002 : 0,
      unanswered: isFlaky ? 0.002 : 0,
      unreadable: this.#kinds.has("unreadable") && dice.chance(0.2) ? 0.01 : 0,
    };
    const { broker } = this.#cluster;
    broker.faults = this.#rates;
    if (this.#round.has("backup restored") || this.#round.has("history lost")) this.#backup = broker.memory.backup();
    for (const kind of kinds) {
      this.#run(async () => {
        await this.#cluster.wait(dice.below(busy));
        this.counts[kind] = (this.counts[kind] ?? 0) + 1;
        this.#cluster.say(kind);
        await this.#happen(kind);
      });
    }
  }

  #run(happen: () => Promise<void>): void {
    this.#active++;
    happen().catch((error) => this.#cluster.failed(error)).finally(() => this.#active--);
  }

  #pick(): Incident | undefined {
    const kinds = (Object.keys(WEIGHTS) as Incident[]).filter((kind) => this.#kinds.has(kind)); // As its type says.
    let left = this.#dice.below(kinds.reduce((sum, kind) => sum + WEIGHTS[kind], 0));
    return kinds.find((kind) => (left -= WEIGHTS[kind]) < 0);
  }

  /** How long a fault lasts: most are over before anybody gives up, some last until the end of the round. */
  #span(): number {
    const left = Math.max(0, this.#end - this.#cluster.elapsed);
    return Math.min(left, this.#dice.chance(0.5) ? this.#dice.below(4 * SECOND) : this.#dice.below(left + 1));
  }

  async #happen(kind: Incident): Promise<void> {
    const dice = this.#dice;
    const { broker, nodes, clients, channels, clocks, wait } = this.#cluster;
    const { memory } = broker;
    switch (kind) {
      case "node killed":
        return await this.#trouble(async (number) => {
          this.#kill(number);
          await wait(this.#span());
          this.#start(number);
        });
      case "node stopped":
        return await this.#trouble(async (number) => {
          this.#forget(number);
          await nodes[number]!.stop(); // One of them.
          await wait(this.#span());
          broker.kill(number);
          this.#start(number);
        });
      case "node cut off":
        return await this.#trouble(async (number) => {
          memory.cut(number);
          // Half the time somebody is disconnected meanwhile who is connected to it.
          const there = clients.filter(({ node, user }) => user !== undefined && node?.number === number);
          const span = this.#span();
          if (this.#kinds.has("order") && there.length > 0 && dice.chance(0.5)) {
            const kind = this.#kinds.has("refresh") && dice.chance(0.5) ? "refresh" : "order";
            this.#run(() => wait(dice.below(span + 1)).then(() => this.#order(kind, dice.pick(there))));
          }
          await wait(span);
          memory.restore(number);
        });
      case "clocks":
        return dice.pick(clocks).turn(dice.below(2 * HOUR) - HOUR);
      case "broker restarted":
        return broker.restart();
      case "broker cut off":
        for (const { number } of nodes) memory.cut(number);
        await wait(this.#span());
        // Those that are cut off by themselves too come back with the others.
        for (const { number } of nodes) memory.restore(number);
        return;
      case "clients cut off":
        for (let count = 1 + dice.below(1 + clients.length / 4); count > 0; count--) dice.pick(clients).cut(dice.chance(0.5));
        return;
      case "order":
      case "refresh":
        return this.#order(kind, dice.pick(clients));
      case "members evicted":
        return memory.evict();
      case "everything lost":
        this.#loseOrders();
        memory.forget();
        return broker.restart();
      case "backup restored":
        this.#loseOrders();
        this.#backup!(); // Made in `begin`.
        return broker.restart();
      case "history lost":
      case "tail lost": {
        const channel = dice.pick(channels);
        const restore = kind === "tail lost" ? memory.backup() : this.#backup!; // As above.
        await wait(kind === "tail lost" ? dice.below(3 * SECOND) : 0);
        return restore(channel);
      }
    }
  }

  /** A fault of a node that has none. */
  async #trouble(happen: (number: number) => Promise<void>): Promise<void> {
    const number = this.#healthy();
    if (number === undefined) return;
    this.#troubled.add(number);
    this.#cluster.say(`node ${number}`);
    await happen(number);
    this.#troubled.delete(number);
    this.#cluster.say(`node ${number} is well`);
  }

  #healthy(): number | undefined {
    const healthy = this.#cluster.nodes.filter(({ number, isUp }) => isUp && !this.#troubled.has(number));
    return healthy.length > 0 ? this.#dice.pick(healthy).number : undefined;
  }

  #kill(number: number): void {
    this.#forget(number);
    this.#cluster.nodes[number]!.kill(); // One of them.
    this.#cluster.broker.kill(number);
  }

  #start(number: number): void {
    const { broker, nodes } = this.#cluster;
    if (this.#kinds.has("upgrade")) broker.upgrade(number, this.#dice.chance(0.5));
    nodes[number]!.start(); // As above.
  }

  /** The orders that wait on this node end with it. */
  #forget(number: number): void {
    for (const order of this.orders) if (order.node === number && !order.isSent) order.isLost = true;
  }

  #loseOrders(): void {
    for (const order of this.orders) order.isLost = true;
  }

  #order(kind: Order["kind"], { user }: AnyClient): void {
    const { banned, clients, elapsed, running } = this.#cluster;
    const number = this.#healthy();
    if (user === undefined || number === undefined) return;
    const connected = clients.filter((client) => client.user === user && client.isConnected);
    const order: Order = {
      kind,
      user,
      at: elapsed,
      node: number,
      clients: new Map(connected.map((client) => [client, client.openedAt])),
      isSent: false,
      isLost: false,
    };
    this.orders.push(order);
    this.#cluster.say(`node ${number}: ${kind} of ${user}`);
    const { controller } = running[number]!; // It is running.
    if (kind === "refresh") banned.add(user);
    // Never settles if its node is killed meanwhile.
    void (kind === "order" ? controller.disconnect({ user }) : controller.refresh({ user })).then(({ isSent }) =>
      order.isSent = isSent
    );
  }
}
