import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { Channels } from "../../src/channels/channels.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { testkit } from "../../src/testing/testkit.ts";
import { createChat, received } from "../testing/chat.ts";
import { CountedEngine } from "../support/counted-engine.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { HANDSHAKE, HibernatingTransport, open } from "../support/fake-transport.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";
import { Wire, WiredEngine } from "./wired-nodes.ts";

const DRAINED = { code: 1012, reason: "drained" };

/** A controller with so many clients, which answer a close at once, and the errors that it reports. */
function create(count: number, options: WebSocketControllerOptions = {}) {
  const clock = new TestClock();
  const controller = new WebSocketController({ clock, logger: false, heartbeat: false, ...options });
  const errors: string[] = [];
  controller.on("error", ({ error }) => errors.push(String(error)));
  const opened = Array.from({ length: count }, () => open(controller));
  for (const { connection, transport } of opened) {
    transport.close = (code, reason) => {
      transport.closes.push({ code, reason });
      connection.closed(code, reason, true);
    };
  }
  return { clock, controller, errors, opened, left: () => opened.filter(({ transport }) => transport.closes.length > 0).length };
}

describe("WebSocketController.drain", () => {
  it("closes the clients evenly over the window, with 1012", async () => {
    const { clock, controller, opened, left } = create(200);
    const drained = controller.drain({ window: 10_000 });
    assert.equal(left(), 0);
    for (let ms = 100; ms <= 10_000; ms += 100) {
      clock.advance(100);
      assert.ok(Math.abs(left() - ms / 50) <= 1, `${left()} at ${ms} ms`);
    }
    assert.equal(left(), 200);
    for (const { transport } of opened) assert.deepEqual(transport.closes, [DRAINED]);
    assert.deepEqual(await drained, { closed: 200, cut: 0, isClean: true });
    assert.equal(controller.stats().closedBy.drain, 200);
    assert.equal(clock.timers, 0);
  });

  it("closes all at once without a window", async () => {
    const { controller, left } = create(20);
    const drained = controller.drain();
    assert.equal(left(), 20);
    assert.deepEqual(await drained, { closed: 20, cut: 0, isClean: true });
  });

  it("is one drain, although a close listener drains too: the engine stays until the servers have stopped", async () => {
    const engine = new CountedEngine();
    const { controller } = create(2, { engine });
    assert.equal(controller.engine.status, "ready");
    const stopped = new Stall();
    controller.on("close", () => void controller.drain());
    const drained = controller.drain({ stop: () => stopped.promise });
    await turn();
    assert.equal(engine.closes, 0);
    stopped.resolve();
    assert.deepEqual(await drained, { closed: 2, cut: 0, isClean: true });
    assert.equal(engine.closes, 1);
  });

  it("counts clients that leave by themselves", async () => {
    const { clock, controller, opened, left } = create(10);
    const drained = controller.drain({ window: 1_000 });
    for (const { connection } of opened.slice(5)) connection.closed(1001, "", true);
    clock.advance(500);
    assert.equal(left(), 0);
    clock.advance(500);
    assert.deepEqual(await drained, { closed: 5, cut: 0, isClean: true });
  });

  it("closes a client with a request under way last, and after the answer", async () => {
    const { clock, controller, opened, left } = create(3);
    const stalls = new Map<string, Stall>();
    controller.handle("work", v.object({ name: v.string() }), async ({ message: { name } }) => {
      stalls.set(name, new Stall());
      await stalls.get(name)!.promise;
      return name;
    });
    const [busy] = opened as [typeof opened[0]];
    for (const name of ["a", "b"]) busy.connection.message(JSON.stringify({ type: "work", name }));
    const drained = controller.drain({ window: 3_000 });
    clock.advance(3_000);
    assert.equal(left(), 2);
    stalls.get("a")!.resolve();
    await turn();
    clock.advance(1_000);
    assert.deepEqual(busy.transport.closes, []);
    stalls.get("b")!.resolve();
    await turn();
    clock.advance(50);
    assert.deepEqual(busy.transport.take().map(({ data }) => data), ["a", "b"]);
    assert.deepEqual(busy.transport.closes, [DRAINED]);
    assert.deepEqual(await drained, { closed: 3, cut: 0, isClean: true });
  });

  it("ends streams one by one in the last quarter of the window, and then closes their clients", async () => {
    const { clock, controller, opened, left } = create(48);
    let ended = 0;
    controller.handle("tail", v.object({}), async function* ({ signal }) {
      try {
        yield 1;
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      } finally {
        ended++;
      }
    });
    const streaming = opened.slice(0, 40);
    for (const { connection } of streaming) connection.message('{"type":"tail","uid":1}');
    await turn();
    for (const { transport } of streaming) transport.take();
    const drained = controller.drain({ window: 8_000 });
    clock.advance(5_950);
    await turn();
    assert.deepEqual([ended, left()], [0, 8]);
    for (let ms = 50; ms <= 2_000; ms += 50) {
      clock.advance(50);
      await turn();
      assert.ok(Math.abs(ended - ms / 50) <= 1, `${ended} after ${ms} ms`);
    }
    clock.advance(100);
    assert.deepEqual(await drained, { closed: 48, cut: 0, isClean: true });
    for (const { transport } of streaming) {
      const [{ status, error }] = transport.take() as [{ status: string; error: { code: string } }];
      assert.deepEqual([status, error.code], ["error", "SERVICE_UNAVAILABLE"]);
      assert.deepEqual(transport.closes, [DRAINED]);
    }
  });

  it("lets a stream end by itself in its window, and ends one without a window at once", async () => {
    for (const window of [8_000, 0]) {
      const { clock, controller, opened } = create(1);
      const more = new Stall();
      controller.handle("answer", v.object({}), async function* ({ signal }) {
        yield 1;
        await Promise.race([more.promise, new Promise((resolve) => signal.addEventListener("abort", resolve))]);
        if (!signal.aborted) yield 2;
        return "whole";
      });
      const [{ connection, transport }] = opened as [typeof opened[0]];
      connection.message('{"type":"answer","uid":1}');
      await turn();
      transport.take();
      const drained = controller.drain({ window });
      clock.advance(window / 2);
      if (window > 0) more.resolve();
      await turn();
      clock.advance(window / 2 + 50);
      assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
      const seen = transport.take().map(({ status, data, error }) =>
        data ?? (error as { code: string } | undefined)?.code ?? status
      );
      assert.deepEqual(seen, window > 0 ? [2, "whole"] : ["SERVICE_UNAVAILABLE"]);
      assert.deepEqual(transport.closes, [DRAINED]);
    }
  });

  it("does not end the plain request of a client whose stream it ends", async () => {
    const { clock, controller, opened } = create(1);
    const work = new Stall<string>();
    controller.handle("work", v.object({}), async ({ signal }) => `${await work.promise} ${signal.aborted}`);
    controller.handle("tail", v.object({}), async function* ({ signal }) {
      yield 1;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    });
    const [{ connection, transport }] = opened as [typeof opened[0]];
    connection.message('{"type":"work","uid":1}');
    connection.message('{"type":"tail","uid":2}');
    await turn();
    transport.take();
    const drained = controller.drain({ window: 1_000 });
    clock.advance(1_050);
    await turn();
    clock.advance(50);
    assert.deepEqual([transport.take().map(({ uid }) => uid), transport.closes], [[2], []]);
    work.resolve("worked");
    await turn();
    clock.advance(50);
    assert.deepEqual(transport.take().map(({ data }) => data), ["worked false"]);
    assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
  });

  for (const window of [8_000, 0]) {
    it(`closes a client whose requests overlap, within a window of ${window} ms, or a second, and the time of one request`, async () => {
      const { clock, controller, opened } = create(1);
      const running: { endsAt: number; stall: Stall }[] = [];
      let handled = 0;
      controller.handle("work", v.object({}), async () => {
        handled++;
        const stall = new Stall();
        running.push({ endsAt: clock.now() + 600, stall });
        await stall.promise;
      });
      const [{ connection, transport }] = opened as [typeof opened[0]];
      let uid = 0;
      /** Sends a request every 50 ms. Each takes 600 ms. */
      const pass = async (ms: number) => {
        for (const end = clock.now() + ms; clock.now() < end; clock.advance(50)) {
          if (transport.closes.length === 0) connection.message(`{"type":"work","uid":${++uid}}`);
          while (running.length > 0 && running[0]!.endsAt <= clock.now()) running.shift()!.stall.resolve();
          await turn();
        }
      };
      await pass(1_000);
      const drained = controller.drain({ window, timeout: window + 10_000 });
      await pass(Math.max(1_000, window * 3 / 4) - 50);
      assert.equal(handled, uid);
      await pass(window / 4 + 800);
      assert.deepEqual(transport.closes, [DRAINED]);
      assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
      // Those that were not handled are sent again: `drained` says so.
      assert.ok(handled < uid, `${handled} of ${uid} requests`);
      assert.deepEqual(transport.take().map(({ status }) => status), Array.from({ length: handled }, () => "ok"));
    });
  }

  for (const window of [8_000, 0]) {
    it(`closes a client that sends auth without a pause, within a window of ${window} ms, or a second`, async () => {
      let verified = 0;
      const authenticate = async () => {
        verified++;
        await turn();
        return { accountability: { user: "ann", role: null } };
      };
      const { clock, controller, opened } = create(1, { authenticate, mode: "public" });
      const [{ connection, transport }] = opened as [typeof opened[0]];
      const isHeld = () => transport.closes.length === 0 && connection.pipeline!.isHeld;
      for (let uid = 0; uid < 20; uid++) connection.message(`{"type":"auth","uid":${uid},"access_token":"x"}`);
      transport.send = () => (connection.message('{"type":"auth","access_token":"x"}'), true);
      const drained = controller.drain({ window, timeout: window + 10_000 });
      for (let ms = 0; ms < Math.max(1_000, window) + 100 && transport.closes.length === 0; ms += 50) {
        if (ms < Math.max(1_000, window * 3 / 4)) assert.ok(isHeld(), `It is not busy at ${ms} ms`);
        clock.advance(50);
        await turn();
      }
      assert.deepEqual(transport.closes, [DRAINED]);
      assert.ok(verified > 10, `${verified} were verified`);
      assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
    });
  }

  it("answers a request that it does not handle any more only if it would be lost without an answer", async () => {
    const work = '{"type":"work"}', request = '{"type":"work","uid":1}', idempotent = '{"type":"work","uid":"a.once"}';
    /** The codes of the answers to those, from a client that has a request under way and no window. */
    const codes = async (options: WebSocketControllerOptions, prepare: (created: ReturnType<typeof create>) => unknown) => {
      const created = create(1, options);
      const { clock, controller, opened: [first] } = created;
      const { connection, transport } = first!;
      const done = new Stall();
      let handled = 0;
      controller.handle("slow", v.object({}), () => done.promise);
      controller.handle("work", v.object({}), () => void handled++);
      connection.message('{"type":"slow"}');
      await prepare(created);
      const drained = controller.drain();
      clock.advance(1_000);
      transport.take();
      for (const text of [work, request, idempotent]) connection.message(text);
      await turn();
      const answers = transport.take().map(({ uid, status, error }) => [
        uid,
        (error as { code: string } | undefined)?.code ?? status,
      ]).filter(([, code]) => code !== "MESSAGES_DROPPED");
      done.resolve();
      await controller.close();
      await drained;
      clock.advance(1_000);
      return { handled, answers };
    };
    const refused = "SERVICE_UNAVAILABLE";
    assert.deepEqual(await codes({}, () => {}), { handled: 0, answers: [[undefined, refused]] });
    // `drained` will not be said.
    const both = [[undefined, refused], [1, refused]];
    assert.deepEqual(await codes({}, ({ controller }) => controller.on("message", () => {})), { handled: 0, answers: both });
    assert.deepEqual(
      await codes({ slowConsumer: "drop" }, ({ opened: [first] }) => {
        first!.transport.sends = false;
        first!.client.send("dropped");
        first!.transport.sends = true;
      }),
      { handled: 0, answers: both },
    );
    // The server waits for the client anyway.
    const asked = await codes({}, ({ opened: [first] }) => void first!.client.ask("confirm").catch(() => {}));
    assert.equal(asked.handled, 3);
  });

  it("waits for an authentication, a middleware and the answer to a question", async () => {
    const stall = new Stall<null>();
    const { clock, controller, opened } = create(3, { authenticate: () => stall.promise, mode: "public" });
    const middleware = new Stall();
    controller.use(async (_context, next) => {
      await middleware.promise;
      await next();
    });
    const [authenticating, waiting, asked] = opened as [typeof opened[0], typeof opened[0], typeof opened[0]];
    authenticating.connection.message('{"type":"auth","access_token":"x"}');
    waiting.connection.message('{"type":"x"}');
    const answer = asked.client.ask("confirm");
    const drained = controller.drain();
    const closes = () => [authenticating, waiting, asked].map(({ transport }) => transport.closes.length);
    assert.deepEqual(closes(), [0, 0, 0]);
    stall.resolve(null);
    await turn();
    clock.advance(50);
    assert.deepEqual(closes(), [1, 0, 0]);
    middleware.resolve();
    await turn();
    clock.advance(50);
    assert.deepEqual(closes(), [1, 1, 0]);
    const [{ uid }] = asked.transport.take();
    asked.connection.message(JSON.stringify({ type: "confirm", uid, status: "ok" }));
    await answer;
    clock.advance(50);
    assert.deepEqual(await drained, { closed: 3, cut: 0, isClean: true });
  });

  it("waits until a publication of the client is answered", async () => {
    const stall = new Stall();
    class SlowEngine extends MemoryEngine {
      override publish(...args: Parameters<MemoryEngine["publish"]>): never {
        return stall.promise.then(() => super.publish(...args)) as never; // A promise, as engines over a network return.
      }
    }
    const { clock, controller, opened } = create(1, { engine: new SlowEngine() });
    new Channels(controller, { news: { authorize: () => true, schema: { said: v.number() } } });
    const [{ connection, transport }] = opened as [typeof opened[0]];
    connection.message('{"type":"publish","uid":1,"channel":"news","event":"said","data":1}');
    await turn();
    const drained = controller.drain();
    assert.deepEqual(transport.closes, []);
    stall.resolve();
    await turn();
    clock.advance(50);
    assert.deepEqual(transport.take().map(({ uid, status }) => [uid, status]), [[1, "ok"]]);
    assert.deepEqual(transport.closes, [DRAINED]);
    assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
  });

  it("closes clients that still wait at the timeout with 1001, and emits an error event with the reason", async () => {
    const { clock, controller, errors, opened } = create(2);
    controller.handle("never", v.object({}), () => new Promise(() => {}));
    opened[0]!.connection.message('{"type":"never"}');
    const drained = controller.drain({ window: 1_000, timeout: 2_000, retryAfter: 1_500 });
    clock.advance(2_000);
    assert.deepEqual(await drained, { closed: 1, cut: 1, isClean: false });
    assert.deepEqual(opened[0]!.transport.closes, [{ code: 1001, reason: "retry=1500" }]);
    assert.deepEqual(errors, ["Error: Cannot drain in 2000 ms: 1 clients have requests in progress"]);
    assert.equal(controller.status, "closed");
  });

  it("does not say drained to a client that may lack an answer", () => {
    const { controller, opened } = create(2, { slowConsumer: "drop" });
    opened[0]!.transport.sends = false;
    opened[0]!.client.send("dropped");
    const awake = new HibernatingTransport();
    controller.restore(awake, {
      ...{ controller: "main", uid: "1", handshake: HANDSHAKE, state: null, until: 0, phase: "admitted" },
      ...{ accountability: { user: null, role: null }, expires_at: null },
    });
    void controller.drain({ retryAfter: 1_500 });
    const reasons = [...opened.map(({ transport }) => transport), awake].map(({ closes }) => closes[0]!.reason);
    assert.deepEqual(reasons, ["retry=1500", "drained retry=1500", "retry=1500"]);
    // What a listener does with a message is not known.
    const listening = create(1);
    listening.controller.on("message", () => {});
    void listening.controller.drain({ code: 4500 });
    assert.deepEqual(listening.opened[0]!.transport.closes, [{ code: 4500, reason: "Service restart" }]);
  });

  it("refuses upgrades with 503 and Retry-After, and counts them", async () => {
    const { controller, opened, request } = createRoute({ mode: "public" });
    await request("/websocket");
    assert.equal(controller.status, "running");
    void controller.drain({ window: 1_000, retryAfter: 1_500 });
    assert.equal(controller.status, "draining");
    const refused = await request("/websocket");
    assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "2"]);
    assert.deepEqual(await refused.json(), { error: { code: "SERVICE_UNAVAILABLE", message: "The server is going away" } });
    assert.equal(controller.stats().refused.draining, 1);
    assert.equal(opened.length, 1);
  });

  it("refuses an upgrade that was authenticating when it began", async () => {
    const stall = new Stall<{ accountability: { user: string; role: null } }>();
    const { controller, opened, request } = createRoute({ mode: "strict", authenticate: () => stall.promise });
    const upgrading = request("/websocket?access_token=ann");
    await turn();
    void controller.drain();
    stall.resolve({ accountability: { user: "ann", role: null } });
    assert.equal((await upgrading).status, 503);
    assert.deepEqual([opened.length, controller.stats().reserved], [0, 0]);
  });

  it("closes a socket that opens after it began", () => {
    const { clock, controller } = create(1);
    void controller.drain({ window: 1_000 });
    clock.advance(1_000);
    const { transport } = open(controller);
    clock.advance(50);
    assert.equal(transport.closes.length, 1);
  });

  it("does not wait for members in their grace period where there are no other nodes", async () => {
    const { controller, opened } = create(1);
    new Channels(controller, { room: { authorize: () => true, presence: true } });
    opened[0]!.connection.message('{"type":"subscribe","channel":"room"}');
    await turn();
    assert.deepEqual(await controller.drain(), { closed: 1, cut: 0, isClean: true });
  });

  it("ends when the controller is closed while members are in their grace period", async () => {
    const { clock, controller, opened } = create(1, { engine: new WiredEngine(new Wire(), false) });
    new Channels(controller, { room: { authorize: () => true, presence: { grace: 60_000 } } });
    opened[0]!.connection.message('{"type":"subscribe","channel":"room"}');
    await turn();
    let result: unknown;
    void controller.drain({ timeout: 120_000 }).then((ended) => result = ended);
    await turn();
    assert.equal(result, undefined);
    await controller.close();
    clock.advance(50);
    await turn();
    assert.deepEqual(result, { closed: 1, cut: 0, isClean: true });
  });

  for (const [grace, span] of [[2_000, 7_600], [8_000, 5_000]] as const) {
    it(`closes the clients over ${span} of 10,000 ms where members have a grace period of ${grace} ms on other nodes`, async () => {
      const { clock, controller, opened, left } = create(100, { engine: new WiredEngine(new Wire(), false) });
      const authorize = () => true;
      new Channels(controller, { room: { authorize, presence: { grace } }, other: { authorize, presence: { grace: 0 } } });
      for (const { connection } of opened) connection.message('{"type":"subscribe","channel":"room"}');
      await turn();
      let endedAt = 0;
      const drained = controller.drain({ window: 10_000, timeout: 60_000 }).then(() => endedAt = clock.now());
      const start = clock.now();
      clock.advance(span / 2);
      assert.ok(Math.abs(left() - 50) <= 1, `${left()} at half of it`);
      clock.advance(span / 2);
      assert.equal(left(), 100);
      for (let ms = 0; ms <= grace && endedAt === 0; ms += 100) {
        await turn();
        clock.advance(100);
      }
      await drained;
      assert.ok(endedAt - start <= span + grace + 200, `It took ${endedAt - start} ms`);
    });
  }

  it("does not wait for members longer than their grace period while the broker is away", async () => {
    class AwayEngine extends WiredEngine {
      override subscribe(): never {
        return new Promise(() => {}) as never; // A promise, as engines over a network return.
      }
    }
    const engine = new AwayEngine(new Wire(), false);
    const { clock, controller, errors, opened } = create(1, { engine });
    new Channels(controller, { room: { authorize: () => true, presence: { grace: 300 } } });
    opened[0]!.connection.message('{"type":"subscribe","channel":"room"}');
    await turn();
    engine.status = "unavailable";
    let result: unknown;
    void controller.drain({ window: 1_000, timeout: 60_000 }).then((ended) => result = ended);
    for (let ms = 0; ms < 3_000; ms += 50) {
      clock.advance(50);
      await turn();
    }
    assert.deepEqual(result, { closed: 1, cut: 0, isClean: true });
    assert.deepEqual(errors.filter((error) => error.includes("Cannot drain")), []);
  });

  it("calls stop when the clients have left, and closes the engine after it", async () => {
    const engine = new MemoryEngine();
    const { clock, controller, left } = create(2, { engine });
    void controller.engine;
    const stopped = new Stall();
    const seen: unknown[] = [];
    const stop = () => {
      seen.push([left(), engine.status]);
      return stopped.promise;
    };
    const drained = controller.drain({ window: 1_000, stop });
    assert.equal(controller.drain({ stop: () => seen.push("another") }), drained);
    clock.advance(500);
    await turn();
    assert.deepEqual(seen, []);
    clock.advance(500);
    await turn();
    assert.deepEqual(seen, [[2, "ready"], "another"]);
    assert.equal(engine.status, "ready");
    stopped.resolve();
    assert.equal((await drained).isClean, true);
    assert.equal(engine.status, "closed");
  });

  it("calls a stop that is passed when the others have been called, and checks its options", async () => {
    const { controller, errors } = create(1);
    await controller.drain();
    let stops = 0;
    await controller.drain({ stop: () => stops++ });
    assert.equal(stops, 1);
    await controller.drain({ stop: () => Promise.reject(new Error("The stop fails")) });
    await turn();
    assert.deepEqual(errors, ["Error: The stop fails"]);
    assert.throws(() => controller.drain({ windw: 1 } as never), { name: "TypeError", message: /unknown option "windw"/ });
  });

  it("calls stop when the timeout has passed", async () => {
    const { clock, controller, opened } = create(1);
    controller.handle("never", v.object({}), () => new Promise(() => {}));
    opened[0]!.connection.message('{"type":"never"}');
    let stops = 0;
    const drained = controller.drain({ timeout: 1_000, stop: () => stops++ });
    clock.advance(1_000);
    assert.deepEqual([await drained, stops], [{ closed: 0, cut: 1, isClean: false }, 1]);
  });

  it("is not clean when stop fails, or the engine does", async () => {
    for (const failing of ["stop", "engine"]) {
      const engine = new MemoryEngine();
      const { clock, controller, errors } = create(0, { engine });
      void controller.engine;
      const fail = () => {
        throw new Error(`The ${failing} fails`);
      };
      if (failing === "engine") engine.close = fail;
      const drained = controller.drain(failing === "stop" ? { stop: fail } : {});
      await turn();
      clock.advance(1_000);
      assert.deepEqual(await drained, { closed: 0, cut: 0, isClean: false });
      assert.deepEqual(errors, [`Error: The ${failing} fails`]);
    }
  });

  it("is ended by close", async () => {
    const { clock, controller, left } = create(4);
    const drained = controller.drain({ window: 10_000 });
    clock.advance(2_500);
    assert.equal(left(), 1);
    await controller.close();
    assert.equal(left(), 4);
    assert.equal((await drained).closed, 1);
    assert.equal(clock.timers, 0);
  });

  it("throws a TypeError that names the remedy", () => {
    const { controller } = create(0);
    const cases: [options: unknown, message: string][] = [
      [null, "Cannot drain: pass an object, such as { window: 30_000, timeout: 45_000 }"],
      [{ windw: 1 }, 'Cannot drain: unknown option "windw", use one of window, timeout, code, retryAfter, stop'],
      [{ window: -1 }, 'Cannot drain: option "window" must be 0 or a whole number of ms from 1 to 2147483647, such as 30_000'],
      [{ timeout: 0 }, 'Cannot drain: option "timeout" must be a whole number of ms from 1 to 2147483647, such as 45_000'],
      [
        { window: 30_000, timeout: 10_000 },
        'Cannot drain: option "timeout" must be at least the window of 30000 ms, such as 40000',
      ],
      [{ code: "1012" }, 'Cannot drain: option "code" must be a close code, such as 1012'],
      [{ code: 1006 }, "Cannot close with code 1006: use 1000–1003, 1007–1014 or 3000–4999 (4000–4999 for your own)"],
      [
        { retryAfter: 300_001 },
        'Cannot drain: option "retryAfter" must be 0 or a whole number of ms up to 300000, such as 2_000',
      ],
      [{ stop: 1 }, 'Cannot drain: option "stop" must be a function that stops your server'],
    ];
    for (const [options, message] of cases) {
      assert.throws(() => controller.drain(options as never), { name: "TypeError", message });
    }
    assert.equal(controller.status, "running");
  });
});

describe("WebSocketController.drain, of one node of two", () => {
  it("loses no publication and no place, and leaves the cluster last", async () => {
    const chats: ReturnType<typeof createChat>[] = [];
    // The same names of nodes, times and random numbers in each run.
    const t = testkit((node) => (chats[node] = createChat()).app, { nodes: 2, globals: true, now: 1_800_000_000_000 });
    const watcher = await t.connect({ token: "watcher", node: 1 });
    const changes: string[] = [];
    watcher.subscribe("room:1", {
      presence: true,
      onPresence: ({ event, members }: { event: string; members: { user: string }[] }) => {
        if (event !== "init") changes.push(...members.map(({ user }) => `${event} ${user}`));
      },
    } as never);
    await t.advance(0);
    const names = ["a", "b", "c", "d"];
    const clients = [];
    for (const token of names) clients.push(await t.connect({ token })); // On both nodes in turn.
    const items = clients.map((client) => received(client.subscribe("room:1")));
    await t.advance(0);
    const onFirst = chats[0]!.controller.stats().active;
    assert.equal(onFirst, 2);
    changes.length = 0;
    const published: number[] = [];
    const publish = async (n: number) => {
      published.push(n);
      await chats[1]!.channels.publish("room:1", "said", n);
    };
    let result: unknown;
    void chats[0]!.controller.drain({ window: 4_000 }).then((ended) => result = ended);
    for (let n = 0; n < 16; n++) {
      await publish(n);
      await t.advance(250);
    }
    assert.equal(chats[0]!.controller.stats().active, 0);
    assert.equal(chats[0]!.controller.status, "draining");
    assert.equal(Object.keys((await chats[1]!.controller.cluster.stats()).nodes).length, 2);
    await t.advance(10_000);
    assert.deepEqual(result, { closed: onFirst, cut: 0, isClean: true });
    assert.equal(Object.keys((await chats[1]!.controller.cluster.stats()).nodes).length, 1);
    assert.deepEqual(items.map((each) => each.filter(({ event }) => event === "said").map(({ data }) => data)), [
      published,
      published,
      published,
      published,
    ]);
    assert.deepEqual(changes.filter((change) => change.startsWith("leave")), []);
    assert.equal((await chats[1]!.channels.presence("room:1")).length, 5);
    await t.close();
  });

  it("fails no request of a client whose requests overlap", async () => {
    const handled: string[] = [];
    const controllers: WebSocketController[] = [];
    const t = testkit((node) => {
      const controller = controllers[node] = new WebSocketController({ mode: "public", logger: false, rateLimit: false });
      controller.handle("work", v.object({ n: v.number() }), async ({ message: { n } }) => {
        handled.push(`${n} on ${node}`);
        await new Promise<void>((resolve) => t.clock.setTimeout(resolve, 600));
        return n;
      });
      return new Hono().get("/websocket", controller.upgrade);
    }, { nodes: 2 });
    const client = await t.connect(); // To the first node, and then to one after the other.
    const answers: Promise<unknown>[] = [];
    const send = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const n = answers.length;
        answers.push(client.request("work", { n }).catch((error) => `${n}: ${error.code}`));
        await t.advance(50);
      }
    };
    await send(20);
    const drained = controllers[0]!.drain({ window: 2_000 });
    await send(80);
    await t.advance(2_000);
    assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
    assert.deepEqual(await Promise.all(answers), answers.map((_, n) => n));
    assert.equal(handled.length, answers.length); // None twice.
    assert.ok(handled.at(-1)!.endsWith("on 1"));
    await t.close();
  });
});
