import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import * as v from "valibot";
import { Pipeline } from "../../src/connection/pipeline.ts";
import { FakeTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { assertProperty } from "../support/property.ts";
import { Stall, turn } from "../support/waiting.ts";

function create(maxPipelined = 64, maxPayload = 100, source?: ConstructorParameters<typeof Pipeline>[2]) {
  const received: (string | null)[] = [];
  const pipeline: Pipeline = new Pipeline(
    { maxPipelined, maxPayload },
    (frame) => {
      received.push(frame);
      then(frame);
    },
    source,
  );
  let then: (frame: string | null) => void = () => {};
  return { pipeline, received, onReceive: (callback: typeof then) => void (then = callback) };
}

describe("Pipeline", () => {
  it("lets messages wait until nothing holds them, in order", async () => {
    const { pipeline, received } = create();
    const [first, second] = [new Stall(), new Stall()];
    pipeline.hold(first.promise);
    pipeline.hold(second.promise);
    for (const frame of ["a", null, "b"]) assert.equal(pipeline.push(frame), true);
    pipeline.unshift("first of all");
    first.resolve();
    await turn();
    assert.deepEqual([pipeline.isHeld, received], [true, []]);
    second.resolve();
    await turn();
    assert.deepEqual([pipeline.isHeld, received], [false, ["first of all", "a", null, "b"]]);
  });

  it("stops again at a message that holds the later ones", async () => {
    const { pipeline, received, onReceive } = create();
    const [first, second] = [new Stall(), new Stall()];
    onReceive((frame) => frame === "a" && pipeline.hold(second.promise));
    pipeline.hold(first.promise);
    for (const frame of ["a", "b"]) pipeline.push(frame);
    first.resolve();
    await turn();
    assert.deepEqual(received, ["a"]);
    second.resolve();
    await turn();
    assert.deepEqual(received, ["a", "b"]);
  });

  it("takes as many messages and bytes as may wait, whatever came and went before", async () => {
    await assertProperty(
      fc.asyncProperty(
        fc.array(fc.string({ unit: fc.constantFrom("a", "語"), maxLength: 20 })),
        fc.boolean(),
        async (frames, again) => {
          const { pipeline, onReceive } = create(5, 60);
          // One that was taken already and has to wait once more counts as it did before, no more and no less.
          let put = again;
          onReceive((frame) => {
            if (!put) return;
            put = false;
            pipeline.hold(turn());
            pipeline.unshift(frame);
          });
          for (let round = 0; round < 2; round++) {
            let [count, bytes] = [0, 0];
            pipeline.hold(turn());
            for (const frame of frames) {
              const size = new TextEncoder().encode(frame).byteLength;
              const fits = count < 5 && bytes + size <= 60;
              assert.equal(pipeline.push(frame), fits);
              if (fits) [count, bytes] = [count + 1, bytes + size];
            }
            for (let n = 0; n < 4; n++) await turn();
            assert.equal(pipeline.isHeld, false);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it("forgets what waits when it is cleared, and has the whole room again", async () => {
    const { pipeline, received } = create(1, 10);
    pipeline.hold(turn());
    assert.deepEqual([pipeline.push("a".repeat(10)), pipeline.push("b")], [true, false]);
    pipeline.clear();
    assert.equal(pipeline.push("c".repeat(10)), true);
    await turn();
    await turn();
    assert.deepEqual(received, ["c".repeat(10)]);
  });
});

describe("Pipeline, of a source that can be paused", () => {
  /** One that was paused because two messages wait where one may. */
  function paused() {
    const calls: string[] = [];
    const created = create(1, 100, { pause: () => calls.push("pause"), resume: () => calls.push("resume") });
    const first = new Stall();
    created.pipeline.hold(first.promise);
    assert.deepEqual([created.pipeline.push("a"), calls.length, created.pipeline.push("b")], [true, 0, true]);
    assert.deepEqual(calls.splice(0), ["pause"]);
    return { ...created, first, calls };
  }

  it("takes frames that were read already, and reads again only when nothing waits", async () => {
    const { pipeline, received, onReceive, first, calls } = paused();
    const second = new Stall();
    onReceive((frame) => frame === "a" && pipeline.hold(second.promise));
    first.resolve();
    await turn();
    assert.deepEqual([received, calls], [["a"], []]);
    second.resolve();
    await turn();
    assert.deepEqual([received, calls], [["a", "b"], ["resume"]]);
  });

  it("resumes when it is cleared", () => {
    const { pipeline, calls } = paused();
    pipeline.clear();
    assert.deepEqual(calls, ["resume"]);
  });
});

describe("Connection, whose socket is paused", () => {
  it("resumes when it closes, because the close frame of the peer must be read", () => {
    const calls: string[] = [];
    const transport = Object.assign(new FakeTransport(), {
      pause: () => calls.push("pause"),
      resume: () => calls.push("resume"),
    });
    const { controller } = observe({ maxPipelined: 0 });
    controller.use(() => new Promise(() => {}));
    const { connection, client } = openOn(transport, controller);
    for (let n = 0; n < 2; n++) connection.message('{"type":"x"}');
    assert.deepEqual(calls, ["pause"]);
    client.close();
    assert.deepEqual(calls, ["pause", "resume"]);
  });
});

describe("Pipeline, with a ping that asks for the limits", () => {
  const PING = '{"type":"ping","uid":1,"limits":true}';
  const padded = (length: number) => `${PING.slice(0, -1)},"pad":"${"x".repeat(length - PING.length - 9)}"}`;

  it("accepts one while it is full, which takes no room", async () => {
    const { pipeline, received, onReceive } = create(1, 10);
    const [first, second, third] = [new Stall(), new Stall(), new Stall()];
    onReceive((frame) => frame === "a" && pipeline.hold(second.promise));
    pipeline.hold(first.promise);
    assert.deepEqual([PING, "a".repeat(10), "b", PING].map((frame) => pipeline.push(frame)), [true, true, false, false]);
    pipeline.clear();
    assert.deepEqual(["a", "b", PING, PING].map((frame) => pipeline.push(frame)), [true, false, true, false]);
    first.resolve();
    await turn();
    // The ping still waits; once it is handled, another may.
    assert.deepEqual([received.splice(0), pipeline.push("b"), pipeline.push(PING)], [["a"], true, false]);
    second.resolve();
    await turn();
    pipeline.hold(third.promise);
    assert.deepEqual(received, [PING, "b"]);
    assert.deepEqual(["c", "d", PING].map((frame) => pipeline.push(frame)), [true, false, true]);
  });

  it("accepts none longer than 128 characters, and nothing else", () => {
    const frames = [padded(129), '{"type":"pong","limits":true}', '{"type":"ping","limits":false}', padded(128)];
    const { pipeline } = create(0);
    pipeline.hold(turn());
    assert.deepEqual(frames.map((frame) => pipeline.push(frame)), [false, false, false, true]);
  });
});

describe("Connection, held by two things at a time", () => {
  it("lets messages wait for a revalidation, though the message that was held before goes on", async () => {
    const [middleware, revalidation] = [new Stall(), new Stall<{ accountability: { user: string; role: null } }>()];
    const { controller, clock } = observe({ mode: "public", authenticate: () => null, revalidate: () => revalidation.promise });
    controller.use((_context, next) => middleware.promise.then(() => next()));
    const accountability = { user: "ann", role: null };
    const { connection, transport } = open(controller, { identity: { accountability, expires_at: (clock.now() + 1000) / 1000 } });
    connection.message('{"type":"x","uid":1}');
    await turn();
    clock.advance(1000);
    middleware.resolve();
    for (let n = 0; n < 5; n++) await turn();
    connection.message('{"type":"ping","uid":2}');
    assert.deepEqual(transport.take(), []);
    revalidation.resolve({ accountability });
    for (let n = 0; n < 5; n++) await turn();
    assert.deepEqual(transport.take(), [{ type: "pong", uid: 2 }]);
  });
});

describe("Connection, that is sent messages with the uid of a question", () => {
  const quote = { type: "confirm", uid: "ask:1" };

  it("handles them in order, whatever they quote", async () => {
    const { controller } = observe({ mode: "public", rateLimit: false });
    const [order, stall]: [string[], Stall] = [[], new Stall()];
    controller.handle(
      "slow",
      v.objectAsync({ n: v.pipeAsync(v.string(), v.checkAsync(() => stall.promise.then(() => true))) }),
      ({ message }) => void order.push(message.n),
    );
    controller.handle("fast", v.object({ n: v.string() }), ({ message }) => void order.push(message.n));
    const { connection, client, transport } = open(controller);
    const asked = client.ask("confirm");
    const [{ uid }] = transport.take();
    connection.message(JSON.stringify({ type: "slow", n: "1" }));
    connection.message(JSON.stringify({ type: "fast", n: "2", quote }));
    connection.message(JSON.stringify({ type: "fast", n: "3", uid: "ask:2", status: "ok" }));
    connection.message(JSON.stringify({ type: "fast", n: "4", uid }));
    assert.deepEqual([order, transport.take()], [[], []]);
    stall.resolve();
    for (let n = 0; n < 9; n++) await turn();
    // The third is a late answer, and the fourth none.
    assert.deepEqual(order, ["1", "2", "4"]);
    connection.message(JSON.stringify({ ...quote, uid, status: "ok", data: 1 }));
    assert.equal(await asked, 1);
  });

  it("lets no more of them wait than `maxPipelined`", () => {
    const { controller } = observe({ mode: "public", rateLimit: false, maxPipelined: 4 });
    let count = 0;
    controller.use(() => (count++, new Promise(() => {})));
    const { connection, transport } = open(controller);
    for (let n = 0; n < 6; n++) connection.message(JSON.stringify({ type: "slow", uid: `ask:${n}`, status: "ok" }));
    assert.equal(count, 0); // Late answers are shown to no middleware, and hold nothing.
    for (let n = 0; n < 6; n++) connection.message(JSON.stringify({ type: "slow", uid: `ask:${n}` }));
    assert.deepEqual([count, transport.closes[0]?.code], [1, 4529]);
  });

  it("verifies one auth message at a time, also with the uid of an open question", async () => {
    const stalls: Stall<null>[] = [];
    const { controller } = observe({
      mode: "public",
      rateLimit: false,
      authenticate: () => {
        const stall = new Stall<null>();
        stalls.push(stall);
        return stall.promise;
      },
    });
    const { connection, client, transport } = open(controller);
    const asked = client.ask("confirm");
    const [{ uid }] = transport.take();
    for (const status of [undefined, "ok", "error"]) {
      for (const each of ["ask:1", uid]) {
        connection.message(JSON.stringify({ type: "auth", uid: each, status, access_token: "guess" }));
      }
    }
    for (let n = 0; n < 6; n++) {
      assert.equal(stalls.length, Math.min(n + 1, 3));
      stalls[n]?.resolve(null);
      for (let m = 0; m < 9; m++) await turn();
    }
    // The third failure in a row closes the connection.
    assert.equal(transport.closes[0]?.code, 4401);
    connection.closed(4401, "", true);
    await assert.rejects(asked);
  });
});
