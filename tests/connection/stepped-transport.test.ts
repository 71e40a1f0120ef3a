import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { Frame } from "../../src/protocol/frame.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { SteppedTransport } from "../../src/connection/stepped-transport.ts";
import { Topics as TestTopics } from "../support/channels-fixture.ts";
import { FakeTransport, HANDSHAKE, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall } from "../support/waiting.ts";

class WatchedTransport extends FakeTransport {
  #sent = () => {};

  override send(frame: Frame): boolean {
    const isSent = super.send(frame);
    this.#sent();
    return isSent;
  }

  /** Resolves when so many frames were sent. */
  async until(count: number): Promise<void> {
    while (this.sent.length < count) await new Promise<void>((resolve) => this.#sent = resolve);
  }
}

/** A socket with protocol pings, which the test answers. */
class PingingTransport extends WatchedTransport {
  readonly pings: (number | undefined)[] = [];
  ponged?: (number: number | undefined) => void;
  #asked = () => {};

  ping(number?: number): void {
    this.pings.push(number);
    this.#asked();
  }

  /** Answers the last ping, and resolves when the next one is sent. */
  answer(): Promise<void> {
    const asked = new Promise<void>((resolve) => this.#asked = resolve);
    this.ponged?.(this.pings.at(-1));
    return asked;
  }
}

/** One that can be published to by a topic, and whose client answers each ping. */
class AnsweringTransport extends PingingTransport {
  readonly publisher: Topics;

  constructor(publisher: Topics) {
    super();
    this.publisher = publisher;
  }

  override ping(number?: number): void {
    queueMicrotask(() => this.ponged?.(number));
  }

  join(topic: string): void {
    this.publisher.names.add(topic);
    this.publisher.of(topic).add(this);
  }

  leave(topic: string): void {
    this.publisher.of(topic).delete(this);
  }
}

/** A server's topics. */
class Topics extends TestTopics {
  readonly names = new Set<string>();
}

const frame = (n: number): Frame => Frame.of({ type: "n", n });

const failed = (error: unknown): never => {
  throw error;
};

/** A stepped transport in virtual time. */
function step(inner: PingingTransport | RecordingTransport = new PingingTransport(), asks = false) {
  const clock = new TestClock();
  const transport = new SteppedTransport(inner, asks, failed, clock);
  return {
    clock,
    inner,
    transport,
    send: (...numbers: number[]) => numbers.map((n) => transport.send(frame(n))),
    /** The pong of the last ping. */
    pong: () => inner.ponged?.(inner.pings.at(-1)),
    /** What was sent since it was last asked: numbers, and `ping` messages. */
    sent: () => inner.take().map(({ type, n }) => n ?? type),
  };
}

/** A socket without protocol pings, and the calls to it. */
class RecordingTransport extends FakeTransport {
  readonly calls: unknown[] = [];
  readonly pings: (number | undefined)[] = [];
  ponged?: (number: number | undefined) => void;

  override send(frame: Frame): boolean {
    this.calls.push(frame.isJson ? JSON.parse(frame.text).type : "text");
    return super.send(frame);
  }

  write(): void {
    this.calls.push("write");
  }
}

describe("SteppedTransport", () => {
  it("sends the next frame when the ping behind the last is answered, in the order of the calls", () => {
    const { inner, send, sent, pong, clock } = step();
    assert.deepEqual(send(1, 2, 3), [true, true, true]);
    for (let n = 1; n <= 3; n++) {
      assert.deepEqual([sent(), inner.pings.length], [[n], n]);
      pong();
      clock.advance(8);
    }
    // Whatever it was sent was read.
    send(4);
    assert.deepEqual(sent(), [4]);
  });

  it("waits three times as long as the answer took, from 8 to 60 ms", () => {
    for (const [took, wait] of [[0, 8], [2, 8], [10, 30], [100, 60]] as const) {
      const { send, sent, pong, clock } = step();
      clock.advance(1_000);
      send(1, 2);
      clock.advance(took);
      pong();
      clock.advance(wait - 1);
      assert.deepEqual(sent(), [1]);
      clock.advance(1);
      assert.deepEqual(sent(), [2]);
    }
  });

  it("accepts only the first pong of its last ping as an answer", () => {
    const { inner, transport, send, sent, clock } = step();
    send(1, 2, 3, 4);
    for (const number of [undefined, 255, inner.pings[0]! + 1]) inner.ponged!(number);
    transport.ping!();
    inner.ponged!(undefined);
    clock.advance(1_000);
    assert.deepEqual(sent(), [1]);
    for (let n = 0; n < 2; n++) inner.ponged!(inner.pings[0]);
    clock.advance(1_000);
    assert.deepEqual(sent(), [2]);
  });

  it("holds the first frame, too, when a client that answers pings may not have read what came before", () => {
    const { inner, transport, send, sent, pong, clock } = step();
    transport.begin();
    send(1);
    assert.deepEqual([sent(), inner.pings.length], [[], 1]);
    pong();
    clock.advance(60);
    assert.deepEqual(sent(), [1]);
    const other = step(new RecordingTransport());
    other.transport.begin();
    other.send(1);
    assert.deepEqual(other.sent(), [1]);
  });

  it("counts waiting frames as buffered and unread until they are sent", () => {
    const { inner, transport, send, pong, clock } = step();
    send(1, 2, 3);
    const { bytes } = frame(2);
    for (const waiting of [2, 1, 0]) {
      assert.deepEqual([transport.bufferedAmount, transport.unreadBytes], [waiting * bytes, waiting * bytes]);
      pong();
      clock.advance(60);
    }
    Object.assign(inner, { bufferedAmount: 10, unreadBytes: 100 });
    send(4, 5);
    assert.deepEqual([transport.bufferedAmount, transport.unreadBytes], [10 + bytes, 100 + bytes]);
  });

  it("sends all that is left before a close, and leaves no timer, whatever arrives then", () => {
    for (const [asks, isAnswered] of [[true, false], [false, false], [false, true]]) {
      const { inner, transport, send, sent, pong, clock } = step(asks ? new RecordingTransport() : new PingingTransport(), asks);
      send(1, 2, 3);
      if (isAnswered) pong();
      transport.close(1000, "bye");
      assert.deepEqual([sent(), inner.closes], [[1, 2, 3], [{ code: 1000, reason: "bye" }]]);
      assert.deepEqual([transport.bufferedAmount, clock.timers], [0, 0]);
      for (const answer of [pong, () => transport.answered(undefined)]) {
        answer();
        assert.deepEqual([sent(), clock.timers], [[], 0]);
      }
    }
  });

  it("discards waiting frames when it is terminated", () => {
    const { inner, transport, send, sent, pong, clock } = step();
    send(1, 2, 3);
    pong();
    transport.terminate();
    assert.deepEqual([sent(), inner.terminations, transport.bufferedAmount, clock.timers], [[1], 1, 0, 0]);
  });

  it("sends nothing more to a socket that is gone, and reports what it throws", () => {
    for (const error of [undefined, new Error("gone")]) {
      for (const inner of [new PingingTransport(), new RecordingTransport()]) {
        const reported: unknown[] = [];
        const clock = new TestClock();
        const transport = new SteppedTransport(inner, true, (thrown) => reported.push(thrown), clock);
        for (const n of [1, 2, 3]) transport.send(frame(n));
        if (error) inner.sends = error;
        else inner.readyState = 2;
        inner.ponged!(inner.pings.at(-1));
        clock.advance(60);
        assert.deepEqual([reported, inner.take().length, transport.bufferedAmount], [error ? [error] : [], 1, 0]);
        assert.deepEqual([clock.timers, inner.pings.length], [0, inner instanceof PingingTransport ? 1 : 0]);
      }
    }
  });

  it("writes the frames sent so far before each ping, and the ping", () => {
    const pinging = Object.assign(new RecordingTransport(), { ping: () => void pinging.calls.push("protocol ping") });
    step(pinging).send(1);
    assert.deepEqual(pinging.calls, ["n", "write", "protocol ping"]);
    const asking = new RecordingTransport();
    const { send, clock } = step(asking, true);
    send(1);
    clock.advance(8);
    assert.deepEqual(asking.calls, ["n", "write", "ping", "write"]);
  });

  it("asks by a message 8 ms after each frame where the runtime sends no pings, and goes on by itself after 500 ms", () => {
    const { transport, send, sent, clock } = step(new RecordingTransport(), true);
    send(1, 2, 3, 4);
    transport.answered(undefined); // Nothing was asked.
    clock.advance(7);
    assert.deepEqual(sent(), [1]);
    clock.advance(1);
    transport.answered("a"); // That of a heartbeat.
    assert.deepEqual(sent(), ["ping"]);
    transport.answered(undefined);
    assert.deepEqual(sent(), [2]);
    clock.advance(8 + 499);
    assert.deepEqual(sent(), ["ping"]);
    clock.advance(1);
    assert.deepEqual(sent(), [3]);
    clock.advance(8);
    transport.answered(undefined);
    assert.deepEqual(sent(), ["ping", 4]);
    clock.advance(8);
    transport.answered(undefined);
    // The time of an answered ping is over.
    clock.advance(480);
    send(5, 6);
    clock.advance(30);
    assert.deepEqual(sent(), ["ping", 5, "ping"]);
  });

  it("asks no more after three messages in a row without an answer, and sends a frame each 50 ms", () => {
    const { transport, send, sent, clock } = step(new RecordingTransport(), true);
    send(1, 2, 3, 4, 5, 6, 7, 8);
    clock.advance(2 * 508 + 8);
    transport.answered(undefined);
    assert.deepEqual(sent(), [1, "ping", 2, "ping", 3, "ping", 4]);
    clock.advance(3 * 508);
    assert.deepEqual(sent(), ["ping", 5, "ping", 6, "ping", 7]);
    clock.advance(49);
    assert.deepEqual(sent(), []);
    clock.advance(1);
    assert.deepEqual(sent(), [8]);
  });

  it("sends a frame each 50 ms once a ping has no pong within 10 s", () => {
    for (const [act, isLate] of [["heard", true], ["heard", false], ["send", true]] as const) {
      const { inner, transport, send, sent, pong, clock } = step();
      const goOn = () => act === "heard" ? transport.heard() : send(9);
      // Nothing is awaited: it is asked again, however long that was.
      send(0);
      pong();
      clock.advance(20_000);
      transport.heard();
      assert.deepEqual(sent(), [0]);
      send(1, 2, 3, 4);
      clock.advance(9_999);
      goOn();
      assert.deepEqual([sent(), inner.pings.length], [[1], 2]);
      clock.advance(1);
      if (isLate) pong(); // Its time is over, too.
      goOn();
      assert.deepEqual(sent(), [2]);
      pong();
      clock.advance(49);
      assert.deepEqual(sent(), []);
      clock.advance(1);
      assert.deepEqual(sent(), [3]);
      clock.advance(49);
      assert.deepEqual([sent(), inner.pings.length], [[], 2]);
    }
  });

  it("passes other calls to the transport behind it, and lacks the methods that that lacks", () => {
    const calls: unknown[] = [];
    const bare = new SteppedTransport(new FakeTransport(), false, failed);
    assert.deepEqual([bare.save, bare.ping, bare.pause, bare.isOverHttp, bare.isPaused], [
      undefined,
      undefined,
      undefined,
      false,
      false,
    ]);
    const names = ["save", "ping", "pause", "resume", "ask", "leave", "heard", "limit", "answered", "write"] as const;
    const inner = Object.assign(new FakeTransport(), { isOverHttp: true, isPaused: true });
    for (const name of names) Object.assign(inner, { [name]: (...args: unknown[]) => void calls.push([name, ...args]) });
    const full = new SteppedTransport(inner, false, failed) as unknown as Record<string, (...args: unknown[]) => void>;
    const given: Record<string, unknown[]> = {
      save: [{ uid: "a" }],
      leave: ["topic"],
      limit: [1_000, Date.now, true],
      answered: ["a"],
    };
    for (const name of names) full[name]!(...given[name] ?? []);
    assert.deepEqual(calls, names.map((name) => [name, ...given[name] ?? []]));
    assert.deepEqual([full["isOverHttp"], full["isPaused"], full["socket"]], [true, true, inner.socket]);
  });

  it("takes 100,000 frames and sends them without copying the rest for each", () => {
    const { inner, transport } = step();
    const one = frame(1);
    for (let n = 0; n < 100_000; n++) transport.send(one);
    assert.equal(transport.bufferedAmount, 99_999 * one.bytes);
    transport.close(1000, "");
    assert.equal(inner.sent.length, 100_000);
    assert.equal(transport.bufferedAmount, 0);
  });
});

describe("The option stopAndWait", () => {
  const connect = (options: WebSocketControllerOptions, handshake = {}) => {
    const controller = new WebSocketController({ mode: "public", heartbeat: false, logger: false, ...options });
    new Channels(controller, { articles: { authorize: () => true } });
    const transport = new PingingTransport();
    const connection = controller.open(transport, { ...HANDSHAKE, ...handshake }, null);
    return { connection, transport, client: connection.client };
  };
  const subscribe = async ({ connection, transport }: ReturnType<typeof connect>, named: object) => {
    connection.message(JSON.stringify({ type: "subscribe", uid: "a", ...named }));
    void transport.answer();
    await transport.until(1);
  };

  it("is for clients that subscribe to a collection, without an Origin and without noroshi.v1", async () => {
    const cases: [isStepped: boolean, options: WebSocketControllerOptions, handshake: object, named: object][] = [
      [true, {}, {}, { collection: "articles" }],
      [true, {}, { protocol: "other" }, { collection: "articles", channel: "articles" }],
      [false, {}, {}, { channel: "articles" }],
      [false, {}, { origin: "http://localhost" }, { collection: "articles" }],
      [false, {}, { protocol: "noroshi.v1" }, { collection: "articles" }],
      [false, { stopAndWait: false }, {}, { collection: "articles" }],
      [true, { stopAndWait: "all" }, {}, { channel: "articles" }],
      [true, { stopAndWait: "all" }, { origin: "http://localhost" }, { channel: "articles" }],
      [false, { stopAndWait: "all" }, { protocol: "noroshi.v1" }, { collection: "articles" }],
    ];
    for (const [isStepped, options, handshake, named] of cases) {
      const opened = connect(options, handshake);
      await subscribe(opened, named);
      assert.equal(opened.transport.pings.length > 0, isStepped, JSON.stringify([options, handshake, named]));
    }
  });

  it("takes a client out of the topics of its runtime, which would overtake what waits", async () => {
    const topics = new Topics();
    const controller = new WebSocketController({ mode: "public", heartbeat: false, logger: false });
    const channels = new Channels(controller, { articles: { authorize: () => true } });
    const [stepped, other] = [new AnsweringTransport(topics), new AnsweringTransport(topics)];
    const connection = controller.open(stepped, HANDSHAKE, null);
    for (const one of [connection, controller.open(other, HANDSHAKE, null)]) {
      one.message('{"type":"subscribe","channel":"articles"}');
    }
    await stepped.until(1);
    await channels.publish("articles", "create", 0);
    void controller.broadcast({ type: "news", n: 1 });
    await stepped.until(3);
    assert.ok([...topics.names].every((name) => topics.of(name).has(stepped)) && topics.publications > 0);

    connection.message('{"type":"subscribe","collection":"articles","uid":"a"}');
    await stepped.until(4);
    assert.ok([...topics.names].every((name) => !topics.of(name).has(stepped)));
    for (let n = 2; n < 10; n += 2) {
      void channels.publish("articles", "create", n);
      void controller.broadcast({ type: "news", n: n + 1 });
    }
    await stepped.until(4 + 3 * 4);
    const told = stepped.take().map(({ type, event, data, n, uid }) =>
      n ?? (event === "init" ? event : `${type} ${data} ${uid}`)
    );
    const publication = (n: number) => [`subscription ${n} undefined`, `subscription ${n} a`];
    assert.deepEqual(told.slice(0, 4), ["init", "subscription 0 undefined", 1, "init"]);
    assert.deepEqual(told.slice(4), [2, 4, 6, 8].flatMap((n) => [...publication(n), n + 1]));
  });

  it("asks by messages only if the option heartbeat allows them", async () => {
    for (const [heartbeat, second] of [[false, "more"], [{}, "more"], [{ message: true }, "ping"]] as const) {
      const { controller } = observe({ stopAndWait: "all", heartbeat });
      const sentTwice = new Stall();
      class CountingTransport extends FakeTransport {
        override send(frame: Frame): boolean {
          const isSent = super.send(frame);
          if (this.sent.length === 2) sentTwice.resolve();
          return isSent;
        }
      }
      const { client, transport } = openOn(new CountingTransport(), controller);
      for (const type of ["news", "more"]) client.send({ type });
      await sentTwice.promise;
      assert.deepEqual(transport.take().map(({ type }) => type), ["news", second]);
      client.close();
    }
  });

  it("first waits until the client has read earlier frames if it starts on an open connection", () => {
    for (const [stopAndWait, isHeld] of [["collection", true], ["all", false]] as const) {
      const { controller } = observe({ stopAndWait, heartbeat: false });
      const { client, connection, transport } = openOn(new PingingTransport(), controller);
      connection.step();
      client.send({ type: "news" });
      assert.deepEqual([transport.sent.length, transport.pings.length], [isHeld ? 0 : 1, 1]);
    }
  });

  it("steps a connection once, and leaves one whose credentials have expired out of broadcasts", async () => {
    const { controller, clock } = observe({ authenticate: () => null, heartbeat: false });
    const identity = { accountability: { user: "ann", role: null }, expires_at: clock.now() / 1000 + 60 };
    const [ann, other] = [identity, null].map((identity) => openOn(new PingingTransport(), controller, { identity }).connection);
    assert.deepEqual([other!.step(), other!.step()], [true, false]);
    clock.advance(60_000);
    assert.equal(ann!.step(), true);
    assert.equal((await controller.broadcast("x")).matched, 1);
  });

  it("lets a client hold no more than maxBufferedBytes", async () => {
    const opened = connect({ maxBufferedBytes: 1_000 });
    const { client, transport } = opened;
    await subscribe(opened, { collection: "articles" });
    for (let n = 0; n < 100 && client.readyState === 1; n++) client.send({ type: "news", text: "x".repeat(100) });
    assert.deepEqual(transport.closes, [{ code: 4508, reason: "Too slow" }]);
  });
});
