import type { TestNode } from "../../src/testing/node.ts";
import { Wire } from "../../src/testing/wire.ts";
import type { Checker, Follower } from "../support/checker.ts";
import type { Dice } from "./dice.ts";
import type { SeededTurns } from "./seeded-turns.ts";

/** What the clients of a simulation share. */
export interface World {
  readonly checker: Checker;
  readonly turns: SeededTurns;
  /** Virtual time, in ms. */
  readonly elapsed: number;
  /** Whether the clients only come back and read. */
  readonly isSettling: boolean;
  readonly nodes: readonly TestNode[];
  wait(ms: number): Promise<void>;
  /** Time until the client acts again, in ms. */
  pause(dice: Dice): number;
  record(text: string): void;
  /** The connection has ended with this code. */
  ended(client: SimulatedClient, code: number): void;
}

/** Who a client is. */
export interface ClientOptions {
  readonly channels: readonly string[];
  readonly room: string;
  /** Absent: it is anonymous. */
  readonly user?: string | undefined;
  /** Whether it receives the members of its room. */
  readonly watches: boolean;
  readonly dice: Dice;
}

/** Time without an answer after which a client gives its connection up, in ms. */
const SILENCE = 20_000;

/** Pause between two attempts to come back, in ms. */
const RETRY = 1_000;

/** A message of the server. Whatever is in it is read. */
// deno-lint-ignore no-explicit-any -- the server is what is tested
type Message = any;

interface Asked {
  readonly channel: string;
  readonly recover?: { epoch: string; offset: number } | undefined;
  /** Set for a publication. */
  readonly id?: string;
}

/** A client without a library: it connects, subscribes, publishes, drops and comes back at random, and records what it receives. */
export class SimulatedClient {
  readonly name: string;
  readonly user: string | undefined;
  readonly room: string;
  readonly watches: boolean;
  readonly followers: ReadonlyMap<string, Follower>;
  /** When its connection was opened, in ms of the virtual time. */
  openedAt = 0;
  readonly #world: World;
  readonly #dice: Dice;
  readonly #asked = new Map<string, Asked>();
  /** The uid of its subscription to each channel. Messages of an earlier one are ignored. */
  readonly #current = new Map<string, string>();
  readonly #channels: readonly string[];
  #wire: Wire | undefined;
  #isOpen = false;
  #isStalled = false;
  #isMember = false;
  #members: Map<string, string> | undefined;
  #connections = 0;
  #uids = 0;
  /** When the oldest ping without an answer was sent. */
  #pinged: number | undefined;

  constructor(name: string, world: World, { channels, room, user, watches, dice }: ClientOptions) {
    this.name = name;
    this.user = user;
    this.room = room;
    this.watches = watches;
    this.#world = world;
    this.#dice = dice;
    this.#channels = channels;
    this.followers = new Map(channels.map((channel) => [channel, world.checker.follow(channel, name)]));
  }

  /** Its data as a member: different for each connection. */
  get member(): string {
    return `${this.name}/${this.#connections}`;
  }

  get members(): Iterable<string> | undefined {
    return this.watches ? this.#members?.values() ?? [] : undefined;
  }

  get isConnected(): boolean {
    return this.#isOpen;
  }

  /** Acts at random until the world settles. */
  async wander(): Promise<void> {
    const dice = this.#dice;
    for (;;) {
      await this.#world.wait(this.#world.pause(dice));
      if (this.#world.isSettling) return;
      const choice = dice.below(100);
      if (!this.#isOpen) await this.#connect();
      else if (this.#isStalled) this.#isStalled = false, this.#wire!.unstall(); // It is open.
      else if (!this.#isAlive()) continue;
      else if (choice < 3) this.#drop();
      else if (choice < 5) this.#isStalled = true, this.#wire!.stall(); // As above.
      else if (choice < 25) this.#subscribe(dice.pick(this.#channels));
      else if (choice < 28) this.#unsubscribe(dice.pick(this.#channels));
      else for (let count = 1 + dice.below(8); count > 0; count--) this.#publish(dice.pick(this.#channels));
    }
  }

  /** Comes back, subscribes to everything and waits for the answers, until it is too late. */
  async settle(isTooLate: () => boolean): Promise<void> {
    if (this.#isStalled) this.#wire?.unstall();
    this.#isStalled = false;
    if (this.#isOpen) { for (const channel of this.#channels) this.#subscribe(channel); }
    while (!this.#isOpen || !this.#isMember || this.#unanswered().length > 0) {
      if (isTooLate()) {
        const lacks = `connected: ${this.#isOpen}, member: ${this.#isMember}, without an answer: ${
          this.#unanswered().join(", ")
        }`;
        return this.#world.checker.problem(`${this.name} did not come back (${lacks})`);
      }
      if (!this.#isOpen) await this.#connect();
      else if (this.#isAlive()) {
        if (!this.#isMember && !this.#isAsked(this.room)) this.#attend();
        for (const channel of this.#channels) if (!this.#current.has(channel)) this.#subscribe(channel);
      }
      await this.#world.wait(RETRY + this.#dice.below(RETRY));
    }
  }

  /** Its network fails. @param isSilent whether neither end notices. */
  cut(isSilent: boolean): void {
    if (isSilent) this.#wire?.lose();
    else this.#wire?.reset();
  }

  #unanswered(): string[] {
    return this.#channels.filter((channel) => this.#isAsked(channel) || !this.#current.has(channel));
  }

  async #connect(): Promise<void> {
    const { nodes, turns } = this.#world;
    const running = nodes.filter(({ isUp }) => isUp);
    if (running.length === 0) return;
    const query = this.user === undefined ? "" : `?access_token=${this.user}`;
    const headers = { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13", "sec-websocket-key": KEY };
    const request = new Request(`http://localhost/websocket${query}`, { headers });
    let wire: Wire | undefined;
    try {
      await this.#dice.pick(running).upgrade(request, "127.0.0.1", ({ status }) => {
        this.#world.record(`${this.name} ${status}`);
        return wire = this.#open(turns);
      });
    } catch {
      return; // The node has just ended: another time, or another one.
    }
    if (wire) this.#wire = wire;
  }

  #open(turns: SeededTurns): Wire {
    const wire: Wire = new Wire(
      turns,
      {
        message: (text) => {
          if (this.#wire !== wire) return;
          this.#world.record(`${this.name}<${text}`);
          this.#take(JSON.parse(text));
        },
        closing: (code, reason) => wire.answerClose(code, reason),
        closed: (code) => {
          this.#world.record(`${this.name} ${code}`);
          if (this.#wire === wire) this.#closed(code);
        },
        ping: (number) => wire.pong(number),
        pong: () => {},
      },
      () => {},
      () => {},
    );
    wire.opened(() => {
      if (this.#wire !== wire) return;
      this.#isOpen = true;
      this.#connections++;
      this.openedAt = this.#world.elapsed;
      this.#attend();
      for (const channel of this.#channels) this.#subscribe(channel);
    });
    return wire;
  }

  #closed(code: number): void {
    const wasOpen = this.#isOpen;
    this.#wire = this.#members = this.#pinged = undefined;
    this.#isOpen = this.#isMember = this.#isStalled = false;
    this.#asked.clear();
    this.#current.clear();
    if (wasOpen) this.#world.ended(this, code);
  }

  /** Sends a ping, and gives the connection up when an earlier one has no answer. */
  #isAlive(): boolean {
    const { elapsed } = this.#world;
    if (this.#pinged !== undefined && elapsed - this.#pinged > SILENCE) {
      this.#wire!.terminate("client"); // It is open.
      return false;
    }
    this.#pinged ??= elapsed;
    this.#send({ type: "ping" });
    return true;
  }

  #drop(): void {
    const wire = this.#wire!; // It is open.
    const way = this.#dice.below(3);
    if (way === 0) wire.reset();
    else if (way === 1) wire.closeFromClient(1000);
    else wire.lose();
  }

  #isAsked(channel: string): boolean {
    for (const asked of this.#asked.values()) if (asked.channel === channel && asked.id === undefined) return true;
    return false;
  }

  #attend(): void {
    const { room, member, watches } = this;
    const uid = `m${this.#uids++}`;
    this.#current.set(room, uid);
    this.#asked.set(uid, { channel: room });
    this.#send({ type: "subscribe", channel: room, uid, data: member, presence: watches });
  }

  #subscribe(channel: string): void {
    // A second one meanwhile would change the position that the answer of the first one refers to.
    if (this.#isAsked(channel)) return;
    const recover = this.#dice.below(10) > 0 ? this.followers.get(channel)?.position : undefined;
    const uid = `s${this.#uids++}`;
    // Another uid would be another subscription, and everything would arrive twice.
    if (this.#current.has(channel)) this.#unsubscribe(channel);
    this.#current.set(channel, uid);
    this.#asked.set(uid, { channel, recover });
    this.#send({ type: "subscribe", channel, uid, ...(recover && { recover }) });
  }

  #unsubscribe(channel: string): void {
    this.#current.delete(channel);
    for (const [uid, asked] of this.#asked) if (asked.channel === channel && asked.id === undefined) this.#asked.delete(uid);
    this.#send({ type: "unsubscribe", channel });
  }

  #publish(channel: string): void {
    const uid = `p${this.#uids++}`;
    const id = `${this.name}/${uid}`;
    this.#asked.set(uid, { channel, id });
    this.#send({ type: "publish", channel, event: "wrote", data: { id }, uid });
  }

  #send(message: object): void {
    const text = JSON.stringify(message);
    this.#world.record(`${this.name}>${text}`);
    this.#wire!.sendToServer(text); // Called while it is open only.
  }

  #take(message: Message): void {
    const { checker } = this.#world;
    const { type, status, event, channel, uid } = message;
    const asked = this.#asked.get(uid);
    if (type === "pong") this.#pinged = undefined;
    else if (status === "error") {
      if (message.error.code !== "ENGINE_UNAVAILABLE") checker.problem(`${this.name} was answered ${JSON.stringify(message)}`);
      this.#asked.delete(uid);
      if (asked && asked.id === undefined) this.#current.delete(asked.channel);
    } else if (type === "publish" && asked?.id !== undefined) {
      checker.published(asked.channel, message, asked.id);
      this.#asked.delete(uid);
    } else if (type === "presence") this.#present(event, message.members);
    else if (type === "subscription" && this.#current.get(channel) !== uid) return;
    else if (type === "subscription" && channel === this.room) {
      this.#isMember = event === "init";
      this.#asked.delete(uid);
    } else if (type === "subscription" && event === "init") {
      // An `init` that follows a gap was not asked for.
      this.followers.get(channel)?.init(message, asked?.recover);
      this.#asked.delete(uid);
    } else if (type === "subscription" && event !== "unsubscribe") this.followers.get(channel)?.event(message);
  }

  #present(event: string, members: { user: string; data: string }[]): void {
    if (event === "init") this.#members = new Map();
    if (!this.#members) return this.#world.checker.problem(`${this.name} received who came before who was there`);
    for (const { user, data } of members) {
      if (event === "leave") this.#members.delete(user);
      else this.#members.set(user, data);
    }
  }
}

/** A key as each client draws one (RFC 6455 §4.1). Nothing here checks the answer to it. */
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
