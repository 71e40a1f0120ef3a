import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { Frame } from "../../src/protocol/frame.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { SteppedTransport } from "../../src/connection/stepped-transport.ts";
import { Topics as TestTopics } from "../support/channels-fixture.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";

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

function step() {
  const inner = new PingingTransport();
  return { inner, transport: new SteppedTransport(inner, false, failed) };
}

describe("SteppedTransport", () => {
  it("sends the next frame when the ping behind the last is answered, in the order of the calls", async () => {
    const { inner, transport } = step();
    for (const n of [1, 2, 3]) assert.equal(transport.send(frame(n)), true);
    const read: unknown[] = [];
    for (let n = 1; n <= 3; n++) {
      read.push(...inner.take().map((message) => message.n));
      assert.deepEqual(read, [1, 2, 3].slice(0, n));
      assert.equal(inner.pings.length, n);
      if (n < 3) await inner.answer();
    }
  });

  it("accepts only the pong of its last ping as an answer", async () => {
    const [{ inner, transport }, answered] = [step(), step()];
    for (const each of [transport, answered.transport]) for (const n of [1, 2]) each.send(frame(n));
    for (const number of [undefined, 255, inner.pings[0]! + 1]) inner.ponged!(number);
    transport.ping!();
    inner.ponged!(undefined);
    // Another one, answered later, sends its next frame after the same pause.
    await answered.inner.answer();
    assert.deepEqual([inner.take().length, answered.inner.take().length], [1, 2]);
  });

  it("counts what waits as buffered, until it is sent", async () => {
    const { inner, transport } = step();
    for (const n of [1, 2, 3]) transport.send(frame(n));
    const { bytes } = frame(2);
    assert.equal(transport.bufferedAmount, 2 * bytes);
    await inner.answer();
    assert.equal(transport.bufferedAmount, bytes);
    await inner.answer();
    assert.equal(transport.bufferedAmount, 0);
  });

  it("sends all that is left before a close", () => {
    const { inner, transport } = step();
    for (const n of [1, 2, 3]) transport.send(frame(n));
    transport.close(1000, "");
    assert.deepEqual(inner.take().map(({ n }) => n), [1, 2, 3]);
    assert.equal(inner.closes.length, 1);
  });

  it("sends nothing more to a socket that is gone, and reports what it throws", async () => {
    const inner = new PingingTransport();
    const reported: unknown[] = [];
    const error = new Error("gone");
    const told = new Promise<void>((resolve) => {
      const transport = new SteppedTransport(inner, false, (thrown) => (reported.push(thrown), resolve()));
      for (const n of [1, 2, 3]) transport.send(frame(n));
      inner.sends = error;
      void inner.answer();
    });
    await told;
    assert.deepEqual(reported, [error]);
    assert.equal(inner.take().length, 1);
  });

  it("waits for pong messages where the runtime sends no pings and may ask, and goes on by itself where none comes", async () => {
    const inner = new WatchedTransport();
    const transport = new SteppedTransport(inner, true, failed);
    const sent = () => inner.sent.map((text) => JSON.parse(text).n ?? "ping");
    for (const n of [1, 2, 3]) transport.send(frame(n));
    await inner.until(2);
    transport.answered(undefined);
    assert.deepEqual(sent(), [1, "ping", 2]);
    transport.answered(undefined); // Nothing was asked.
    await inner.until(5); // It lasts half a second.
    assert.deepEqual(sent(), [1, "ping", 2, "ping", 3]);
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

  it("lets a client hold no more than maxBufferedBytes", async () => {
    const opened = connect({ maxBufferedBytes: 1_000 });
    const { client, transport } = opened;
    await subscribe(opened, { collection: "articles" });
    for (let n = 0; n < 100 && client.readyState === 1; n++) client.send({ type: "news", text: "x".repeat(100) });
    assert.deepEqual(transport.closes, [{ code: 4508, reason: "Too slow" }]);
  });
});
