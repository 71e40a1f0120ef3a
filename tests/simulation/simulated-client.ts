import type { ClientClock } from "../../src/client/client.ts";
import type { TestNode } from "../../src/testing/node.ts";
import { Wire } from "../../src/testing/wire.ts";
import type { Checker, Follower } from "../support/checker.ts";
import type { Dice } from "./dice.ts";
import type { SeededTurns } from "./seeded-turns.ts";
import { AUTHENTICATION } from "./sizes.ts";

/** What a client connects to. */
export type ClientNode = Pick<TestNode, "number" | "isUp" | "upgrade">;

/** What the clients of a simulation share. */
export interface World {
  readonly checker: Checker;
  readonly turns: SeededTurns;
  /** Virtual time, in ms. */
  readonly elapsed: number;
  readonly nodes: readonly ClientNode[];
  /** A clock of its own. */
  clock(owner: string): ClientClock;
  /** @param direction 0: sent, 1: received, 2: a state. */
  record(client: number, direction: number, text: string): void;
  /** The connection has ended with this code. */
  ended(client: AnyClient, code: number): void;
  /** What was published after the position was not sent to the client, which knows it. */
  lost(client: AnyClient, channel: string, position: Position | undefined): void;
  /** The client received that the user has left. */
  left(client: AnyClient, user: string): void;
  /** Users whose rights are taken in this round. */
  readonly banned: ReadonlySet<string>;
  /** Whether the credentials of the user may expire, or its rights are taken in this round. */
  mayExpire(user: string | undefined): boolean;
  /** Whether the permission of the user for the channel is taken in this round. */
  isWithdrawn(user: string | undefined, channel: string): boolean;
}

/** A position of a client. */
export type Position = NonNullable<Follower["position"]>;

/** Who a client is. */
export interface ClientOptions {
  readonly channels: readonly string[];
  readonly room: string;
  /** Absent: it is anonymous. */
  readonly user?: string | undefined;
  /** Whether it receives the members of its room. */
  readonly watches: boolean;
  readonly dice: Dice;
  /** How likely it is that it never answers a close frame. @default 0 */
  readonly neglects?: number;
}

/** Time without an answer after which a client gives its connection up, in ms. */
const SILENCE = 5_000;

/** Time that an expired client has at least to authenticate again, in ms: the clock of its node may run too fast. */
const RENEWAL = 0.98 * AUTHENTICATION;

/** A message of the server. Whatever is in it is read. */
// deno-lint-ignore no-explicit-any -- the server is what is tested
type Message = any;

interface Asked {
  readonly channel: string;
  readonly at: number;
  readonly recover?: Position | undefined;
  /** Set for a publication. */
  readonly id?: string;
}

/** A client of a simulation, with a library or without. */
export interface AnyClient {
  readonly name: string;
  readonly user: string | undefined;
  readonly room: string;
  readonly dice: Dice;
  readonly followers: ReadonlyMap<string, Follower>;
  /** When its connection was opened, in ms of the virtual time. */
  readonly openedAt: number;
  /** The node it is connected to. */
  readonly node: ClientNode | undefined;
  /** Its data as a member. */
  readonly member: string;
  readonly isMember: boolean;
  /** The members it knows, user and data; `undefined` if it does not receive them. */
  readonly members: ReadonlyMap<string, string> | undefined;
  readonly isConnected: boolean;
  /** The channels whose publications it receives. */
  readonly subscribed: readonly string[];
  /** What was sent before this time and has no answer yet, by channel. */
  unanswered(before: number): readonly string[];
  /** Does one thing at random. */
  act(): void;
  /** Reads again. */
  unstall(): void;
  /** Connects and subscribes to everything. Call it until it returns `true`: all has been answered. */
  comeBack(): boolean;
  /** Its network fails. @param isSilent whether neither end notices. */
  cut(isSilent: boolean): void;
}

/** A client without a library: it connects, subscribes, publishes, drops and comes back at random, and records what it receives. */
export class SimulatedClient implements AnyClient {
  readonly name: string;
  readonly user: string | undefined;
  readonly room: string;
  readonly watches: boolean;
  readonly dice: Dice;
  readonly followers: ReadonlyMap<string, Follower>;
  openedAt = 0;
  node: ClientNode | undefined;
  readonly #number: number;
  readonly #world: World;
  readonly #asked = new Map<string, Asked>();
  /** The uid of its subscription to each channel. Messages of an earlier one are ignored. */
  readonly #current = new Map<string, string>();
  /** The channels whose subscription has begun. */
  readonly #started = new Set<string>();
  readonly #channels: readonly string[];
  readonly #neglects: number;
  #wire: Wire | undefined;
  #isConnecting = false;
  #isOpen = false;
  #isStalled = false;
  /** When it stopped reading and when it read again. What it reads then may have been sent at any time between. */
  #stalledAt = 0;
  #unstalledAt: number | undefined;
  /** Before this time its credentials were valid. */
  #expiredAt: number | undefined;
  /** Nothing arrives any more, which it has not noticed. */
  #isLost = false;
  #members: Map<string, string> | undefined;
  #connections = 0;
  #uids = 0;
  /** When the oldest message was sent after which nothing has arrived. */
  #sentAt: number | undefined;

  constructor(number: number, world: World, { channels, room, user, watches, dice, neglects = 0 }: ClientOptions) {
    const name = this.name = `c${number}`;
    this.#number = number;
    this.user = user;
    this.room = room;
    this.watches = watches;
    this.dice = dice;
    this.#neglects = neglects;
    this.#world = world;
    this.#channels = channels;
    this.followers = new Map(channels.map((channel) => [channel, world.checker.follow(channel, name)]));
  }

  /** Its data as a member: different for each connection. */
  get member(): string {
    return `${this.name}/${this.#connections}`;
  }

  get isMember(): boolean {
    return this.isConnected && this.#started.has(this.room);
  }

  get members(): ReadonlyMap<string, string> | undefined {
    return this.watches && this.isMember ? this.#members ?? new Map() : undefined;
  }

  get isConnected(): boolean {
    return this.#isOpen && !this.#isLost;
  }

  get subscribed(): readonly string[] {
    return this.isConnected ? this.#channels.filter((channel) => this.#started.has(channel)) : [];
  }

  unanswered(before: number): readonly string[] {
    return this.isConnected ? Array.from(this.#asked.values()).filter(({ at }) => at < before).map(({ channel }) => channel) : [];
  }

  act(): void {
    const { dice } = this;
    if (!this.#isOpen) return this.#connect();
    if (this.#isStalled) return this.unstall();
    if (this.#hasGivenUp()) return;
    const choice = dice.below(100);
    if (choice < 3) this.#drop();
    else if (choice < 6) this.#stall();
    else if (choice < 16) this.#subscribe(dice.pick(this.#channels));
    else if (choice < 18) this.#unsubscribe(dice.pick(this.#channels));
    else {
      // A channel at a time, or what it holds would not show that some is missing.
      const channel = dice.pick(this.#channels);
      for (let count = 1 + dice.below(6); count > 0; count--) {
        this.#publish(dice.chance(0.9) ? channel : dice.pick(this.#channels));
      }
    }
  }

  unstall(): void {
    if (!this.#isStalled) return;
    this.#isStalled = false;
    this.#unstalledAt = this.#world.elapsed;
    this.#wire?.unstall();
  }

  comeBack(): boolean {
    if (!this.#isOpen) this.#connect();
    else if (!this.#hasGivenUp()) {
      if (!this.#current.has(this.room)) this.#attend();
      for (const channel of this.#channels) if (!this.#current.has(channel)) this.#subscribe(channel);
      if (this.#isLost) this.#publish(this.#channels[0]!); // Each has at least one.
    }
    return this.isMember && this.#channels.every((channel) => this.#started.has(channel));
  }

  cut(isSilent: boolean): void {
    if (!this.#wire) return;
    if (isSilent) {
      this.#wire.lose();
      this.#isLost = true;
    } else this.#wire.reset();
  }

  #connect(): void {
    const { nodes } = this.#world;
    const running = nodes.filter(({ isUp }) => isUp);
    if (running.length === 0 || this.#isConnecting) return;
    this.#isConnecting = true;
    void this.#upgrade(this.dice.pick(running)).finally(() => this.#isConnecting = false);
  }

  async #upgrade(node: ClientNode): Promise<void> {
    const query = this.user === undefined ? "" : `?access_token=${this.user}`;
    const headers = { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13", "sec-websocket-key": KEY };
    const request = new Request(`http://localhost/websocket${query}`, { headers });
    let wire: Wire | undefined;
    try {
      await node.upgrade(request, "127.0.0.1", ({ status }) => {
        this.#world.record(this.#number, 2, `${status}`);
        return wire = this.#open(this.#world.turns);
      });
    } catch {
      return; // The node has just ended: another time, or another one.
    }
    if (wire) [this.#wire, this.node] = [wire, node];
  }

  #open(turns: SeededTurns): Wire {
    const wire: Wire = new Wire(
      turns,
      {
        message: (text) => {
          if (this.#wire !== wire) return;
          this.#sentAt = undefined;
          this.#world.record(this.#number, 1, text);
          this.#take(JSON.parse(text));
        },
        closing: (code, reason) => {
          if (this.#neglects === 0 || !this.dice.chance(this.#neglects)) return wire.answerClose(code, reason);
          if (this.#wire === wire) this.#closed(code);
        },
        closed: (code) => {
          this.#world.record(this.#number, 2, `${code}`);
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
    this.#wire =
      this.#members =
      this.#sentAt =
      this.#unstalledAt =
      this.#expiredAt =
      this.node =
        undefined;
    this.#isOpen = this.#isStalled = this.#isLost = false;
    this.#asked.clear();
    this.#current.clear();
    this.#started.clear();
    if (wasOpen) this.#world.ended(this, code);
  }

  /** Gives the connection up when nothing has arrived for too long. */
  #hasGivenUp(): boolean {
    if (this.#sentAt === undefined || this.#world.elapsed - this.#sentAt < SILENCE) return false;
    this.#wire!.terminate("client"); // It is open.
    return true;
  }

  #stall(): void {
    this.#isStalled = true;
    this.#stalledAt = this.#world.elapsed;
    this.#wire!.stall(); // As above.
  }

  #drop(): void {
    const way = this.dice.below(3);
    if (way === 0) this.#wire!.closeFromClient(1000); // As above.
    else this.cut(way === 1);
  }

  #isAsked(channel: string): boolean {
    for (const asked of this.#asked.values()) if (asked.channel === channel && asked.id === undefined) return true;
    return false;
  }

  #attend(): void {
    const { room, member, watches } = this;
    const uid = `m${this.#uids++}`;
    this.#current.set(room, uid);
    this.#asked.set(uid, { channel: room, at: this.#world.elapsed });
    this.#send({ type: "subscribe", channel: room, uid, data: member, presence: watches });
  }

  #subscribe(channel: string): void {
    // A second one meanwhile would change the position that the answer of the first one refers to.
    if (this.#isAsked(channel)) return;
    const recover = this.dice.below(10) > 0 ? this.followers.get(channel)?.position : undefined;
    const uid = `s${this.#uids++}`;
    // Another uid would be another subscription, and everything would arrive twice.
    if (this.#current.has(channel)) this.#unsubscribe(channel);
    this.#current.set(channel, uid);
    this.#asked.set(uid, { channel, recover, at: this.#world.elapsed });
    this.#send({ type: "subscribe", channel, uid, ...(recover && { recover }) });
  }

  #unsubscribe(channel: string): void {
    this.#current.delete(channel);
    this.#started.delete(channel);
    for (const [uid, asked] of this.#asked) if (asked.channel === channel && asked.id === undefined) this.#asked.delete(uid);
    this.#send({ type: "unsubscribe", channel });
  }

  #publish(channel: string): void {
    const uid = `p${this.#uids++}`;
    const id = `${this.name}/${uid}`;
    this.#asked.set(uid, { channel, id, at: this.#world.elapsed });
    // Some are long, so that less of them has room in what is kept.
    const pad = this.dice.chance(0.1) ? { pad: PAD.slice(this.dice.below(PAD.length)) } : {};
    this.#send({ type: "publish", channel, event: "wrote", data: { id, ...pad }, uid });
  }

  #send(message: object): void {
    const text = JSON.stringify(message);
    this.#world.record(this.#number, 0, text);
    this.#sentAt ??= this.#world.elapsed;
    this.#wire!.sendToServer(text); // Called while it is open only.
  }

  #take(message: Message): void {
    const { checker } = this.#world;
    const { type, status, event, channel, uid } = message;
    const asked = this.#asked.get(uid);
    if (status === "error" && message.error.code === "TOKEN_EXPIRED") this.#expire(message);
    // Its rights were taken while it connected. The server closes the connection.
    else if (type === "auth" && message.error?.code === "AUTH_FAILED" && this.#world.banned.has(this.user ?? "")) return;
    else if (status === "error") {
      if (!this.#mayFail(message.error.code, asked?.channel)) this.#unexpected(message);
      this.#asked.delete(uid);
      if (asked && asked.id === undefined) this.#current.delete(asked.channel);
    } else if (type === "publish" && asked?.id !== undefined) {
      checker.published(asked.channel, message, asked.id);
      this.#asked.delete(uid);
    } else if (type === "presence") this.#present(event, message.members);
    else if (type === "subscription" && this.#current.get(channel) !== uid) return;
    else if (type === "subscription" && event === "init") {
      this.#started.add(channel);
      this.#asked.delete(uid);
      const follower = this.followers.get(channel);
      if (message.recovered === false) this.#world.lost(this, channel, asked?.recover ?? follower?.position);
      // An `init` that follows a gap was not asked for.
      follower?.init(message, asked?.recover);
    } else if (type === "subscription" && event === "unsubscribe") {
      if (message.reason !== undefined && !this.#mayFail(message.reason, channel)) this.#unexpected(message);
      this.#started.delete(channel);
      this.#current.delete(channel);
    } else if (type === "subscription") this.followers.get(channel)?.event(message);
  }

  #expire(message: Message): void {
    const { elapsed } = this.#world;
    if (!this.#world.mayExpire(this.user)) this.#unexpected(message);
    this.#expiredAt ??= elapsed === this.#unstalledAt ? this.#stalledAt : elapsed;
    this.#wire?.closeFromClient(1000);
  }

  /** Whether a request or a subscription may fail with the code. */
  #mayFail(code: string, channel: string | undefined): boolean {
    if (code !== "FORBIDDEN") return code === "ENGINE_UNAVAILABLE";
    if (channel === undefined) return false;
    // It has become anonymous before it read that its credentials had expired (PROTOCOL.md 2.6 and 4.8).
    const isAnonymous = this.#expiredAt !== undefined && this.#world.elapsed >= this.#expiredAt + RENEWAL;
    return isAnonymous || this.#world.isWithdrawn(this.user, channel);
  }

  #unexpected(message: Message): void {
    this.#world.checker.problem(`${this.name} was answered ${JSON.stringify(message)}`);
  }

  #present(event: string, members: { user: string; data: string }[]): void {
    if (event === "init") this.#members = new Map();
    if (!this.#members) return this.#world.checker.problem(`${this.name} received who came before who was there`);
    for (const { user, data } of members) {
      if (event === "leave") {
        this.#members.delete(user);
        this.#world.left(this, user);
      } else this.#members.set(user, data);
    }
  }
}

/** What fills a long publication. */
export const PAD = "x".repeat(1_000);

/** A key as each client draws one (RFC 6455 §4.1). Nothing here checks the answer to it. */
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
