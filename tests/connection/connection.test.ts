import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { byteLength } from "../../src/protocol/bytes.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { Extension } from "../../src/application/extension.ts";
import { sendAnswer } from "../../src/application/websocket-client.ts";
import { FakeTransport, HibernatingTransport, open, type Opened, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

/** A message of exactly so many UTF-8 bytes, of characters of any size. */
function messageOf(bytes: number, char: string): string {
  const size = byteLength(char);
  const room = bytes - byteLength('{"type":"x","a":""}');
  return `{"type":"x","a":"${char.repeat(Math.floor(room / size))}${"a".repeat(room % size)}"}`;
}

describe("Connection.opened", () => {
  it("admits at once in public mode, and in any mode with an identity", () => {
    const { controller, events, clock } = observe();
    const anonymous = open(controller);
    assert.deepEqual(anonymous.client.accountability, { user: null, role: null });
    assert.equal(anonymous.client.expires_at, null);
    const ann = open(controller, { mode: "strict", identity: { accountability: { user: "ann", role: null }, expires_at: 9e9 } });
    assert.deepEqual([ann.client.accountability, ann.client.expires_at], [{ user: "ann", role: null }, 9e9]);
    assert.deepEqual(events.splice(0), [["connect", { client: anonymous.client }], ["connect", { client: ann.client }]]);
    assert.deepEqual([...controller.clients()], [anonymous.client, ann.client]);
    // The expiry of ann alone: an anonymous client waits for nothing.
    assert.deepEqual([clock.timers, controller.stats().deadlines], [1, 1]);
  });

  it("shows the runtime's socket and the bytes that wait in it", () => {
    const { controller } = observe();
    const { client, transport } = open(controller);
    transport.bufferedAmount = 7;
    assert.deepEqual([client.socket, client.bufferedAmount], [transport.socket, 7]);
  });

  it("knows whether its frames are carried by HTTP", () => {
    const { controller } = observe();
    for (const [given, isOverHttp] of [[{}, false], [{ isOverHttp: false }, false], [{ isOverHttp: true }, true]] as const) {
      assert.equal(openOn(Object.assign(new FakeTransport(), given), controller).connection.isOverHttp, isOverHttp);
    }
  });

  it("gives the transport the limit of buffered bytes, the clock, and whether it may ask every client", () => {
    for (const [heartbeat, asksAll] of [[false, false], [{}, false], [{ message: true }, true]] as const) {
      const given: unknown[] = [];
      const { controller, clock } = observe({ maxBufferedBytes: 1234, heartbeat });
      const limit = (bytes: number, now: () => number, all: boolean) => void given.push(bytes, now(), all);
      openOn(Object.assign(new FakeTransport(), { limit }), controller);
      assert.deepEqual(given, [1234, clock.monotonic(), asksAll]);
    }
  });

  it("gives each connection a uid of its own", () => {
    const { controller } = observe();
    const uids = Array.from({ length: 50 }, () => open(controller).client.uid);
    assert.equal(new Set(uids).size, 50);
  });
});

describe("Connection.message", () => {
  it("closes with 1009 one byte past maxPayload, text and binary alike, and never reads it", () => {
    for (const char of ["a", "é", "語", "💬"]) {
      for (const form of [(text: string) => text, (text: string) => new TextEncoder().encode(text)]) {
        const { controller, takeNames } = observe({ maxPayload: 200 });
        const fits = open(controller);
        fits.connection.message(form(messageOf(200, char)));
        assert.deepEqual(fits.transport.closes, []);
        assert.deepEqual(takeNames(), ["connect", "message"]);
        const exceeds = open(controller);
        exceeds.connection.message(form(messageOf(201, char)));
        assert.deepEqual(exceeds.transport.closes, [{ code: 1009, reason: "Message too big" }]);
        assert.deepEqual(exceeds.transport.sent, []);
        assert.deepEqual(takeNames(), ["connect"]);
      }
    }
  });

  it("counts and reads only a view's own bytes", () => {
    const { controller, events } = observe({ maxPayload: 200 });
    const bytes = new TextEncoder().encode("x".repeat(500) + '{"type":"y"}' + "x".repeat(500));
    open(controller).connection.message(bytes.subarray(500, 512));
    assert.deepEqual(events.map(([event]) => event), ["connect", "message"]);
  });

  it("answers INVALID_PAYLOAD and lives on when a frame cannot be read", () => {
    const { controller, takeNames } = observe();
    const { connection, transport } = open(controller);
    takeNames();
    for (const frame of ["", "[]", "1", "null", '"x"', "{", Uint8Array.of(0xff), new ArrayBuffer(0)]) {
      connection.message(frame);
      const [answer] = transport.take();
      assert.deepEqual([answer.type, answer.status, answer.error.code], ["server", "error", "INVALID_PAYLOAD"]);
    }
    connection.message('{"type":"ping"}');
    assert.deepEqual(transport.take(), [{ type: "pong" }]);
    assert.deepEqual(transport.closes, []);
    assert.deepEqual(takeNames(), []);
  });

  it("answers ping with pong and its uid, sends no reply to a pong, and tells nobody", () => {
    const { controller, takeNames } = observe();
    const { connection, transport } = open(controller);
    takeNames();
    for (const uid of [7, "7", 0, ""]) connection.message(JSON.stringify({ type: "ping", uid }));
    connection.message('{"type":"ping","extra":1}');
    connection.message('{"type":"pong"}');
    assert.deepEqual(transport.take().map((pong) => [pong.type, pong.uid]), [["pong", 7], ["pong", "7"], ["pong", 0], [
      "pong",
      "",
    ], ["pong", undefined]]);
    assert.deepEqual(takeNames(), []);
  });

  it("notifies the transport of each sign of life, and of each pong with its uid", () => {
    const calls: unknown[] = [];
    const transport = Object.assign(new FakeTransport(), {
      heard: () => calls.push("heard"),
      answered: (uid: unknown) => calls.push(uid),
    });
    const { connection } = openOn(transport, observe().controller);
    for (const text of ['{"type":"x"}', '{"type":"pong","uid":"a"}', '{"type":"pong"}']) connection.message(text);
    connection.heard();
    assert.deepEqual(calls, ["heard", "heard", "a", "heard", undefined, "heard"]);
  });

  it("does nothing once a close has begun, by whichever side", () => {
    const { controller, takeNames } = observe();
    const closing = open(controller);
    closing.client.close();
    const closed = open(controller);
    closed.connection.closed(1000, "", true);
    takeNames();
    for (const { connection, transport } of [closing, closed]) {
      connection.message('{"type":"ping"}');
      connection.message('{"type":"x"}');
      assert.deepEqual(transport.sent, []);
    }
    assert.deepEqual(takeNames(), []);
  });
});

describe("Connection, with maxAge", () => {
  const DAY = 86_400_000;

  it("is closed with 1012 at 90 to 100 % of it, each at a time of its own", () => {
    const { controller, clock, events } = observe({ maxAge: DAY, heartbeat: { period: 1_000 } });
    const all = Array.from({ length: 50 }, () => open(controller));
    const closed = () => all.filter(({ transport }) => transport.closes.length > 0).length;
    clock.advance(0.9 * DAY - 1);
    assert.equal(closed(), 0);
    clock.advance(0.05 * DAY);
    assert.ok(closed() > 0 && closed() < all.length, `${closed()} of ${all.length} at half of the jitter`);
    clock.advance(0.05 * DAY + 1);
    for (const { transport, connection } of all) {
      assert.deepEqual(transport.closes, [{ code: 1012, reason: "Maximum age" }]);
      connection.closed(1012, "", true);
    }
    const causes = events.flatMap((each) => each[0] === "close" ? [each[1].cause] : []);
    assert.deepEqual(new Set(causes), new Set(["age"]));
    assert.equal(clock.timers, 0);
  });

  it("is closed whatever happens meanwhile: a message, a new identity, expired credentials", async () => {
    const observed = observe({
      mode: "public",
      maxAge: 60_000,
      authenticate: () => ({ accountability: { user: "ann", role: null }, expires_at: observed.clock.now() / 1000 + 53 }),
    });
    const { connection, transport } = open(observed.controller);
    observed.clock.advance(1_000);
    connection.message('{"type":"auth","access_token":"ann"}');
    await turn();
    observed.clock.advance(53_000); // Its credentials have run out.
    assert.deepEqual(transport.closes, []);
    observed.clock.advance(6_000);
    assert.deepEqual(transport.closes, [{ code: 1012, reason: "Maximum age" }]);
  });

  it("counts for a connection that never authenticates, and may be longer than a timer can wait", () => {
    const pending = observe({ maxAge: 1_000, authenticate: () => null });
    const { transport } = open(pending.controller, { mode: "handshake" });
    pending.clock.advance(1_000);
    assert.deepEqual(transport.closes, [{ code: 1012, reason: "Maximum age" }]);
    const old = observe({ maxAge: 60 * DAY });
    const long = open(old.controller);
    old.clock.advance(53 * DAY);
    assert.deepEqual(long.transport.closes, []);
    old.clock.advance(7 * DAY);
    assert.deepEqual(long.transport.closes.map(({ code }) => code), [1012]);
  });

  it("goes by the monotonic clock while it is awake", () => {
    const { controller, clock } = observe({ maxAge: 60_000 });
    const { transport } = open(controller);
    clock.step(DAY);
    clock.advance(53_000);
    assert.deepEqual(transport.closes, []);
    clock.step(-2 * DAY);
    clock.advance(7_000);
    assert.deepEqual(transport.closes.map(({ code }) => code), [1012]);
  });

  it("survives hibernation, and a wall clock that was set back or an option that changed", () => {
    const written = (elapsed: number) => {
      const { controller, clock } = observe({ maxAge: 60_000 });
      const { transport, client } = openOn(new HibernatingTransport(), controller);
      clock.advance(elapsed);
      client.state = 1;
      return transport.saved.at(-1)!;
    };
    /** The ms after which one that was open for a while is closed by a server whose wall clock stands so far from the first one's. */
    const age = (elapsed: number, step: number, options: WebSocketControllerOptions) => {
      const { controller, clock } = observe(options);
      clock.step(step);
      const transport = new HibernatingTransport();
      controller.restore(transport, written(elapsed));
      for (let s = 0; s <= 300; s++, clock.advance(1_000)) if (transport.closes.length > 0) return s;
      return Infinity;
    };
    const between = (value: number, from: number, to: number) =>
      assert.ok(value >= from && value <= to, `${value} is not within ${from} to ${to}`);
    between(age(10_000, 30_000, { maxAge: 60_000 }), 24, 31);
    between(age(10_000, 120_000, { maxAge: 60_000 }), 0, 1);
    between(age(0, -DAY, { maxAge: 60_000 }), 54, 61);
    between(age(0, 0, { maxAge: 10_000 }), 9, 11);
    assert.equal(age(0, 0, {}), Infinity);
    // It was opened before the option was there.
    const { controller, clock } = observe({ maxAge: 60_000 });
    const { ends_at: _, ...saved } = written(0);
    const transport = new HibernatingTransport();
    controller.restore(transport, saved);
    clock.advance(53_999);
    assert.deepEqual(transport.closes, []);
    clock.advance(6_001);
    assert.deepEqual(transport.closes.map(({ code }) => code), [1012]);
  });
});

describe("Connection.send", () => {
  it("hands the frame to the socket, also to one that has maxBufferedBytes waiting", () => {
    const { controller } = observe({ maxBufferedBytes: 1000 });
    const { client, transport } = open(controller);
    transport.bufferedAmount = 1000;
    client.send({ type: "x" });
    assert.deepEqual([transport.sent, transport.closes], [['{"type":"x"}'], []]);
  });

  it("closes with 4508 instead when more is waiting, or when the runtime dropped the frame", () => {
    for (const slow of [{ bufferedAmount: 1001 }, { sends: false }]) {
      const { controller, takeNames } = observe({ maxBufferedBytes: 1000 });
      const { client, transport } = open(controller);
      Object.assign(transport, slow);
      client.send({ type: "x" });
      client.send({ type: "y" });
      assert.deepEqual([transport.sent, transport.closes], [[], [{ code: 4508, reason: "Too slow" }]]);
      assert.deepEqual(takeNames(), ["connect"]);
    }
  });

  it("closes the slow one of a broadcast and reaches the others", () => {
    const { controller } = observe({ maxBufferedBytes: 1000 });
    const [slow, other] = [open(controller), open(controller)];
    slow.transport.bufferedAmount = 1001;
    controller.broadcast("x");
    assert.deepEqual([slow.transport.closes.length, slow.transport.sent, other.transport.sent], [1, [], ["x"]]);
  });

  it("does nothing when the socket is closing, though the runtime has not said so yet", async () => {
    const { controller, takeNames } = observe();
    const { client, transport } = open(controller);
    for (const readyState of [2, 3]) {
      transport.readyState = readyState;
      client.send("x");
      assert.deepEqual(await controller.broadcast("x"), { matched: 1, sent: 0, dropped: 1 });
      assert.equal(client.readyState, readyState);
    }
    assert.deepEqual([transport.sent, transport.closes, takeNames()], [[], [], ["connect"]]);
  });

  it("reports and does not throw when the socket is gone before the runtime said so", async () => {
    const { controller, events } = observe();
    const { client, transport, connection } = open(controller);
    const error = new Error("The socket is gone");
    transport.sends = error;
    client.send("x");
    assert.deepEqual(await controller.broadcast("x"), { matched: 1, sent: 0, dropped: 1 });
    connection.closed(1006, "", false);
    assert.deepEqual(events.slice(1), [
      ["error", { client, error }],
      ["error", { client, error }],
      ["close", { client, code: 1006, reason: "", wasClean: false, cause: "error" }],
    ]);
  });
});

describe("Connection.hasDropped", () => {
  // A drain must know whether the client may have missed an answer.
  it("is true once a message to the client was dropped, and after hibernation, before which one may have been", () => {
    const drops: ((opened: Opened) => void)[] = [
      ({ client, transport }) => (transport.bufferedAmount = 1001, client.send("x")),
      ({ client, transport }) => (transport.bufferedAmount = 1001, sendAnswer(client, "x")),
      ({ connection }) => connection.dropped(),
    ];
    for (const drop of drops) {
      const { controller } = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
      const opened = open(controller);
      opened.client.send("x");
      sendAnswer(opened.client, "x");
      assert.equal(opened.connection.hasDropped, false);
      drop(opened);
      assert.equal(opened.connection.hasDropped, true);
    }
    const { controller } = observe();
    const { transport } = openOn(new HibernatingTransport(), controller);
    assert.equal(controller.restore(transport, transport.saved.at(-1)!).hasDropped, true);
  });
});

describe("Connection, with an extension", () => {
  it("reports each change of what the client may receive, and at the end whether the client may return", async () => {
    const calls: unknown[] = [];
    const names = ["admitted", "suspended", "restored", "readable", "closed"];
    const methods = Object.fromEntries(
      names.map((name) => [name, (_client: unknown, ...more: unknown[]) => void calls.push(name, ...more)]),
    );
    const extension = { ...methods, types: [], histories: [], maxSubscriptions: () => 1, subscriptionsOf: () => 0 };
    const create = () => {
      const observed = observe({
        mode: "handshake",
        authenticate: () => ({ accountability: { user: "ann", role: null } }),
        slowConsumer: "drop",
        maxBufferedBytes: 1000,
      });
      observed.controller.extend(extension as unknown as Extension); // What a connection calls.
      return observed;
    };
    const { controller, clock } = create();
    const { transport, connection, client } = openOn(new HibernatingTransport(), controller, { mode: "handshake" });
    assert.deepEqual(calls, []);
    connection.message('{"type":"auth","access_token":"token-1"}');
    await turn();
    assert.deepEqual(calls.splice(0), ["admitted"]);
    transport.bufferedAmount = 1001;
    client.send("x");
    transport.bufferedAmount = 0;
    clock.advance(250);
    assert.deepEqual(calls.splice(0), ["readable"]);
    client.close(4000);
    assert.deepEqual(calls.splice(0), ["suspended"]);
    connection.closed(4000, "", true);
    assert.deepEqual(calls.splice(0), ["closed", true]);
    // One that has come back from hibernation, and one whose credentials had expired by then.
    const saved = transport.saved.at(-1)!;
    for (const phase of ["admitted", "expired"] as const) {
      const { controller, clock } = create();
      const again = new HibernatingTransport();
      const connection = controller.restore(again, { ...saved, phase, until: clock.now() + 1_000 });
      const isExpired = phase === "expired";
      assert.deepEqual(calls.splice(0), isExpired ? ["admitted", "suspended", "restored"] : ["admitted", "restored"]);
      const matched = isExpired ? 0 : 1;
      assert.deepEqual(await controller.broadcast("x"), { matched, sent: matched, dropped: 0 });
      const { clients, pending } = controller.stats();
      assert.deepEqual([clients, pending], [1, 0]);
      connection.closed(4403, "", true);
      assert.deepEqual(calls.splice(0), ["closed", false]);
    }
  });
});

describe("Connection.close", () => {
  it("closes with 1000 and no reason by default, and with a code and a reason cut to 123 bytes", () => {
    const { controller } = observe();
    const [plain, long] = [open(controller), open(controller)];
    plain.client.close();
    long.client.close(4000, "💬".repeat(50));
    assert.deepEqual(plain.transport.closes, [{ code: 1000, reason: "" }]);
    assert.deepEqual(long.transport.closes, [{ code: 4000, reason: "💬".repeat(30) }]);
  });

  it("is told once, with what was said first, and is closing, then closed", () => {
    const { controller, events } = observe();
    const { client, transport, connection } = open(controller);
    assert.equal(client.readyState, 1);
    client.close(4000, "first");
    client.close(4001, "second");
    client.send("never");
    transport.readyState = 1; // A runtime may be late to see it.
    assert.equal(client.readyState, 2);
    connection.closed(4000, "echoed", true);
    connection.closed(1006, "", false);
    client.close(4002, "third");
    client.send("never");
    assert.equal(client.readyState, 3);
    assert.deepEqual([transport.sent, transport.closes], [[], [{ code: 4000, reason: "first" }]]);
    assert.deepEqual(events.slice(1), [["close", { client, code: 4000, reason: "first", wasClean: true, cause: "server" }]]);
    // Counted once, too: as the server's, and not as the peer's or as an error's.
    const { closed, closedBy } = controller.stats();
    assert.deepEqual([closed, closedBy.server, closedBy.client, closedBy.error], [1, 1, 0, 0]);
  });

  it("is told with the peer's code and reason when the peer closed first", () => {
    const { controller, events } = observe();
    const { client, connection } = open(controller);
    connection.closed(4321, "mine", true);
    assert.deepEqual(events.slice(1), [["close", { client, code: 4321, reason: "mine", wasClean: true, cause: "client" }]]);
  });

  it("removes the client from clients() before it emits close, and from broadcasts when the close begins", async () => {
    const { controller } = observe();
    const { client, transport, connection } = open(controller);
    let listed: boolean | undefined;
    controller.on("close", () => listed = controller.clients().has(client));
    client.close();
    assert.equal((await controller.broadcast("x")).matched, 0);
    connection.closed(1000, "", true);
    controller.broadcast("x");
    assert.deepEqual([listed, transport.sent], [false, []]);
  });

  it("throws TypeError and leaves the connection open when the code may not be sent", () => {
    const { controller } = observe();
    const { client, transport } = open(controller);
    for (const code of [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, NaN]) assert.throws(() => client.close(code), TypeError);
    assert.deepEqual([transport.closes, client.readyState], [[], 1]);
  });

  it("ends the connection without its peer when that does not answer within closeTimeout", () => {
    const { controller, events, clock } = observe({ closeTimeout: 3000 });
    const { client, transport, connection } = open(controller);
    client.close(4000, "bye");
    clock.advance(2999);
    assert.deepEqual([transport.terminations, events.length], [0, 1]);
    clock.advance(1);
    assert.deepEqual([transport.terminations, client.readyState, events.length], [1, 3, 2]);
    connection.closed(1006, "", false);
    // The close we began is what is told; that it was not answered is in wasClean.
    assert.deepEqual(events.slice(1), [["close", { client, code: 4000, reason: "bye", wasClean: false, cause: "server" }]]);
    assert.deepEqual([client.readyState, clock.timers, controller.clients().size], [3, 0, 0]);
  });

  it("waits no longer than half a second for a slow client, or one that sends too much", () => {
    const ends: ((opened: Opened) => void)[] = [
      ({ client, transport }) => (transport.bufferedAmount = 1001, client.send("x")),
      ({ connection }) => [1, 2].forEach(() => connection.message('{"type":"x"}')),
    ];
    for (const end of ends) {
      for (const [closeTimeout, wait] of [[5_000, 500], [300, 300]] as const) {
        const { controller, clock } = observe({ maxBufferedBytes: 1000, maxPipelined: 0, closeTimeout });
        controller.use(() => new Promise(() => {}));
        const opened = open(controller);
        end(opened);
        clock.advance(wait - 1);
        assert.deepEqual([opened.transport.closes.length, opened.transport.terminations], [1, 0]);
        clock.advance(1);
        assert.equal(opened.transport.terminations, 1);
      }
    }
  });

  it("leaves no timer when the peer has answered", () => {
    const { controller, clock } = observe();
    const { client, connection } = open(controller);
    client.close();
    assert.equal(clock.timers, 1);
    connection.closed(1000, "", true);
    assert.equal(clock.timers, 0);
  });

  it("reports and is closed when the socket throws instead", () => {
    const { controller, events, clock } = observe();
    const { client, transport } = open(controller);
    transport.closeError = new Error("The socket is gone");
    client.close();
    assert.deepEqual(events.slice(1), [
      ["error", { client, error: transport.closeError }],
      ["close", { client, code: 1000, reason: "", wasClean: false, cause: "server" }],
    ]);
    assert.deepEqual([client.readyState, clock.timers, controller.clients().size], [3, 0, 0]);
  });

  it("may be called from connect, and from a handler while more has come in", () => {
    const { controller, takeNames } = observe();
    controller.on("connect", ({ client }) => client.accountability.user === "first" && client.close(4001));
    const first = open(controller, { identity: { accountability: { user: "first", role: null } } });
    assert.deepEqual(first.transport.closes, [{ code: 4001, reason: "" }]);
    controller.handle("leave", v.object({}), ({ client }) => client.close(4002));
    const second = open(controller);
    takeNames();
    second.connection.message('{"type":"leave"}');
    second.connection.message('{"type":"more"}');
    assert.deepEqual([second.transport.sent, takeNames()], [[], ["message"]]);
  });
});

describe("Connection.error", () => {
  it("is told with the client, and not at all once it is closed", () => {
    const { controller, events } = observe();
    const { client, connection } = open(controller);
    const error = new Error("reset");
    connection.error(error);
    connection.closed(1006, "", false);
    connection.error(error);
    assert.deepEqual(events.map(([event]) => event), ["connect", "error", "close"]);
    assert.deepEqual(events[1], ["error", { client, error }]);
  });
});

describe("Connection", () => {
  it("writes nothing for hibernation when its runtime has none", () => {
    const { controller, takeNames } = observe();
    const { client, transport } = openOn(new FakeTransport(), controller);
    client.state = { kept: true };
    assert.deepEqual(client.state, { kept: true });
    // To write would fail, be reported, and close the connection.
    assert.deepEqual([takeNames(), transport.closes], [["connect"], []]);
  });
});
