/** Clients of a sharded room that move between relays: none loses its connection for good or misses a publication. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { WebSocket } from "ws";
import { type Client, createClient } from "../../src/client/client.ts";
import { PATIENT } from "../support/patient.ts";
import { until } from "../support/waiting.ts";
import { begin, range } from "./channel-client.ts";
import { ShardedWorker } from "./sharded-worker.ts";
import { type Closed, Wire } from "./wire.ts";

let worker: ShardedWorker;

/** The path to a relay that the Worker chooses. */
const pathOf = (home: string, shards: number, user: string, key = "") =>
  `/websocket?home=${home}&shards=${shards}&access_token=${user}${key && `&key=${key}`}`;

/** Connects, and retries while the room is unavailable, as any client does. */
async function connect(path: string): Promise<Wire> {
  for (;;) {
    const wire = await Wire.request(worker.port, path);
    if (wire.answer.status === 101) return wire;
    assert.equal(wire.answer.status, 503);
  }
}

/** The users of a room, by relay. */
async function usersOf(home: string): Promise<Map<string, string[]>> {
  const { clients, missing } = await worker.call(home, "clients", {}, { timeout: 60_000 });
  assert.deepEqual(missing, []);
  const users = new Map<string, string[]>();
  for (const { node, user } of clients) users.set(node, [...users.get(node) ?? [], user].sort());
  return users;
}

/** A client without special handling of moves: it reconnects and recovers by its position. */
class Follower {
  readonly seen: unknown[] = [];
  readonly closes: Closed[] = [];
  readonly #path: string;
  #wire: Wire | undefined;
  #at: { epoch: string; offset: number } | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async start(): Promise<void> {
    this.#wire = await connect(this.#path);
    const { epoch, offset } = await begin(this.#wire, "room:1");
    this.#at = { epoch, offset };
  }

  /** Resolves once it has seen so many publications. */
  async read(count: number): Promise<void> {
    while (this.seen.length < count) {
      const message = await this.#wire!.next();
      if (message === null) await this.#return();
      else if (message.event === "said") {
        this.seen.push(message.data);
        this.#at!.offset = message.offset;
      }
    }
  }

  async #return(): Promise<void> {
    this.closes.push(await this.#wire!.closed);
    this.#wire = await connect(this.#path);
    const { recovered } = await begin(this.#wire, "room:1", { recover: this.#at });
    assert.equal(recovered, true);
  }
}

/** A client of `noroshi/client`, with what it has received. */
class Ours {
  readonly seen: unknown[] = [];
  readonly closes: number[] = [];
  readonly #client: Client;

  constructor(path: string) {
    const url = `ws://127.0.0.1:${worker.port}${path}`;
    this.#client = createClient(url, { WebSocket: WebSocket as never, ...PATIENT }); // As the client uses it.
    this.#client.on("close", ({ code, isFinal }) => isFinal || this.closes.push(code));
  }

  start(): Promise<void> {
    return new Promise((resolve) => {
      this.#client.subscribe("room:1", {
        onInit: () => resolve(),
        onEvent: ({ data }) => this.seen.push(data),
        onGap: () => this.seen.push("gap"),
      });
    });
  }

  async stop(): Promise<void> {
    await this.#client.close();
  }
}

describe("Shards that move clients", { timeout: 600_000 }, () => {
  before(async () => {
    worker = await ShardedWorker.start();
  });
  after(() => worker.stop());

  it("spread clients over more relays, and deliver each publication to each client once", async () => {
    const home = worker.newHome();
    const followers = range(10).map((n) => new Follower(pathOf(home, 2, `bare-${n}`)));
    const ours = range(6).map((n) => new Ours(pathOf(home, 2, `ours-${n}`)));
    try {
      for (const each of [...followers, ...ours]) await each.start();
      const count = 40;
      const reading = Promise.all(followers.map((each) => each.read(count)));
      const say = (n: number) => worker.call(home, "publish", "room:1", "said", n, { id: `${n}` });
      for (const n of range(10)) await say(n);
      const { moving, missing } = await worker.rebalance(home, 8, 0);
      assert.deepEqual(missing, []);
      // The 16 clients were on two relays, and an even share is two for each.
      const moved = Object.values<number>(moving).reduce((sum, each) => sum + each, 0);
      assert.ok(moved >= 12, `${moved}`);
      for (const n of range(count - 11, 10)) await say(n);
      const closed = () => [...followers, ...ours].flatMap(({ closes }) => closes as unknown[]).length;
      await until(() => closed() >= moved, () => ({ closed: closed(), moved }));
      // Each client reads the last one where it is now.
      await say(count - 1);
      await reading;
      await until(() => ours.every(({ seen }) => seen.length >= count), () => ours.map(({ seen }) => seen.length));
      for (const { seen } of [...followers, ...ours]) assert.deepEqual(seen, range(count));
      const users = await usersOf(home);
      const elsewhere = [...users].filter(([relay]) => relay !== `${home}#0` && relay !== `${home}#1`).flatMap(([, some]) =>
        some
      );
      assert.equal(elsewhere.length, moved);
      assert.equal(closed(), moved);
      for (const { closes } of followers) {
        for (const close of closes) assert.deepEqual(close, { code: 1013, reason: "drained retry=0" });
      }
      for (const { closes } of ours) for (const code of closes) assert.equal(code, 1013);
    } finally {
      for (const each of ours) await each.stop();
    }
  });

  it("route a client that was moved to another relay, although its key belongs to the crowded one", async () => {
    const home = worker.newHome();
    const path = pathOf(home, 4, "ann", "crowd");
    const wires: Wire[] = [];
    for (const _ of range(6)) wires.push(await connect(path));
    const relays = [...(await usersOf(home)).keys()];
    assert.equal(relays.length, 1);
    const crowded = relays[0]!;
    assert.deepEqual((await worker.rebalance(home, 4, 0)).moving, { [crowded]: 4 });
    const open = new Set(wires);
    for (const wire of wires) void wire.closed.then(() => open.delete(wire));
    await until(() => open.size === 2);
    for (const _ of range(5)) await connect(path);
    const users = await usersOf(home);
    assert.equal(users.get(crowded)?.length, 2);
    assert.equal([...users.values()].flat().length, 7);
  });

  it("move all clients away from relays that are no longer used", async () => {
    const home = worker.newHome();
    const wires = [];
    for (const relay of [0, 1, 2, 3, 3]) wires.push(await worker.open(`${home}#${relay}`, `user-${relay}`));
    assert.deepEqual((await worker.rebalance(home, 2, 0)).moving, { [`${home}#2`]: 1, [`${home}#3`]: 2 });
    for (const wire of wires.slice(2)) assert.equal((await wire.closed).code, 1013);
    assert.deepEqual([...(await usersOf(home)).keys()].sort(), [`${home}#0`, `${home}#1`]);
    // A relay that moves its clients accepts a new one only at the last try.
    const path = worker.pathTo(`${home}#3`);
    assert.equal((await Wire.request(worker.port, path)).answer.status, 503);
    assert.equal((await Wire.request(worker.port, path, { headers: { "noroshi-last-try": "1" } })).answer.status, 101);
  });

  it("keep a client until its request is answered", async () => {
    const home = worker.newHome();
    const [busy, idle] = [await worker.open(`${home}#1`), await worker.open(`${home}#1`)];
    busy.send({ type: "wait", uid: 1 });
    assert.equal((await busy.ask({ type: "ping", uid: 2 })).type, "pong");
    await worker.rebalance(home, 1, 0);
    assert.equal((await idle.closed).code, 1013);
    await worker.call(`${home}#1`, "release");
    assert.deepEqual(await busy.next(), { type: "wait", status: "ok", uid: 1 });
  });

  it("close all clients of a relay that is evicted while it moves them", async () => {
    const home = worker.newHome();
    const wires = [];
    for (const _ of range(6)) wires.push(await worker.open(`${home}#1`));
    assert.deepEqual((await worker.rebalance(home, 1, 10_000)).moving, { [`${home}#1`]: 6 });
    await worker.evict(`${home}#1`);
    for (const wire of wires) assert.equal((await wire.closed).code, 1013);
  });

  it("close clients beyond maxConnections when a relay wakes with a lower limit", async () => {
    const home = worker.newHome();
    const wires: Wire[] = [];
    for (const _ of range(5)) wires.push(await worker.open(`${home}#0`));
    for (const wire of wires) await begin(wire, "room:1");
    await worker.call(`${home}#0`, "limit", 2);
    await worker.evict(`${home}#0`);
    const open = new Set(wires);
    const closes: Closed[] = [];
    for (const wire of wires) void wire.closed.then((close) => open.delete(wire) && closes.push(close));
    await worker.call(home, "publish", "room:1", "said", 1); // Wakes it.
    await until(() => open.size === 2);
    for (const close of closes) assert.deepEqual(close, { code: 1013, reason: "retry=0" });
    for (const wire of open) assert.equal((await wire.next()).data, 1);
    assert.equal((await Wire.request(worker.port, worker.pathTo(`${home}#0`))).answer.status, 503);
  });

  it("list clients page by page", async () => {
    const home = worker.newHome();
    for (const n of range(7)) await worker.open(`${home}#${n % 3}`, `user-${n}`);
    const users: string[] = [];
    const sizes: number[] = [];
    for (let after: string | undefined, isFirst = true; isFirst || after !== undefined; isFirst = false) {
      const { clients, missing, next } = await worker.call(home, "clients", {}, { timeout: 60_000, limit: 3, after });
      assert.deepEqual(missing, []);
      sizes.push(clients.length);
      for (const { user } of clients) users.push(user);
      after = next;
    }
    assert.deepEqual([users.sort(), sizes], [range(7).map((n) => `user-${n}`), [3, 3, 1]]);
    // A relay forwards the query to its home object.
    const { clients } = await worker.call(`${home}#0`, "clients", { user: "user-4" }, { timeout: 60_000 });
    assert.deepEqual(clients.map(({ node, user }: { node: string; user: string }) => [node, user]), [[`${home}#1`, "user-4"]]);
    const wrong: [query: object, message: RegExp][] = [
      [{ limit: 0 }, /limit must be a whole number from 1 to 10,000/],
      [{ limit: 10_001 }, /limit must be/],
      [{ after: "x" }, /after must be the `next` of the previous page/],
      [{ timeout: 0 }, /timeout must be/],
    ];
    for (const [query, message] of wrong) assert.match((await worker.outcome(home, "clients", {}, query)).error ?? "", message);
  });
});
