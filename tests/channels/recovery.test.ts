/** What was missed is sent from the history, in order and once, or it is said that it cannot be. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Authenticate, AuthenticationState } from "../../src/application/authentication.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { createChannels, kept, type TestPeer } from "../support/channels-fixture.ts";
import { LossyEngine } from "../support/lossy-engine.ts";
import type { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const subscribe = (rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel: "a", ...rest });
const auth = (access_token: string) => ({ type: "auth", access_token });

/** The data of the publications a client was sent, and `init` by what it said of its recovery. */
const read = async (peer: TestPeer) =>
  (await peer.take()).filter(({ type }) => type === "subscription").map(({ event, data, recovered }) =>
    event === "init" ? `init ${recovered}` : event === "unsubscribe" ? "unsubscribe" : data
  );

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

describe("Channels: recovery", () => {
  it("sends the missed publications after any kept position, at each request", async () => {
    const { join, channels } = createChannels({ a: kept });
    const [{ epoch, offset }] = await join().ask(subscribe());
    assert.equal(offset, 0);
    for (const n of numbers(1, 8)) await channels.publish("a", "e", n);
    for (const from of [0, 3, 7, 8, 3]) {
      const [init, ...events] = await join().ask(subscribe({ recover: { epoch, offset: from }, uid: 1 }));
      assert.deepEqual(init, { type: "subscription", event: "init", channel: "a", epoch, offset: from, recovered: true, uid: 1 });
      assert.deepEqual(events.map(({ data, offset }) => [data, offset]), numbers(from + 1, 8).map((n) => [n, n]));
    }
  });

  it("sends a snapshot with recovered: false for a position that was trimmed, expired, of another epoch or in the future", async () => {
    const { join, channels, clock } = createChannels({ a: { ...kept, snapshot: () => "all" } });
    const peer = join();
    const [{ epoch }] = await peer.ask(subscribe());
    for (const n of numbers(1, 12)) await channels.publish("a", "e", n);
    const ask = async (recover: unknown) => (await join().ask(subscribe({ recover })))[0];
    const lost = { type: "subscription", event: "init", channel: "a", data: "all", epoch, offset: 12, recovered: false };
    assert.deepEqual(await ask({ epoch, offset: 1 }), lost);
    assert.equal((await ask({ epoch, offset: 2 })).recovered, true);
    assert.deepEqual(await ask({ epoch, offset: 13 }), lost);
    assert.deepEqual(await ask({ epoch: "other", offset: 12 }), lost);
    clock.advance(60_000);
    assert.deepEqual(await ask({ epoch, offset: 11 }), lost);
    // Nothing was missed at the top, however old it is.
    assert.equal((await ask({ epoch, offset: 12 })).recovered, true);
  });

  it("is bounded by maxRecover, and left out where a channel has no history", async () => {
    const { join, channels } = createChannels({
      a: { ...kept, history: { size: 10, ttl: 1_000, maxRecover: 3 } },
      b: { authorize: () => true },
    });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 5)) await channels.publish("a", "e", n);
    assert.equal((await join().ask(subscribe({ recover: { epoch, offset: 1 } })))[0].recovered, false);
    assert.equal((await join().ask(subscribe({ recover: { epoch, offset: 2 } })))[0].recovered, true);
    assert.deepEqual(await join().ask(subscribe({ channel: "b", recover: { epoch, offset: 2 } })), [
      { type: "subscription", event: "init", channel: "b", recovered: false },
    ]);
  });

  it("is authorised like any other subscription, and authorize sees the position", async () => {
    const seen: unknown[] = [];
    let allowed = true;
    const { join } = createChannels({
      a: {
        ...kept,
        authorize: ({ recover }) => {
          seen.push(recover);
          return allowed;
        },
      },
    });
    const [{ epoch }] = await join().ask(subscribe());
    allowed = false;
    assert.equal((await join().ask(subscribe({ recover: { epoch, offset: 0 } })))[0].error.code, "FORBIDDEN");
    assert.deepEqual(seen, [undefined, { epoch, offset: 0 }]);
  });

  it("sends only the event that was subscribed to", async () => {
    const { join, channels } = createChannels({ a: kept });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 6)) await channels.publish("a", n % 2 ? "odd" : "even", n);
    const [, ...events] = await join().ask(subscribe({ event: "even", recover: { epoch, offset: 2 } }));
    assert.deepEqual(events.map(({ data }) => data), [4, 6]);
  });

  it("sends only the event that was subscribed to, from a history of many pages without it", async () => {
    const { join, channels } = createChannels({ a: { ...kept, history: { size: 100, ttl: 60_000 } } }, {
      maxBufferedBytes: 1_000,
    });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 50)) await channels.publish("a", n === 50 ? "last" : "e", n);
    const answers = await join().ask(subscribe({ event: "last", recover: { epoch, offset: 0 } }));
    assert.deepEqual(answers.slice(1).map(({ data }) => data), [50]);
  });

  it("is bounded by maxRecover when it begins, and not by what is published while the client reads", async () => {
    const history = { size: 100, ttl: 60_000, maxRecover: 20 };
    const { join, channels, clock } = createChannels({ a: { ...kept, history } }, {
      maxBufferedBytes: 1_000,
      slowConsumer: "drop",
    });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 20)) await channels.publish("a", "e", n);
    const peer = join();
    peer.transport.send = counting(peer, 1_000);
    peer.send(subscribe({ recover: { epoch, offset: 0 }, uid: 1 }));
    await turn();
    for (const n of numbers(21, 60)) await channels.publish("a", "e", n);
    assert.deepEqual(await readSlowly(peer, clock, 61), ["init true", ...numbers(1, 60)]);
    // A client that falls behind by more than that later receives `recovered: false`.
    peer.transport.sends = false;
    for (const n of numbers(61, 81)) await channels.publish("a", "e", n);
    peer.transport.sends = true;
    clock.advance(250);
    assert.deepEqual(await read(peer), ["init false"]);
  });

  it("joins what is published meanwhile, with an engine that answers late and hands over early or late", async () => {
    for (const isHandedEarly of [true, false]) {
      const engine = new SlowEngine();
      const { join, channels } = createChannels({ a: kept }, { engine });
      const reader = join();
      engine.answer.resolve();
      const [{ epoch }] = await reader.ask(subscribe());
      for (const n of numbers(1, 3)) await channels.publish("a", "e", n);
      engine.answer = new Stall();
      const peer = join();
      peer.send(subscribe({ recover: { epoch, offset: 1 } }));
      await turn();
      await channels.publish("a", "e", 4);
      if (!isHandedEarly) await turn();
      engine.answer.resolve();
      await turn();
      await channels.publish("a", "e", 5);
      assert.deepEqual(await read(peer), ["init true", 2, 3, 4, 5]);
      assert.deepEqual(await read(reader), ["init undefined", 1, 2, 3, 4, 5].slice(1));
    }
  });

  it("sends a publication once that is both read from the history and delivered", async () => {
    const engine = new SlowEngine();
    engine.isLate = true;
    const { join, channels } = createChannels({ a: kept }, { engine });
    const [{ epoch }] = await join().ask(subscribe());
    await channels.publish("a", "e", 1);
    const peer = join();
    peer.send(subscribe({ recover: { epoch, offset: 0 } }));
    await turn();
    await channels.publish("a", "e", 2);
    engine.answer.resolve();
    assert.deepEqual(await read(peer), ["init true", 1, 2]);
    await channels.publish("a", "e", 3);
    assert.deepEqual(await read(peer), [3]);
  });

  it("reads again when a gap shows meanwhile, and answers what else the client asks for", async () => {
    const engine = new SlowEngine();
    const { join, channels } = createChannels({ a: kept }, { engine });
    engine.answer.resolve();
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 3)) await channels.publish("a", "e", n);
    engine.answer = new Stall();
    const peer = join();
    peer.send(subscribe({ recover: { epoch, offset: 1 } }));
    await turn();
    engine.host.gap("a");
    engine.answer.resolve();
    await turn();
    await channels.publish("a", "e", 4);
    assert.deepEqual(await read(peer), ["init true", 2, 3, 4]);
    peer.send(subscribe({ uid: "other", recover: { epoch, offset: 2 } }));
    assert.deepEqual(await read(peer), ["init true", 3, 4]);
  });

  it("asks for the snapshot anew when a gap shows meanwhile", async () => {
    const snapshot = new Stall<unknown>();
    const engine = new SlowEngine();
    let snapshots = 0;
    const { join } = createChannels({ a: { ...kept, snapshot: () => ++snapshots === 1 ? snapshot.promise : snapshots } }, {
      engine,
    });
    const peer = join();
    peer.send(subscribe());
    await turn();
    engine.host.gap("a");
    snapshot.resolve(1);
    assert.equal((await peer.take())[0].data, 2);
  });

  it("waits for the client with what was published during a snapshot too", async () => {
    const snapshot = new Stall<unknown>();
    const { join, channels, clock } = createChannels({ a: { authorize: () => true, snapshot: () => snapshot.promise } }, {
      maxBufferedBytes: 10_000,
    });
    const peer = join();
    peer.transport.send = counting(peer, 10_000);
    peer.send(subscribe());
    await turn();
    const all = numbers(1, 14).map((n) => `${n} ${"x".repeat(500)}`);
    for (const data of all) await channels.publish("a", "e", data);
    snapshot.resolve("all");
    assert.deepEqual(await readSlowly(peer, clock, 15), ["init undefined", ...all]);
  });

  it("reads on when more is published meanwhile than it keeps", async () => {
    const { join, channels, clock } = createChannels({ a: { ...kept, history: { size: 5_000, ttl: 60_000 } } }, {
      maxBufferedBytes: 10_000,
    });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 200)) await channels.publish("a", "e", n);
    const peer = join();
    peer.transport.send = counting(peer, 10_000);
    peer.send(subscribe({ recover: { epoch, offset: 0 } }));
    await turn();
    for (const n of numbers(201, 1_500)) await channels.publish("a", "e", n);
    assert.deepEqual(await readSlowly(peer, clock, 1_501), ["init true", ...numbers(1, 1_500)]);
  });

  it("is not overtaken when a client reads slowly: it is sent as much as it takes", async () => {
    const { join, channels, clock } = createChannels({ a: { ...kept, history: { size: 100, ttl: 60_000 } } }, {
      maxBufferedBytes: 1_000,
    });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 50)) await channels.publish("a", "e", n);
    const peer = join();
    const { transport } = peer;
    transport.send = counting(peer, 1_000);
    peer.send(subscribe({ recover: { epoch, offset: 0 } }));
    const received: unknown[] = [];
    for (let looks = 0; received.length < 53 && looks < 100; looks++) {
      received.push(...await read(peer));
      if (looks === 2) { for (const n of numbers(51, 52)) await channels.publish("a", "e", n); }
      transport.bufferedAmount = 0;
      clock.advance(20);
    }
    assert.deepEqual(received, ["init true", ...numbers(1, 52)]);
    assert.equal(peer.client.readyState, 1);
  });

  it("begins again when more is published during a snapshot than is kept", async () => {
    let snapshots = 0;
    const { join, channels } = createChannels({
      a: {
        ...kept,
        snapshot: async () => {
          if (++snapshots < 3) { for (const n of numbers(1, 1_001)) await channels.publish("a", "e", n); }
          return snapshots;
        },
      },
    });
    const [init, ...rest] = await join().ask(subscribe());
    assert.equal(init.data, 3);
    assert.equal(init.offset, 2_002);
    assert.deepEqual(rest, []);
  });

  it("is refused when more is published during each of three snapshots than is kept", async () => {
    let snapshots = 0;
    const snapshot = async () => {
      snapshots++;
      for (const n of numbers(1, 1_001)) await channels.publish("a", "e", n);
    };
    const { join, channels } = createChannels({ a: { ...kept, snapshot } } as never);
    const [{ error }, ...rest] = await join().ask(subscribe());
    assert.deepEqual([error.code, rest, snapshots], ["SERVICE_UNAVAILABLE", [], 3]);
    assert.equal(channels.stats().channels, 0);
  });

  it("takes no other snapshot for a subscription that has ended meanwhile", async () => {
    const stall = new Stall<unknown>();
    let snapshots = 0;
    const { join, channels } = createChannels({ a: { ...kept, snapshot: () => (snapshots++, stall.promise) } });
    const peer = join();
    await peer.ask(subscribe());
    for (const n of numbers(1, 1_001)) await channels.publish("a", "e", n);
    await peer.ask({ type: "unsubscribe" });
    stall.resolve("all");
    assert.deepEqual([await peer.take(), snapshots], [[], 1]);
  });

  it("sends positions in a pong, except of subscriptions with an event and channels without a history", async () => {
    const { join, channels } = createChannels({ a: kept, b: kept, c: { authorize: () => true } });
    const peer = join();
    assert.deepEqual(await peer.ask({ type: "ping", uid: 1 }), [{ type: "pong", uid: 1 }]);
    const [{ epoch }] = await peer.ask(subscribe(), subscribe({ channel: "b", event: "e" }), subscribe({ channel: "c" }));
    await channels.publish("a", "e", 1);
    await peer.take();
    assert.deepEqual(await peer.ask({ type: "ping" }), [{ type: "pong", channels: { a: { epoch, offset: 1 } } }]);
  });

  it("tells them of channels with the names of what each object has, and has none of the name that JSON readers drop", async () => {
    const { join } = createChannels({ "{id}": kept });
    const peer = join();
    const names = ["constructor", "toString", "__proto__x", "x__proto__"];
    await peer.ask(...names.map((channel, uid) => subscribe({ channel, uid })));
    const [{ channels }] = await peer.ask({ type: "ping" });
    assert.deepEqual(Object.keys(channels), names);
    const [{ error }] = await peer.ask(subscribe({ channel: "__proto__" }));
    assert.equal(error.code, "FORBIDDEN");
    assert.throws(() => createChannels({ ["__proto__"]: kept }), TypeError);
  });
});

/** What is sent waits, and is not more than may. */
function counting({ transport }: TestPeer, maxBufferedBytes: number): TestPeer["transport"]["send"] {
  const send = transport.send.bind(transport);
  return (frame) => {
    transport.bufferedAmount += frame.bytes;
    assert.ok(transport.bufferedAmount <= maxBufferedBytes, "no more than may wait");
    return send(frame);
  };
}

/** What a client is sent that reads all there is every 20 ms. */
async function readSlowly(peer: TestPeer, clock: TestClock, count: number): Promise<unknown[]> {
  const received: unknown[] = [];
  for (let looks = 0; received.length < count && looks < 1_000; looks++) {
    received.push(...await read(peer));
    peer.transport.bufferedAmount = 0;
    clock.advance(20);
  }
  return received;
}

/** An engine in memory that answers a read only when the test lets it. */
class SlowEngine extends MemoryEngine {
  answer = new Stall();
  /** Whether it reads when it answers, and not when it is asked. */
  isLate = false;
  host!: Parameters<MemoryEngine["start"]>[0];

  override start(host: Parameters<MemoryEngine["start"]>[0]): void {
    super.start(this.host = host);
  }

  // @ts-expect-error -- its answer is a promise, as the interface lets it be
  override async read(...args: Parameters<MemoryEngine["read"]>) {
    const page = super.read(...args);
    await this.answer.promise;
    return this.isLate ? super.read(...args) : page;
  }
}

describe("Channels: a history that is read slowly", () => {
  it("sends nothing of it after the unsubscribe", async () => {
    const engine = new SlowEngine();
    engine.answer.resolve();
    const { join, channels, clock } = createChannels({ a: kept }, { engine, maxBufferedBytes: 300, slowConsumer: "drop" });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 5)) await channels.publish("a", "e", n);
    const [beginning, reading, behind] = [join(), join(), join()];
    // Its second page is read when it has read the first.
    reading.transport.send = counting(reading, 300);
    await reading.ask(subscribe({ recover: { epoch, offset: 0 } }));
    await behind.ask(subscribe());
    behind.transport.bufferedAmount = 301;
    await channels.publish("a", "e", 6);
    engine.answer = new Stall();
    await beginning.ask(subscribe({ recover: { epoch, offset: 0 } }));
    for (const { transport } of [reading, behind]) transport.bufferedAmount = 0;
    clock.advance(250);
    for (const peer of [beginning, reading, behind]) await peer.ask({ type: "unsubscribe" });
    engine.answer.resolve();
    for (const peer of [beginning, reading, behind]) assert.deepEqual(await read(peer), []);
    assert.equal(channels.stats("a").subscriptions, 1);
  });

  it("keeps publications for a subscription that has fallen behind", async () => {
    const engine = new SlowEngine();
    const { join, channels, clock } = createChannels({ a: kept }, { engine, slowConsumer: "drop" });
    const peer = join();
    await peer.ask(subscribe({ uid: 1 }));
    peer.transport.sends = false;
    await channels.publish("a", "e", 1);
    peer.transport.sends = true;
    clock.advance(250);
    await turn();
    await channels.publish("a", "e", 2);
    engine.answer.resolve();
    assert.deepEqual(await read(peer), [1, 2]);
    await channels.publish("a", "e", 3);
    assert.deepEqual(await read(peer), [3]);
  });

  it("goes on from where a client is that can be sent nothing for a moment", async () => {
    const { join, channels, clock } = createChannels({ a: kept }, { slowConsumer: "drop" });
    const [{ epoch }] = await join().ask(subscribe());
    for (const n of numbers(1, 5)) await channels.publish("a", "e", n);
    const peer = join();
    const { send } = peer.transport;
    let left = 3;
    peer.transport.send = (frame) => left-- > 0 && send.call(peer.transport, frame);
    await peer.ask(subscribe({ recover: { epoch, offset: 0 } }));
    peer.transport.send = send;
    clock.advance(250);
    await channels.publish("a", "e", 6);
    assert.deepEqual((await read(peer)).filter((data) => typeof data === "number"), numbers(3, 6));
  });

  it("reports a gap to the client, even if the report cannot be sent at first, and restarts nothing else", async () => {
    const { join, channels, clock } = createChannels({ a: { ...kept, snapshot: () => "all", presence: true } }, {
      slowConsumer: "drop",
    });
    const peer = join("ann");
    await peer.ask(subscribe({ presence: true, uid: 1 }));
    peer.transport.sends = false;
    for (const n of numbers(1, 20)) await channels.publish("a", "e", n);
    peer.transport.sends = true;
    const { send } = peer.transport;
    peer.transport.send = (frame) => !frame.text.includes('"init"') && send.call(peer.transport, frame);
    clock.advance(250);
    await peer.take();
    peer.transport.send = send;
    clock.advance(250);
    const sent = (await peer.take()).filter(({ type }) => type !== "server");
    assert.deepEqual(sent.map(({ type, event, recovered, offset }) => [type, event, recovered, offset]), [
      ["subscription", "init", false, 20],
    ]);
    await channels.publish("a", "e", 21);
    assert.deepEqual(await read(peer), [21]);
  });
});

describe("Channels: gaps between nodes", () => {
  it("shares no read with who comes after a publication that is not in it", async () => {
    const engine = new SlowEngine();
    const { join, channels } = createChannels({ a: kept }, { engine });
    const [{ epoch }] = await join().ask(subscribe());
    await channels.publish("a", "e", 1);
    const peers = [join(), join()];
    peers[0]!.send(subscribe({ recover: { epoch, offset: 0 } }));
    await turn();
    await channels.publish("a", "e", 2);
    peers[1]!.send(subscribe({ recover: { epoch, offset: 0 } }));
    await turn();
    engine.answer.resolve();
    for (const peer of peers) assert.deepEqual(await read(peer), ["init true", 1, 2]);
  });

  it("goes on after a gap of a channel without a history", async () => {
    const engine = new SlowEngine();
    const { join, channels } = createChannels({ a: { authorize: () => true, snapshot: () => "all" } }, { engine });
    const peers = [join(), join()];
    for (const [uid, peer] of peers.entries()) await peer.ask(subscribe(uid === 0 ? {} : { uid }));
    engine.host.gap("a");
    await turn();
    await channels.publish("a", "e", 1);
    for (const peer of peers) assert.deepEqual((await read(peer)).at(-1), 1);
  });

  it("continues at the position of the engine after a gap that the history does not fill", async () => {
    const { channels, peers, engine, host } = await createLossy();
    engine.loses = true;
    let last = await channels.publish("a", "e", 4);
    for (const n of numbers(5, 20)) last = await channels.publish("a", "e", n);
    engine.loses = false;
    host().gap("a", last!);
    for (const peer of peers) {
      const [init] = (await peer.take()).filter(({ event }) => event === "init").slice(-1);
      assert.deepEqual([init.recovered, init.offset], [false, last!.offset]);
    }
  });

  it("a gap is filled from the history, for all subscriptions with one read", async () => {
    const { channels, peers, engine, host } = await createLossy();
    engine.loses = true;
    for (const n of numbers(4, 6)) await channels.publish("a", "e", n);
    engine.loses = false;
    engine.reads = 0;
    host().gap("a");
    await turn();
    await channels.publish("a", "e", 7);
    for (const peer of peers) assert.deepEqual(await read(peer), numbers(4, 7));
    assert.equal(engine.reads, 1);
  });

  it("reports a gap that the history does not fill, and a new epoch", async () => {
    const { channels, peers, engine, host } = await createLossy();
    engine.loses = true;
    for (const n of numbers(4, 20)) await channels.publish("a", "e", n);
    engine.loses = false;
    host().gap("a");
    for (const peer of peers) assert.deepEqual(await read(peer), ["init false"]);
    await engine.forget();
    await channels.publish("a", "e", 21);
    for (const peer of peers) assert.deepEqual(await read(peer), ["init false"]);
    await channels.publish("a", "e", 22);
    for (const peer of peers) assert.deepEqual(await read(peer), [22]);
  });

  /** An engine that may lose deliveries, and its histories. */
  class ForgetfulEngine extends LossyEngine {
    reads = 0;

    // @ts-expect-error -- its answer is a promise, as the interface lets it be
    override async read(...args: Parameters<MemoryEngine["read"]>) {
      this.reads++;
      await turn();
      return super.read(...args);
    }

    forget(): void {
      this.close();
      this.status = "ready";
      this.subscribe("a", kept.history);
    }
  }

  async function createLossy() {
    const engine = new ForgetfulEngine();
    const created = createChannels({ a: kept }, { engine });
    const peers = [created.join(), created.join()];
    for (const peer of peers) await peer.ask(subscribe());
    for (const n of numbers(1, 3)) await created.channels.publish("a", "e", n);
    for (const peer of peers) await peer.take();
    return { ...created, engine, peers, host: () => engine.host };
  }
});

describe("Channels: slow consumers", () => {
  it("with drop, what a recoverable subscription has missed is sent once there is room", async () => {
    const { join, channels, clock } = createChannels({ a: kept, b: { authorize: () => true } }, {
      slowConsumer: "drop",
      maxBufferedBytes: 500,
    });
    const peer = join();
    await peer.ask(subscribe(), subscribe({ channel: "b" }));
    await channels.publish("a", "e", 1);
    peer.transport.bufferedAmount = 501;
    for (const n of numbers(2, 4)) await channels.publish("a", "e", n);
    await channels.publish("b", "e", "lost");
    peer.transport.bufferedAmount = 0;
    clock.advance(250);
    const [one, ...rest] = (await peer.take()).map((message) => message.data ?? message.error.count);
    assert.deepEqual(one, 1);
    // The frames that could not be handed over: the first publication, and the one without a history.
    assert.deepEqual(rest, [2, 2, 3, 4]);
    await channels.publish("a", "e", 5);
    await channels.publish("b", "e", "live");
    assert.deepEqual(await read(peer), [5, "live"]);
  });
});

describe("Channels: identity", () => {
  const authenticate: Authenticate = (credentials) =>
    "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null;

  it("another user has none of the subscriptions of the one before", async () => {
    const { join, channels } = createChannels({ a: kept }, { mode: "public", authenticate });
    const peer = join();
    await peer.ask(auth("ann"), subscribe({ uid: 1 }));
    assert.deepEqual((await peer.ask(auth("bob"))).at(-1), {
      type: "subscription",
      event: "unsubscribe",
      channel: "a",
      uid: 1,
      reason: "FORBIDDEN",
    });
    await channels.publish("a", "e", 1);
    assert.deepEqual(await read(peer), []);
    assert.equal(channels.stats().subscriptions, 0);
  });

  it("another user keeps its own when it authenticates again", async () => {
    const { join, channels } = createChannels({ a: kept }, { mode: "public", authenticate });
    const peer = join();
    await peer.ask(auth("ann"), subscribe({ uid: 1 }));
    await peer.ask(auth("bob"), subscribe({ uid: 2 }));
    await peer.ask(auth("bob"));
    await channels.publish("a", "e", 1);
    assert.deepEqual((await peer.take()).map(({ data, uid }) => [data, uid]), [[1, 2]]);
  });

  it("the same user's are authorised again, and those refused end with a reason", async () => {
    let allowed = true;
    const { join, channels } = createChannels({ a: { ...kept, authorize: () => allowed }, b: kept }, {
      mode: "public",
      authenticate,
    });
    const peer = join();
    await peer.ask(auth("ann"), subscribe({ uid: 1 }), subscribe({ channel: "b" }));
    allowed = false;
    const answers = await peer.ask(auth("ann"));
    assert.deepEqual(answers.slice(1), [{
      type: "subscription",
      event: "unsubscribe",
      channel: "a",
      uid: 1,
      reason: "FORBIDDEN",
    }]);
    await channels.publish("a", "e", 1);
    await channels.publish("b", "e", 2);
    assert.deepEqual(await read(peer), [2]);
  });

  it("nothing is sent while rights are asked about, and nothing is lost if they stay", async () => {
    const stall = new Stall<boolean>();
    let asked = 0;
    const { join, channels } = createChannels({ a: { authorize: () => ++asked === 1 || stall.promise } }, {
      mode: "public",
      authenticate,
    });
    const peer = join();
    await peer.ask(auth("ann"), subscribe());
    peer.send(auth("ann"));
    await turn();
    await channels.publish("a", "e", 1);
    assert.deepEqual(await read(peer), []);
    stall.resolve(true);
    assert.deepEqual(await read(peer), [1]);
  });

  it("while the credentials are expired nothing is sent, and after a renewal nothing is missing", async () => {
    const { join, channels, clock, controller } = createChannels({ a: kept, b: { authorize: () => true } }, {
      mode: "public",
      authenticate: (): AuthenticationState => ({
        accountability: { user: "ann", role: null },
        expires_at: Math.floor(clock.now() / 1000) + 60,
      }),
      timeout: 5_000,
    });
    const peer = join();
    await peer.ask(auth("x"), subscribe(), subscribe({ channel: "b" }));
    await channels.publish("a", "e", 1);
    assert.deepEqual(await read(peer), [1]);
    clock.advance(60_000);
    assert.equal((await peer.take())[0].error.code, "TOKEN_EXPIRED");
    await channels.publish("a", "e", 2);
    await channels.publish("b", "e", "lost");
    await channels.publish("a", "e", 3);
    assert.deepEqual(await peer.take(), []);
    peer.send(auth("x"));
    assert.deepEqual(await read(peer), [2, 3]);
    await channels.publish("a", "e", 4);
    await channels.publish("b", "e", "live");
    assert.deepEqual(await read(peer), [4, "live"]);
    assert.equal(controller.stats().clients, 1);
  });

  it("is told that it cannot be sent all once it can be, though it was found out while the credentials were expired", async () => {
    const engine = new SlowEngine();
    const { join, channels, clock } = createChannels({ a: { ...kept, snapshot: () => "all" } }, {
      mode: "public",
      engine,
      authenticate: (): AuthenticationState => ({
        accountability: { user: "ann", role: null },
        expires_at: Math.floor(clock.now() / 1000) + 60,
      }),
    });
    engine.answer.resolve();
    const peer = join();
    await peer.ask(auth("x"), subscribe());
    clock.advance(60_000);
    await peer.take();
    for (const n of numbers(1, 11)) await channels.publish("a", "e", n);
    engine.host.gap("a");
    assert.deepEqual(await peer.take(), []);
    peer.send(auth("x"));
    assert.deepEqual(await read(peer), ["init false"]);
    await channels.publish("a", "e", 12);
    assert.deepEqual(await read(peer), [12]);
  });

  it("is told that it cannot be sent all, though it is let in once more while the snapshot is made", async () => {
    const under: { way?: Stall<unknown> } = {};
    const { join, channels, clock } = createChannels({ a: { ...kept, snapshot: () => under.way?.promise ?? "all" } }, {
      mode: "public",
      authenticate: (): AuthenticationState => ({
        accountability: { user: "ann", role: null },
        expires_at: Math.floor(clock.now() / 1000) + 60,
      }),
    });
    const peer = join();
    await peer.ask(auth("x"), subscribe());
    clock.advance(60_000);
    for (const n of numbers(1, 11)) await channels.publish("a", "e", n);
    const snapshot = under.way = new Stall();
    await peer.ask(auth("x"));
    await channels.publish("a", "e", 12);
    peer.send(auth("x"));
    assert.deepEqual(await read(peer), []);
    snapshot.resolve("all");
    assert.deepEqual(await read(peer), ["init false"]);
    await channels.publish("a", "e", 13);
    assert.deepEqual(await read(peer), [13]);
  });

  it("a subscribe that is under way when its client becomes anonymous is refused", async () => {
    const { join, channels, clock } = createChannels({ a: { ...kept, snapshot: () => new Promise(() => {}) }, b: kept }, {
      mode: "public",
      authenticate: (): AuthenticationState => ({
        accountability: { user: "ann", role: null },
        expires_at: Math.floor(clock.now() / 1000) + 2,
      }),
      timeout: 60_000,
    });
    const peer = join();
    await peer.ask(auth("x"), subscribe({ uid: 1 }), subscribe({ channel: "b", uid: 2 }));
    clock.advance(2_000);
    assert.deepEqual((await peer.take()).map(({ error }) => error.code), ["TOKEN_EXPIRED"]);
    clock.advance(59_999);
    assert.deepEqual(await peer.take(), []);
    clock.advance(1);
    assert.deepEqual(await peer.take(), [
      { type: "subscribe", status: "error", error: { code: "FORBIDDEN", message: "Another user" }, uid: 1 },
      { type: "subscription", event: "unsubscribe", channel: "b", uid: 2, reason: "FORBIDDEN" },
    ]);
    assert.equal(channels.stats().subscriptions, 0);
  });

  it("a subscribe that is under way at expiry is answered after the renewal", async () => {
    const snapshot = new Stall<unknown>();
    const { join, clock } = createChannels({ a: { ...kept, snapshot: () => snapshot.promise } }, {
      mode: "public",
      authenticate: (): AuthenticationState => ({
        accountability: { user: "ann", role: null },
        expires_at: Math.floor(clock.now() / 1000) + 2,
      }),
      timeout: 60_000,
    });
    const peer = join();
    await peer.ask(auth("x"), subscribe());
    clock.advance(2_000);
    snapshot.resolve("all");
    assert.deepEqual((await peer.take()).map(({ type }) => type), ["auth"]);
    assert.deepEqual((await peer.ask(auth("x"))).map(({ type, data }) => [type, data]), [["auth", undefined], [
      "subscription",
      "all",
    ]]);
  });

  it("calls authorize again when the time to live of a grant is over", async () => {
    let allowed = true;
    let asked = 0;
    const { join, channels, clock } = createChannels({
      a: { authorize: () => (asked++, allowed ? { ttl: 1_000 } : false) },
    });
    const peer = join();
    await peer.ask(subscribe());
    clock.advance(1_000);
    await channels.publish("a", "e", 1);
    assert.deepEqual(await read(peer), [1]);
    assert.equal(asked, 2);
    allowed = false;
    clock.advance(1_000);
    assert.deepEqual(await read(peer), ["unsubscribe"]);
    clock.advance(10_000);
    assert.equal(asked, 3);
  });

  it("a refresh that takes rights away ends subscriptions", async () => {
    let role = "editor";
    const { join, controller, channels } = createChannels({
      a: { authorize: ({ client }) => client.accountability.role === "editor" },
    }, {
      mode: "public",
      authenticate: () => ({ accountability: { user: "ann", role } }),
      revalidate: () => ({ accountability: { user: "ann", role } }),
    });
    const peer = join();
    await peer.ask(auth("x"), subscribe());
    role = "reader";
    await controller.refresh({ user: "ann" });
    assert.deepEqual(await read(peer), ["unsubscribe"]);
    assert.equal(channels.stats().channels, 0);
  });

  it("a publication is refused to who became another while it was asked about", async () => {
    const stall = new Stall<boolean>();
    const { join, channels } = createChannels({
      a: { ...kept, authorize: ({ action }) => action === "subscribe" || stall.promise },
    }, {
      mode: "public",
      authenticate,
    });
    const peer = join();
    await peer.ask(auth("ann"), { type: "publish", channel: "a", event: "e", uid: 1 }, auth("bob"));
    stall.resolve(true);
    assert.equal((await peer.take())[0].error.code, "FORBIDDEN");
    assert.deepEqual((await channels.history("a")).publications, []);
  });

  it("a publication is asked about again when rights were taken away meanwhile", async () => {
    const stall = new Stall<boolean>();
    let asked = 0;
    let role = "editor";
    const state = (): AuthenticationState => ({ accountability: { user: "ann", role } });
    const { join, channels, controller } = createChannels({
      a: { ...kept, authorize: ({ client }) => asked++ === 0 ? stall.promise : client.accountability.role === "editor" },
    }, { mode: "public", authenticate: state, revalidate: state });
    const peer = join();
    await peer.ask(auth("x"), { type: "publish", channel: "a", event: "e", uid: 1 });
    role = "reader";
    await controller.refresh({ user: "ann" });
    stall.resolve(true);
    assert.equal((await peer.take())[0].error.code, "FORBIDDEN");
    assert.deepEqual((await channels.history("a")).publications, []);
  });

  it("a publication is asked about once more, and published, when rights have changed meanwhile that still allow it", async () => {
    const stall = new Stall<boolean>();
    const asked: unknown[] = [];
    let role = "editor";
    const state = (): AuthenticationState => ({ accountability: { user: "ann", role } });
    const { join, controller } = createChannels({
      a: { ...kept, authorize: ({ client }) => asked.push(client.accountability.role) > 1 || stall.promise },
    }, { mode: "public", authenticate: state, revalidate: state });
    const peer = join();
    await peer.ask(auth("x"), { type: "publish", channel: "a", event: "e", data: 1, uid: 1 });
    role = "owner";
    await controller.refresh({ user: "ann" });
    stall.resolve(true);
    assert.deepEqual((await peer.take()).map(({ status, offset }) => [status, offset]), [["ok", 1]]);
    assert.deepEqual(asked, ["editor", "owner"]);
  });

  for (const isRenewed of [true, false]) {
    it(`what waits for authorize when the credentials expire is ${isRenewed ? "answered once they are renewed" : "refused, but for a subscribe"}`, async () => {
      const [permission, refusal, revalidation] = [new Stall<boolean>(), new Stall<boolean>(), new Stall<AuthenticationState>()];
      const state = (): AuthenticationState => ({
        accountability: { user: "ann", role: null },
        expires_at: Math.floor(clock.now() / 1_000) + 5,
      });
      const { join, channels, clock } = createChannels({
        a: { ...kept, authorize: () => permission.promise },
        b: { ...kept, authorize: () => refusal.promise },
      }, {
        mode: "public",
        authenticate: state,
        ...(isRenewed ? { revalidate: () => revalidation.promise } : {}),
        timeout: 60_000,
      });
      const peer = join();
      const publish = (channel: string, uid: number) => ({ type: "publish", channel, event: "e", data: uid, uid });
      const answers = async (uid: number) =>
        (await peer.take()).filter((each) => each.uid === uid).map(({ error, event, status }) => error?.code ?? event ?? status);
      await peer.ask(auth("x"), subscribe({ uid: 1 }), publish("a", 2), publish("b", 3));
      clock.advance(5_000);
      await peer.take();
      permission.resolve(true);
      assert.deepEqual(await answers(2), isRenewed ? [] : ["TOKEN_EXPIRED"]);
      refusal.resolve(false);
      assert.deepEqual(await answers(3), isRenewed ? [] : ["TOKEN_EXPIRED"]);
      if (isRenewed) revalidation.resolve(state());
      else peer.send(auth("x"));
      const last = (await peer.take()).filter(({ uid }) => uid !== undefined).map(({ uid, error, event, status }) =>
        `${uid} ${error?.code ?? event ?? status}`
      );
      assert.deepEqual(last.sort(), isRenewed ? ["1 e", "1 init", "2 ok", "3 FORBIDDEN"] : ["1 init"]);
      assert.equal((await channels.history("a")).offset, isRenewed ? 1 : 0);
    });
  }

  it("a permission without an end is not asked about again when the time of the one before is over", async () => {
    let asked = 0;
    const { join, clock } = createChannels({ a: { authorize: () => ++asked > 1 || { ttl: 1_000 } } }, {
      mode: "public",
      authenticate,
    });
    const peer = join();
    await peer.ask(auth("ann"), subscribe());
    clock.advance(500);
    await peer.ask(auth("ann"));
    clock.advance(60_000);
    await peer.take();
    assert.equal(asked, 2);
  });

  it("what authorize throws as a WebSocketError is the reason", async () => {
    const state: { error?: WebSocketError } = {};
    const { join, clock } = createChannels({
      a: {
        authorize: () => {
          if (state.error) throw state.error;
          return { ttl: 10 };
        },
      },
    });
    const peer = join();
    await peer.ask(subscribe());
    state.error = new WebSocketError("subscribe", "ROOM_CLOSED", "It is closed");
    clock.advance(10);
    assert.equal((await peer.take())[0].reason, "ROOM_CLOSED");
  });
});
