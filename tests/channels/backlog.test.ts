/** What waits for one client is under one budget, whatever it asks for, and is sent as fast as it reads. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HistoryPage } from "../../src/engines/engine.ts";
import type { Frame } from "../../src/protocol/frame.ts";
import type { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { anybody, createChannels, type TestPeer } from "../support/channels-fixture.ts";
import { heapUsed } from "../support/heap.ts";
import { LossyEngine } from "../support/lossy-engine.ts";
import { Stall, turn } from "../support/waiting.ts";

const LIMIT = 1_048_576;
const history = { size: 100, ttl: 60_000 };
const kept = { ...anybody, history };
const text = (bytes: number) => "x".repeat(bytes);
const range = (count: number) => Array.from({ length: count }, (_, number) => number);

/** An engine that counts what it has read, and how many of its reads are under way. */
class CountingEngine extends LossyEngine {
  bytes = 0;
  reads = 0;
  atOnce = 0;
  most = 0;
  answer = Promise.resolve();

  // @ts-expect-error -- its answer is a promise, as the interface lets it be
  override async read(...args: Parameters<MemoryEngine["read"]>): Promise<HistoryPage> {
    this.reads++;
    this.most = Math.max(this.most, ++this.atOnce);
    await this.answer;
    const page = super.read(...args);
    this.atOnce--;
    this.bytes += page.publications.reduce((sum, { data }) => sum + data.length, 0);
    return page;
  }

  // @ts-expect-error -- as above
  override async members(channel: string) {
    this.most = Math.max(this.most, ++this.atOnce);
    await turn();
    const members = super.members(channel);
    this.atOnce--;
    this.bytes += members.reduce((sum, { user, data = "" }) => sum + user.length + data.length, 0);
    return members;
  }
}

/** A socket whose peer reads when the test says. */
function slow({ transport }: TestPeer): { sent: number; read(bytes?: number): void } {
  const socket = {
    sent: 0,
    read: (bytes = Infinity) => void (transport.bufferedAmount = Math.max(0, transport.bufferedAmount - bytes)),
  };
  const send = transport.send.bind(transport);
  transport.send = (frame: Frame) => {
    socket.sent += frame.bytes;
    transport.bufferedAmount += frame.bytes;
    return send(frame);
  };
  return socket;
}

async function turns(count = 8): Promise<void> {
  for (const _ of range(count)) await turn();
}

/** A client that reads all there is each time that some time has passed, until the condition holds. */
// deno-lint-ignore no-explicit-any -- a test reads whatever was sent
async function readAll(peer: TestPeer, clock: { advance(ms: number): void }, isDone: (received: any[]) => boolean) {
  // deno-lint-ignore no-explicit-any -- as above
  const received: any[] = [];
  for (const _ of range(2_000)) {
    received.push(...await peer.take());
    if (isDone(received)) return received;
    peer.transport.bufferedAmount = 0;
    clock.advance(500);
  }
  throw new Error(
    `It has not come: ${received.length} messages, ${
      JSON.stringify([peer.transport.closes, received.map((m) => [m.type, m.error])])
    }`,
  );
}

async function fill(names: readonly string[], publish: (name: string, number: number) => Promise<unknown>, count = 100) {
  for (const name of names) for (const number of range(count)) await publish(name, number);
}

describe("Backlog: recovery", () => {
  for (const uids of [1, 128]) {
    it(`reads no more than may wait for a client that reads nothing, with ${uids} subscriptions`, async () => {
      const engine = new CountingEngine();
      const { join, channels } = createChannels({ a: kept }, { engine });
      const [{ epoch }] = await join().ask({ type: "subscribe", channel: "a" });
      await fill(["a"], (name, number) => channels.publish(name as "a", "e", `${number} ${text(60_000)}`));
      const peer = join();
      const socket = slow(peer);
      for (const uid of range(uids)) peer.send({ type: "subscribe", channel: "a", uid, recover: { epoch, offset: 0 } });
      await turns(40);
      assert.ok(engine.bytes <= LIMIT, `${engine.bytes} bytes were read`);
      assert.ok(socket.sent <= LIMIT, `${socket.sent} bytes were sent`);
      assert.equal(engine.most, 1);
      assert.equal(peer.client.readyState, 1);
    });
  }

  it("sends all of it, in order and once, to a client that reads, the others waiting for their turn", async () => {
    const engine = new CountingEngine();
    const names = range(5).map((number) => `room:${number}`);
    const { join, channels, clock } = createChannels({ "room:*": kept }, { engine });
    const reader = join();
    const epochs = new Map<string, string>();
    for (const name of names) epochs.set(name, (await reader.ask({ type: "subscribe", channel: name }))[0].epoch);
    await fill(names, (name, number) => channels.publish(name, "e", `${number} ${text(20_000)}`));
    const peer = join();
    slow(peer);
    for (const channel of names) peer.send({ type: "subscribe", channel, recover: { epoch: epochs.get(channel), offset: 0 } });
    const received = await readAll(peer, clock, ({ length }) => length >= 505);
    for (const name of names) {
      const own = received.filter(({ channel }) => channel === name);
      assert.deepEqual(own.map(({ event, offset }) => [event, offset]), [
        ["init", 0],
        ...range(100).map((number) => ["e", number + 1]),
      ]);
      assert.equal(own[0].recovered, true);
    }
    assert.equal(engine.most, 1);
    // Live by now.
    await channels.publish("room:0", "e", "live");
    assert.deepEqual((await peer.take()).map(({ data }) => data), ["live"]);
  });

  it("lets the others begin when one that waits for the client to read is unsubscribed", async () => {
    const names = range(4).map((number) => `room:${number}`);
    const { join, channels, clock } = createChannels({ "room:*": kept });
    const reader = join();
    const epochs = new Map<string, string>();
    for (const name of names) epochs.set(name, (await reader.ask({ type: "subscribe", channel: name }))[0].epoch);
    await fill(names, (name, number) => channels.publish(name, "e", `${number} ${text(20_000)}`));
    const peer = join();
    slow(peer);
    for (const channel of names) peer.send({ type: "subscribe", channel, recover: { epoch: epochs.get(channel), offset: 0 } });
    await turns(20);
    // The first is being sent; the second waits for its turn.
    peer.send({ type: "unsubscribe", channel: names[0] }, { type: "unsubscribe", channel: names[1] });
    const received = await readAll(peer, clock, (all) => all.filter(({ channel }) => channel === names[3]).length === 101);
    assert.equal(received.filter(({ channel }) => channel === names[2]).length, 101);
    assert.equal(received.filter(({ channel }) => channel === names[1]).length, 1);
    assert.equal(peer.client.readyState, 1);
  });

  it("sends what fits of a page, and the rest when the client has read", async () => {
    for (const unread of [320, 490]) {
      const { join, channels, clock } = createChannels({ a: kept }, { maxBufferedBytes: 1_000 });
      const [{ epoch }] = await join().ask({ type: "subscribe", channel: "a" });
      await fill(["a"], (_, number) => channels.publish("a", "e", number), 3);
      const peer = join();
      const socket = slow(peer);
      peer.transport.bufferedAmount = unread;
      peer.send({ type: "subscribe", channel: "a", recover: { epoch, offset: 0 } });
      await turns();
      const first = await peer.take();
      assert.ok(unread === 320 ? first.length > 1 && first.length < 4 : first.length === 1, `${first.length} were sent`);
      socket.read();
      clock.advance(20);
      assert.deepEqual([...first, ...await peer.take()].slice(1).map(({ data }) => data), range(3));
      await channels.publish("a", "e", "live");
      assert.deepEqual((await peer.take()).map(({ data }) => data), ["live"]);
    }
  });

  it("begins anew when the next page is gone by the time that the client has read", async () => {
    const { join, channels, clock } = createChannels({ a: { ...kept, snapshot: () => "all" } });
    const [{ epoch }] = await join().ask({ type: "subscribe", channel: "a" });
    const publish = (_: string, number: number) => channels.publish("a", "e", `${number} ${text(60_000)}`);
    await fill(["a"], publish);
    const peer = join();
    slow(peer);
    peer.send({ type: "subscribe", channel: "a", recover: { epoch, offset: 0 } });
    await turns();
    await fill(["a"], publish, 80);
    const received = await readAll(peer, clock, (all) => all.some(({ recovered }) => recovered === false));
    const inits = received.filter(({ event }) => event === "init");
    assert.deepEqual(inits.map(({ recovered, offset }) => [recovered, offset]), [[true, 0], [false, 180]]);
    const offsets = received.filter(({ event }) => event === "e").map(({ offset }) => offset);
    assert.deepEqual(offsets, range(offsets.length).map((number) => number + 1), "no gap before it is said that there is one");
  });

  it("reads once for many clients that were at one place when there was a gap", async () => {
    const engine = new CountingEngine();
    const { join, channels } = createChannels({ a: kept }, { engine });
    const peers = range(50).map(() => join());
    for (const peer of peers) await peer.ask({ type: "subscribe", channel: "a", uid: 1 });
    engine.loses = true;
    for (const number of range(20)) await channels.publish("a", "e", `${number} ${text(20_000)}`);
    engine.loses = false;
    engine.reads = 0;
    engine.host.gap("a");
    await turns(20);
    for (const peer of peers) {
      assert.deepEqual((await peer.take()).map(({ offset }) => offset), range(20).map((number) => number + 1));
    }
    // Two characters a byte are counted: 131,072 bytes hold three of 40 kB.
    assert.equal(engine.reads, 7);
  });
});

describe("Backlog: snapshots and members", () => {
  /** A client that reads slowly, and channels with large snapshots. One subscription before the test shows the channels the size. */
  async function createSnapshots() {
    const counts = { atOnce: 0, most: 0, made: 0 };
    const { join, clock } = createChannels({
      "room:*": {
        ...anybody,
        snapshot: async () => {
          counts.most = Math.max(counts.most, ++counts.atOnce);
          await turn();
          counts.atOnce--;
          counts.made++;
          return text(1_000_000);
        },
      },
    });
    await join().ask({ type: "subscribe", channel: "room:0" });
    counts.made = 0;
    const peer = join();
    slow(peer);
    return { peer, clock, counts };
  }

  it("makes one large snapshot after the other, each when the client has read the one before", async () => {
    const { peer, clock, counts } = await createSnapshots();
    for (const number of range(20)) peer.send({ type: "subscribe", channel: `room:${number}` });
    await turns(40);
    assert.deepEqual([counts.most, counts.made], [1, 1]);
    const received = await readAll(peer, clock, ({ length }) => length === 20);
    assert.deepEqual(received.map(({ channel }) => channel), range(20).map((number) => `room:${number}`));
    assert.equal(counts.most, 1);
  });

  it("makes one at a time, too, after others that waited were unsubscribed", async () => {
    const { peer, clock, counts } = await createSnapshots();
    for (const number of range(10)) peer.send({ type: "subscribe", channel: `room:${number}` });
    await turns();
    for (const number of range(8)) peer.send({ type: "unsubscribe", channel: `room:${number + 2}` });
    await turns();
    for (const number of range(10)) {
      peer.send({ type: "subscribe", channel: `other:${number}` }, { type: "subscribe", channel: `room:${number + 10}` });
    }
    const isInit = ({ event }: { event: string }) => event === "init";
    await readAll(peer, clock, (all) => all.filter(isInit).length === 12);
    assert.equal(counts.most, 1);
  });

  it("begins when the client has no more than half of what may wait to read, and not before", async () => {
    const { join, clock } = createChannels({ "room:*": { ...anybody, snapshot: () => "all" } });
    const peer = join();
    peer.transport.bufferedAmount = LIMIT / 2;
    assert.deepEqual((await peer.ask({ type: "subscribe", channel: "room:1" })).map(({ event }) => event), ["init"]);
    peer.transport.bufferedAmount = LIMIT / 2 + 1;
    assert.deepEqual(await peer.ask({ type: "subscribe", channel: "room:2" }), []);
    peer.transport.bufferedAmount = LIMIT / 2;
    clock.advance(20);
    assert.deepEqual((await peer.take()).map(({ event }) => event), ["init"]);
  });

  it("makes a few at a time before it knows how large they are, and sends them as the client reads", async () => {
    let made = 0;
    const { join, clock } = createChannels({
      "room:*": {
        ...anybody,
        snapshot: async () => {
          await turn();
          made++;
          return text(1_000_000);
        },
      },
    });
    const peer = join();
    const socket = slow(peer);
    for (const number of range(128)) peer.send({ type: "subscribe", channel: `room:${number}` });
    await turns(40);
    assert.ok(made <= 4 && socket.sent < 1_100_000, `${made} were made, and ${socket.sent} bytes sent`);
    assert.equal((await readAll(peer, clock, ({ length }) => length === 128)).length, 128);
  });

  it("lets no snapshot that takes long hold up histories, members and other snapshots", async () => {
    const stall = new Stall<unknown>();
    const { join } = createChannels({
      slow: { ...anybody, snapshot: () => stall.promise },
      fast: { ...kept, snapshot: () => "all", presence: true },
    });
    const [{ epoch }] = await join("ann").ask({ type: "subscribe", channel: "fast" });
    const peer = join("ann");
    const answers = await peer.ask(
      { type: "subscribe", channel: "slow" },
      { type: "subscribe", channel: "fast", uid: 1, recover: { epoch, offset: 0 } },
      { type: "subscribe", channel: "fast", uid: 2, presence: true },
    );
    const told = answers.map(({ type, uid }) => `${type} ${uid}`).sort();
    assert.deepEqual(told, ["presence 2", "subscription 1", "subscription 2"]);
    stall.resolve("late");
    assert.deepEqual((await peer.take()).map(({ channel, data }) => [channel, data]), [["slow", "late"]]);
  });

  it("sends those made at the same time as the client reads, and none that was unsubscribed meanwhile", async () => {
    const stall = new Stall();
    const { join, clock } = createChannels({ "room:*": { ...anybody, snapshot: () => stall.promise.then(() => text(400_000)) } });
    const peer = join();
    const socket = slow(peer);
    for (const number of range(4)) peer.send({ type: "subscribe", channel: `room:${number}` });
    await turns();
    stall.resolve();
    const sent = async () => (await peer.take()).map(({ event, channel }) => `${event} ${channel}`);
    assert.deepEqual(await sent(), ["init room:0", "init room:1"]);
    peer.send({ type: "unsubscribe", channel: "room:2" });
    await sent();
    socket.read();
    clock.advance(20);
    assert.deepEqual(await sent(), ["init room:3"]);
  });

  it("lets snapshots that take long hold up no subscription without one", async () => {
    const { join } = createChannels({
      slow: { ...anybody, snapshot: () => new Promise(() => {}) },
      plain: anybody,
    });
    const peer = join();
    for (const uid of range(10)) peer.send({ type: "subscribe", channel: "slow", uid });
    await turns();
    const answers = await peer.ask({ type: "subscribe", channel: "plain" }, { type: "subscribe", channel: "slow", event: "e" });
    assert.deepEqual(answers.map(({ event, channel }) => [event, channel]), [["init", "plain"], ["init", "slow"]]);
  });

  it("makes a few at a time where they are small", async () => {
    const stall = new Stall();
    let calls = 0;
    const { join } = createChannels({
      "room:*": { ...anybody, snapshot: ({ channel }) => ++calls > 1 ? stall.promise.then(() => channel) : channel },
    });
    await join().ask({ type: "subscribe", channel: "room:0" });
    const peer = join();
    for (const number of range(10)) peer.send({ type: "subscribe", channel: `room:${number}` });
    await turns();
    assert.equal(calls, 1 + 4);
    stall.resolve();
    assert.equal((await peer.take()).length, 10);
  });

  it("lists the members of one channel after the other, each when the client has read", async () => {
    const engine = new CountingEngine();
    const { join, clock } = createChannels({ "room:*": { ...anybody, presence: { data: "client" as const } } }, {
      engine,
    });
    for (const number of range(300)) {
      join(`user ${number}`).send(...range(3).map((room) => ({ type: "subscribe", channel: `room:${room}`, data: text(1_000) })));
    }
    await turns();
    engine.bytes = 0;
    const peer = join();
    slow(peer);
    const rooms = range(60).map((uid) => ({ type: "subscribe", channel: `room:${uid % 3}`, uid, presence: true }));
    for (const message of rooms) peer.send(message);
    await turns(100);
    assert.equal(engine.most, 1);
    assert.ok(engine.bytes <= LIMIT, `${engine.bytes} bytes of members were read`);
    assert.equal(peer.client.readyState, 1);
    const isList = ({ type, event }: { type: string; event: string }) => type === "presence" && event === "init";
    const received = await readAll(peer, clock, (all) => all.filter(isList).length === 60);
    assert.deepEqual(received.filter(isList).map(({ uid }) => uid), range(60));
  });
});

describe("Backlog: kept publications", () => {
  it("keeps no more bytes than may wait, over all subscriptions of a client", async () => {
    const stall = new Stall<unknown>();
    const names = range(8).map((number) => `room:${number}`);
    const { join, channels } = createChannels({ "room:*": { ...anybody, snapshot: () => stall.promise } });
    const stalled = join();
    for (const channel of names) stalled.send({ type: "subscribe", channel });
    await turns();
    const before = await heapUsed();
    await fill(names, (name, number) => channels.publish(name, "e", `${number} ${text(60_000)}`));
    const growth = await heapUsed() - before;
    // A character may take two bytes. Of 48 MB that were published.
    assert.ok(growth < 4 * LIMIT, `the heap has grown by ${growth} bytes`);
    stall.resolve("all");
  });

  it("gives the room back when a snapshot is made anew", async () => {
    let snapshots = 0;
    const publish = () => channels.publish("a", "e", text(6_000));
    const snapshot = async () => {
      if (++snapshots === 1) await publish();
      await publish();
      return snapshots;
    };
    const { join, channels } = createChannels({ a: { ...anybody, snapshot } } as never, { maxBufferedBytes: 10_000 });
    const peer = join();
    assert.deepEqual(
      (await peer.ask({ type: "subscribe", channel: "a" })).map(({ event, data }) => [event, data.length ?? data]),
      [
        ["init", 2],
        ["e", 6_000],
      ],
    );
  });

  it("gives the room back when a subscription ends", async () => {
    const stalls = range(40).map(() => new Stall<unknown>());
    let snapshots = 0;
    const { join, channels } = createChannels({ a: { ...anybody, snapshot: () => stalls[snapshots++]!.promise } }, {
      maxBufferedBytes: 10_000,
    });
    const peer = join();
    for (const number of range(30)) {
      peer.send({ type: "subscribe", channel: "a" });
      await turns(2);
      await channels.publish("a", "e", text(6_000));
      peer.send({ type: "unsubscribe" });
      stalls[number]!.resolve("late");
      await turns(2);
    }
    await peer.take();
    peer.send({ type: "subscribe", channel: "a" });
    await turns();
    await channels.publish("a", "e", text(6_000));
    stalls[30]!.resolve("all");
    assert.deepEqual((await peer.take()).map(({ event }) => event), ["init", "e"]);
    assert.equal(snapshots, 31);
  });
});

describe("Backlog: subscriptions that are replaced", () => {
  const declared = {
    plain: anybody,
    filled: { ...anybody, snapshot: () => "all" },
    kept: { ...anybody, history, presence: true },
  };
  const requests: Record<string, (epoch: string) => object> = {
    "one that is sent init": () => ({ channel: "plain" }),
    "one with a snapshot": () => ({ channel: "filled" }),
    "a recovery": (epoch) => ({ channel: "kept", recover: { epoch, offset: 0 } }),
  };

  for (const [which, request] of Object.entries(requests)) {
    it(`leave nothing behind while the client reads too little for ${which}`, async () => {
      const { join, channels, clock, events } = createChannels(declared);
      const [{ epoch }] = await join().ask({ type: "subscribe", channel: "kept" });
      for (const n of range(3)) await channels.publish("kept", "e", n);
      const peer = join();
      await turns();
      peer.transport.bufferedAmount = 900_000; // More than the budget, less than the limit.
      const subscribe = async (times: number) => {
        for (const n of range(times)) {
          peer.send({ type: "subscribe", uid: 1, query: { text: text(8_000), n }, ...request(epoch) });
          events.length = 0; // The fixture keeps the messages.
          await turns(2); // Each is authorized, and waits.
        }
        await turns();
      };
      await subscribe(100);
      const before = await heapUsed();
      await subscribe(1_500);
      const growth = await heapUsed() - before;
      // Of 12 MB that was asked for.
      assert.ok(growth < 4 * LIMIT, `the heap has grown by ${growth} bytes`);
      assert.deepEqual([await peer.take(), channels.stats().subscriptions], [[], 2]);
      peer.transport.bufferedAmount = 0;
      clock.advance(1_000);
      assert.deepEqual((await peer.take()).filter(({ event }) => event === "init").length, 1);
    });
  }

  it("leaves nothing behind of a subscription whose rights change again and again, or whose channel has gaps", async () => {
    let begun = 0;
    const engine = new CountingEngine();
    const state = () => ({ accountability: { user: "ann", role: null } });
    const { join, channels, clock } = createChannels({ kept }, {
      engine,
      mode: "public",
      authenticate: state,
      revalidate: state,
      slowConsumer: "drop",
    });
    const peer = join("ann");
    await peer.ask({ type: "auth", access_token: "x" }, { type: "subscribe", channel: "kept" });
    peer.transport.bufferedAmount = LIMIT + 1;
    await channels.publish("kept", "e", 1);
    // It may be sent something, and too much waits for more to be read.
    peer.transport.bufferedAmount = 900_000;
    clock.advance(250);
    await peer.take();
    const before = await heapUsed();
    for (begun = 0; begun < 3_000; begun++) {
      if (begun % 2) { for (const channel of channels.open()) channel.gap(); }
      else await peer.ask({ type: "auth", access_token: "x" });
    }
    const growth = await heapUsed() - before;
    assert.ok(growth < LIMIT, `the heap has grown by ${growth} bytes`);
    const { reads } = engine;
    peer.transport.bufferedAmount = 0;
    clock.advance(1_000);
    assert.deepEqual((await peer.take()).map(({ data }) => data), [1]);
    assert.equal(engine.reads, reads + 1);
  });
});

describe("Backlog: progress", () => {
  const create = async (bytes = 60_000) => {
    const created = createChannels({ a: { ...anybody, history: { size: 100, ttl: 1e9 } } }, { heartbeat: false });
    const [{ epoch }] = await created.join().ask({ type: "subscribe", channel: "a" });
    await fill(["a"], (_, number) => created.channels.publish("a", "e", `${number} ${text(bytes)}`));
    // That of the engine, which looks what has expired.
    const { deadlines } = created.controller.stats();
    const peer = created.join();
    const socket = slow(peer);
    peer.send({ type: "subscribe", channel: "a", recover: { epoch, offset: 0 } });
    await turns();
    return { ...created, peer, socket, deadlines };
  };

  it("closes a client with 4508 that reads nothing of what waits for it for 30 s", async () => {
    const { peer, clock, controller, deadlines } = await create();
    clock.advance(29_000);
    assert.equal(peer.client.readyState, 1);
    clock.advance(2_000);
    assert.deepEqual(peer.transport.closes, [{ code: 4508, reason: "Too slow" }]);
    peer.leave();
    await turns();
    assert.equal(controller.stats().deadlines, deadlines);
  });

  it("does not count time in which the process stood still, because the client may have read meanwhile", async () => {
    const { peer, socket, clock } = await create();
    for (let looks = 0; looks < 3; looks++) {
      clock.advance(5_000);
      clock.jump(60_000);
    }
    assert.deepEqual(peer.transport.closes, []);
    socket.read();
    clock.advance(1_000);
    assert.ok((await peer.take()).length > 1);
  });

  it("closes a client that asks for more meanwhile, too, and keeps one for which nothing waits any more", async () => {
    const { peer, clock } = await create();
    for (const uid of range(9)) {
      clock.advance(4_000);
      peer.send({ type: "subscribe", channel: "a", uid, recover: { epoch: "other", offset: 0 } });
      await turns();
    }
    assert.deepEqual(peer.transport.closes, [{ code: 4508, reason: "Too slow" }]);
    const idle = await create();
    idle.peer.send({ type: "unsubscribe" });
    await turns();
    for (const _ of range(10)) idle.clock.advance(10_000);
    assert.deepEqual(idle.peer.transport.closes, []);
  });

  it("gives a client 30 s for what waits for it, though it has read something else long before", async () => {
    const { peer, clock, channels, socket } = await create(20_000);
    await readAll(peer, clock, (all) => all.length >= 100);
    socket.read();
    clock.advance(60_000);
    const { offset, epoch } = await channels.history("a");
    peer.transport.bufferedAmount = 900_000;
    peer.send({ type: "subscribe", channel: "a", recover: { epoch, offset } });
    await turns();
    clock.advance(29_000);
    await turns();
    assert.deepEqual(peer.transport.closes, []);
    clock.advance(2_000);
    assert.equal(peer.transport.closes.length, 1);
  });

  it("checks every 20 ms how much a client has read, and less and less often while it reads nothing", async () => {
    const { peer, clock } = await create();
    clock.delays.length = 0;
    clock.advance(25_000);
    assert.ok(clock.delays.length < 100, `it has looked ${clock.delays.length} times`);
    await peer.take();
    peer.transport.bufferedAmount -= 1;
    clock.advance(500);
    for (const _ of range(100)) {
      peer.transport.bufferedAmount -= 1;
      clock.advance(20);
    }
    peer.transport.bufferedAmount = 0;
    clock.advance(40);
    assert.ok((await peer.take()).length > 0);
  });

  it("lets a client go on that reads a little, however long it takes", async () => {
    const { peer, clock } = await create();
    let received = (await peer.take()).length;
    for (let looks = 0; received < 101 && looks < 1_000; looks++) {
      clock.advance(20_000);
      peer.transport.bufferedAmount = Math.max(0, peer.transport.bufferedAmount - 50_000);
      clock.advance(1_000);
      received += (await peer.take()).length;
    }
    assert.deepEqual([received, peer.transport.closes], [101, []]);
  });

  it("leaves nothing behind when the client goes while something waits for it", async () => {
    const { peer, controller, channels, clock, deadlines } = await create();
    peer.leave();
    await turns();
    assert.equal(controller.stats().deadlines, deadlines);
    clock.advance(60_000);
    assert.equal(channels.stats().subscribers, 1);
  });

  it("does not cut a snapshot of 12 MB on a slow line, whatever is published and however often it is pinged", async () => {
    const { join, channels, clock } = createChannels({
      big: { ...anybody, snapshot: () => text(12_000_000) },
      live: anybody,
    }, { heartbeat: { period: 30_000, message: true } });
    const peer = join();
    const socket = slow(peer);
    await peer.ask({ type: "subscribe", channel: "live" }, { type: "subscribe", channel: "big" });
    assert.ok(socket.sent > 12_000_000);
    let published = 0;
    // 120 kB a second, and no answer to a ping before it was read.
    for (let second = 0; second < 100; second++) {
      clock.advance(1_000);
      socket.read(120_000);
      if (second % 2 > 0) continue;
      published++;
      await channels.publish("live", "e", text(1_000));
      await channels.publish("big", "e", text(1_000));
    }
    assert.deepEqual(peer.transport.closes, []);
    socket.read();
    clock.advance(1_000);
    const received = (await peer.take()).filter(({ type, event }) => type === "subscription" && event === "e");
    for (const name of ["live", "big"]) assert.equal(received.filter(({ channel }) => channel === name).length, published);
  });

  it("closes a client that does not read such a snapshot, and lets no more wait beside it than without it", async () => {
    const { join, channels, clock } = createChannels({ big: { ...anybody, snapshot: () => text(12_000_000) }, live: anybody });
    const peer = join();
    const socket = slow(peer);
    await peer.ask({ type: "subscribe", channel: "live" }, { type: "subscribe", channel: "big" });
    const before = socket.sent;
    for (const _ of range(20)) await channels.publish("live", "e", text(100_000));
    assert.deepEqual(peer.transport.closes, [{ code: 4508, reason: "Too slow" }]);
    assert.ok(socket.sent - before <= LIMIT);
    // And one for whom nothing is published.
    const other = join();
    slow(other);
    await other.ask({ type: "subscribe", channel: "big" });
    clock.advance(30_000 * 13);
    assert.equal(other.transport.closes.length, 1);
  });
});

describe("Subscriptions of a client", () => {
  const query = { a: Array.from({ length: 2_500 }, () => ({})) };

  it("keep their queries as text", async () => {
    const seen: unknown[] = [];
    const { join, takeNames } = createChannels({ "room:*": { ...anybody, snapshot: ({ query }) => void seen.push(query) } });
    const peer = join();
    await peer.ask({ type: "subscribe", channel: "room:0", query });
    assert.deepEqual(seen.splice(0), [query]);
    const before = await heapUsed();
    for (const number of range(127)) peer.send({ type: "subscribe", channel: `room:${number + 1}`, query });
    assert.equal((await peer.take()).length, 127);
    seen.length = 0;
    takeNames();
    const growth = await heapUsed() - before;
    assert.ok(growth < 4_000_000, `the heap has grown by ${growth} bytes`);
  });

  it("take 1 MiB of queries, names, uids and data at most, all together", async () => {
    const { join } = createChannels({ "room:*": anybody }, { maxSubscriptions: 1_000 });
    const peer = join();
    const subscribe = (number: number, uid = number) => ({ type: "subscribe", channel: `room:${number}`, uid, query });
    const answers = await peer.ask(...range(300).map((number) => subscribe(number)));
    const refused = answers.filter(({ error }) => error?.code === "LIMIT_EXCEEDED").length;
    assert.ok(300 - refused >= 128 && refused >= 150, `${refused} were refused`);
    // The same again takes its place, and what has ended makes room.
    assert.equal((await peer.ask(subscribe(0)))[0].event, "init");
    await peer.ask({ type: "unsubscribe", uid: 0 });
    assert.equal((await peer.ask(subscribe(299)))[0].event, "init");
    assert.equal((await peer.ask(subscribe(298)))[0].error.code, "LIMIT_EXCEEDED");
  });
});
