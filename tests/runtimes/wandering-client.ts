import type { Checker, Follower } from "../support/checker.ts";
import type { Random } from "../support/random.ts";
import { Wire } from "./wire.ts";

/** How a client that wanders about is to behave. */
export interface WanderOptions {
  /** The ports it may connect to. */
  readonly ports: () => readonly number[];
  readonly channels: readonly string[];
  readonly random: Random;
  readonly checker: Checker;
  /** How many times as long its pauses are. @default {1} */
  slowness?: number;
  /** The channel that it is a member of. */
  room?: string;
}

/** Who one of them is. */
export interface WandererOptions {
  /** As whom it connects. Absent: as nobody. */
  user?: string;
  /** Whether it is told who else is in its room. @default {false} */
  watches?: boolean;
}

/** Pace of a client, in ms: the work comes in bursts with silence in between. */
const PAUSES = [0, 0, 0, 1, 5, 20, 50];

/** How often the server is asked for a sign of life, and after how much silence the connection is given up, in ms. */
const BEAT = 1_000;
const SILENCE = 5_000;

/** A client that connects, subscribes, publishes, drops and comes back at random, and keeps book of what it is sent. */
export class WanderingClient {
  readonly name: string;
  readonly #options: WanderOptions;
  readonly #path: string;
  readonly #watches: boolean;
  readonly #followers: Map<string, Follower>;
  /** What it has asked for and not been answered, by uid. */
  readonly #asked = new Map<string, { channel: string; recover?: { epoch: string; offset: number } | undefined; id?: string }>();
  /** The uid of its subscription to each channel: what comes of an earlier one is nothing to it. */
  readonly #current = new Map<string, string>();
  #wire: Wire | undefined;
  #beating: ReturnType<typeof setInterval> | undefined;
  #connections = 0;
  /** Of the node that it was last connected to. */
  #port = 0;
  #isMember = false;
  /** What it was told of whom, by user. */
  #members: Map<string, string> | undefined;
  #reading: Promise<void> = Promise.resolve();
  #uids = 0;

  constructor(name: string, options: WanderOptions, { user, watches = false }: WandererOptions = {}) {
    this.name = name;
    this.#path = user === undefined ? "/websocket" : `/websocket?access_token=${user}`;
    this.#watches = watches;
    this.#options = options;
    this.#followers = new Map(options.channels.map((channel) => [channel, options.checker.follow(channel, name)]));
  }

  /** What it is as a member: another one with each connection. */
  get member(): string {
    return `${this.name}/${this.#connections}`;
  }

  /** Where it is in each channel, as far as it is told. */
  get positions(): [channel: string, position: { epoch: string; offset: number }][] {
    return [...this.#followers].flatMap(([channel, { position }]) => position ? [[channel, position]] : []);
  }

  get isConnected(): boolean {
    return this.#wire !== undefined;
  }

  /** Whom it was told of, where it watches. */
  get members(): Iterable<string> | undefined {
    return this.#watches ? this.#members?.values() ?? [] : undefined;
  }

  /** Where its connection comes from. */
  get port(): number | undefined {
    return this.#wire?.socket.localPort;
  }

  /** Goes on until the time has come. */
  async wander(isOver: () => boolean): Promise<void> {
    const { random, channels } = this.#options;
    while (!isOver()) {
      const choice = random.below(100);
      if (!this.#wire) await this.#connect();
      else if (this.#isMissed) this.#attend();
      else if (choice < 8) await this.#drop();
      else if (choice < 30) this.#subscribe(random.pick(channels));
      else if (choice < 35) this.#unsubscribe(random.pick(channels));
      else for (let count = 1 + random.below(4); count > 0; count--) this.#publish(random.pick(channels));
      await this.#pause();
    }
  }

  #pause(): Promise<void> {
    const { random, slowness = 1 } = this.#options;
    return new Promise((resolve) => void setTimeout(resolve, random.pick(PAUSES) * slowness));
  }

  /** Comes back, subscribes to everything and waits until it has all that is known of it, or it is too late. */
  async settle(isTooLate: () => boolean): Promise<void> {
    const { room, channels, checker } = this.#options;
    const behind = () =>
      channels.filter((channel) => {
        const position = this.#followers.get(channel)?.position;
        return this.#isAsked(channel) || !position || position.offset < checker.top(channel, position.epoch);
      });
    if (this.#wire) { for (const channel of channels) this.#subscribe(channel); }
    while (!this.#wire || behind().length > 0 || (room !== undefined && !this.#isMember)) {
      if (isTooLate()) {
        const where = behind().map((channel) => {
          const position = this.#followers.get(channel)?.position;
          const end = position && checker.top(channel, position.epoch);
          const unanswered = this.#isAsked(channel) ? ", whose subscribe is unanswered" : "";
          return `${channel} at ${position?.offset} of ${end}${unanswered}, last sent ${this.#recent.get(channel)?.join(" ")}`;
        });
        const state = `on port ${this.#port}, ${this.#wire ? "connected" : "cut off"}, ${this.#isMember ? "a" : "no"} member`;
        return checker.problem(`${this.name} did not come back: ${state}; not at the end: ${where.join("; ")}`);
      }
      if (!this.#wire) await this.#connect();
      else {
        if (this.#isMissed) this.#attend();
        // Whoever was told that the broker is away asks again.
        for (const channel of channels) if (!this.#current.has(channel)) this.#subscribe(channel);
      }
      await this.#pause();
    }
  }

  async leave(): Promise<void> {
    await this.#wire?.close(1000);
  }

  /** Is as one whose machine has lost its power, once its connection is a black hole. */
  vanish(): void {
    clearInterval(this.#beating);
  }

  async #connect(): Promise<void> {
    const { ports, random } = this.#options;
    const port = this.#port = random.pick(ports());
    const wire = Wire.begin(port, this.#path);
    this.#heard = performance.now();
    const beating = this.#beating = setInterval(() => {
      if (performance.now() - this.#heard > SILENCE) wire.reset();
      else if (this.#wire === wire) wire.send({ type: "ping" });
    }, BEAT);
    void wire.closed.then(() => clearInterval(beating));
    await wire.answered;
    if (wire.answer.status !== 101) return wire.reset(); // The server is away: another time, or another one.
    this.#wire = wire;
    this.#connections++;
    this.#reading = this.#read(wire);
    if (this.#isMissed) this.#attend();
  }
  #heard = 0;

  /** The last messages of each channel, with the time, for the report of a client that does not come back. */
  readonly #recent = new Map<string, string[]>();

  /** Whether it is to become a member. */
  get #isMissed(): boolean {
    const { room } = this.#options;
    return room !== undefined && !this.#isMember && !this.#isAsked(room);
  }

  /** Whether a subscription to it is under way. */
  #isAsked(channel: string): boolean {
    return [...this.#asked.values()].some((asked) => asked.channel === channel && asked.id === undefined);
  }

  #attend(): void {
    const channel = this.#options.room!; // Asked before.
    const uid = `m${this.#uids++}`;
    this.#current.set(channel, uid);
    this.#asked.set(uid, { channel });
    this.#wire!.send({ type: "subscribe", channel, uid, data: this.member, presence: this.#watches });
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
    if (this.#isAsked(channel)) return;
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
      this.#heard = performance.now();
      this.#take(message);
    }
    this.#wire = this.#members = undefined;
    this.#isMember = false;
    this.#asked.clear();
    this.#current.clear();
  }

  // deno-lint-ignore no-explicit-any -- whatever the server says
  #take(message: any): void {
    const { checker } = this.#options;
    const { type, status, event, channel, uid } = message;
    const asked = this.#asked.get(uid);
    if (channel !== undefined && channel !== this.#options.room) {
      const recent = this.#recent.get(channel) ?? [];
      this.#recent.set(channel, [...recent.slice(-5), `${Math.round(performance.now())} ms ${JSON.stringify(message)}`]);
    }
    if (status === "error") {
      if (message.error.code !== "ENGINE_UNAVAILABLE") checker.problem(`${this.name} was answered ${JSON.stringify(message)}`);
      this.#asked.delete(uid);
      if (asked && asked.id === undefined) this.#current.delete(asked.channel);
    } else if (type === "publish" && asked?.id !== undefined) {
      checker.published(asked.channel, message, asked.id);
      this.#asked.delete(uid);
    } else if (type === "presence") this.#present(event, message.members);
    else if (type === "subscription" && this.#current.get(channel) !== uid) return;
    else if (type === "subscription" && channel === this.#options.room) {
      this.#isMember = event === "init";
      this.#asked.delete(uid);
    } else if (type === "subscription" && event === "unsubscribe") {
      // The server has ended it, as when the broker is away.
      this.#asked.delete(uid);
      this.#current.delete(channel);
    } else if (type === "subscription" && event === "init") {
      // What the server begins anew by itself was not asked for.
      this.#followers.get(channel)?.init(message, asked?.recover);
      this.#asked.delete(uid);
    } else if (type === "subscription") this.#followers.get(channel)?.event(message);
  }

  #present(event: string, members: { user: string; data: string }[]): void {
    if (event === "init") this.#members = new Map();
    if (!this.#members) return this.#options.checker.problem(`${this.name} was told who came before who was there`);
    for (const { user, data } of members) {
      if (event === "leave") this.#members.delete(user);
      else this.#members.set(user, data);
    }
  }
}
