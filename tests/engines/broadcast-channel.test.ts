import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { WebSocket } from "ws";
import { Channels } from "../../src/channels/channels.ts";
import { type Client, createClient } from "../../src/client/client.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import {
  type BroadcastChannelEngine,
  broadcastChannelEngine,
  type BroadcastChannelEngineOptions,
} from "../../src/engines/broadcast-channel/broadcast-channel.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { TestClock } from "../support/test-clock.ts";
import { TYPESCRIPT } from "../support/typescript.ts";
import { until } from "../support/waiting.ts";
import { conformance, range } from "./conformance.ts";
import { TestHost, type TestNode } from "./test-host.ts";
import type { Commands } from "./worker.ts";

// Deno 2.9 loses a channel that is opened in the turn in which the last one of its thread was closed: its next post throws.
const first = new BroadcastChannel("first");
after(() => first.close());

/** Starts a node, and gets hold of its `BroadcastChannel`, by which it can be silenced. */
function start(options: BroadcastChannelEngineOptions = {}, clock?: TestClock) {
  const engine = broadcastChannelEngine({ lease: 600, ...options });
  const host = new TestHost(clock);
  const { BroadcastChannel } = globalThis;
  let channel: BroadcastChannel;
  globalThis.BroadcastChannel = class extends BroadcastChannel {
    constructor(name: string) {
      super(name);
      channel = this;
    }
  };
  engine.start(host);
  globalThis.BroadcastChannel = BroadcastChannel;
  const kill = () => {
    host.stop();
    channel.close();
  };
  return { engine, host, kill };
}

conformance("broadcast channel", {
  nodes: 4,
  histories: false,
  create() {
    const nodes: ReturnType<typeof start>[] = [];
    const live = () => nodes.filter(({ engine, host }) => engine.status !== "closed" && !host.isStopped);
    // Nothing of an engine keeps the process alive.
    const alive = setInterval(() => {}, 60_000);
    let fences = 0;
    return Promise.resolve({
      node(): Promise<TestNode> {
        const node = start();
        nodes.push(node);
        return Promise.resolve(node);
      },
      advance: (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms)),
      forget: () => Promise.reject(new Error("It has no store")),
      async settle() {
        const fence = `fence ${++fences}`;
        const all = live();
        for (const { engine } of all) engine.send(fence);
        const isSettled = ({ engine, host }: TestNode) =>
          host.messages.filter((message) => message === fence).length === all.length - 1 &&
          (engine as BroadcastChannelEngine).nodes().length === all.length;
        await until(() => all.every(isSettled));
      },
      held: ({ engine }: TestNode) => (engine as BroadcastChannelEngine).channels, // As `node` made it.
      close() {
        for (const { engine } of live()) engine.close();
        clearInterval(alive);
        return Promise.resolve();
      },
    });
  },
});

describe("BroadcastChannelEngine", () => {
  let nodes: ReturnType<typeof start>[] = [];
  const create = (...args: Parameters<typeof start>) => {
    const node = start(...args);
    nodes.push(node);
    return node;
  };
  afterEach(() => {
    for (const { engine } of nodes) engine.close();
    nodes = [];
  });

  it("refuses a history when the channel is declared and in every call", () => {
    const controller = new WebSocketController({ engine: broadcastChannelEngine(), logger: false });
    const history = { size: 1, ttl: 1_000 };
    const remedy = { name: "TypeError", message: /without one or use noroshi\/redis or noroshi\/nats/ };
    assert.throws(() => new Channels(controller, { a: { authorize: () => true, history } }), remedy);
    const { engine } = create();
    assert.throws(() => engine.subscribe("a", history), remedy);
    assert.throws(() => engine.publish("a", { event: "say", data: "1" }, history), remedy);
    assert.throws(() => engine.read("a", history), remedy);
  });

  it("throws for options out of range, and where the platform has no BroadcastChannel", () => {
    const bad = [{ namespace: "a b" }, { lease: 0 }, { lease: Infinity }, {
      maxLength: NaN,
    }];
    for (const options of bad) {
      assert.throws(
        () => broadcastChannelEngine(options),
        TypeError,
        JSON.stringify(options),
      );
    }
    const { BroadcastChannel } = globalThis;
    Reflect.deleteProperty(globalThis, "BroadcastChannel");
    try {
      assert.throws(() => broadcastChannelEngine(), /the platform has no BroadcastChannel/);
    } finally {
      globalThis.BroadcastChannel = BroadcastChannel;
    }
  });

  it("drops and counts messages that no node has sent, and reports them once", { timeout: 300_000 }, async () => {
    const { engine, host } = create({ namespace: "odd", maxLength: 100 });
    engine.subscribe("room", null);
    const stranger = new BroadcastChannel("noroshi:odd");
    const node = "stranger";
    const long = JSON.stringify("x".repeat(100));
    const malformed = [
      null,
      7,
      "hello",
      [],
      {},
      { type: "hello" },
      { type: "hello", node: "" },
      { type: "hello", node: "x".repeat(65) },
      { type: "orders", node },
      { type: "message", node },
      { type: "message", node, text: new Uint8Array(8) },
      { type: "event", node, channel: "room", event: "say", data: '1},"injected":{' },
      { type: "event", node, channel: "room", event: "", data: "1" },
      { type: "event", node, channel: "x".repeat(256), event: "say", data: "1" },
      { type: "member", node, channel: "room", user: "mika", data: "{", left: false },
      { type: "member", node, channel: "room", user: "mika" },
      { type: "here", node, members: [{ channel: "room", user: 7 }] },
      { type: "here", node, members: range(1_001).map((user) => ({ channel: "room", user: `${user}` })) },
    ];
    const oversized = [
      { type: "message", node, text: "x".repeat(101) },
      { type: "event", node, channel: "room", event: "say", data: long },
      { type: "member", node, channel: "room", user: "mika", data: long, left: false },
      { type: "here", node, members: [{ channel: "room", user: "mika", data: long }] },
    ];
    for (const each of [...malformed, ...oversized]) stranger.postMessage(each);
    assert.deepEqual([await engine.nodes(), host.messages], [[host.node], []]);
    stranger.postMessage({ type: "message", node, text: "from a stranger who speaks the language", later: 1 });
    await until(() => host.messages.length > 0);
    assert.deepEqual(engine.dropped, { malformed: malformed.length, oversized: oversized.length });
    assert.deepEqual(host.errors.map(String), ["WebSocketError: Cannot use what came from a BroadcastChannel: malformed"]);
    assert.deepEqual([host.publications("room"), engine.members("room"), host.presence], [[], [], []]);
    stranger.close();
  });

  it("sends nothing that is longer than maxLength", () => {
    const { engine } = create({ maxLength: 10 });
    const data = JSON.stringify("x".repeat(10));
    const isTooLong = (error: unknown) => error instanceof WebSocketError && error.code === "LIMIT_EXCEEDED";
    assert.throws(() => engine.publish("room", { event: "say", data }, null), isTooLong);
    assert.throws(() => engine.send(data), isTooLong);
    assert.throws(() => engine.join("room", { user: "mika", data }), isTooLong);
    assert.deepEqual(engine.members("room"), []);
  });

  it("keeps namespaces apart", { timeout: 300_000 }, async () => {
    const [a, b, fence] = [create({ namespace: "a" }), create({ namespace: "b" }), create({ namespace: "b" })];
    a.engine.send("from a");
    a.engine.join("room", { user: "mika" });
    fence.engine.send("from b");
    await until(() => b.host.messages.length > 0);
    assert.deepEqual([b.host.messages, b.engine.members("room"), b.engine.nodes().length], [["from b"], [], 2]);
  });

  it("receives all members of the nodes that started before it", { timeout: 300_000 }, async () => {
    const [a, b] = [create(), create()];
    for (const user of range(2_500)) {
      a.engine.join("room", { user: `${user}`, data: `${user}` });
    }
    a.engine.join("room", { user: "mika", data: "1" });
    b.engine.subscribe("room", null);
    await until(() => b.engine.members("room").length === 2_501);
    b.engine.join("room", { user: "mika", data: "2" });
    const late = create();
    late.engine.subscribe("room", null);
    await until(() => late.engine.members("room").length === 2_501 && late.engine.nodes().length === 3);
    assert.equal(late.host.membersOf("room")["2499"], "2499");
    // What was told to it is nothing to the others.
    a.engine.send("fence");
    await until(() => b.host.messages.length > 0);
    assert.equal(b.host.membersOf("room")["mika"], "2");
  });

  it(
    "removes a node that is silent for a lease, and restores its members when it sends again",
    { timeout: 300_000 },
    async () => {
      const clocks = [new TestClock(), new TestClock()] as const;
      const [a, b] = [create({ lease: 900 }, clocks[0]), create({ lease: 900 }, clocks[1])];
      b.engine.subscribe("room", null);
      a.engine.join("room", { user: "mika", data: "1" });
      await until(() => "mika" in b.host.membersOf("room"));
      // Held up, this thread has heard nobody: once it goes on, nobody is dead.
      clocks[1].jump(60_000);
      assert.equal(b.engine.nodes().length, 2);
      clocks[1].advance(900);
      assert.deepEqual([b.engine.nodes(), b.host.membersOf("room")], [[b.host.node], {}]);
      clocks[0].advance(300);
      await until(() => "mika" in b.host.membersOf("room"));
      assert.deepEqual([b.engine.nodes().length, b.engine.members("room")], [2, [{ user: "mika", data: "1" }]]);
      a.engine.close();
      await until(() => b.engine.nodes().length === 1);
      assert.deepEqual([b.host.membersOf("room"), b.engine.channels], [{}, 1]);
      b.engine.close();
      assert.deepEqual(clocks.map(({ timers }) => timers), [0, 0]);
    },
  );
});

/** Time that a worker has to answer another one, in ms: a busy machine may hold it up. */
const PATIENT = "60000";

/** Starts the file beside this one, as a worker thread. */
function startWorker(): Worker {
  const url = new URL("worker.ts", import.meta.url);
  if ("Bun" in globalThis || "Deno" in globalThis) return new Worker(url);
  return new Worker(url, { execArgv: [...TYPESCRIPT] });
}

/** A worker thread with a server, as `worker.ts` makes it. */
class WorkerNode {
  readonly #worker = startWorker();
  readonly #answers = new Map<number, (result: unknown) => void>();
  #calls = 0;
  url = "";

  static async start(): Promise<WorkerNode> {
    const node = new WorkerNode();
    const listens = new Promise<unknown>((resolve, reject) => {
      node.#answers.set(0, resolve);
      node.#worker.on("error", reject);
    });
    node.#worker.on("message", ({ id, result }: { id: number; result: unknown }) => node.#answers.get(id)?.(result));
    node.url = `${await listens}websocket`;
    return node;
  }

  call<Name extends keyof Commands>(
    name: Name,
    ...args: Parameters<Commands[Name]>
  ): Promise<Awaited<ReturnType<Commands[Name]>>> {
    const id = ++this.#calls;
    this.#worker.postMessage({ id, name, args });
    return new Promise((resolve) => this.#answers.set(id, resolve as (result: unknown) => void)); // The answer to this very call.
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** A client, and what it was sent. */
async function join(node: WorkerNode, user: string) {
  const client = createClient(node.url, { WebSocket: WebSocket as never, token: user, reconnect: false, heartbeat: 0 });
  const news: unknown[] = [];
  const said: unknown[] = [];
  const closes: number[] = [];
  client.on("message", ({ message }) => void news.push(message["text"]));
  client.on("close", ({ code }) => void closes.push(code));
  await client.ready;
  let isSubscribed = false;
  const subscription = client.subscribe("room", {
    onInit: () => isSubscribed = true,
    onEvent: ({ data }) => void said.push(data),
    onPresence() {},
  });
  await until(() => isSubscribed);
  const present = () => [...subscription.present].map(({ user }) => user).sort();
  return { client, news, said, closes, present };
}

describe("Servers in worker threads", () => {
  let nodes: WorkerNode[];
  let clients: Client[] = [];

  before(async () => {
    nodes = await Promise.all([1, 2, 3].map(() => WorkerNode.start()));
  }, { timeout: 300_000 });
  after(async () => {
    await Promise.all(clients.map((client) => client.close()));
    await Promise.all(nodes.map((node) => node.terminate()));
  }, { timeout: 300_000 });

  it("act as one, until one is terminated", { timeout: 300_000 }, async () => {
    const [a, b, c] = nodes as [WorkerNode, WorkerNode, WorkerNode];
    const peers = await Promise.all(nodes.map((node, index) => join(node, `user${index}`)));
    clients = peers.map(({ client }) => client);
    const [first, second, third] = peers as [typeof peers[0], typeof peers[0], typeof peers[0]];

    for (const peer of peers) await until(() => peer.present().length === 3);
    for (const number of range(100)) {
      await nodes[number % 3]!.call("broadcast", `${number}`);
      await nodes[number % 3]!.call("publish", `${number}`);
    }
    await a.call("broadcast", "for one", "user2");
    await b.call("broadcast", "fence");
    await until(() => peers.every(({ news }) => news.includes("fence")) && third.news.includes("for one"));
    await until(() => peers.every(({ said }) => said.length >= 100));
    const numbers = range(100).map(String);
    for (const { news, said } of peers) {
      for (const sent of [news, said]) {
        // Of each node in order; those of two may come in another order than they were sent.
        for (const node of range(3)) {
          const own = numbers.filter((number) => Number(number) % 3 === node);
          assert.deepEqual(sent.filter((text) => own.includes(String(text))), own);
        }
      }
      assert.equal(said.length, 100);
    }
    assert.deepEqual(peers.map(({ news }) => news.length), [101, 101, 102]);

    const { clients: named, missing } = await b.call("clients", PATIENT);
    assert.deepEqual([named.map(({ user }) => user).sort(), missing], [["user0", "user1", "user2"], []]);
    await a.call("disconnect", "user1");
    await until(() => second.closes.length > 0);
    assert.deepEqual(second.closes, [4403]);
    await until(() => !first.present().includes("user1") && !third.present().includes("user1"));

    const before = await a.call("nodes");
    assert.equal(before.length, 3);
    await c.terminate();
    const { clients: left, missing: dead } = await a.call("clients", "1000");
    assert.deepEqual(left.map(({ user }) => user), ["user0"]);
    // The one that was ended, and on a busy machine the other one.
    assert.ok(dead.every((node) => before.includes(node)), dead.join());
    await until(async () => (await a.call("nodes")).length <= 2);
    await until(() => first.present().join() === "user0");
    assert.deepEqual([await a.call("presence"), (await a.call("clients", PATIENT)).missing], [[{ user: "user0" }], []]);
    assert.deepEqual([await a.call("errors"), await b.call("errors")], [[], []]);
  });
});
