/** How far a stream is ahead of its client: by credit, and by what the transport holds. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { Frame } from "../../src/protocol/frame.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

/** A socket whose peer reads when the test says so. */
class SlowTransport extends FakeTransport {
  isReading = false;

  override send(frame: Frame): boolean {
    if (!this.isReading) this.bufferedAmount += frame.bytes;
    return super.send(frame);
  }

  read(bytes = Infinity): void {
    this.bufferedAmount = Math.max(0, this.bufferedAmount - bytes);
  }
}

/** A controller whose handler `ask` yields texts of a size for ever. */
function create({ protocol = null, ...options }: WebSocketControllerOptions & { protocol?: string | null } = {}) {
  const observed = observe(options);
  const transport = new SlowTransport();
  const connection = observed.controller.open(transport, { ...HANDSHAKE, protocol }, null);
  const counts = { yielded: 0, finished: 0 };
  observed.controller.handle("ask", v.object({ size: v.optional(v.number(), 1) }), async function* ({ message: { size } }) {
    try {
      for (;;) {
        counts.yielded++;
        yield "x".repeat(size);
      }
    } finally {
      counts.finished++;
    }
  });
  return {
    ...observed,
    connection,
    transport,
    counts,
    take: () => transport.take(),
    send: (message: object) => connection.message(JSON.stringify(message)),
  };
}

const V1 = { protocol: "noroshi.v1" };

describe("A stream of a client of noroshi.v1", () => {
  it("is at most 64 items ahead of the credit that came back, and asks for it with every 32nd item", async () => {
    const { transport, send, take, counts } = create(V1);
    transport.isReading = true;
    send({ type: "ask", uid: 1 });
    await turn();
    const first = take();
    assert.deepEqual(first.flatMap(({ credit }, at) => credit === undefined ? [] : [[at, credit]]), [[31, 32], [63, 64]]);
    assert.deepEqual([first.length, counts.yielded], [64, 64]);
    for (const [credit, more] of [[32, 32], [32, 0], [33, 0], [1_000, 0], [64, 32], [128, 64], [96, 0]] as const) {
      send({ type: "stream.credit", uid: 1, credit });
      await turn();
      assert.equal(take().length, more, `credit ${credit}`);
    }
  });

  it("is fewer items ahead when they are large, and one at least", async () => {
    const { transport, send, take } = create({ ...V1, maxBufferedBytes: 40_000 });
    transport.isReading = true;
    for (const [uid, size, ahead, credits] of [[1, 4_000, 3, [2]], [2, 50_000, 1, [1]]] as const) {
      send({ type: "ask", uid, size });
      await turn();
      const items = take();
      assert.deepEqual([items.length, items.flatMap(({ credit }) => credit ?? [])], [ahead, credits]);
      send({ type: "stream.credit", uid, credit: credits[0] });
      await turn();
      assert.equal(take().length, credits[0]);
    }
  });

  it("is sent by what the transport holds when the request has no uid", async () => {
    const { transport, send, take } = create({ ...V1, maxBufferedBytes: 40_000 });
    send({ type: "ask", size: 1_000 });
    await turn();
    const items = take();
    assert.ok(items.length === 10 && items.every(({ credit }) => credit === undefined), `${items.length}`);
    assert.ok(transport.bufferedAmount < 12_000);
  });

  it("does not count a credit against the rate limit, unless the server did not ask for it", async () => {
    const { transport, send, take } = create({ ...V1, rateLimit: { messages: 0.001, burst: 3 } });
    transport.isReading = true;
    send({ type: "ask", uid: 1 });
    await turn();
    for (let credit = 32; credit <= 640; credit += 32) {
      send({ type: "stream.credit", uid: 1, credit });
      await turn();
      // 64 at first, and 32 each time.
      assert.equal(take().length, credit === 32 ? 96 : 32);
    }
    for (let n = 0; n < 3; n++) send({ type: "stream.credit", uid: 1, credit: 7 });
    assert.deepEqual(take().map(({ error }) => error.code), ["REQUESTS_EXCEEDED"]);
  });

  it("goes on by its credit, and ends by its cancellation, while the rate limit refuses other messages", async () => {
    const { controller, connection, transport, send, take, counts } = create({ ...V1, rateLimit: { messages: 0.001, burst: 3 } });
    transport.isReading = true;
    for (const uid of [1, 2]) send({ type: "ask", uid });
    for (const uid of [3, 4]) send({ type: "ping", uid });
    await turn();
    assert.ok(take().some(({ error }) => error?.code === "REQUESTS_EXCEEDED"));
    for (let credit = 32; credit <= 320; credit += 32) {
      send({ type: "stream.credit", uid: 1, credit });
      await turn();
      assert.equal(take().length, 32, `credit ${credit}`);
    }
    const { limited } = controller.stats();
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual([take().map(({ error }) => error.code), counts.finished], [["CANCELLED"], 1]);
    assert.equal(controller.stats().limited, limited);
    // Beyond the rate nothing else is handled: no other type that follows in the text, and no invalid credit.
    connection.message('{"type":"stream.credit","uid":2,"type":"x","credit":32}');
    send({ type: "stream.credit", uid: 2, credit: "x" });
    await turn();
    assert.deepEqual([take().filter(({ error }) => error?.code !== "REQUESTS_EXCEEDED"), counts.finished], [[], 1]);
    // What the server did not ask for counts, however often it comes.
    for (let n = 0; n < 50; n++) {
      for (const uid of [1, 2]) send({ type: "stream.credit", uid, credit: 7 });
      send({ type: "stream.cancel", uid: 1 });
    }
    await turn();
    assert.deepEqual([transport.closes.map(({ code }) => code), controller.stats().limited], [[4529], 101]);
  });
});

describe("A stream of another client", () => {
  it("is sent a quarter of maxBufferedBytes ahead, and goes on when that has left", async () => {
    const { transport, clock, send, take, counts } = create({ maxBufferedBytes: 40_000 });
    send({ type: "ask", uid: 1, size: 1_000 });
    await turn();
    assert.equal(take().length, 10);
    assert.ok(counts.yielded <= 11, `${counts.yielded} items were read`);
    transport.read();
    clock.advance(500);
    await turn();
    assert.ok(take().length >= 10);
  });

  it("leaves the event loop to others, though its generator never awaits and its client reads everything", async () => {
    const { transport, send, take, counts } = create();
    transport.isReading = true;
    send({ type: "ask", uid: 1 });
    for (let n = 0; n < 3; n++) {
      await turn();
      assert.ok(take().length < 3_000);
      send({ type: "ping", uid: n });
      assert.deepEqual(take().at(-1), { type: "pong", uid: n });
    }
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.equal(counts.finished, 1);
  });
});

describe("A client that stops reading", () => {
  for (const protocol of ["noroshi.v1", null]) {
    it(`loses the stream after streamTimeout, with SLOW_CONSUMER, and not the connection (${protocol})`, async () => {
      const { controller, transport, clock, send, take, counts } = create({
        protocol,
        streamTimeout: 5_000,
        heartbeat: false,
      });
      transport.isReading = protocol !== null; // It reads its socket, and does not process.
      send({ type: "ask", uid: 1, size: 10_000 });
      await turn();
      await turn(); // Only what is left after a turn waits for the client.
      take();
      clock.advance(4_900);
      await turn();
      assert.deepEqual(take(), []);
      clock.advance(1_000);
      await turn();
      const [end, ...more] = take();
      assert.deepEqual([end.status, end.error.code, more], ["error", "SLOW_CONSUMER", []]);
      assert.deepEqual([counts.finished, transport.closes, controller.stats().streams], [1, [], 0]);
      assert.equal(clock.timers, 0);
    });
  }

  it("keeps the stream while the transport moves, however slowly", async () => {
    const { transport, clock, send, take } = create({ streamTimeout: 5_000, heartbeat: false });
    send({ type: "ask", uid: 1, size: 500_000 });
    await turn();
    take();
    for (let n = 0; n < 20; n++) {
      transport.read(1_000);
      clock.advance(4_000);
      await turn();
      assert.deepEqual(take(), []);
    }
    transport.read();
    clock.advance(500);
    await turn();
    assert.equal(take()[0].status, "next");
  });
});

describe("The streams of one client", () => {
  it("take turns when there is room for few items", async () => {
    const { transport, clock, send, take } = create({ maxBufferedBytes: 4_000 });
    for (const uid of [1, 2, 3]) send({ type: "ask", uid, size: 2_000 });
    await turn();
    const order: unknown[] = [];
    for (let n = 0; n < 9; n++) {
      order.push(...take().map(({ uid }) => uid));
      transport.read();
      clock.advance(500);
      await turn();
    }
    const counted = [1, 2, 3].map((uid) => order.filter((each) => each === uid).length);
    assert.ok(Math.max(...counted) - Math.min(...counted) <= 1, `${order}`);
    assert.ok(order.length >= 9, `${order}`);
  });

  it("go on beside one whose client does not process its items", async () => {
    const { transport, send, take } = create({ ...V1, maxBufferedBytes: 40_000 });
    transport.isReading = true;
    for (const uid of [1, 2]) send({ type: "ask", uid, size: 50_000 });
    await turn();
    take();
    for (let credit = 1; credit < 5; credit++) {
      send({ type: "stream.credit", uid: 2, credit });
      await turn();
      assert.deepEqual(take().map(({ uid }) => uid), [2]);
    }
  });
});

describe("A stream whose client's credentials have expired", () => {
  it("waits, and goes on once they are renewed", async () => {
    const state = (seconds: number) => ({
      accountability: { user: "ann", role: null },
      expires_at: observed.clock.now() / 1000 + seconds,
    });
    const observed = observe({ authenticate: () => state(3_600), heartbeat: false });
    const transport = new SlowTransport();
    transport.isReading = true;
    const connection = observed.controller.open(transport, { ...HANDSHAKE, mode: "handshake" }, state(60));
    let release = () => {};
    observed.controller.handle("ask", v.object({}), async function* () {
      await new Promise<void>((resolve) => release = resolve);
      yield 1;
      return 2;
    });
    connection.message('{"type":"ask","uid":1}');
    observed.clock.advance(60_000);
    release();
    await turn();
    assert.deepEqual(transport.take().map(({ error }) => error.code), ["TOKEN_EXPIRED"]);
    connection.message('{"type":"auth","access_token":"new"}');
    await turn();
    await turn();
    assert.deepEqual(transport.take().slice(1).map(({ status, data }) => [status, data]), [["next", 1], ["ok", 2]]);
  });

  it("is told that its credit is malformed", async () => {
    const observed = observe({ heartbeat: false });
    const transport = new SlowTransport();
    transport.isReading = true;
    const expires_at = observed.clock.now() / 1000 + 60;
    const identity = { accountability: { user: "ann", role: null }, expires_at };
    const connection = observed.controller.open(transport, { ...HANDSHAKE, mode: "handshake" }, identity);
    observed.clock.advance(60_000);
    await turn();
    transport.take();
    connection.message('{"type":"stream.credit","uid":1,"credit":"x"}');
    assert.deepEqual(transport.take().map(({ uid, error }) => [uid, error.code, error.path]), [[1, "INVALID_PAYLOAD", "credit"]]);
  });
});
