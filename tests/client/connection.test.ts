import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ClientError, createClient } from "../../src/client/client.ts";
import { backoffDelay } from "../../src/client/backoff.ts";
import { connectFake, FakeSocket } from "../support/fake-server.ts";
import { Random } from "../support/random.ts";
import { TestClock } from "../support/test-clock.ts";
import { turn } from "../support/waiting.ts";

describe("createClient", () => {
  it("opens a socket that offers noroshi.v1, and is open when the server has answered", async () => {
    const { client, socket, sockets, take } = connectFake();
    assert.equal(client.status, "connecting");
    const { url, protocols } = await socket();
    assert.deepEqual([url, protocols], ["wss://example.com/websocket", ["noroshi.v1"]]);
    const ready = client.ready;
    sockets[0]!.open();
    assert.equal(client.status, "connecting");
    sockets[0]!.letIn();
    await ready;
    await client.ready;
    assert.equal(client.status, "open");
    assert.deepEqual(take(), [["status", { status: "open" }], ["open", {}]]);
  });

  it("opens nothing when it is lazy, until something is wanted of it", async () => {
    const { client, sockets, admit } = connectFake({ lazy: true });
    await turn();
    assert.deepEqual([client.status, sockets.length], ["closed", 0]);
    void client.send({ type: "kept" });
    const ready = client.ready;
    client.subscribe("news");
    client.connect();
    const socket = await admit();
    await ready;
    assert.equal(sockets.length, 1);
    assert.deepEqual(socket.take().map(({ type }) => type), ["subscribe", "kept"]);

    const closed = connectFake({ lazy: true });
    void closed.client.close();
    await assert.rejects(closed.client.request("late"), { code: "CLOSED" });
  });

  it("takes an http address for that of a WebSocket", async () => {
    const urls: string[] = [];
    class Socket extends FakeSocket {
      constructor(url: string) {
        super(url);
        urls.push(url);
      }
    }
    for (const url of ["http://a.example/x", "https://a.example/x?y", new URL("ws://a.example/")]) {
      const client = createClient(url, { WebSocket: Socket });
      await turn();
      void client.close();
    }
    assert.deepEqual(urls, ["ws://a.example/x", "wss://a.example/x?y", "ws://a.example/"]);
  });

  it("throws for a URL without a scheme, with the URL to write, and shows no token", () => {
    for (const host of ["localhost:3000", "127.0.0.1:3000", "http-1.example.com:80", "[::1]:3000", "localhost", "example.com"]) {
      assert.throws(() => createClient(`${host}/websocket?access_token=secret`, { WebSocket: FakeSocket }), {
        name: "TypeError",
        message: `Cannot create the client: the URL has no scheme, write "ws://${host}/websocket?…"`,
      });
    }
  });

  it("throws for a path where there is no page, unless it is lazy", () => {
    assert.throws(() => createClient("/websocket", { WebSocket: FakeSocket }), {
      name: "TypeError",
      message: 'Cannot create the client: the URL has no scheme, write "ws://<host>/websocket"',
    });
    createClient("/websocket", { WebSocket: FakeSocket, lazy: true });
  });

  it("throws for an option that is unknown, and without a WebSocket", () => {
    const url = "ws://localhost";
    // @ts-expect-error -- there is no such option
    assert.throws(() => createClient(url, { hearbeat: 1, WebSocket: FakeSocket }), /unknown option "hearbeat"/);
    // @ts-expect-error -- there is no such option
    assert.throws(() => createClient(url, { backoff: { minimum: 1 }, WebSocket: FakeSocket }), /unknown option "minimum"/);
    // @ts-expect-error -- no constructor
    assert.throws(() => createClient(url, { WebSocket: null }), /pass the option "WebSocket"/);
    // As where a module with a client for browsers is loaded by what renders its page.
    // @ts-expect-error -- no constructor
    assert.equal(createClient("/websocket", { WebSocket: null, lazy: true, random: () => assert.fail() }).status, "closed");
  });

  it("is closed with the reason when the WebSocket constructor throws", async () => {
    const client = createClient("ws:nonsense", {
      WebSocket: class extends FakeSocket {
        constructor() {
          super("");
          throw new SyntaxError("The URL is invalid");
        }
      },
    });
    const errors: unknown[] = [];
    client.on("error", ({ error }) => errors.push(error));
    await assert.rejects(client.ready, { code: "NOT_CONNECTED" });
    assert.match(String(errors[0]), /The URL is invalid/);
  });

  it("is disposed of at the end of a block", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    client[Symbol.dispose]();
    assert.deepEqual([client.status, socket.closedWith], ["closed", { code: 1000, reason: "" }]);
    let isGone = false;
    const disposed = client[Symbol.asyncDispose]().then(() => isGone = true);
    await turn();
    assert.equal(isGone, false);
    socket.end(1000);
    await disposed;
  });

  it("ends with the block of a using declaration, and await using waits for the socket's end", async () => {
    const order: string[] = [];
    {
      const { client, admit } = connectFake();
      using used = client;
      await admit();
      used.on("status", ({ status }) => order.push(status));
    }
    order.push("after");
    {
      const { client, admit } = connectFake();
      await using _ = client;
      const socket = await admit();
      socket.close = () =>
        void turn().then(() => {
          order.push("end");
          socket.end(1000);
        });
    }
    order.push("after");
    assert.deepEqual(order, ["closed", "after", "end", "after"]);
  });
});

describe("A client that has lost its connection", () => {
  it("waits for a random time below a ceiling that doubles up to the cap", async () => {
    const { clock, sockets, socket, take } = connectFake({ random: () => 0.5 });
    for (const ceiling of [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
      (await socket()).end(1006);
      const { length } = sockets;
      const [{ delay, close }] = take("reconnecting");
      assert.deepEqual([delay, close.code], [ceiling / 2, 1006]);
      clock.advance(ceiling / 2 - 1);
      await turn();
      assert.equal(sockets.length, length);
      clock.advance(1);
      await turn();
      assert.equal(sockets.length, length + 1);
    }
  });

  it("starts again from the base once a connection has held for ten seconds, and not before", async () => {
    const { clock, admit, socket, take } = connectFake({ random: () => 0.5 });
    (await socket()).end();
    clock.advance(250);
    const short = await admit();
    clock.advance(9_999);
    short.end();
    assert.equal(take("reconnecting").at(-1).delay, 500);
    clock.advance(500);
    const long = await admit();
    clock.advance(10_000);
    long.end();
    assert.equal(take("reconnecting").at(-1).delay, 250);
  });

  it("adds what the server asks it to wait, which is bounded", async () => {
    for (const [asked, waits] of [[7_000, 7_250], [1e12, 300_250], ["soon", 250], [-5, 250], [NaN, 250]] as const) {
      const { client, clock, sockets, admit, take } = connectFake({ random: () => 0.5 });
      const socket = await admit();
      socket.receive({
        type: "server",
        status: "error",
        error: { code: "SERVICE_UNAVAILABLE", message: "", retry_after: asked },
      });
      socket.end(1013);
      assert.equal(take("reconnecting")[0].delay, waits);
      clock.advance(waits - 1);
      await turn();
      assert.equal(sockets.length, 1);
      clock.advance(1);
      await turn();
      assert.equal(sockets.length, 2);
      void client.close();
    }
  });

  it("reconnects within 250 ms after 1001 and 1012, and then with backoff", async () => {
    for (const code of [1001, 1012]) {
      const { client, clock, admit, socket, take } = connectFake({ random: () => 0.999 });
      const first = await admit();
      clock.advance(10_000);
      first.end(code, "Going away");
      for (const delay of [249.75, 999, 1_998]) {
        assert.equal(take("reconnecting")[0].delay, delay);
        clock.advance(delay);
        (await socket()).end(code);
      }
      void client.close();
      const own = connectFake({ random: () => 0.5, backoff: { base: 100 } });
      (await own.admit()).end(code);
      assert.equal(own.take("reconnecting")[0].delay, 50);
      void own.client.close();
    }
  });

  it("waits before it reconnects for the time in the close reason, up to a bound", async () => {
    const reasons: [reason: string, waits: number][] = [
      ["retry=1500", 1_625],
      ["drained retry=7000", 7_125],
      ["retry=1e9", 126],
      ["retry=99999999999999999999", 300_125],
      ["retry=-5", 125],
      ["retry=", 125],
      ["noretry=1500", 125],
    ];
    for (const [reason, waits] of reasons) {
      const { client, clock, sockets, admit, take } = connectFake({ random: () => 0.5 });
      (await admit()).end(1012, reason);
      assert.equal(take("reconnecting")[0].delay, waits, reason);
      clock.advance(waits - 1);
      await turn();
      assert.equal(sockets.length, 1);
      clock.advance(1);
      await turn();
      assert.equal(sockets.length, 2);
      void client.close();
    }
  });

  it("waits as long as the server asks, however the wall clock is set", async () => {
    for (const step of [-3 * 3_600_000, 3 * 3_600_000]) {
      const { client, clock, sockets, admit, socket, take } = connectFake({ random: () => 0 });
      const first = await admit();
      first.receive({ type: "server", status: "error", error: { code: "SERVICE_UNAVAILABLE", message: "", retry_after: 1e9 } });
      clock.step(step);
      first.end(1013);
      assert.equal(take("reconnecting")[0].delay, 300_000);
      clock.advance(299_999);
      await turn();
      assert.equal(sockets.length, 1);
      clock.advance(1);
      const second = await socket();
      assert.equal(sockets.length, 2);
      // Held for ten seconds, whatever the wall clock says of them.
      second.open();
      second.letIn();
      clock.step(step);
      clock.advance(9_000);
      second.end();
      await client.close();
    }
  });

  it("tries at once when the application asks for it, and not before its time when the page is seen", async () => {
    const { client, clock, sockets, admit } = connectFake();
    const first = await admit();
    first.receive({ type: "server", status: "error", error: { code: "SERVICE_UNAVAILABLE", message: "", retry_after: 60_000 } });
    clock.step(-3 * 3_600_000);
    first.end(1013);
    client.connect();
    await turn();
    assert.equal(sockets.length, 2);
    void client.close();
    const events = new EventTarget();
    const page = globalThis as { addEventListener?: unknown; removeEventListener?: unknown };
    const { addEventListener, removeEventListener } = page;
    page.addEventListener = events.addEventListener.bind(events);
    page.removeEventListener = events.removeEventListener.bind(events);
    try {
      const other = connectFake();
      const socket = await other.admit();
      socket.receive({
        type: "server",
        status: "error",
        error: { code: "SERVICE_UNAVAILABLE", message: "", retry_after: 60_000 },
      });
      socket.end(1013);
      events.dispatchEvent(new Event("online"));
      await turn();
      assert.equal(other.sockets.length, 1);
      other.clock.advance(60_000);
      events.dispatchEvent(new Event("online"));
      await turn();
      assert.equal(other.sockets.length, 2);
      void other.client.close();
    } finally {
      Object.assign(page, { addEventListener, removeEventListener });
    }
  });

  it("does not reconnect after 44xx, reports why, and reconnects after any other code", async () => {
    for (
      const [code, why] of [
        [4400, "CLOSED"],
        [4401, "AUTH_FAILED"],
        [4403, "FORBIDDEN"],
        [4408, "AUTH_TIMEOUT"],
        [4450, "CLOSED"],
        [4499, "CLOSED"],
      ] as const
    ) {
      const { client, admit, take, clock } = connectFake({ token: "of ann" });
      (await admit()).end(code, "why");
      assert.equal(client.status, "closed");
      assert.deepEqual(take("close"), [{ code, reason: "why", wasClean: true, isFinal: true }]);
      await assert.rejects(client.ready, {
        code: why,
        message: `Not connected: wss://example.com/websocket, last close ${code} why`,
      });
      assert.equal(client.error?.code, why);
      assert.equal(clock.timers, 0);
    }
    for (
      const code of [
        0,
        999,
        1000,
        1001,
        1005,
        1006,
        1009,
        1011,
        1012,
        1013,
        1015,
        3000,
        4000,
        4399,
        4500,
        4504,
        4508,
        4529,
        65535,
      ]
    ) {
      const { client, admit, take } = connectFake({ token: "of ann" });
      (await admit()).end(code);
      assert.equal(client.status, "waiting");
      assert.deepEqual(take("close").map(({ isFinal }) => isFinal), [false]);
    }
  });

  it("is told of a close without a code, a reason and whether it was clean, as React Native leaves them out", async () => {
    const { admit, take } = connectFake();
    const socket = await admit();
    socket.readyState = 3;
    socket.onclose?.({} as never);
    assert.deepEqual(take("close"), [{ code: 1006, reason: "", wasClean: false, isFinal: false }]);
  });

  it("increases its backoff each time that it read too slowly, however long it was connected", async () => {
    const { client, admit, take, clock } = connectFake({ heartbeat: 0 });
    const attempts = async (code: number) => {
      const found: number[] = [];
      for (let i = 0; i < 3; i++) {
        const socket = await admit();
        clock.advance(60_000);
        socket.end(code);
        found.push(...take("reconnecting").map(({ attempt }) => attempt));
        client.connect();
      }
      return found;
    };
    assert.deepEqual(await attempts(4508), [1, 2, 3]);
    assert.deepEqual(await attempts(1006), [1, 1, 1]);
  });

  it("does not reconnect with reconnect: false", async () => {
    const { client, admit } = connectFake({ reconnect: false });
    (await admit()).end(1006);
    assert.equal(client.status, "closed");
  });

  it("tries at once when it is told that the network is back, and never has two sockets", async () => {
    const { client, clock, sockets, admit, socket } = connectFake();
    client.connect();
    (await admit()).end();
    client.connect();
    client.connect();
    await turn();
    client.connect();
    assert.equal(sockets.length, 2);
    await admit();
    client.connect();
    clock.advance(60_000);
    await turn();
    const live = sockets.filter(({ readyState, isTerminated }) => readyState < 2 && !isTerminated);
    assert.ok(live.length <= 1);
    (await socket()).end();
  });

  it("gives up on a server that does not answer the upgrade, and on a token that does not come", async () => {
    const { client, clock, socket } = connectFake({ timeout: 3_000 });
    const first = await socket();
    clock.advance(3_000);
    assert.deepEqual([client.status, first.isTerminated], ["waiting", true]);
    // Too late: what it says is not read any more.
    first.open();
    first.receive({ type: "late" });
    first.end(4403);
    assert.equal(client.status, "waiting");

    const other = connectFake({ timeout: 3_000, token: () => new Promise(() => {}) });
    other.clock.advance(3_000);
    await turn();
    assert.deepEqual([other.client.status, other.sockets.length], ["waiting", 0]);
  });

  it("is left alone by what is left of it when it is closed", async () => {
    const { client, clock, admit, take } = connectFake();
    const socket = await admit();
    take();
    void client.close(3001, "bye");
    assert.deepEqual(take(), [
      ["status", { status: "closed" }],
      ["close", { code: 3001, reason: "bye", wasClean: true, isFinal: true }],
    ]);
    socket.receive({ type: "late" });
    socket.end(3001);
    await turn();
    assert.deepEqual([take(), clock.timers], [[], 0]);
    client.connect();
    await admit();
    assert.equal(client.status, "open");
  });

  it("forgets a server that does not answer the close", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    const closed = client.close();
    clock.advance(2_000);
    await closed;
    assert.equal(socket.isTerminated, true);
    assert.equal(clock.timers, 0);
  });
});

describe("backoffDelay", () => {
  it("spreads a thousand clients whose server restarts over at least 80 % of the window", async () => {
    const random = new Random();
    const delays: number[] = [];
    for (let n = 0; n < 1000; n++) {
      const { socket, admit, take } = connectFake({ random: () => random.below(2 ** 30) / 2 ** 30 });
      const open = await admit();
      open.end(1012, "Restart");
      delays.push(take("reconnecting")[0].delay);
      void socket;
    }
    delays.sort((a, b) => a - b);
    const seed = `SEED=${random.seed}`;
    assert.ok(delays.at(-1)! - delays[0]! >= 0.8 * 250, seed);
    // Nor are they in a few heaps: each twentieth of the window has its share.
    for (let part = 0; part < 20; part++) {
      const share = delays.filter((delay) => Math.floor(delay / 12.5) === part).length;
      assert.ok(share >= 20 && share <= 90, `${share} of 50 in part ${part}, ${seed}`);
    }
  });

  it("never exceeds the cap", () => {
    for (const attempt of [0, 5, 50, 2000]) {
      const delay = backoffDelay(attempt, { backoff: { base: 500, cap: 30_000, reset: 0 }, random: () => 0.999 });
      assert.ok(delay > 0 && delay < 30_000);
    }
  });
});

describe("A client whose link is dead", () => {
  /** The ms after which it gives up on a server that falls silent at the worst moment: right after a pong. */
  async function silence(options: Parameters<typeof connectFake>[0]): Promise<number> {
    const { clock, admit, take } = connectFake(options);
    const socket = await admit();
    for (let waited = 0; waited < 120_000; waited += 100) {
      clock.advance(100);
      if (take("close").length > 0) {
        assert.equal(socket.isTerminated, true);
        return waited + 100;
      }
    }
    return Infinity;
  }

  it("notices within the heartbeat and five seconds", async () => {
    for (const heartbeat of [1_000, 10_000, 25_000, 60_000]) {
      const waited = await silence({ heartbeat });
      assert.ok(waited >= heartbeat + 3_000 && waited <= heartbeat + 5_000, `${waited} at ${heartbeat}`);
    }
    assert.equal(await silence({ heartbeat: 0 }), Infinity);
  });

  it("stays for as long as anything comes, and asks every period", async () => {
    const { client, clock, admit, take } = connectFake();
    const socket = await admit();
    for (let n = 0; n < 5; n++) {
      clock.advance(n ? 21_500 : 25_000);
      assert.deepEqual(socket.take(), [{ type: "ping" }]);
      clock.advance(3_500);
      socket.receive(n % 2 ? { type: "pong" } : { type: "news" });
    }
    assert.equal(client.status, "open");
    assert.deepEqual(take("close"), []);
  });

  it("notices within a second after the machine has slept", async () => {
    const { clock, admit, take } = connectFake();
    const socket = await admit();
    clock.advance(1_200);
    // The clock goes on, the timers do not: they fire late, the one that looks at the time first.
    clock.step(8 * 3_600_000);
    clock.advance(999);
    assert.deepEqual(socket.take(), [{ type: "ping" }]);
    assert.equal(take("close")[0].code, 1006);
  });

  it("goes on after a sleep when the server is still there", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    clock.advance(25_000);
    socket.take();
    clock.step(60_000);
    clock.advance(500);
    assert.deepEqual(socket.take(), [{ type: "ping" }]);
    socket.receive({ type: "pong" });
    clock.advance(20_000);
    assert.equal(client.status, "open");
  });

  it("does not give up after it was frozen before it has looked for the answer", async () => {
    const { client, clock, admit, take } = connectFake();
    const socket = await admit();
    clock.advance(25_000);
    assert.deepEqual(socket.take(), [{ type: "ping" }]);
    clock.advance(4_400);
    // All timers are late. The first one that fires is that of the answer.
    clock.jump(60_000);
    assert.deepEqual(socket.take(), [{ type: "ping" }]);
    assert.deepEqual(take("close"), []);
    socket.receive({ type: "pong" });
    clock.advance(20_000);
    assert.equal(client.status, "open");
  });

  it("looks at the clock when all others do, with one timer for that and the next ping", async () => {
    const { clock, admit } = connectFake();
    const first = await admit();
    clock.advance(120);
    const second = await connectFake({ clock }).admit();
    assert.equal(clock.timers, 2);
    clock.delays.length = 0;
    clock.advance(5_000);
    // Both at whole half seconds of the wall clock.
    assert.deepEqual([clock.timers, new Set(clock.delays), clock.delays.length], [2, new Set([500]), 20]);
    clock.step(8 * 3_600_000);
    clock.advance(500);
    assert.deepEqual([first.take(), second.take()], [[{ type: "ping" }], [{ type: "ping" }]]);
  });

  it("does not look at a clock that never jumps", async () => {
    const clock = Object.assign(new TestClock(), { now: () => NaN });
    const { admit } = connectFake({ clock });
    const socket = await admit();
    clock.delays.length = 0;
    for (let n = 0; n < 2; n++) {
      clock.advance(25_000);
      assert.deepEqual(socket.take(), [{ type: "ping" }]);
      socket.receive({ type: "pong" });
    }
    assert.equal(clock.delays.length, 3, `${clock.delays}`); // For the answer, the next ping, and its answer.
    clock.advance(40_000);
    assert.equal(socket.isTerminated, true);
  });

  it("takes a wall clock that is set back for no sleep, and still notices", async () => {
    const { clock, admit, take } = connectFake();
    const socket = await admit();
    clock.advance(10_000);
    clock.step(-3_600_000);
    clock.advance(14_900);
    assert.deepEqual(socket.take(), []);
    clock.advance(5_100);
    assert.equal(take("close").length, 1);
  });

  it("asks when it is told to look", async () => {
    const { client, clock, admit, take } = connectFake({ heartbeat: 0 });
    const socket = await admit();
    client.connect();
    assert.deepEqual(socket.take(), [{ type: "ping" }]);
    clock.advance(3_500);
    assert.equal(client.status, "open");
    clock.advance(1_500);
    assert.equal(take("close").length, 1);
  });
});

describe("A client in a page", () => {
  it("looks when the network changes or the page is seen, and not after it was closed", async () => {
    const page = globalThis as unknown as Record<string, unknown>;
    const before = { addEventListener: page["addEventListener"], removeEventListener: page["removeEventListener"] };
    const target = new EventTarget();
    const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    page["addEventListener"] = target.addEventListener.bind(target);
    page["removeEventListener"] = target.removeEventListener.bind(target);
    page["document"] = document;
    try {
      const { client, sockets, admit } = connectFake();
      const socket = await admit();
      const looks = (of: EventTarget, event: string) => {
        of.dispatchEvent(new Event(event));
        return socket.take().length;
      };
      assert.deepEqual([looks(target, "online"), looks(document, "visibilitychange")], [1, 1]);
      document.visibilityState = "hidden";
      assert.equal(looks(document, "visibilitychange"), 0);
      socket.end();
      target.dispatchEvent(new Event("online"));
      await turn();
      assert.equal(sockets.length, 2);
      void client.close();
      target.dispatchEvent(new Event("online"));
      await turn();
      assert.equal(sockets.length, 2);
    } finally {
      delete page["document"];
      for (const [name, value] of Object.entries(before)) {
        if (value === undefined) delete page[name];
        else page[name] = value;
      }
    }
  });
});

describe("client.on", () => {
  it("tells each listener, whatever another one does, until it is told to stop", async () => {
    const { client, admit, take } = connectFake();
    const told: unknown[] = [];
    client.on("message", () => {
      throw new Error("of a listener");
    });
    client.on("message", () => Promise.reject(new Error("of an async one")));
    // A promise of another class, as those of async functions are where a polyfill has taken the global one's place.
    client.on("message", () => ({ then: (_: unknown, reject: (error: Error) => void) => reject(new Error("of a polyfill")) }));
    const stop = client.on("message", ({ message }) => told.push(message));
    const socket = await admit();
    socket.receive({ type: "news", text: "a" });
    await turn();
    assert.deepEqual(told, [{ type: "news", text: "a" }]);
    assert.deepEqual(take("error").map(({ error }) => error.message), ["of a listener", "of a polyfill", "of an async one"]);
    stop();
    socket.receive({ type: "news", text: "b" });
    assert.equal(told.length, 1);
  });

  it("hands on the server's errors that belong to nothing", async () => {
    const { admit, take } = connectFake();
    const socket = await admit();
    socket.receive({ type: "server", status: "error", error: { code: "MESSAGES_DROPPED", message: "Too slow", count: 3 } });
    const [{ error }] = take("error");
    assert.ok(error instanceof ClientError);
    assert.deepEqual([error.code, error.message, error.details], ["MESSAGES_DROPPED", "Too slow", { count: 3 }]);
  });

  it("answers a ping of the server", async () => {
    const { admit } = connectFake();
    const socket = await admit();
    socket.receive({ type: "ping" });
    socket.receive({ type: "ping", uid: 7 });
    assert.deepEqual(socket.take(), [{ type: "pong" }, { type: "pong", uid: 7 }]);
  });
});
