import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { asText } from "../../src/application/log.ts";
import * as v from "valibot";
import { WebSocketController } from "../../src/controller/controller.ts";
import { createWebSocketController, getWebSocketController } from "../../src/controller/default-controller.ts";
import { CountedEngine } from "../support/counted-engine.ts";
import { HANDSHAKE, HibernatingTransport, open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { TestClock } from "../support/test-clock.ts";
import { turn } from "../support/waiting.ts";

const EVENTS = ["connect", "message", "error", "close", "auth.success", "auth.failure"] as const;

/** A controller that logs into a list. */
function createLogged() {
  const records: string[] = [];
  const controller = new WebSocketController({
    logger: {
      warn: (_record, message) => void records.push(`warn ${message}`),
      error: (...record) => void records.push(asText(...record)),
    },
  });
  return { controller, records };
}

describe("WebSocketController.on and off", () => {
  it("throw TypeError naming the events when the event is unknown", () => {
    const controller = new WebSocketController();
    for (const method of ["on", "off"] as const) {
      for (const event of ["connection", "*", "", "constructor", undefined, Symbol.iterator]) {
        assert.throws(() => controller[method](event as never, () => {}), {
          name: "TypeError",
          message: `Cannot call ${method}: unknown event "${String(event)}", use one of ${EVENTS.join(", ")}`,
        });
      }
    }
  });

  it("throw TypeError when the callback is no function, so that off never removes everybody's", () => {
    const { controller, events } = observe();
    for (const method of ["on", "off"] as const) {
      for (const callback of [undefined, null, {}, "f"]) {
        for (const event of EVENTS) {
          assert.throws(() => controller[method](event, callback as never), {
            name: "TypeError",
            message: `Cannot call ${method}("${event}"): pass the callback, a function`,
          });
        }
      }
    }
    open(controller);
    assert.equal(events.length, 1);
  });
});

describe("WebSocketController.clients", () => {
  it("has those admitted before its first call, without those that wait, and follows later ones", () => {
    const controller = new WebSocketController({ mode: "handshake", authenticate: () => null, logger: false });
    const identity = { accountability: { user: "ann", role: null } };
    const admit = () => controller.open(new HibernatingTransport(), HANDSHAKE, identity);
    const [first] = [admit(), controller.open(new HibernatingTransport(), { ...HANDSHAKE, mode: "handshake" }, null)];
    assert.equal(controller.stats().clients, 1);
    const clients = controller.clients();
    assert.deepEqual([...clients], [first.client]);
    const second = admit();
    first.closed(1000, "", true);
    assert.deepEqual([[...clients], controller.clients() === clients], [[second.client], true]);
    assert.equal(controller.stats().clients, 1);
  });
});

describe("WebSocketController, on a message", () => {
  it("answers UNSUPPORTED_TYPE when it has neither a listener nor a handler for it", () => {
    const controller = new WebSocketController({ logger: false });
    controller.handle("handled", v.object({}), () => {});
    const { connection, transport } = open(controller);
    const codes = () => transport.take().map(({ error }) => error?.code);
    for (const type of ["handled", "other"]) connection.message(JSON.stringify({ type }));
    assert.deepEqual(codes(), [undefined, "UNSUPPORTED_TYPE"]);
    const listener = () => {};
    controller.on("message", listener);
    connection.message('{"type":"other"}');
    assert.deepEqual(codes(), []);
    controller.off("message", listener);
    connection.message('{"type":"other"}');
    assert.deepEqual(codes(), ["UNSUPPORTED_TYPE"]);
  });
});

describe("WebSocketController, on what a listener throws", () => {
  it("emits error with the client, and calls every other listener of the event", async () => {
    const { controller, events } = observe();
    const errors = [new Error("thrown"), new Error("rejected")];
    controller.on("connect", () => {
      throw errors[0];
    });
    controller.on("connect", () => Promise.reject(errors[1]));
    const after: unknown[] = [];
    controller.on("connect", ({ client }) => after.push(client));
    const { client } = open(controller);
    await turn();
    assert.deepEqual(after, [client]);
    assert.deepEqual(events, [["connect", { client }], ...errors.map((error) => ["error", { client, error }])]);
  });

  it("emits error without a client when the event had none", async () => {
    const { controller, events } = observe({ authenticate: () => null });
    const error = new Error("thrown");
    controller.on("auth.failure", () => {
      throw error;
    });
    open(controller, { mode: "handshake" }).connection.message('{"type":"x"}');
    await turn();
    assert.deepEqual(events.filter(([event]) => event === "error"), [["error", { error }]]);
  });

  it("logs one record without an error listener", async () => {
    const { controller, records } = createLogged();
    controller.on("message", () => {
      throw new Error("thrown\nin message");
    });
    controller.handle("reject", v.looseObject({}), () => Promise.reject(new Error("rejected")));
    const { client, connection } = open(controller);
    connection.message('{"type":"reject"}');
    await turn();
    assert.equal(records.length, 2);
    for (const record of records) assert.ok(record.startsWith(`[noroshi] client=${client.uid} `), record);
    assert.match(records.join("\n"), /thrown\\u000ain message\n(?: {4}at .*\n)+.*rejected\n {4}at /);
  });

  it("logs nothing with an error listener, and again once it is removed", () => {
    const { controller, records } = createLogged();
    const { connection } = open(controller);
    const listener = () => {};
    controller.on("error", listener);
    connection.error(new Error("first"));
    assert.deepEqual(records, []);
    controller.off("error", listener);
    connection.error(new Error("second"));
    assert.match(records.join(), /second/);
  });

  it("logs what an error listener throws or rejects with, and emits no error for it", async () => {
    const { controller, records } = createLogged();
    let calls = 0;
    controller.on("error", () => {
      calls++;
      throw new Error("thrown in error");
    });
    controller.on("error", () => Promise.reject(new Error("rejected in error")));
    open(controller).connection.error(new Error("reset"));
    await turn();
    assert.equal(calls, 1);
    assert.deepEqual(records.map((record) => /(thrown|rejected) in error/.exec(record)?.[0]), [
      "thrown in error",
      "rejected in error",
    ]);
  });

  it("is silent when logger is false", async () => {
    const { console } = globalThis;
    const printed: unknown[][] = [];
    const print = (...line: unknown[]) => void printed.push(line);
    globalThis.console = { ...console, log: print, warn: print, error: print, info: print };
    try {
      const controller = new WebSocketController({ logger: false });
      controller.on("connect", () => Promise.reject(new Error("rejected")));
      open(controller).connection.error(new Error("reset"));
      await turn();
    } finally {
      globalThis.console = console;
    }
    assert.deepEqual(printed, []);
  });
});

describe("WebSocketController.broadcast", () => {
  it("encodes an object once for all, and sends a string as it is", () => {
    const { controller } = observe();
    const opened = [open(controller), open(controller)];
    let encoded = 0;
    controller.broadcast({ type: "x", toJSON: () => ({ type: "x", n: ++encoded }) });
    controller.broadcast("plain \ud800");
    for (const { transport } of opened) assert.deepEqual(transport.sent, ['{"type":"x","n":1}', "plain \ufffd"]);
  });

  it("throws TypeError and sends nothing when the filter or the message is bad", () => {
    const { controller } = observe();
    const { transport } = open(controller);
    for (const filter of [{ user: undefined }, { role: "" }, null, [], { users: "a" }]) {
      assert.throws(() => controller.broadcast("x", filter as never), TypeError);
    }
    for (const message of [{ type: "x", n: 1n }, undefined, 7]) {
      assert.throws(() => controller.broadcast(message as never), TypeError);
    }
    assert.deepEqual(transport.sent, []);
  });
});

describe("WebSocketController.close", () => {
  it("closes every connection, pending ones too, and resolves when all have closed", async () => {
    const { controller, clock } = observe({ authenticate: () => null });
    const opened = [open(controller), open(controller, { mode: "handshake" })];
    let resolved = false;
    const closed = controller.close().then(() => resolved = true);
    for (const { transport, connection } of opened) {
      assert.deepEqual([transport.closes, transport.sent], [[{ code: 1001, reason: "Going away" }], []]);
      await turn();
      assert.equal(resolved, false);
      connection.closed(1001, "", true);
    }
    await closed;
    assert.deepEqual([controller.clients().size, clock.timers], [0, 0]);
  });

  it("leaves no timer, not even one that may run out: it would keep the controller in memory", async () => {
    const clock = Object.assign(new TestClock(), { mayRunOut: true });
    const controller = new WebSocketController({ authenticate: () => null, logger: false, clock });
    const { connection } = open(controller);
    const closed = controller.close();
    connection.closed(1001, "", true);
    await closed;
    assert.equal(clock.timers, 0);
    // A connection that opens after it has a deadline until it is gone.
    open(controller).connection.closed(1001, "", true);
    assert.equal(clock.timers, 0);
  });

  it("closes with the code and reason it is given, the first time it is called", async () => {
    const { controller } = observe();
    const { transport, connection } = open(controller);
    const first = controller.close(1012, "Restart");
    assert.equal(controller.close(4000), first);
    assert.deepEqual(transport.closes, [{ code: 1012, reason: "Restart" }]);
    connection.closed(1012, "", true);
    await first;
  });

  it("closes the engine once, although a close listener closes too, and counts as closed in the listener", async () => {
    const engine = new CountedEngine();
    const { controller } = observe({ engine });
    assert.equal(controller.engine.status, "ready");
    for (const { connection, transport } of [open(controller), open(controller)]) {
      // As on Bun, where `close` has reported the end when it returns.
      transport.close = (code, reason) => connection.closed(code, reason, true);
    }
    const statuses: string[] = [];
    const closed: Promise<void>[] = [];
    controller.on("close", () => {
      statuses.push(controller.status);
      closed.push(controller.close());
    });
    await controller.close();
    await Promise.all(closed);
    assert.deepEqual([engine.closes, statuses], [1, ["closed", "closed"]]);
  });

  it("throws TypeError and closes nothing when the code may not be sent", () => {
    const controller = createWebSocketController({ logger: false, clock: new TestClock() });
    try {
      const { transport } = open(controller);
      for (const code of [1005, 1006, 999, NaN]) assert.throws(() => controller.close(code), TypeError);
      assert.deepEqual(transport.closes, []);
      assert.equal(getWebSocketController(), controller);
    } finally {
      void controller.close();
    }
  });

  it("closes a connection at once that opens after it, and emits no event", async () => {
    const { controller, events, clock } = observe();
    await controller.close(1012, "Restart");
    const { transport, connection } = open(controller, { identity: { accountability: { user: "ann", role: null } } });
    assert.deepEqual(transport.closes, [{ code: 1012, reason: "Restart" }]);
    controller.broadcast("x");
    connection.closed(1012, "", true);
    assert.deepEqual([events, controller.clients().size, transport.sent, clock.timers], [[], 0, [], 0]);
  });
});

describe("WebSocketController.useClock", () => {
  it("moves timers that are set to the other clock, unless the option clock was given", () => {
    for (const given of [true, false]) {
      const [own, other] = [new TestClock(), new SlowClock()];
      const options = { authenticate: () => null, timeout: 2000, logger: false as const };
      const controller = new WebSocketController(given ? { ...options, clock: own } : options);
      const { transport } = open(controller, { mode: "handshake" });
      controller.useClock(other);
      assert.deepEqual([own.timers, other.timers], given ? [1, 0] : [0, 1]);
      other.step(Date.now() - other.now()); // A platform's clock and an alarm's tell the same wall time.
      other.advance(2100);
      assert.equal(transport.closes.length, given ? 0 : 1);
      void controller.close();
    }
  });
});

/** One that began to count long after the platform's. */
class SlowClock extends TestClock {
  override monotonic(): number {
    return super.monotonic() - 1e9;
  }
}

describe("WebSocketController.restore", () => {
  it("closes a restored connection with the others", () => {
    const controller = new WebSocketController({ name: "news", clock: new TestClock() });
    assert.equal(controller.name, "news");
    const transport = new HibernatingTransport();
    controller.restore(transport, {
      controller: "news",
      uid: "1",
      handshake: HANDSHAKE,
      state: null,
      phase: "admitted",
      until: 0,
      accountability: { user: null, role: null },
      expires_at: null,
    });
    void controller.close();
    assert.deepEqual(transport.closes, [{ code: 1001, reason: "Going away" }]);
  });
});
