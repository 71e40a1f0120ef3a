/**
 * A test kit: runs an app, its clients and the network between them in memory, with a clock that only the test advances. It uses the real
 * upgrade route, middleware, controller and client.
 *
 * @example
 * ```ts
 * import { testkit } from "noroshi/testing";
 *
 * const t = testkit(app);
 * const alice = await t.connect({ token: "alice" });
 * await alice.request("say", { text: "hi" });
 * await t.advance(30_000);
 * await t.close();
 * ```
 *
 * @module
 */
import type { Clock } from "../base/clock.ts";
import { createClient, type StreamingClient, type WebSocketConstructor } from "../client/client.ts";
import { streams } from "../client/streams.ts";
import { disposeBy, type DisposesAsync } from "../client/dispose.ts";
import type { Contract } from "../protocol/contract-types.ts";
import { callSiteOf, keepsAlive, replaceGlobals } from "./globals.ts";
import { MemoryBroker } from "./memory-broker.ts";
import { MemorySocket } from "./memory-socket.ts";
import { MemorySqlite } from "./memory-sqlite.ts";
import { type Tested, TestNode } from "./node.ts";
import {
  checkOptions,
  type TestClientOptions,
  type TestConnectOptions,
  type TestkitOptions,
  type TestSocketOptions,
} from "./options.ts";
import { randomOf } from "./random.ts";
import { TestSocket, UpgradeRefused } from "./test-socket.ts";
import { type SentFrame, Transcript } from "./transcript.ts";
import { Turns } from "./turns.ts";
import { VirtualClientClock, VirtualClock, VirtualTime } from "./virtual-time.ts";
import type { Recorder, Wire } from "./wire.ts";

// Runtimes load the classes of `fetch` at their first use, which takes tens of ms on Node. Used here, so that the first test is not slower.
void new Response(null, new Request("http://localhost", { headers: { accept: "*/*" } }));

export type { Client, StreamingClient } from "../client/client.ts";
export type { Tested, TestedApp, TestedNode } from "./node.ts";
export type { TestClientOptions, TestConnectOptions, TestkitOptions, TestSocketOptions } from "./options.ts";
export { type TestClose, TestSocket, UpgradeRefused } from "./test-socket.ts";
export type { SentFrame } from "./transcript.ts";

/** A test kit. `await using` closes it at the end of its block. */
export type Testkit = BareTestkit & DisposesAsync;

/**
 * Runs an app in memory.
 *
 * @param tested a Hono app, a controller, `{ app, controller }`, or a function that builds one of them for each node.
 * @throws {TypeError} for an invalid option, or for something that cannot be tested.
 */
export function testkit(tested: Tested | ((node: number) => Tested), options: TestkitOptions = {}): Testkit {
  return new BareTestkit(tested, options) as Testkit; // The constructor adds the `using` method.
}

/** What the kit keeps for a client or socket. */
interface TestedClient {
  readonly transcript: Transcript;
  socket: MemorySocket | undefined;
  close(): Promise<unknown>;
}

/** {@link Testkit} without `using`. */
export class BareTestkit {
  /** A clock that {@link advance} advances, for code that takes one. */
  readonly clock: Clock;
  /** Returns the next random number of the seed, from 0 up to but not including 1. */
  readonly random: () => number;
  /** A `WebSocket` class whose sockets reach the app, for clients of other libraries. */
  readonly WebSocket: WebSocketConstructor;
  readonly #options: TestkitOptions;
  readonly #turns: Turns;
  readonly #time: VirtualTime;
  readonly #nodes: readonly TestNode[];
  readonly #broker: MemoryBroker | undefined;
  readonly #sqlite: MemorySqlite | undefined;
  readonly #canBuild: boolean;
  readonly #clients = new Map<object, TestedClient>();
  readonly #wires = new Set<Wire>();
  readonly #restore: () => void;
  #turn = 0;
  #closing: Promise<void> | undefined;

  /** Called by {@link testkit}, with the same arguments. */
  constructor(tested: Tested | ((node: number) => Tested), options: TestkitOptions = {}) {
    const { nodes = 1, seed = 1, now = Date.now(), hibernates = false, globals = false, env = {} } = options;
    checkOptions(options);
    const build = typeof tested === "function" ? tested : () => tested;
    this.#canBuild = typeof tested === "function";
    if (!this.#canBuild && (nodes > 1 || hibernates)) {
      throw new TypeError("Cannot test: several nodes, and nodes that hibernate, need a function that builds the app");
    }
    if (nodes > 1 && hibernates) throw new TypeError("Cannot test: nodes that hibernate have no other nodes");
    this.#options = options;
    // An error of a socket's listener is an uncaught exception, as with a real socket.
    this.#turns = new Turns((error) =>
      queueMicrotask(() => {
        throw error;
      })
    );
    this.#time = new VirtualTime(now, () => this.#turns.settle());
    this.clock = new VirtualClock(this.#time, "the test");
    this.random = randomOf(seed);
    this.WebSocket = this.#socketClass({}, () => {});
    this.#sqlite = hibernates ? new MemorySqlite() : undefined;
    this.#restore = globals ? replaceGlobals(this.#time, randomOf(seed ^ 0x5bd1e995)) : () => {};
    this.#turns.watch();
    this.#broker = nodes > 1 ? new MemoryBroker(this.#turns, () => this.#time.now) : undefined;
    const host = { time: this.#time, env, broker: this.#broker, sqlite: this.#sqlite, build };
    this.#nodes = Array.from({ length: nodes }, (_, number) => new TestNode(number, host));
    try {
      for (const node of this.#nodes) node.start();
    } catch (error) {
      this.#release();
      throw error;
    }
    disposeBy(this, () => this.close());
  }

  /** The wall clock, in ms since 1970. */
  get now(): number {
    return this.#time.now;
  }

  /**
   * Connects a client of `noroshi/client`, with streams. Resolves when the server has admitted it.
   *
   * @throws {ClientError} if the first attempt fails, after which the client is closed.
   */
  async connect<C = Contract>(options: TestClientOptions = {}): Promise<StreamingClient<C>> {
    const client = this.client<C>(options);
    let stop = () => {};
    const failed = new Promise<never>((_, reject) => {
      stop = client.on("reconnecting", () => {
        reject(client.error);
        void client.close();
      });
    });
    try {
      await Promise.race([client.ready, failed]);
    } finally {
      stop();
    }
    return client;
  }

  /** Creates a client of `noroshi/client`, with streams, without waiting for its connection. */
  client<C = Contract>(options: TestClientOptions = {}): StreamingClient<C> {
    const { path, node, headers, ip, ...rest } = options;
    const number = this.#clients.size + 1;
    const transcript = new Transcript();
    const end: TestedClient = { transcript, socket: undefined, close: () => client.close() };
    const client: StreamingClient<C> = createClient<C>(this.#url(path), {
      ...rest,
      streams,
      WebSocket: this.#socketClass({ node, headers, ip }, transcript.record, (socket) => end.socket = socket),
      clock: new VirtualClientClock(this.#time, `client ${number}`),
      random: randomOf((this.#options.seed ?? 1) + number * 0x9e3779b1),
    });
    this.#clients.set(client, end);
    return client;
  }

  /** Opens a WebSocket without a client. @throws {UpgradeRefused} if the server refuses the upgrade. */
  async socket(options: TestSocketOptions = {}): Promise<TestSocket> {
    const { path, protocols = [], ...how } = options;
    const transcript = new Transcript();
    const Socket = this.#socketClass(how, transcript.record);
    const socket = new Socket(this.#url(path), protocols);
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onclose = () => {
        const { response } = socket;
        reject(response && response.status !== 101 ? new UpgradeRefused(response) : new Error("The connection failed"));
      };
      socket.onerror = ({ message }: { message: string }) => socket.response || reject(new Error(message));
    });
    const bare = new TestSocket(socket);
    const close = () => {
      bare.answersClose = true;
      if (socket.wire?.isStuck) socket.terminate(); // The server's close frame would not arrive.
      return bare.readyState < 2 ? bare.close() : bare.closed;
    };
    this.#clients.set(bare, { transcript, socket, close });
    return bare;
  }

  /**
   * Advances the time by so many ms. Each timer of servers and clients fires at its time, in order, and its work is done before the next
   * one fires. `0` only waits until nothing is under way. It does not wait for `node:crypto`, nor for anything outside the process,
   * such as a database.
   */
  advance(ms: number): Promise<void> {
    if (!(typeof ms === "number" && ms >= 0 && ms < Infinity)) throw new TypeError("Cannot advance: pass a number of ms from 0");
    return this.#time.advance(ms);
  }

  /** Returns the frames that the client has sent and received, over all its connections. */
  sent(client: object): SentFrame[] {
    return this.#clientOf(client).transcript.frames;
  }

  /**
   * Cuts the connection of a client. Both ends see it end with 1006.
   *
   * @param options.silent whether neither end notices it, except by its heartbeat. @default {false}
   */
  cut(client: object, { silent = false }: { silent?: boolean } = {}): void {
    const wire = this.#wire("cut", client);
    if (silent) wire.lose();
    else wire.reset();
  }

  /** Stops the client from reading: what the server sends stays in its buffers. What the client sends still arrives. */
  stall(client: object): void {
    this.#wire("stall", client).stall();
  }

  /** Lets a stalled client read again. */
  unstall(client: object): void {
    this.#wire("unstall", client).unstall();
  }

  /** Hibernates the nodes, like Durable Objects: everything but the sockets is lost. The next message or deadline wakes them. */
  hibernate(): void {
    if (!this.#options.hibernates) throw new TypeError('Cannot hibernate: pass the option "hibernates"');
    for (const node of this.#nodes) node.hibernate();
  }

  /** Ends a node at once, like SIGKILL. */
  kill(node: number): void {
    this.#node("kill", node).kill();
  }

  /** Stops a node, like a deploy. Its clients are closed with 1001. Resolves when it has stopped. */
  stop(node: number): Promise<void> {
    return this.#runUntil(this.#node("stop", node).stop());
  }

  /** Builds and starts a node that was killed or stopped. */
  start(node: number): void {
    if (!this.#canBuild) throw new TypeError("Cannot start a node again: pass the test kit a function that builds the app");
    const stopped = this.#nodes[node];
    if (!stopped || stopped.isUp) {
      throw new TypeError(`Cannot start node ${node}: ${stopped ? "it is running" : "there is none"}`);
    }
    stopped.start();
  }

  /**
   * Partitions the nodes into groups; it replaces an earlier partition. The broker is in the largest group, or the first of equal ones.
   * Nodes of the other groups reach no other node.
   */
  partition(...groups: number[][]): void {
    const broker = this.#broker;
    if (!broker) throw new TypeError("Cannot divide the nodes: there is one only");
    const largest = groups.reduce((best, group) => group.length > best.length ? group : best, groups[0] ?? []);
    const cut = groups.flat().filter((number) => !largest.includes(this.#node("divide", number).number));
    this.heal();
    for (const number of cut) broker.cut(number);
  }

  /** Ends a {@link partition}. */
  heal(): void {
    for (const { number } of this.#nodes) this.#broker?.restore(number);
  }

  /**
   * Closes the clients, sockets and nodes.
   *
   * @throws {Error} if a timer or a connection is left. With `globals: true`, also for timers of the app, such as an interval that it does
   * not clear.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close().finally(() => this.#release());
  }

  async #close(): Promise<void> {
    await this.#runUntil(Promise.all([...this.#clients.values()].map((end) => end.close())));
    await this.#runUntil(Promise.all(this.#nodes.map((node) => node.isUp ? node.stop() : undefined)));
    await this.#turns.settle();
    const timers = this.#time.pending.filter((timer) => keepsAlive(timer.callSite)).map(({ at, owner, callSite: error }) => {
      const frame = error && callSiteOf(error, 1);
      return `a timer of ${owner}, due in ${Math.ceil(at - this.#time.elapsed)} ms${frame ? ` (${frame})` : ""}`;
    });
    const connections = [...this.#wires].map(() => "a connection");
    const left = [...timers, ...connections];
    if (left.length > 0) throw new Error(`The test has left ${left.join(", ")}`);
  }

  #release(): void {
    this.#turns.unwatch();
    this.#sqlite?.close();
    this.#restore();
  }

  /** Waits for the promise, and advances the time until it settles. */
  async #runUntil(promise: Promise<unknown>): Promise<void> {
    let isDone = false;
    const done = promise.finally(() => isDone = true);
    done.catch(() => {}); // Awaited below.
    await this.#turns.settle();
    while (!isDone && await this.#time.step());
    await done;
  }

  #clientOf(client: object): TestedClient {
    const end = this.#clients.get(client);
    if (!end) throw new TypeError("Cannot find the client: pass one of t.connect(), t.client() or t.socket()");
    return end;
  }

  #wire(action: string, client: object): Wire {
    const wire = this.#clientOf(client).socket?.wire;
    if (!wire || wire.isOver) throw new TypeError(`Cannot ${action} the client: it is not connected`);
    return wire;
  }

  #node(action: string, number: number): TestNode {
    const node = this.#nodes[number];
    if (node?.isUp) return node;
    throw new TypeError(`Cannot ${action} node ${number}: ${node ? "it is not running" : "there is none"}`);
  }

  #url(path: string | undefined = this.#options.path): string {
    const paths = path === undefined ? this.#nodes.flatMap((node) => node.paths) : [path];
    const [first, ...others] = new Set(paths);
    if (first !== undefined && others.length === 0 && !/[:*]/.test(first.split("?")[0]!)) return `ws://localhost${first}`;
    const state = first === undefined
      ? "no route is controller.upgrade itself"
      : `the routes are ${[...new Set(paths)].join(", ")}`;
    throw new TypeError(`Cannot connect: ${state}, pass the option "path"`);
  }

  #socketClass(
    { node, headers, ip = "127.0.0.1" }: { [Name in keyof TestConnectOptions]: TestConnectOptions[Name] | undefined },
    record: Recorder,
    created: (socket: MemorySocket) => void = () => {},
  ): new (url: string, protocols?: string[]) => MemorySocket {
    const dial = {
      turns: this.#turns,
      headers: new Headers(headers),
      record,
      over: (wire: Wire) => void this.#wires.delete(wire),
      request: async (...[request, accept]: Parameters<ConstructorParameters<typeof MemorySocket>[0]["request"]>) => {
        return await this.#next(node).upgrade(request, ip, (response, protocol) => {
          const wire = accept(response, protocol);
          if (wire) this.#wires.add(wire);
          return wire;
        });
      },
    };
    return class extends MemorySocket {
      constructor(url: string, protocols: string[] = []) {
        super(dial, url, protocols);
        created(this);
      }
    };
  }

  /** The node with this number, or the next running node in turn. */
  #next(number: number | undefined): TestNode {
    const nodes = this.#nodes.filter((node) => number === undefined ? node.isUp : node.number === number);
    const node = nodes[number === undefined ? this.#turn++ % nodes.length : 0];
    if (!node) throw new Error("connect ECONNREFUSED");
    return node;
  }
}
