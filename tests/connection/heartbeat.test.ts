import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Heartbeat } from "../../src/connection/heartbeat.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { FakeTransport, HibernatingTransport, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { assertProperty } from "../support/property.ts";
import { TestClock } from "../support/test-clock.ts";

const PERIOD = 1000;
const each = (period: number) => ({ period, timeout: period });

/** A socket with protocol pings, as on Node and Bun. */
class PingTransport extends FakeTransport {
  pings = 0;

  ping(): void {
    this.pings++;
  }
}

/** When a connection is first asked for a sign of life, in ms from now. */
function firstBeat(heartbeat: Heartbeat): number {
  const owner = { nextPingAt: Infinity, receivedAt: 0, probe: assert.fail, timedOut: assert.fail };
  heartbeat.start(owner);
  return heartbeat.remaining(owner);
}

function connect<T extends FakeTransport>(transport: T, heartbeat: WebSocketControllerOptions["heartbeat"] = { period: PERIOD }) {
  const observed = observe(heartbeat === undefined ? {} : { heartbeat });
  return { ...observed, ...openOn(transport, observed.controller) };
}

describe("Heartbeat", () => {
  it("first asks within half a period and a whole one, spread over that half", () => {
    assertProperty(fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), fc.nat(1e9), (period, start) => {
      const remaining = firstBeat(new Heartbeat(each(period), () => start));
      // A step earlier, of which the period has a hundred.
      assert.ok(remaining > period * 0.49 - 1 && remaining <= period, `${remaining} of ${period}`);
    }));
    const heartbeat = new Heartbeat(each(PERIOD), () => 0);
    const phases = Array.from({ length: 1000 }, () => firstBeat(heartbeat));
    // Over the whole half: of a thousand, none in one tenth of it has a chance of 1 in 10^45.
    for (let tenth = 0; tenth < 10; tenth++) {
      assert.ok(phases.some((phase) => Math.floor((phase - PERIOD / 2) / (PERIOD / 20)) === tenth), `none in tenth ${tenth}`);
    }
  });

  it("asks those of one step together, so that they need one timer: of 50 ms, or of a hundredth of the period", () => {
    for (const [period, steps] of [[30_000, 300], [PERIOD, 50], [50, 25]] as const) {
      const heartbeat = new Heartbeat(each(period), () => 1_234.5);
      const times = new Set(Array.from({ length: 10_000 }, () => firstBeat(heartbeat)));
      assert.ok(times.size > steps * 0.9 && times.size <= steps + 2, `${times.size} of ${steps}`);
    }
  });

  it("asks after a period of silence, however often something came in before, and is silent after the timeout", () => {
    const clock = new TestClock();
    const told: [string, number][] = [];
    const owner = {
      nextPingAt: Infinity,
      receivedAt: 0,
      probe: () => void told.push(["probe", clock.monotonic()]),
      timedOut: () => void told.push(["silent", clock.monotonic()]),
    };
    const heartbeat = new Heartbeat({ period: 1_000, timeout: 400 }, () => clock.monotonic());
    const pass = (ms: number) => {
      for (const end = clock.monotonic() + ms; clock.monotonic() < end;) {
        clock.advance(1);
        heartbeat.due(owner);
      }
    };
    heartbeat.due(owner);
    heartbeat.start(owner);
    for (let n = 0; n < 50; n++) {
      pass(490);
      owner.receivedAt = clock.monotonic();
    }
    assert.equal(told.length, 0);
    const start = clock.monotonic();
    pass(1_000);
    // It answers, and is asked again a period after its answer.
    pass(100);
    owner.receivedAt = clock.monotonic();
    pass(1_000);
    pass(400);
    const times = told.splice(0).map(([what, at]) => [what, Math.ceil((at - start) / 10) * 10]);
    assert.deepEqual(times, [["probe", 1_000], ["probe", 2_100], ["silent", 2_500]]);
  });

  it("stays with the others though timers are late", () => {
    let now = 0;
    const heartbeat = new Heartbeat({ period: 30_000, timeout: 10_000 }, () => now);
    const owner = { nextPingAt: Infinity, receivedAt: 0, probe: () => {}, timedOut: assert.fail };
    heartbeat.start(owner);
    const first = owner.nextPingAt;
    for (let n = 1; n <= 20; n++) {
      now = owner.nextPingAt + 1.5;
      heartbeat.due(owner);
      owner.receivedAt = now + 0.5;
      now = owner.nextPingAt + 1.5;
      heartbeat.due(owner);
      assert.equal(owner.nextPingAt, first + n * 30_000);
    }
  });
});

describe("Connection, with a heartbeat", () => {
  it("closes with 4504 a client that is silent for two periods, however much it is sent", () => {
    const { clock, transport, controller, events, client, connection } = connect(new PingTransport());
    for (let passed = 0; passed < 2 * PERIOD; passed += 100) {
      controller.broadcast("x");
      clock.advance(100);
    }
    assert.deepEqual([transport.pings, transport.closes], [1, [{ code: 4504, reason: "Heartbeat timed out" }]]);
    connection.closed(1006, "", false);
    const close = { client, code: 4504, reason: "Heartbeat timed out", wasClean: false, cause: "heartbeat" };
    assert.deepEqual(events.at(-1), ["close", close]);
    assert.equal(clock.timers, 0);
  });

  it("keeps one that answers pings, sends anything, or sends what is refused", () => {
    const signs: ((connection: ReturnType<typeof connect>["connection"]) => void)[] = [
      (connection) => connection.heard(),
      (connection) => connection.message('{"type":"pong"}'),
      (connection) => connection.message("not JSON"),
    ];
    for (const sign of signs) {
      const { clock, transport, connection } = connect(new PingTransport());
      for (let n = 0; n < 20; n++) {
        clock.advance(PERIOD);
        sign(connection);
      }
      assert.ok(transport.pings >= 19 && transport.pings <= 20);
      assert.deepEqual(transport.closes, []);
    }
  });

  it("sends no message unless it is told to, and then to those who are admitted", () => {
    const quiet = connect(new PingTransport());
    quiet.clock.advance(PERIOD);
    assert.deepEqual([quiet.transport.sent, quiet.transport.pings], [[], 1]);
    for (const transport of [new PingTransport(), new FakeTransport()]) {
      const asking = connect(transport, { period: PERIOD, message: true });
      asking.clock.advance(PERIOD);
      assert.deepEqual(asking.transport.take(), [{ type: "ping" }]);
    }
    const { controller, clock } = observe({ heartbeat: { period: PERIOD, message: true }, authenticate: () => null });
    const { transport } = openOn(new PingTransport(), controller, { mode: "handshake" });
    clock.advance(PERIOD);
    assert.deepEqual([transport.sent, transport.pings], [[], 1]);
  });

  it("finds one that is gone within 36 s by default, and pings nobody who says something every 24 s", () => {
    const talking = connect(new PingTransport(), {});
    talking.connection.heard();
    for (let n = 0; n < 20; n++) {
      talking.clock.advance(24_900);
      talking.connection.message('{"type":"x"}');
    }
    assert.deepEqual([talking.transport.pings, talking.transport.closes], [0, []]);
    talking.clock.advance(25_000);
    assert.deepEqual([talking.transport.pings, talking.transport.closes], [1, []]);
    talking.clock.advance(9_900);
    assert.deepEqual(talking.transport.closes, []);
    talking.clock.advance(1_100);
    assert.deepEqual(talking.transport.closes.map(({ code }) => code), [4504]);
  });

  it("is on by default with 25 s where the socket has pings, and else sets no timer", () => {
    const on = connect(new PingTransport(), {});
    on.clock.advance(12_400);
    assert.equal(on.transport.pings, 0);
    on.clock.advance(12_600);
    assert.equal(on.transport.pings, 1);
    for (
      const [transport, heartbeat] of [
        [new FakeTransport(), {}],
        [new PingTransport(), false],
        [new HibernatingTransport(), { message: true }],
        [Object.assign(new HibernatingTransport(), { ping: assert.fail }), { message: true }],
      ] as const
    ) {
      const { clock } = connect(transport, heartbeat);
      assert.equal(clock.timers, 0);
      clock.advance(1e6);
      assert.deepEqual([transport.sent, transport.closes], [[], []]);
    }
  });

  it("leaves a process that stood still the time to read an answer that arrived meanwhile, once", () => {
    for (const answers of [true, false]) {
      const { clock, transport, connection } = connect(new PingTransport());
      clock.advance(PERIOD);
      clock.jump(60_000);
      assert.deepEqual([transport.pings, transport.closes], [1, []]);
      if (answers) connection.heard();
      clock.jump(60_000);
      assert.deepEqual(transport.closes.map(({ code }) => code), answers ? [] : [4504]);
      assert.equal(transport.pings, answers ? 2 : 1);
    }
  });

  it("gives a silent peer the whole closeTimeout, and reports no failed authentication", () => {
    const identity = { accountability: { user: "ann", role: null } };
    const { controller, clock, takeNames } = observe({
      mode: "handshake",
      authenticate: () => null,
      heartbeat: { period: PERIOD },
      closeTimeout: 3_000,
    });
    const { transport } = openOn(new PingTransport(), controller, { mode: "handshake", identity });
    while (transport.closes.length === 0) clock.advance(10);
    clock.advance(2_989);
    assert.deepEqual([transport.terminations, takeNames()], [0, ["connect"]]);
    clock.advance(11);
    assert.deepEqual([transport.terminations, takeNames()], [1, ["close"]]);
  });

  it("closes with 4529 a peer whose socket is paused", () => {
    const { clock, transport } = connect(Object.assign(new PingTransport(), { isPaused: true }));
    clock.advance(2 * PERIOD);
    assert.deepEqual(transport.closes, [{ code: 4529, reason: "Too many messages waiting" }]);
  });

  it("pings a period after it was deferred, and asks the transport to confirm what the peer has read", () => {
    let asked = 0;
    const { clock, transport, connection } = connect(Object.assign(new PingTransport(), { ask: () => void asked++ }));
    for (let n = 1; n <= 10; n++) {
      connection.deferHeartbeat();
      assert.equal(asked, n);
      clock.advance(PERIOD * 0.9);
    }
    assert.equal(transport.pings, 0);
    clock.advance(PERIOD * 0.1);
    assert.equal(transport.pings, 1);
  });

  it("still ends an expired token, and an expiry still asks for a sign of life", () => {
    const { controller, clock } = observe({ heartbeat: { period: PERIOD }, timeout: 5 * PERIOD, authenticate: () => null });
    const accountability = { user: "ann", role: null };
    const identity = { accountability, expires_at: (clock.now() + 3 * PERIOD) / 1000 };
    const { transport, connection } = openOn(new PingTransport(), controller, { mode: "handshake", identity });
    for (let n = 0; n < 7; n++) {
      clock.advance(PERIOD);
      connection.heard();
    }
    assert.deepEqual([transport.take().length, transport.pings, transport.closes], [1, 7, []]);
    clock.advance(PERIOD);
    assert.deepEqual(transport.closes.map(({ code }) => code), [4401]);
  });
});
