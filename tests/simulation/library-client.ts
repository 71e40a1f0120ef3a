import {
  type BareClient,
  ClientError,
  createClient,
  type OpenSubscription,
  type SubscriptionInit,
} from "../../src/client/client.ts";
import { MemorySocket } from "../../src/testing/memory-socket.ts";
import type { Recorder } from "../../src/testing/wire.ts";
import type { Follower } from "../support/checker.ts";
import type { Dice } from "./dice.ts";
import { type AnyClient, type ClientNode, type ClientOptions, PAD, type Position, type World } from "./simulated-client.ts";

/** What the frames of one connection have shown. */
interface Connection {
  readonly openedAt: number;
  socket?: MemorySocket;
  node?: ClientNode;
  /** The uid of the subscription to each channel. */
  readonly current: Map<string, unknown>;
  /** The channels whose subscription has begun. */
  readonly started: Set<string>;
  isStalled: boolean;
  /** Nothing arrives any more, which the client has not noticed. */
  isLost: boolean;
}

/** Items that wait for a client that reads in a loop. */
const BUFFER = 12;

/** How likely such a client pauses before the next item, and for how many ms. */
const SLOW = 0.1;
const PAUSES = [1, 20, 500];

/** By then (ms) a client that reads has read the answer to its `subscribe`. */
const ANSWERED = 60_000;

/** Codes with which a request or a subscription may fail while there are faults. */
const EXPECTED: ReadonlySet<string> = new Set([
  ...["DISCONNECTED", "NOT_CONNECTED", "TIMEOUT", "CLOSED", "ENGINE_UNAVAILABLE"],
  // Its rights were taken, or it was disconnected.
  ...["AUTH_FAILED", "FORBIDDEN", "TOKEN_EXPIRED"],
  // It did not read, and may have missed answers.
  ...["MESSAGES_DROPPED"],
]);

/**
 * A client of `noroshi/client`: it reconnects and recovers by itself. The checker is given what its callbacks receive, or what a slow
 * loop reads; what it has subscribed to, and whether that has begun, is read from its frames.
 */
export class LibraryClient implements AnyClient {
  readonly name: string;
  readonly user: string | undefined;
  readonly room: string;
  readonly watches: boolean;
  readonly dice: Dice;
  readonly followers: ReadonlyMap<string, Follower>;
  readonly #number: number;
  readonly #world: World;
  readonly #channels: readonly string[];
  readonly #client: BareClient;
  readonly #subscriptions = new Map<string, OpenSubscription>();
  /** Whether it has to catch up now, and does not pause. */
  #isCalm = false;
  /** What the latest `subscribe` to each channel asked to recover from, and when. */
  readonly #recoveries = new Map<string, { readonly from: Position | undefined; readonly at: number }>();
  readonly #asked = new Set<{ readonly channel: string; readonly at: number }>();
  /** The newest one. */
  #connection: Connection | undefined;
  #published = 0;

  constructor(number: number, world: World, { channels, room, user, watches, dice }: ClientOptions) {
    const name = this.name = `c${number}`;
    this.#number = number;
    this.user = user;
    this.room = room;
    this.watches = watches;
    this.dice = dice;
    this.#world = world;
    this.#channels = channels;
    this.followers = new Map(channels.map((channel) => [channel, world.checker.follow(channel, name)]));
    const open = (url: string, protocols?: string[]) => this.#open(url, protocols);
    this.#client = createClient("ws://localhost/websocket", {
      ...(user !== undefined && { token: () => user, tokenIn: "query" }),
      lazy: true,
      heartbeat: 0, // With one, virtual hours would consist of its ticks.
      clock: world.clock(name),
      random: dice.random,
      WebSocket: class {
        constructor(...request: Parameters<typeof open>) {
          return open(...request);
        }
      } as never, // As `MemorySocket` has it.
    });
    this.#client.on("close", ({ code }) => world.ended(this, code));
    this.#client.on("error", ({ error }) => this.#failed(error));
  }

  get openedAt(): number {
    return this.#connection?.openedAt ?? 0;
  }

  get node(): ClientNode | undefined {
    return this.#isOpen ? this.#connection?.node : undefined;
  }

  /** Its data as a member: the same in each connection. */
  get member(): string {
    return `${this.name}/0`;
  }

  get isMember(): boolean {
    return this.#hasStarted(this.room);
  }

  get members(): ReadonlyMap<string, string> | undefined {
    const subscription = this.#subscriptions.get(this.room);
    if (!this.watches || !this.isMember || !subscription) return undefined;
    return new Map(subscription.present.map(({ user, data }) => [user, String(data)]));
  }

  get isConnected(): boolean {
    return this.#isOpen && !this.#connection?.isLost;
  }

  get subscribed(): readonly string[] {
    return this.#channels.filter((channel) => this.#hasStarted(channel));
  }

  unanswered(before: number): readonly string[] {
    return this.isConnected ? [...this.#asked].filter(({ at }) => at < before).map(({ channel }) => channel) : [];
  }

  act(): void {
    this.#isCalm = false;
    const { dice } = this;
    if (!this.#isOpen) {
      this.#subscribeToAll();
      return this.#client.connect();
    }
    if (this.#connection?.isStalled) return this.unstall();
    // As when its page becomes visible: it checks the connection.
    if (this.#connection?.isLost) return this.#client.connect();
    const choice = dice.below(100);
    if (choice < 3) this.cut(dice.chance(0.5));
    else if (choice < 6) this.#stall();
    else if (choice < 16) this.#subscribe(dice.pick(this.#channels));
    else if (choice < 18) this.#unsubscribe(dice.pick(this.#channels));
    // The answer names the positions that the server has reached.
    else if (choice < 26) this.#client.connect();
    else {
      const channel = dice.pick(this.#channels);
      for (let count = 1 + dice.below(6); count > 0; count--) {
        this.#publish(dice.chance(0.9) ? channel : dice.pick(this.#channels));
      }
    }
  }

  unstall(): void {
    this.#isCalm = true;
    if (!this.#connection?.isStalled) return;
    this.#connection.isStalled = false;
    this.#connection.socket?.wire?.unstall();
  }

  comeBack(): boolean {
    this.#subscribeToAll();
    if (!this.#isOpen || this.#connection?.isLost) this.#client.connect();
    return this.isMember && this.#channels.every((channel) => this.#hasStarted(channel));
  }

  cut(isSilent: boolean): void {
    const wire = this.#connection?.socket?.wire;
    if (!wire || wire.isOver) return;
    if (isSilent) {
      wire.lose();
      this.#connection!.isLost = true; // It has the wire.
    } else wire.reset();
  }

  get #isOpen(): boolean {
    return this.#client.status === "open";
  }

  #hasStarted(channel: string): boolean {
    return this.isConnected && this.#connection!.started.has(channel); // It is open.
  }

  #subscribeToAll(): void {
    for (const channel of [this.room, ...this.#channels]) if (!this.#subscriptions.has(channel)) this.#subscribe(channel);
  }

  #open(url: string, protocols?: string[]): MemorySocket {
    const { turns, nodes, elapsed } = this.#world;
    const connection: Connection = this.#connection = {
      openedAt: elapsed,
      current: new Map(),
      started: new Set(),
      isStalled: false,
      isLost: false,
    };
    const record: Recorder = (direction, frame) => {
      if (typeof frame !== "string") return this.#world.record(this.#number, 2, `${frame.close}`);
      this.#world.record(this.#number, direction === ">" ? 0 : 1, frame);
      for (const message of [JSON.parse(frame)].flat()) this.#see(connection, message);
    };
    return connection.socket = new MemorySocket(
      {
        turns,
        headers: new Headers(),
        record,
        over: () => {},
        request: async (request, accept) => {
          const running = nodes.filter(({ isUp }) => isUp);
          if (running.length === 0) throw new Error("connect ECONNREFUSED");
          const node = this.dice.pick(running);
          return await node.upgrade(request, "127.0.0.1", (response, protocol) => {
            this.#world.record(this.#number, 2, `${response.status}`);
            const wire = accept(response, protocol);
            if (wire) connection.node = node;
            return wire;
          });
        },
      },
      url,
      protocols,
    );
  }

  /** @param message of either side; whatever is in it is read. */
  // deno-lint-ignore no-explicit-any -- the server is what is tested
  #see({ current, started }: Connection, { type, channel, uid, event, recovered, recover }: any): void {
    if (type === "subscribe") {
      this.#recoveries.set(channel, { from: recover, at: this.#world.elapsed });
      current.set(channel, uid);
      started.delete(channel);
    } else if (type === "subscription" && current.get(channel) === uid) {
      if (event === "init") started.add(channel);
      if (event === "unsubscribe") started.delete(channel);
      // The client goes on, and reports nothing.
      if (recovered === true) this.#world.checker.counts.recovered++;
    } else if (type === "unsubscribe") {
      for (const [channel, each] of current) if (each === uid) started.delete(channel);
    }
  }

  #subscribe(channel: string): void {
    const follower = this.followers.get(channel);
    const recover = this.dice.chance(0.9) ? follower?.position : undefined;
    this.#unsubscribe(channel);
    const isRead = follower !== undefined && this.#number % 2 === 1;
    /** The positions of the `init` that wait to be read. */
    const begun: Position[] = [];
    const subscription = this.#client.subscribe(channel, {
      buffer: BUFFER,
      ...(channel === this.room && { data: this.member, presence: this.watches }),
      ...(recover && { recover }),
      onInit: ({ recovered }) => {
        if (!follower) return;
        if (isRead) return void begun.push(subscription.position!); // The channel has a history.
        if (recovered === false) this.#lost(channel, follower);
        follower.init({ ...subscription.position, recovered }, undefined);
      },
      onEvent: (publication) => {
        if (!isRead) follower?.event(publication);
      },
      ...(channel === this.room && this.watches && {
        onPresence: ({ event, members }) => {
          if (event === "leave") { for (const { user } of members) this.#world.left(this, user); }
        },
      }),
      onError: (error) => {
        this.#failed(error);
        // Otherwise it goes on with the next connection.
        if (this.#client.status !== "closed") this.#subscriptions.delete(channel);
      },
    });
    this.#subscriptions.set(channel, subscription);
    if (isRead) void this.#read(channel, subscription, follower, begun);
  }

  async #read(channel: string, subscription: OpenSubscription, follower: Follower, begun: Position[]): Promise<void> {
    const clock = this.#world.clock(this.name);
    try {
      for await (const item of subscription) {
        if (!this.#isCalm && this.dice.chance(SLOW)) {
          await new Promise<void>((done) => void clock.setTimeout(done, this.dice.pick(PAUSES)));
        }
        // Another one reads on from where this one was. What is broken may arrive for ever.
        if (this.#subscriptions.get(channel) !== subscription || !this.#world.checker.isSound) return;
        if (item.event !== "init") follower.event(item);
        else {
          const { recovered } = item as SubscriptionInit;
          if (recovered === false) this.#lost(channel, follower);
          follower.init({ ...begun.shift(), recovered }, undefined);
        }
      }
    } catch (error) {
      this.#failed(error);
      if (this.#subscriptions.get(channel) === subscription) this.#subscriptions.delete(channel);
    }
  }

  /** The earlier subscription may have begun anew while this one asked: the answer is about the position that the client asked from. */
  #lost(channel: string, { position }: Follower): void {
    const { from, at = -Infinity } = this.#recoveries.get(channel) ?? {};
    this.#world.lost(this, channel, this.#world.elapsed - at < ANSWERED ? from ?? position : position);
  }

  #unsubscribe(channel: string): void {
    this.#subscriptions.get(channel)?.unsubscribe();
    this.#subscriptions.delete(channel);
  }

  #stall(): void {
    const { wire } = this.#connection!.socket!; // It is open.
    this.#connection!.isStalled = true;
    wire?.stall();
  }

  #publish(channel: string): void {
    const id = `${this.name}/p${this.#published++}`;
    const asked = { channel, at: this.#world.elapsed };
    this.#asked.add(asked);
    const pad = this.dice.chance(0.1) ? { pad: PAD.slice(this.dice.below(PAD.length)) } : {};
    this.#client.publish(channel, "wrote", { id, ...pad }).then(
      (position) => this.#world.checker.published(channel, position as Position, id), // The channel has a history.
      (error) => this.#failed(error),
    ).finally(() => this.#asked.delete(asked));
  }

  #failed(error: unknown): void {
    if (error instanceof ClientError && EXPECTED.has(error.code)) return;
    const text = error instanceof ClientError ? `${error.code}: ${error.message}` : String(error);
    this.#world.checker.problem(`${this.name} of the library reported ${text}`);
  }
}
