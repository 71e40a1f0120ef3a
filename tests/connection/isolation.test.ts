/** Whatever an application, a logger or a socket throws: nothing is left unhandled, unanswered or stuck. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { asText } from "../../src/application/log.ts";
import * as v from "valibot";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { SavedConnection } from "../../src/delivery/transport.ts";
import { FakeTransport, HANDSHAKE, open, openOn } from "../support/fake-transport.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { observe } from "../support/observed.ts";
import { TestClock } from "../support/test-clock.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { turn } from "../support/waiting.ts";

const ANN: AuthenticationState = { accountability: { user: "ann", role: null } };
const AUTH = '{"type":"auth","access_token":"token-1"}';
const boom = (): never => {
  throw new Error("boom");
};

const INTERNAL = { code: "INTERNAL_ERROR", message: "Something went wrong" };
const error = new Error("lost");
const boomed = (): never => {
  throw error;
};

/** Keeps up to so many characters, as a Durable Object's attachment keeps 16 KiB. */
class SmallTransport extends FakeTransport {
  room = 16_384;

  save(saved: SavedConnection): void {
    if (JSON.stringify(saved).length > this.room) throw new Error("The attachment is too large");
  }
}

describe("unhandledIn", () => {
  // The runners of Bun and Deno fail the test themselves, before a listener is asked.
  const skip = "Bun" in globalThis || "Deno" in globalThis;

  it("sees what nobody takes, or the tests below would see nothing", { skip }, async () => {
    const lost = new Error("lost");
    assert.deepEqual(await unhandledIn(() => void Promise.reject(lost)), [lost]);
    assert.deepEqual(await unhandledIn(() => {}), []);
  });
});

describe("a middleware that does not await next()", () => {
  it("loses neither the failure nor the answer, whether it returns at once or later", async () => {
    for (const returned of [undefined, turn()]) {
      const { controller, events } = observe();
      const error = new Error("lost");
      controller.use((_context, next) => {
        void next();
        return returned;
      });
      controller.use(() => Promise.reject(error));
      const { connection, transport, client } = open(controller);
      assert.deepEqual(await unhandledIn(() => connection.message('{"type":"x","uid":1}')), []);
      const answer = { code: "INTERNAL_ERROR", message: "Something went wrong" };
      assert.deepEqual(transport.take(), [{ type: "x", status: "error", error: answer, uid: 1 }]);
      assert.deepEqual(events.at(-1), ["error", { client, error }]);
    }
  });

  it("loses no failure of what it made of next()'s promise, and ends no process by it", async () => {
    const ways: [name: string, leave: (rest: Promise<void>) => unknown][] = [
      ["then", (rest) => rest.then(() => {})],
      ["then, then", (rest) => rest.then(() => {}).then(() => {}, undefined)],
      ["then without listeners", (rest) => rest.then()],
      ["finally", (rest) => rest.finally(() => {})],
      ["finally, its own promise", (rest) => rest.finally(() => Promise.resolve(1))],
      ["catch, rethrown", (rest) =>
        rest.catch((error) => {
          throw error;
        })],
      ["two of one", (rest) => [rest.then(() => {}), rest.then(() => {})]],
      ["one awaited, one not", (rest) => (rest.then(() => {}), rest)],
      ["a part of a chain that is awaited", (rest) => (rest.then(() => {}).catch(() => {}), rest)],
    ];
    for (const [name, leave] of ways) {
      for (const fails of [() => Promise.reject(error), () => turn().then(() => Promise.reject(error)), boomed]) {
        for (const later of [undefined, turn(), turn().then(turn)]) {
          const { controller, events } = observe();
          controller.use((_context, next) => {
            const left = leave(next());
            return name.includes("awaited") ? left : later;
          });
          controller.use(fails);
          const { connection, transport, client } = open(controller);
          assert.deepEqual(await unhandledIn(() => connection.message('{"type":"x","uid":1}')), [], name);
          assert.deepEqual(transport.take(), [{ type: "x", status: "error", error: INTERNAL, uid: 1 }], name);
          assert.deepEqual(events.slice(1), [["error", { client, error }]], name);
        }
      }
    }
  });

  it("has what it throws itself after next() answered and reported", async () => {
    const own = new Error("own");
    const throws = () => {
      throw own;
    };
    for (
      const leave of [
        (rest: Promise<void>) => rest.then(throws),
        (rest: Promise<void>) => rest.finally(throws),
        (rest: Promise<void>) => rest.finally(() => Promise.reject(own)),
        (rest: Promise<void>) => rest.then(() => turn()).then(throws),
      ]
    ) {
      const { controller, events } = observe();
      controller.use((_context, next) => void leave(next()));
      const { connection, transport, client } = open(controller);
      assert.deepEqual(await unhandledIn(() => connection.message('{"type":"x","uid":1}')), []);
      assert.deepEqual(transport.take(), [{ type: "x", status: "error", error: INTERNAL, uid: 1 }]);
      assert.deepEqual(events.filter(([event]) => event === "error"), [["error", { client, error: own }]]);
    }
  });

  it("has nothing reported of what it takes itself, at once or before it is done", async () => {
    for (
      const takes of [
        (rest: Promise<void>) => void rest.catch(() => {}),
        (rest: Promise<void>) => void rest.then(() => {}).then(undefined, () => {}),
        (rest: Promise<void>) => void Promise.allSettled([rest]),
        async (rest: Promise<void>) => {
          const made = rest.then(() => {});
          for (let n = 0; n < 3; n++) await turn();
          await made.catch(() => {});
        },
      ]
    ) {
      const { controller, events } = observe();
      controller.use((_context, next) => takes(next()));
      controller.use(() => Promise.reject(error));
      const { connection, transport } = open(controller);
      assert.deepEqual(await unhandledIn(() => connection.message('{"type":"x","uid":1}')), []);
      for (let n = 0; n < 3; n++) await turn();
      assert.deepEqual([transport.take(), events.length], [[], 1]);
    }
  });

  it("is answered INTERNAL_ERROR when it calls next() twice", async () => {
    const { controller, takeNames } = observe();
    controller.use((_context, next) => {
      void next();
      void next();
    });
    controller.handle("x", v.object({}), () => Promise.reject(new Error("later")));
    const { connection, transport } = open(controller);
    assert.deepEqual(await unhandledIn(() => connection.message('{"type":"x"}')), []);
    // One for the second call, one for the handler that failed later.
    assert.deepEqual(transport.take().map(({ error }) => error.code), ["INTERNAL_ERROR", "INTERNAL_ERROR"]);
    assert.deepEqual(takeNames(), ["connect", "message", "error", "error"]);
  });
});

describe("authenticate", () => {
  it("is answered without the details when its WebSocketError has some that JSON cannot hold", async () => {
    const { controller } = observe({
      authenticate: () => {
        throw new WebSocketError("auth", "OTP_REQUIRED", "Send otp", { details: { n: 1n } });
      },
    });
    const { connection, transport } = open(controller, { mode: "handshake" });
    assert.deepEqual(await unhandledIn(() => connection.message(AUTH)), []);
    assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error: { code: "OTP_REQUIRED", message: "Send otp" } }]);
    assert.deepEqual(transport.closes, [{ code: 4401, reason: "Send otp" }]);
  });

  it("has failed when a getter of what it returned throws", async () => {
    for (
      const state of [
        {
          get accountability() {
            return boom();
          },
        },
        {
          accountability: {
            role: null,
            get user() {
              return boom();
            },
          },
        },
      ] as unknown as AuthenticationState[] // Never a state: reading it throws.
    ) {
      const { controller, takeNames } = observe({ authenticate: () => state });
      const { connection, transport } = open(controller, { mode: "handshake" });
      assert.deepEqual(await unhandledIn(() => connection.message(AUTH)), []);
      assert.deepEqual([transport.take()[0].error.code, transport.closes[0]?.code], ["SERVICE_UNAVAILABLE", 1013]);
      assert.deepEqual(takeNames(), ["error", "auth.failure"]);
      const { request } = createRoute({ authenticate: () => state });
      assert.equal((await request("/websocket?access_token=token-1")).status, 503);
    }
  });

  it("admits nobody when its ok cannot be sent", async () => {
    for (const fails of [{ sends: false }, { sends: false, closeError: new Error("gone") }]) {
      const { controller, clock, takeNames } = observe({ authenticate: () => ANN, closeTimeout: 500 });
      const { connection, transport } = open(controller, { mode: "handshake" });
      Object.assign(transport, fails);
      connection.message(AUTH);
      await turn();
      assert.deepEqual([transport.closes.map(({ code }) => code), controller.clients().size], [[4508], 0]);
      clock.advance(500);
      connection.closed(1006, "", false);
      const { active, reserved, deadlines } = controller.stats();
      assert.deepEqual([active, reserved, deadlines, controller.clients().size, clock.timers], [0, 0, 0, 0, 0]);
      assert.deepEqual(takeNames(), "closeError" in fails ? ["error"] : []);
    }
  });
});

describe("a logger", () => {
  it("has one line a second for a handler that throws for each of 2,000 messages, and every error is an event where somebody listens", () => {
    const clock = new TestClock();
    const lines: string[] = [];
    const controller = new WebSocketController({
      clock,
      rateLimit: false,
      logger: { warn() {}, error: (...record) => void lines.push(asText(...record)) },
    });
    controller.handle("x", v.looseObject({}), ({ message }) => {
      throw new Error(`Cannot do ${message.uid}`);
    });
    const { connection, transport } = open(controller);
    const flood = (count: number) => {
      for (let uid = 0; uid < count; uid++) connection.message(`{"type":"x","uid":${uid}}`);
    };
    flood(2_000);
    assert.equal(lines.length, 1);
    assert.equal(transport.sent.length, 2_000);
    clock.advance(1_000);
    flood(1);
    assert.match(lines[1]!, /Cannot do 0.* \(1999 more like it were left out\)$/s);
    let errors = 0;
    controller.on("error", () => void errors++);
    flood(1_000);
    assert.deepEqual([errors, lines.length], [1_000, 2]);
  });

  it("may throw or reject: the other listeners are called, and nothing is unhandled", async () => {
    for (const error of [boom, () => Promise.reject(new Error("disk full"))]) {
      for (const listener of [boom, () => Promise.reject(new Error("x"))]) {
        const controller = new WebSocketController({ logger: { warn() {}, error } });
        let called = 0;
        controller.on("connect", listener);
        controller.on("connect", () => called++);
        assert.deepEqual(await unhandledIn(() => void open(controller)), []);
        assert.equal(called, 1);
      }
    }
  });
});

describe("a socket", () => {
  it("that cannot keep what must survive hibernation is closed with 1011 and reported", async () => {
    for (const pending of [true, false]) {
      const large = { accountability: { user: "ann", role: null, groups: "x".repeat(20_000) } };
      const { controller, events, clock } = observe({ authenticate: () => large });
      const opened = openOn(new SmallTransport(), controller, pending ? { mode: "handshake" } : { identity: large });
      if (pending) assert.deepEqual(await unhandledIn(() => opened.connection.message(AUTH)), []);
      const { connection, transport, client } = opened;
      assert.deepEqual(transport.closes, [{ code: 1011, reason: "Cannot keep the connection" }]);
      const errors = events.flatMap(([event, payload]) => event === "error" && "error" in payload ? [String(payload.error)] : []);
      assert.deepEqual([...new Set(errors)], ["Error: The attachment is too large"]);
      // Never stuck: it goes when its peer answers, and without that too.
      connection.message('{"type":"ping"}');
      clock.advance(5_000);
      assert.deepEqual([client.readyState, controller.stats().active, controller.clients().size], [3, 0, 0]);
    }
  });

  it("that cannot keep a client's new state is closed with 1011, for it would come back with the old one", () => {
    const { controller, takeNames } = observe();
    const { transport, client } = openOn(new SmallTransport(), controller);
    transport.room = 0;
    client.state = "new";
    assert.deepEqual([transport.closes.map(({ code }) => code), takeNames()], [[1011], ["connect", "error"]]);
  });

  it("that throws in terminate is reported, and gone all the same", () => {
    const { controller, clock, takeNames } = observe({ closeTimeout: 100 });
    const { client, transport } = open(controller);
    transport.terminate = boom;
    client.close();
    clock.advance(100);
    assert.deepEqual([client.readyState, controller.clients().size, clock.timers], [3, 0, 0]);
    assert.deepEqual(takeNames(), ["connect", "error", "close"]);
  });
});

describe("accountability", () => {
  it("cannot be changed by a listener, nor by whoever authenticated", () => {
    const { controller } = observe();
    const accountability = { user: "ann", role: "guest" };
    const { transport, client } = open(controller, { identity: { accountability } });
    assert.throws(() => client.accountability.role = "admin", TypeError);
    accountability.role = "admin";
    assert.deepEqual(client.accountability, { user: "ann", role: "guest" });
    controller.broadcast("for admins", { role: "admin" });
    controller.broadcast("for guests", { role: "guest" });
    assert.deepEqual(transport.sent, ["for guests"]);
    const nobody = open(controller).client;
    assert.throws(() => nobody.accountability.user = "ann", TypeError);
    assert.equal(open(controller).client.accountability.user, null);
    assert.equal(nobody.handshake.mode, HANDSHAKE.mode);
  });
});

describe("Authenticator, with hostile values", () => {
  const unreadable = Object.defineProperty(new Error("x"), "message", { get: boom });
  const lazy = {
    accountability: {
      user: "ann",
      role: null,
      get team() {
        return boom();
      },
    },
  };
  const hostile: Record<string, () => never> = {
    "an error whose cause is no string": () => {
      throw new Error("x", { cause: Object.create(null) });
    },
    "an error whose message throws": () => {
      throw unreadable;
    },
    "a claim whose getter throws": () => lazy as never,
  };
  for (const [title, authenticate] of Object.entries(hostile)) {
    it(`answers 503 at the upgrade and closes a pending connection for ${title}`, async () => {
      const { controller, request } = createRoute({ authenticate });
      assert.equal((await request("/websocket?access_token=token-1")).status, 503);
      assert.equal(controller.stats().active, 0);
      const { transport, connection } = open(observe({ authenticate }).controller, { mode: "handshake" });
      connection.message(AUTH);
      await turn();
      assert.equal(transport.closes[0]?.code, 1013);
    });
  }
});

describe("Connection.due", () => {
  it("reports that the transport's ping throws, and expires on time", () => {
    const { controller, clock, takeNames } = observe({
      heartbeat: { period: 1_000 },
      authenticate: () => null,
      timeout: 1_000,
    });
    const transport = Object.assign(new FakeTransport(), { ping: boom });
    openOn(transport, controller, { mode: "handshake", identity: { ...ANN, expires_at: clock.now() / 1000 + 5 } });
    clock.advance(20_000);
    assert.equal(transport.closes.length, 1);
    assert.deepEqual(takeNames().slice(0, 2), ["connect", "error"]);
  });
});
