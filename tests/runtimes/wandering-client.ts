import type { Checker, Follower } from "../checker.ts";
import type { Random } from "../random.ts";
import { Wire } from "./wire.ts";

/** How a client that wanders about is to behave. */
export interface WanderOptions {
  /** The ports it may connect to. */
  readonly ports: () => readonly number[];
  readonly channels: readonly string[];
  readonly random: Random;
  readonly checker: Checker;
}

/** Pace of a client, in ms: the work comes in bursts with silence in between. */
const PAUSES = [0, 0, 0, 1, 5, 20, 50];

/** A client that connects, subscribes, publishes, drops and comes back at random, and keeps book of what it is sent. */
export class WanderingClient {
  readonly name: string;
  readonly #options: WanderOptions;
  readonly #followers: Map<string, Follower>;
  /** What it has asked for and not been answered, by uid. */
  readonly #asked = new Map<string, { channel: string; recover?: { epoch: string; offset: number } | undefined; id?: string }>();
  /** The uid of its subscription to each channel: what comes of an earlier one is nothing to it. */
  readonly #current = new Map<string, string>();
  #wire: Wire | undefined;
  #reading: Promise<void> = Promise.resolve();
  #uids = 0;
  #wake: (() => void)[] = [];

  constructor(name: string, options: WanderOptions) {
    this.name = name;
    this.#options = options;
    this.#followers = new Map(options.channels.map((channel) => [channel, options.checker.follow(channel, name)]));
  }

  /** Goes on until the time has come. */
  async wander(isOver: () => boolean): Promise<void> {
    const { random, channels } = this.#options;
    while (!isOver()) {
      const choice = random.below(100);
      if (!this.#wire) await this.#connect();
      else if (choice < 8) await this.#drop();
      else if (choice < 30) this.#subscribe(random.pick(channels));
      else if (choice < 35) this.#unsubscribe(random.pick(channels));
      else for (let count = 1 + random.below(4); count > 0; count--) this.#publish(random.pick(channels));
      await new Promise((resolve) => setTimeout(resolve, random.pick(PAUSES)));
    }
  }

  /** Comes back, subscribes to everything and waits until it has all that is known of it. */
  async settle(): Promise<void> {
    if (!this.#wire) await this.#connect();
    for (const channel of this.#options.channels) this.#subscribe(channel);
    await this.#until(() =>
      this.#asked.size === 0 && this.#options.channels.every((channel) => {
        const position = this.#followers.get(channel)?.position;
        return position !== undefined && position.offset >= this.#options.checker.top(channel, position.epoch);
      })
    );
  }

  async leave(): Promise<void> {
    await this.#wire?.close(1000);
  }

  /** Looks whether it has got there, with every message that comes. */
  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (!this.#wire) throw new Error(`${this.name} was disconnected when all was to be quiet`);
      // The server answers it when it has sent what came before.
      this.#wire.send({ type: "ping", uid: "look" });
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  async #connect(): Promise<void> {
    try {
      this.#wire = await Wire.open(this.#options.random.pick(this.#options.ports()), "/websocket");
    } catch {
      return; // The server is away: another time, or another one.
    }
    this.#reading = this.#read(this.#wire);
  }

  /** Ends the connection, in one of several ways, and forgets what was not answered. */
  async #drop(): Promise<void> {
    const wire = this.#wire!;
    const way = this.#options.random.below(3);
    if (way === 0) wire.reset();
    else if (way === 1) wire.socket.end();
    else void wire.close(1000);
    await this.#reading;
  }

  #subscribe(channel: string): void {
    const follower = this.#followers.get(channel)!; // One of those it has.
    // While an earlier one is under way where it is changes: it would not know what the answer means.
    if ([...this.#asked.values()].some((asked) => asked.channel === channel && asked.id === undefined)) return;
    const recover = this.#options.random.below(10) > 0 ? follower.position : undefined;
    const uid = `s${this.#uids++}`;
    // Another uid would be another subscription, and what follows would come twice.
    if (this.#current.has(channel)) this.#unsubscribe(channel);
    this.#current.set(channel, uid);
    this.#asked.set(uid, { channel, recover });
    this.#wire!.send({ type: "subscribe", channel, uid, ...(recover && { recover }) });
  }

  #unsubscribe(channel: string): void {
    this.#current.delete(channel);
    for (const [uid, asked] of this.#asked) if (asked.channel === channel && asked.id === undefined) this.#asked.delete(uid);
    this.#wire!.send({ type: "unsubscribe", channel });
  }

  #publish(channel: string): void {
    const uid = `p${this.#uids++}`;
    const id = `${this.name}/${uid}`;
    this.#asked.set(uid, { channel, id });
    this.#wire!.send({ type: "publish", channel, event: "wrote", data: { id }, uid });
  }

  async #read(wire: Wire): Promise<void> {
    for (let message = await wire.next(); message !== null; message = await wire.next()) {
      this.#take(message);
      for (const wake of this.#wake.splice(0)) wake();
    }
    this.#wire = undefined;
    this.#asked.clear();
    this.#current.clear();
    for (const wake of this.#wake.splice(0)) wake();
  }

  // deno-lint-ignore no-explicit-any -- whatever the server says
  #take(message: any): void {
    const { checker } = this.#options;
    const { type, status, event, channel, uid } = message;
    const asked = this.#asked.get(uid);
    if (status === "error") {
      if (message.error.code !== "ENGINE_UNAVAILABLE") checker.problem(`${this.name} was answered ${JSON.stringify(message)}`);
      this.#asked.delete(uid);
    } else if (type === "publish" && asked?.id !== undefined) {
      checker.published(asked.channel, message, asked.id);
      this.#asked.delete(uid);
    } else if (type === "subscription" && this.#current.get(channel) !== uid) return;
    else if (type === "subscription" && event === "init") {
      // What the server begins anew by itself was not asked for.
      this.#followers.get(channel)?.init(message, asked?.recover);
      this.#asked.delete(uid);
    } else if (type === "subscription" && event !== "unsubscribe") this.#followers.get(channel)?.event(message);
  }
}
