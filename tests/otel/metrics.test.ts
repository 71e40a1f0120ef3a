/** `observe` of `noroshi/otel`, read with the SDK of OpenTelemetry. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { metrics, trace } from "@opentelemetry/api";
import * as v from "valibot";
import type { Authenticate } from "../../src/application/authentication.ts";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { measureDelay } from "../../src/otel/event-loop.ts";
import { observe } from "../../src/otel/otel.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { FakeTransport, open, openOn } from "../support/fake-transport.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";
import { observed } from "./collected.ts";

const CAUSE = "noroshi.close.cause";
const TYPE = "noroshi.message.type";

const ann: Authenticate = (credentials) =>
  "access_token" in credentials && credentials.access_token === "good"
    ? { accountability: { user: "ann", role: "editor" } }
    : null;

function create(options: ConstructorParameters<typeof WebSocketController>[0] = {}) {
  const clock = new TestClock();
  const controller = new WebSocketController({ logger: false, clock, ...options });
  return { clock, controller, metrics: observed(controller) };
}

const settle = async () => {
  for (let turns = 0; turns < 4; turns++) await turn();
};

describe("observe", () => {
  it("reports connections so that opened − closed = active, and each close has a duration", async () => {
    const { controller, request, opened, transports } = createRoute({ authenticate: ann, maxConnections: 40 });
    const metrics = observed(controller);
    const ways: ((at: number) => unknown)[] = [
      (at) => opened[at]!.closed(1000, "", true),
      (at) => opened[at]!.closed(1006, "", false),
      (at) => opened[at]!.message('{"type":"auth","access_token":"bad"}'),
      (at) => opened[at]!.message('{"type":"auth","access_token":"good"}'),
      (at) => opened[at]!.message("x".repeat(70_000)),
      (at) => opened[at]!.close(1000, "bye"),
    ];
    for (let round = 0; round < 60; round++) {
      await request("/websocket", round % 10 === 9 ? { origin: "https://other.example" } : {});
      const at = opened.length - 1;
      ways[round % ways.length]!(at);
      await settle();
      if (transports[at]!.closes.length > 0 && round % 4 > 0) opened[at]!.closed(1000, "", true);
    }
    const closedBy = await metrics.by("noroshi.server.connections.closed", CAUSE);
    const closed = await metrics.total("noroshi.server.connections.closed");
    const active = await metrics.total("noroshi.server.active_connections");
    assert.equal(await metrics.total("noroshi.server.connections.opened") - closed, active);
    assert.deepEqual(await metrics.by("noroshi.server.connection.duration", CAUSE), closedBy);
    assert.ok(active > 0 && ["client", "error", "auth", "payload", "server"].every((cause) => closedBy[cause]! > 0), "all ways");
    assert.equal(await metrics.total("noroshi.server.clients"), controller.clients().size);
    assert.deepEqual(await metrics.by("noroshi.server.refusals", "noroshi.refusal.reason"), { origin: 6, token: 10 });
    assert.deepEqual(await metrics.by("noroshi.server.authentications", "noroshi.authentication.outcome"), {
      accepted: 8,
      refused: 10,
    });
  });

  it("counts connections over HTTP separately, so that opened − closed = active for each protocol", async () => {
    const PROTOCOL = "network.protocol.name";
    const { controller, metrics } = create({ stopAndWait: "all" });
    class OverHttp extends FakeTransport {
      readonly isOverHttp = true;
    }
    const counts = async () =>
      await Promise.all(
        ["active_connections", "connections.opened", "connections.closed", "connection.duration"].map((name) =>
          metrics.by(`noroshi.server.${name}`, PROTOCOL)
        ),
      );
    open(controller).connection.closed(1000, "", true);
    open(controller);
    assert.deepEqual((await metrics.series()).filter(({ attributes }) => attributes[PROTOCOL] === "http"), []);
    for (const closes of [true, true, false]) {
      const { connection } = openOn(new OverHttp(), controller);
      if (closes) connection.closed(1000, "", true);
    }
    assert.deepEqual(await counts(), [
      { websocket: 1, http: 1 },
      { websocket: 2, http: 3 },
      { websocket: 1, http: 2 },
      { websocket: 1, http: 2 },
    ]);
    assert.deepEqual(controller.stats().opened, 5);
  });

  it("measures the age of a connection in seconds, from the clock of the controller", async () => {
    const { clock, controller, metrics } = create();
    const peer = open(controller);
    clock.advance(2_500);
    peer.connection.closed(1000, "", true);
    const [age] = (await metrics.series()).filter(({ name }) => name === "noroshi.server.connection.duration");
    assert.deepEqual([age!.unit, age!.value, age!.sum], ["s", 1, 2.5]);
    assert.deepEqual(age!.attributes, {
      "noroshi.controller": "main",
      "network.protocol.name": "websocket",
      "noroshi.close.cause": "client",
    });
  });

  it("counts messages by declared type, and all others together", async () => {
    const { controller, metrics } = create({ rateLimit: false });
    controller.handle("say", v.object({}), () => null);
    const { connection } = open(controller);
    for (const type of ["say", "say", "ping", "subscribe"]) connection.message(JSON.stringify({ type }));
    for (let n = 0; n < 500; n++) connection.message(JSON.stringify({ type: `made-up-${n}` }));
    connection.message("no JSON");
    assert.deepEqual(await metrics.by("noroshi.server.messages.received", TYPE), { say: 2, ping: 1, subscribe: 1, _other: 501 });
  });

  it("measures handlers by type and outcome, however they end and whatever they throw", async () => {
    const { clock, controller, metrics } = create();
    const stall = new Stall<string>();
    const schema = v.object({ n: v.optional(v.number()) });
    controller.handle("sync", schema, () => "done");
    controller.handle("slow", schema, () => stall.promise);
    controller.handle("throws", schema, () => {
      throw new Error("secret");
    });
    controller.handle("refuses", schema, ({ message }) => {
      throw new WebSocketError("refuses", message.n === undefined ? "FORBIDDEN" : `MADE_UP_${message.n}`, "No");
    });
    const { connection, transport } = open(controller);
    connection.message('{"type":"slow","uid":1}');
    for (const type of ["sync", "throws", "refuses"]) connection.message(JSON.stringify({ type }));
    for (let n = 0; n < 20; n++) connection.message(JSON.stringify({ type: "refuses", n }));
    connection.message('{"type":"sync","n":"not a number"}');
    clock.advance(250);
    stall.resolve("later");
    await settle();
    const calls = (await metrics.series()).filter(({ name }) => name === "rpc.server.call.duration");
    assert.deepEqual(
      calls.map(({ attributes, value }) => [attributes["rpc.method"], attributes["error.type"], value]).sort(),
      [["refuses", "FORBIDDEN", 1], ["refuses", "_APPLICATION", 20], ["slow", undefined, 1], ["sync", undefined, 1], [
        "throws",
        "_OTHER",
        1,
      ]],
    );
    assert.equal(calls.find(({ attributes }) => attributes["rpc.method"] === "slow")!.sum, 0.25);
    assert.equal(transport.take().filter(({ data }) => data === "later" || data === "done").length, 2, "the answers are sent");
  });

  it("counts streams so that started − ended = active, with their items, and measures a handler until its stream has ended", async () => {
    const { clock, controller, metrics } = create({ maxStreams: 3 });
    const stall = new Stall<void>();
    controller.handle("count", v.object({ way: v.string() }), async function* ({ message: { way }, signal }) {
      yield 1;
      yield 2;
      if (way === "fails") throw new WebSocketError("count", "FORBIDDEN", "No");
      if (way === "waits") await stall.promise;
      else await new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    });
    const { connection } = open(controller);
    const count = (uid: number, way: string) => connection.message(JSON.stringify({ type: "count", uid, way }));
    count(1, "waits");
    count(2, "fails");
    await settle();
    count(3, "is cancelled");
    count(4, "is cut");
    count(5, "is refused");
    await settle();
    connection.message('{"type":"stream.cancel","uid":3}');
    clock.advance(250);
    stall.resolve();
    await settle();
    assert.deepEqual(await metrics.by("noroshi.server.streams.ended", "error.type"), {
      undefined: 1,
      FORBIDDEN: 1,
      CANCELLED: 1,
      LIMIT_EXCEEDED: 1,
    });
    const read = async () => {
      const of = (name: string) => metrics.total(`noroshi.server.streams.${name}`);
      return { started: await of("started"), ended: await of("ended"), active: await of("active"), items: await of("items") };
    };
    assert.deepEqual(await read(), { started: 5, ended: 4, active: 1, items: 8 });
    connection.closed(1006, "", false);
    await settle();
    assert.deepEqual(await read(), { started: 5, ended: 5, active: 0, items: 8 });
    assert.equal((await metrics.by("noroshi.server.streams.ended", "error.type"))["DISCONNECTED"], 1);
    const calls = (await metrics.series()).filter(({ name }) => name === "rpc.server.call.duration");
    const sums = Object.fromEntries(calls.map(({ attributes, value, sum }) => [attributes["error.type"] ?? "", [value, sum]]));
    assert.deepEqual(sums, {
      "": [1, 0.25],
      FORBIDDEN: [1, 0],
      CANCELLED: [1, sums["CANCELLED"]![1]],
      DISCONNECTED: [1, 0.25],
      LIMIT_EXCEEDED: [1, 0],
    });
  });

  it("measures at most 100 handlers in 100 ms, and counts the messages of all", async () => {
    const { clock, controller, metrics } = create({ rateLimit: false });
    controller.handle("say", v.object({}), () => "done");
    const { connection, transport } = open(controller);
    const say = () => {
      for (let n = 0; n < 500; n++) connection.message('{"type":"say"}');
    };
    say();
    clock.advance(99);
    say();
    assert.deepEqual(await metrics.by("rpc.server.call.duration", "rpc.method"), { say: 100 });
    clock.advance(1);
    say();
    assert.deepEqual(await metrics.by("rpc.server.call.duration", "rpc.method"), { say: 200 });
    assert.deepEqual(await metrics.by("noroshi.server.messages.received", TYPE), { say: 1_500 });
    assert.equal(transport.sent.length, 1_500);
  });

  it("counts sent, dropped and limited messages", async () => {
    const { controller, metrics } = create({ slowConsumer: "drop", maxBufferedBytes: 100, rateLimit: { messages: 1, burst: 1 } });
    const [fast, slow] = [open(controller), open(controller)];
    slow.transport.bufferedAmount = 1_000;
    for (let n = 0; n < 5; n++) await controller.broadcast({ type: "news", n });
    assert.equal(fast.transport.sent.length, 5);
    assert.equal(await metrics.total("noroshi.server.messages.sent"), 5);
    assert.equal(await metrics.total("noroshi.server.messages.dropped"), 5);
    assert.equal(await metrics.total("noroshi.server.slow_consumers"), 1);
    for (let n = 0; n < 3; n++) fast.connection.message('{"type":"ping"}');
    assert.equal(await metrics.total("noroshi.server.messages.limited"), 2);
  });

  it("counts a slow consumer that is closed", async () => {
    const { controller, metrics } = create({ maxBufferedBytes: 100 });
    const { connection, transport } = open(controller);
    transport.bufferedAmount = 1_000;
    await controller.broadcast({ type: "news" });
    connection.closed(4508, "", true);
    assert.equal(await metrics.total("noroshi.server.slow_consumers"), 1);
  });

  it("reports channels, publications and recoveries", async () => {
    const engine = new MemoryEngine();
    const { controller, metrics } = create({ engine });
    const channels = new Channels(controller, { "room:*": { authorize: () => true, history: { size: 2, ttl: 60_000 } } });
    const peer = open(controller);
    const ask = async (message: object) => {
      peer.connection.message(JSON.stringify(message));
      await settle();
      return peer.transport.take();
    };
    const [{ epoch }] = await ask({ type: "subscribe", channel: "room:secret" });
    for (let n = 0; n < 4; n++) await channels.publish("room:secret", "say", n);
    await ask({ type: "subscribe", channel: "room:secret", uid: 1, recover: { epoch, offset: 3 } });
    await ask({ type: "subscribe", channel: "room:secret", uid: 2, recover: { epoch, offset: 0 } });
    assert.deepEqual(await metrics.by("noroshi.server.recoveries", "noroshi.recovery.outcome"), { complete: 1, incomplete: 1 });
    assert.equal(await metrics.total("noroshi.server.channels"), 1);
    assert.equal(await metrics.total("noroshi.server.subscriptions"), 3);
    assert.deepEqual(await metrics.by("messaging.client.operation.duration", "error.type"), { undefined: 4 });
    assert.deepEqual(await metrics.by("noroshi.server.engine.status", "noroshi.engine.status"), { ready: 1 });
    engine.publish = () => {
      throw new WebSocketError("server", "ENGINE_UNAVAILABLE", "Away");
    };
    await assert.rejects(channels.publish("room:secret", "say", 5));
    assert.deepEqual(await metrics.by("messaging.client.operation.duration", "error.type"), {
      undefined: 4,
      ENGINE_UNAVAILABLE: 1,
    });
    peer.connection.closed(1000, "", true);
    await controller.close();
    assert.deepEqual(await metrics.by("noroshi.server.engine.status", "noroshi.engine.status"), { closed: 1 });
  });

  it("reads the buffers of at most 1,000 clients at each collection", async () => {
    const { controller, metrics } = create({ rateLimit: false });
    for (let n = 0; n < 2_500; n++) open(controller).transport.bufferedAmount = 512;
    const read = async () => (await metrics.series()).find(({ name }) => name === "noroshi.server.connection.buffered")!;
    const { unit, value, sum } = await read();
    assert.equal(unit, "By");
    assert.ok(value > 800 && value <= 1_000, `${value} clients`);
    assert.equal(sum, value * 512);
  });

  it("has no label whose values come from a client, a user or a channel name", async () => {
    const { controller, metrics } = create({ authenticate: ann, rateLimit: false });
    const channels = new Channels(controller, { "room:*": { authorize: () => true } });
    controller.handle("say", v.object({}), () => null);
    // The delay of the event loop is a series from the first time that a timer was late.
    const named = async () => (await metrics.series()).filter(({ name }) => name !== "noroshi.event_loop.delay");
    const before = (await named()).length;
    const tell = async (round: number) => {
      const { connection } = open(controller, { identity: { accountability: { user: `user-${round}`, role: `role-${round}` } } });
      for (
        const message of [
          { type: "say", uid: `uid-${round}` },
          { type: `type-${round}` },
          { type: "subscribe", channel: `room:${round}` },
          { type: "publish", channel: `room:${round}`, event: `event-${round}` },
          { type: "auth", access_token: `token-${round}` },
        ]
      ) connection.message(JSON.stringify(message));
      await settle();
      await channels.publish(`room:${round}`, `event-${round}`, round);
      connection.closed(4000 + round, `reason-${round}`, true);
    };
    for (let round = 0; round < 3; round++) await tell(round);
    const some = (await named()).length;
    for (let round = 3; round < 60; round++) await tell(round);
    const all = await named();
    assert.equal(all.length, some, "60 clients have as many series as 3");
    assert.ok(before < some);
    for (const { attributes } of all) {
      for (const value of Object.values(attributes)) {
        assert.doesNotMatch(String(value), /user-|role-|uid-|type-|room|event-|token-|reason-|\d/);
      }
    }
  });

  it("throws for an unknown option or an invalid value, and names what to pass", () => {
    const controller = new WebSocketController();
    const rejected: [options: object, message: RegExp][] = [
      [{ metre: false }, /unknown option "metre", use meter, tracer, logger$/],
      [{ toString: false }, /unknown option "toString"/],
      [{ tracer: true }, /"tracer" has no startSpan\(\), pass trace\.getTracer\("noroshi"\) of @opentelemetry\/api, or false$/],
      [{ tracer: trace.getTracerProvider() }, /"tracer" has no startSpan\(\)/],
      [{ tracer: null }, /"tracer" has no startSpan\(\)/],
      [{ meter: metrics }, /"meter" has no createHistogram\(\), pass metrics\.getMeter\("noroshi"\)/],
      [{ logger: console }, /"logger" has no emit\(\), pass logs\.getLogger\("noroshi"\) of @opentelemetry\/api-logs$/],
      [{ logger: false }, /"logger" has no emit\(\)/],
    ];
    for (const [options, message] of rejected) {
      assert.throws(() => observe(controller, options), { name: "TypeError", message }, JSON.stringify(Object.keys(options)));
    }
    observe(controller, { meter: false, tracer: false, logger: undefined } as object)(); // Nothing is left of the others.
  });

  it("observes a controller once at a time, and leaves nothing behind when it ends", async () => {
    const { controller, metrics } = create();
    assert.throws(() => observe(controller), /^TypeError: Cannot observe the controller: OpenTelemetry observes it already/);
    assert.throws(() => observe({} as WebSocketController), /^TypeError: Cannot observe: pass a WebSocketController/);
    const { connection } = open(controller);
    metrics.end();
    metrics.end();
    connection.message('{"type":"ping"}');
    connection.closed(1000, "", true);
    const durations = (await metrics.series()).filter(({ name, value }) => name.endsWith("connection.duration") && value > 0);
    assert.deepEqual(durations, []);
    observed(controller).end();
  });
});

describe("measureDelay", () => {
  it("records how late a timer is until it ends", async () => {
    let end!: () => void; // Set before a timer can fire.
    const delay = new Promise<number>((resolve) => end = measureDelay(resolve));
    // Longer than its period: without this wait no timer could be late.
    const until = performance.now() + 150;
    while (performance.now() < until);
    const seconds = await delay;
    end();
    assert.ok(seconds >= 0.04 && seconds < 60, `${seconds} s`);
  });

  it("sets no timer on Workers, where one prevents hibernation", () => {
    const global = globalThis as { WebSocketPair?: unknown };
    global.WebSocketPair = class {};
    try {
      measureDelay(() => assert.fail())();
    } finally {
      delete global.WebSocketPair;
    }
  });
});
