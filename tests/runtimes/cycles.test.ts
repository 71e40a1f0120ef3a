import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { after, before, describe, it, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { ControllerStats } from "../../mod.ts";
import { startDurableObject, startServer, type TestServer } from "./server.ts";
import { type HandshakeOptions, Wire } from "./wire.ts";

/** Connections that begin together, and all end before the next ones begin. */
const ROUND = 50;
/** How many of them leave while the server verifies their token. */
const LEAVING = 2;
const CYCLES = 10_000;
const REFUSALS = 20_000;
/** Before the first look, so that what is made once is there. */
const WARM_UP = 10 * ROUND;

/** What 20,000 refusals may leave on the heap, in bytes: 400 each, less than anything that holds a request. */
const HEAP_TOLERANCE = 8 * 1024 * 1024;

/** The longest it may take until the counters are back, in ms. */
const SETTLE_TIMEOUT = 10_000;

/** The default of `timeout`, in ms. */
const TIMEOUT = 10_000;

/** How one connection goes: it begins, and what it returns comes to its end while the round's time passes. */
type Course = (port: number) => Promise<void | (() => Promise<void>)>;

/** Opens a connection, sends and is closed with a code. */
const closedWith = (code: number, path: string, message?: unknown): Course => async (port) => {
  const wire = await Wire.open(port, path);
  if (message !== undefined) wire.send(message);
  assert.equal((await wire.closed).code, code);
};

const refusedWith = (status: number, path: string, options: HandshakeOptions = {}): Course => async (port) => {
  const wire = await Wire.request(port, path, options);
  assert.equal(wire.answer.status, status);
  wire.reset();
};

/** Opens a connection, hears an answer to be sure that it is admitted, and ends it in the given way. */
const endedBy = (end: (wire: Wire) => unknown, path = "/public?access_token=ann"): Course => async (port) => {
  const wire = await Wire.open(port, path);
  assert.equal((await wire.ask({ type: "ping" })).type, "pong");
  await end(wire);
};

const COURSES: Record<string, Course> = {
  "clean close": endedBy((wire) => wire.close(1000)),
  "clean close of nobody in particular": endedBy((wire) => wire.close(), "/public"),
  "clean close before anything was sent": async (port) => void await (await Wire.open(port, "/handshake")).close(1000),
  "reset": endedBy((wire) => wire.reset()),
  "reset at once": async (port) => (await Wire.open(port, "/public?access_token=ann")).reset(),
  "reset while pending": async (port) => (await Wire.open(port, "/handshake")).reset(),
  "reset with a request under way": endedBy((wire) => {
    wire.send({ type: "never" });
    wire.reset();
  }),
  "FIN": endedBy((wire) => wire.socket.end()),
  "FIN while pending": async (port) => void (await Wire.open(port, "/handshake")).socket.end(),
  "handler that throws, then a reset": endedBy(async (wire) => {
    assert.equal((await wire.ask({ type: "throw" })).status, "error");
    wire.reset();
  }),
  "401 with a bad token": refusedWith(401, "/public?access_token=bad"),
  "401 without a token": refusedWith(401, "/strict"),
  "403 for a foreign origin": refusedWith(403, "/public", { headers: { Origin: "https://evil.example" } }),
  "426 for a plain request": refusedWith(426, "/public", { headers: { Upgrade: undefined, Connection: "close" } }),
  "400 for a bad key": refusedWith(400, "/public", { headers: { "Sec-WebSocket-Key": "short" } }),
  "wrong auth": closedWith(4401, "/handshake", { type: "auth", access_token: "bad" }),
  "first message is not auth": closedWith(4401, "/handshake", { type: "ping" }),
  "first message is not JSON": closedWith(4401, "/handshake", "{"),
  "too big a message": closedWith(1009, "/public", "x".repeat(70_000)),
  "closed inside a connect listener": closedWith(4001, "/public?close=connect"),
  "closed inside a handler": closedWith(4002, "/public?access_token=ann", { type: "leave" }),
  "request never finished": async (port) => {
    const socket = connect({ port, host: "127.0.0.1" });
    await once(socket, "connect");
    socket.write("GET /public HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n");
    socket.resetAndDestroy();
  },
  "never authenticates": async (port) => {
    const { closed } = await Wire.open(port, "/handshake");
    return async () => assert.equal((await closed).code, 4408);
  },
  "token expires, and the grace passes": async (port) => {
    const wire = await Wire.open(port, "/strict?access_token=ann:5");
    return async () => {
      assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
      assert.equal((await wire.closed).code, 4401);
    };
  },
  "token of a message expires, and the grace passes": async (port) => {
    const wire = await Wire.open(port, "/handshake");
    assert.equal((await wire.ask({ type: "auth", access_token: "ann:5" })).status, "ok");
    return async () => {
      assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
      assert.equal((await wire.closed).code, 4401);
    };
  },
  "disconnected": async (port) => {
    const { closed } = await Wire.open(port, "/strict?access_token=doomed");
    return async () => assert.equal((await closed).code, 4403);
  },
  "never answers the close": async (port) => {
    const wire = Wire.begin(port, "/public?close=connect");
    wire.answersClose = false;
    await wire.answered;
  },
};

/** How a runtime is tested. */
interface Plan {
  start(): Promise<TestServer>;
  /** Whether the process tells what it holds. */
  tells: boolean;
}

/** Has every course taken in turn, a round of them at once. */
async function cycle(server: TestServer, count: number): Promise<void> {
  const { port } = server;
  const control = (command: string, body?: unknown) => server.control("all", command, body);
  const courses = Object.entries(COURSES);
  for (let begun = 0; begun < count; begun += ROUND) {
    const gone = Array.from({ length: LEAVING }, () => Wire.begin(port, "/strict?access_token=slow"));
    const ends = await Promise.all(Array.from({ length: ROUND - LEAVING }, async (_, i) => {
      const [name, course] = courses[(begun + i) % courses.length]!;
      const told = (error: Error) => {
        throw new Error(`"${name}" went wrong`, { cause: error });
      };
      const end = await course(port).catch(told);
      return async () => await end?.().catch(told);
    }));
    await control("stalled", { count: LEAVING });
    for (const wire of gone) wire.reset();
    await control("release");
    await control("disconnect", { user: "doomed" });
    await control("advance", { ms: TIMEOUT }); // Who has not authenticated, tokens, unanswered closes.
    await control("advance", { ms: TIMEOUT }); // The grace of expired tokens, upgrades that came to nothing.
    await Promise.all(ends.map((end) => end()));
    Wire.resetAll();
  }
}

/** So many upgrades whose key is missing or bad, each on a connection of its own, which it resets. */
async function refuse({ port }: TestServer, count: number): Promise<void> {
  const keys = ["", "Sec-WebSocket-Key: \r\n", "Sec-WebSocket-Key: short\r\n", `Sec-WebSocket-Key: ${"A".repeat(2_000)}\r\n`];
  const head = `GET /handshake HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    "Sec-WebSocket-Version: 13\r\n";
  const attempt = (key: string) =>
    new Promise<void>((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      socket.on("error", reject);
      socket.once("data", (data: Buffer) => {
        const status = data.subarray(9, 12).toString();
        // Never resetAndDestroy() after the other side has ended: Node 20 spins for ever.
        if (socket.readableEnded) socket.destroy();
        else socket.resetAndDestroy();
        if (status === "400") resolve();
        else reject(new Error(`The server answered ${data.toString()}`));
      });
      socket.on("end", () => reject(new Error("The server answered nothing")));
      socket.write(`${head}${key}\r\n`);
    });
  let begun = 0;
  await Promise.all(Array.from({ length: ROUND }, async () => {
    while (begun < count) await attempt(keys[begun++ % keys.length]!);
  }));
}

/** Nothing is left of any connection: not in a controller, and no timer. */
async function assertNothingLeft(server: TestServer): Promise<Record<string, ControllerStats>> {
  // What hangs is shown by its counters, rather than by the test's running out of time.
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([server.control("all", "settled"), new Promise((resolve) => timer = setTimeout(resolve, SETTLE_TIMEOUT))]);
  clearTimeout(timer);
  const { stats, timers, events } = await server.control("all", "state");
  for (const [name, counters] of Object.entries<ControllerStats>(stats)) {
    const { opened, closed, active, clients, pending, reserved, deadlines, keys } = counters;
    assert.deepEqual({ active, clients, pending, reserved, deadlines, keys }, {
      active: 0,
      clients: 0,
      pending: 0,
      reserved: 0,
      deadlines: 0,
      keys: 0,
    }, name);
    assert.equal(opened, closed, name);
  }
  assert.equal(timers, 0);
  assert.equal(events.connect, events.close, "every connect has its close");
  return stats;
}

interface Measured {
  heap: number;
  sockets: number;
  listeners: Record<string, number>;
}

/** The process has as many sockets and listeners as before. The system tells it of a reset when it comes round to it. */
async function assertReleased(server: TestServer, earlier: Measured): Promise<Measured> {
  let now: Measured = await server.control("all", "resources");
  for (let asked = 0; asked < 100 && now.sockets > earlier.sockets; asked++) now = await server.control("all", "resources");
  assert.deepEqual({ ...now, heap: 0 }, { ...earlier, heap: 0 });
  return now;
}

/** The same of it, and of the memory, which is read after a collection of garbage. */
async function assertFreed(t: TestContext, server: TestServer, earlier: Measured): Promise<void> {
  const { heap } = await assertReleased(server, earlier);
  t.diagnostic(`the heap grew by ${heap - earlier.heap} bytes`);
  assert.ok(heap - earlier.heap < HEAP_TOLERANCE, `The heap grew by ${heap - earlier.heap} bytes`);
}

function testCycles(name: string, { start, tells }: Plan): void {
  describe(`connections on ${name}`, () => {
    let server: TestServer;
    const measure = async (): Promise<Measured | null> => tells ? await server.control("all", "resources") : null;
    before(async () => {
      server = await start();
    });
    after(async () => {
      Wire.resetAll();
      await server.stop();
    });

    it(`${CYCLES} that end in every way leave nothing behind`, { timeout: 60_000 }, async (t: TestContext) => {
      await cycle(server, WARM_UP);
      await assertNothingLeft(server);
      const earlier = await measure();
      await cycle(server, CYCLES);
      const stats = await assertNothingLeft(server);
      const opened = Object.values(stats).reduce((sum, each) => sum + each.opened, 0);
      t.diagnostic(`${opened} of ${WARM_UP + CYCLES} came so far as to be opened`);
      assert.ok(opened > CYCLES / 2);
      if (earlier) await assertFreed(t, server, earlier);
    });

    it(`${REFUSALS} upgrades with a missing or bad key leave nothing behind`, { timeout: 60_000 }, async (t: TestContext) => {
      await refuse(server, WARM_UP);
      const stats = await assertNothingLeft(server);
      const earlier = await measure();
      await refuse(server, REFUSALS);
      assert.deepEqual(await assertNothingLeft(server), stats, "None of them was opened");
      if (earlier) await assertFreed(t, server, earlier);
    });
  });
}

const here = dirname(fileURLToPath(import.meta.url));
const serve = join(here, "fixture/cycles-serve.ts");
const worker = join(here, "fixture/cycles-worker.ts");

testCycles("Bun", { start: () => startServer("bun", serve), tells: true });
testCycles("Deno", { start: () => startServer("deno", serve), tells: true });
testCycles("Node", { start: () => startServer("node", serve), tells: true });
testCycles("a Durable Object", { start: () => startDurableObject(worker), tells: false });
