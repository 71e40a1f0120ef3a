/** Requests with an `Upgrade` header in `src/runtimes/node.ts`: on Node, and on Deno as in `noroshi/serve`. */
import assert from "node:assert/strict";
import { type EventEmitter, once } from "node:events";
import { createServer, type Server } from "node:http";
import { connect, type Socket } from "node:net";
import { afterEach, describe, it as test } from "node:test";
import { type Context, Hono, type Next } from "hono";
import { timeout } from "hono/timeout";
import { WebSocketController, type WebSocketControllerOptions } from "../../../mod.ts";
import { listen, openConnections, OPENING, requestOf, Stubborn } from "../../support/node-server.ts";
import { FAILURES } from "../../support/failures.ts";
import { Wire } from "../wire.ts";
import { unhandledIn } from "../../support/unhandled.ts";

// A timeout per test, so that the report names the one that hangs.
const it = (name: string, run: () => Promise<void>) => void test(name, { timeout: 300_000 }, run);

/** Starts a server whose `request` listener is the app, behind `guard` if it is given. */
async function start(app: Hono, guard?: (request: Request) => Response | undefined): Promise<{ server: Server; port: number }> {
  const { createAdaptorServer } = await import("@hono/node-server");
  const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
  const server = createAdaptorServer({
    fetch: (request, env) => guard?.(request) ?? app.fetch(request, env),
  }) as Server; // HTTP/1 by default.
  attachWebSocket(server, app);
  return { server, port: await listen(server) };
}

function controllerOf(options: WebSocketControllerOptions = {}): WebSocketController {
  return new WebSocketController({ mode: "public", logger: false, ...options });
}

/** A gate that the test opens. `reached` resolves when a caller waits at it. */
function createGate() {
  let open = () => {};
  let reach = () => {};
  const opened = new Promise<void>((resolve) => open = resolve);
  const reached = new Promise<void>((resolve) => reach = resolve);
  const wait = () => {
    reach();
    return opened;
  };
  return { open, reached, wait };
}

describe("attachWebSocket", { skip: "Bun" in globalThis }, () => {
  afterEach(() => Wire.resetAll());

  describe("on a server whose fetch is guarded", () => {
    const upgrades = {
      x: { Connection: "Upgrade", Upgrade: "x" },
      websocket: OPENING,
      "two": { ...OPENING, Upgrade: "x, WebSocket" },
    };
    for (const [name, headers] of Object.entries(upgrades)) {
      it(`lets no request with an Upgrade header (${name}) past the guard`, async () => {
        let runs = 0;
        const app = new Hono().get("/secret", (c) => c.text(`secret ${++runs}`)).get("/websocket", controllerOf().upgrade);
        const { port } = await start(app, () => new Response("No entry", { status: 403 }));
        for (const path of ["/secret", "/websocket"]) {
          const wire = await Wire.request(port, path, { headers });
          assert.deepEqual([wire.answer.status, wire.answer.body], [403, "No entry"]);
        }
        assert.equal(runs, 0);
      });
    }

    it("shows the response of an accepted upgrade as answered", async () => {
      const { getRequestListener } = await import("@hono/node-server");
      const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
      const app = new Hono().get("/websocket", controllerOf().upgrade);
      const listener = getRequestListener(app.fetch);
      const shown: unknown[] = [];
      const server = createServer(async (request, response) => {
        await listener(request, response);
        shown.push([response.headersSent, response.writableEnded]);
      });
      attachWebSocket(server);
      const port = await listen(server);
      assert.equal((await Wire.request(port, "/websocket", { headers: OPENING })).answer.status, 101);
      assert.deepEqual(shown, [[true, true]]);
    });

    it("runs a route of its own, and any other, once", async () => {
      const runs: string[] = [];
      const app = new Hono().use(async (c, next) => {
        runs.push(c.req.path);
        await next();
      }).get("/page", (c) => c.text("page")).get("/websocket", controllerOf().upgrade);
      const { port } = await start(app);
      assert.equal((await Wire.request(port, "/page")).answer.body, "page");
      await Wire.open(port, "/websocket");
      assert.deepEqual(runs, ["/page", "/websocket"]);
    });
  });

  describe("for a request that is not for a WebSocket", () => {
    const app = () =>
      new Hono().post("/items", async (c) => c.text(`read ${await c.req.text()}`)).get("/page", (c) => c.text("page"));
    const H2C = { Connection: "Upgrade, HTTP2-Settings", Upgrade: "h2c", "HTTP2-Settings": "AAMAAABk" };
    const long = "y".repeat(400_000);
    const bodies: Record<string, [Record<string, string>, string[], string]> = {
      "in the segment of its head": [{ "Content-Length": "5" }, ["hello"], "read hello"],
      "in segments of its own": [{ "Content-Length": "10" }, ["", "hello", "world"], "read helloworld"],
      "of 400 kB": [{ "Content-Length": "400000" }, [long], `read ${long}`],
      "in chunks": [{ "Transfer-Encoding": "chunked" }, ["5\r\nhello\r\n", "5\r\nwor", "ld\r\n0\r\n\r\n"], "read helloworld"],
      "that is empty": [{ "Content-Length": "0" }, [""], "read "],
    };
    for (const upgrade of ["h2c", "x", "websocket"]) {
      for (const [name, [headers, [first = "", ...rest], expected]] of Object.entries(bodies)) {
        it(`passes the route a POST with Upgrade: ${upgrade} and a body ${name}, and keeps the connection`, async () => {
          const { port } = await start(app());
          const client = new Stubborn(port, requestOf("POST", "/items", { ...H2C, Upgrade: upgrade, ...headers }, first));
          await once(client.socket, "ready");
          for (const bytes of rest) {
            await new Promise((resolve) => setImmediate(resolve));
            client.socket.write(bytes);
          }
          const answer = await client.until(new RegExp(`${expected.replace(/y+/, "y{400000}")}$`));
          assert.match(answer, /^HTTP\/1.1 200 /);
          assert.ok(answer.endsWith(expected), answer.slice(0, 500));
          client.socket.write(requestOf("GET", "/page", H2C));
          assert.match(await client.until(/page/), /page/);
          client.reset();
        });
      }
    }

    it("answers 100 to Expect", async () => {
      const { port } = await start(app());
      const client = new Stubborn(port, requestOf("POST", "/items", { ...H2C, Expect: "100-continue", "Content-Length": "5" }));
      await client.until(/^HTTP\/1.1 100 Continue\r\n\r\n/);
      client.socket.write("hello");
      await client.until(/read hello$/);
      client.reset();
    });
  });

  describe("for a stream of another route", () => {
    for (const [name, headers] of Object.entries({ x: { Connection: "Upgrade", Upgrade: "x" }, websocket: OPENING })) {
      it(`cancels it when the client resets (Upgrade: ${name})`, async () => {
        let started = 0;
        let cancel = () => {};
        const cancelled = new Promise<void>((resolve) => cancel = resolve);
        const chunk = new Uint8Array(65_536);
        const app = new Hono().get("/events", (c) => {
          started++;
          return c.body(new ReadableStream({ pull: (controller) => controller.enqueue(chunk), cancel }));
        });
        const { port } = await start(app);
        const client = new Stubborn(port, requestOf("GET", "/events", headers));
        await client.until(/200 OK/);
        client.reset();
        await cancelled;
        assert.equal(started, 1);
      });

      it(`streams it to a client that reads (Upgrade: ${name})`, async () => {
        let n = 0;
        const app = new Hono().get("/events", (c) =>
          c.body(
            new ReadableStream({
              async pull(controller) {
                await new Promise((resolve) => setImmediate(resolve));
                if (n++ < 50) controller.enqueue(new Uint8Array(50_000).fill(97));
                else controller.close();
              },
            }),
          ));
        const { port } = await start(app);
        const { answer } = await Wire.request(port, "/events", { headers: { ...headers, Connection: "Upgrade, close" } });
        assert.equal(answer.body.length, 2_500_000);
      });
    }

    it("cancels it when the server has no request listener, because no request without Upgrade could read it", async () => {
      const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
      let cancel = () => {};
      const cancelled = new Promise<void>((resolve) => cancel = resolve);
      const server = createServer();
      attachWebSocket(
        server,
        new Hono().get("/events", (c) => c.body(new ReadableStream({ pull: (c) => c.enqueue(new Uint8Array(1_000)), cancel }))),
      );
      const wire = await Wire.request(await listen(server), "/events");
      assert.equal(wire.answer.status, 404);
      await cancelled;
    });
  });

  describe("after a response", () => {
    const refusals = {
      "a refusal of the route": "/websocket?access_token=wrong",
      "middleware": "/guarded",
      "no route": "/nothing",
    };
    for (const [name, path] of Object.entries(refusals)) {
      it(`ends the socket of a client that keeps its side open (${name})`, async () => {
        const controller = controllerOf({ authenticate: () => null });
        const app = new Hono().use("/guarded", (c) => Promise.resolve(c.text("No entry", 403)))
          .get("/guarded", controller.upgrade).get("/websocket", controller.upgrade);
        const { server, port } = await start(app);
        const clients = Array.from({ length: 20 }, () => new Stubborn(port, requestOf("GET", path, OPENING)));
        for (const client of clients) assert.match(await client.until(/HTTP/), /HTTP\/1.1 40[134]/);
        await openConnections(server, 0);
        for (const client of clients) client.reset();
      });
    }

    it("ends the socket when ws itself refuses the handshake", async () => {
      const controller = controllerOf();
      const { server, port } = await start(new Hono().get("/websocket", controller.upgrade));
      const client = new Stubborn(port, requestOf("GET", "/websocket", { ...OPENING, "Sec-WebSocket-Protocol": "a," }));
      await client.until(/HTTP\/1.1 400/);
      await openConnections(server, 0);
      assert.equal(controller.stats().reserved, 0);
      client.reset();
    });
  });

  describe("releases the slot at once", () => {
    for (
      const [name, headers] of Object.entries({
        "an empty subprotocol": { "Sec-WebSocket-Protocol": "a," },
        "a subprotocol twice": { "Sec-WebSocket-Protocol": "a, a" },
        "a second protocol to upgrade to": { Upgrade: "websocket, foo" },
      })
    ) {
      it(`when ws refuses the handshake: ${name}`, async () => {
        const controller = controllerOf();
        const { port } = await start(new Hono().get("/websocket", controller.upgrade));
        const { answer } = await Wire.request(port, "/websocket", { headers });
        assert.ok(answer.status >= 400 && answer.status < 500, String(answer.status));
        assert.equal(controller.stats().reserved, 0);
      });
    }

    it("when the client resets while middleware awaits after the route", async () => {
      const controller = controllerOf();
      const gate = createGate();
      const app = new Hono().use(async (_c, next) => {
        await next();
        await gate.wait();
      }).get("/websocket", controller.upgrade);
      const { server, port } = await start(app);
      const wire = Wire.begin(port, "/websocket");
      await gate.reached;
      assert.equal(controller.stats().reserved, 1);
      wire.reset();
      await openConnections(server, 0);
      assert.equal(controller.stats().reserved, 0);
      gate.open();
    });

    it("when the client resets during authentication", async () => {
      const gate = createGate();
      const controller = controllerOf({
        authenticate: async () => {
          await gate.wait();
          return { accountability: { user: "ann", role: null } };
        },
      });
      const connected: unknown[] = [];
      controller.on("connect", (event) => void connected.push(event));
      const { server, port } = await start(new Hono().get("/websocket", controller.upgrade));
      const wire = Wire.begin(port, "/websocket?access_token=ann");
      await gate.reached;
      wire.reset();
      await openConnections(server, 0);
      gate.open();
      await Wire.open(port, "/websocket");
      assert.equal(controller.stats().reserved, 1);
      assert.equal(connected.length, 1);
    });

    const replacements: Record<string, (c: Context, next: Next) => Promise<Response | void>> = {
      "throws after next()": async (_c, next) => {
        await next();
        throw new Error("after next");
      },
      "answers something else after next()": async (c, next) => {
        await next();
        c.res = undefined;
        c.res = c.text("No", 403);
      },
      "changes the status": async (c, next) => {
        await next();
        c.res = new Response(c.res.body, { status: 503, headers: c.res.headers });
      },
      "returns a response of its own with 200": async (c, next) => {
        await next();
        c.res = undefined;
        c.res = new Response("mine");
      },
    };
    for (const [name, middleware] of Object.entries(replacements)) {
      for (const isForeign of [false, true]) {
        it(`when middleware ${name}${isForeign ? ", without a request listener" : ""}`, async () => {
          const controller = controllerOf();
          let connects = 0;
          controller.on("connect", () => void connects++);
          const app = new Hono().onError((_error, c) => c.text("Failed", 500)).use(middleware).get(
            "/websocket",
            controller.upgrade,
          );
          let port: number;
          if (isForeign) {
            const server = createServer();
            (await import("../../../src/runtimes/node.ts")).attachWebSocket(server, app);
            port = await listen(server);
          } else ({ port } = await start(app));
          const { answer } = await Wire.request(port, "/websocket");
          assert.ok([200, 403, 500, 503].includes(answer.status), String(answer.status));
          assert.equal(answer.headers["noroshi-accepted"], undefined);
          assert.equal(controller.stats().reserved, 0);
          assert.equal(connects, 0);
        });
      }
    }

    it("when timeout() answers before authentication ends", async () => {
      const gate = createGate();
      const controller = controllerOf({
        authenticate: async () => {
          await gate.wait();
          return { accountability: { user: "ann", role: null } };
        },
      });
      let connects = 0;
      controller.on("connect", () => void connects++);
      const verified = createGate();
      const app = new Hono().use(timeout(50)).use(async (_c, next) => {
        await next();
        void verified.wait();
      }).get("/websocket", controller.upgrade);
      const { port } = await start(app);
      const { answer } = await Wire.request(port, "/websocket?access_token=ann");
      assert.equal(answer.status, 504);
      gate.open();
      await verified.reached;
      assert.equal(controller.stats().reserved, 0);
      assert.equal(connects, 0);
    });
  });

  it("sends each handshake header once on the 101, and no internal header, whatever middleware sets after next()", async () => {
    const app = new Hono().use(async (c, next) => {
      await next();
      for (const name of ["sec-websocket-protocol", "sec-websocket-extensions", "content-length", "connection"]) {
        c.header(name, "7");
      }
      c.header("x-after", "1");
      c.header("set-cookie", "a=1", { append: true });
      c.header("set-cookie", "b=2", { append: true });
    }).get("/websocket", controllerOf().upgrade);
    const { port } = await start(app);
    const { answer: { headers } } = await Wire.open(port, "/websocket");
    const { upgrade, connection, "sec-websocket-accept": accept, "x-after": after, "set-cookie": cookies, ...rest } = headers;
    assert.deepEqual([upgrade, connection, after, cookies], ["websocket", "Upgrade", "1", "a=1, b=2"]);
    assert.ok(accept);
    assert.deepEqual(rest, {});
  });

  it("leaves no socket without an error listener", async () => {
    const { port, server } = await start(new Hono().get("/websocket", controllerOf().upgrade));
    const taken: Socket[] = [];
    server.on("upgrade", (_incoming, socket: Socket) => taken.push(socket));
    const wire = Wire.begin(port, "/nothing");
    await once(server, "upgrade");
    assert.ok(taken[0]!.listenerCount("error") > 0);
    wire.reset();
    await openConnections(server, 0);
  });

  it("keeps no listener at a socket of ws, and calls those that the application adds", async () => {
    const controller = controllerOf();
    const sockets: EventEmitter[] = [];
    controller.on("connect", ({ client }) => void sockets.push(client.socket as EventEmitter)); // That of ws.
    const { port, server } = await start(new Hono().get("/websocket", controller.upgrade));
    const tracked: Socket[] = [];
    server.on("connection", (socket: Socket) => tracked.push(socket));
    const wire = await Wire.open(port, "/websocket");
    const [socket] = sockets;
    assert.deepEqual(socket!.eventNames(), []);
    assert.equal(tracked[0]!.listenerCount("error"), 1); // That of ws.
    socket!.emit("error", new Error("without a listener"));
    const closed = once(socket!, "close");
    const message = once(socket!, "message");
    assert.deepEqual(await wire.ask({ type: "ping" }), { type: "pong" });
    assert.equal(String((await message)[0]), '{"type":"ping"}');
    wire.reset();
    assert.equal((await closed)[0], 1006);
  });

  it("asks the app when the listeners belong to another framework", async () => {
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const controller = controllerOf();
    const app = new Hono().get("/websocket", controller.upgrade).get("/rooms/:room", (c, next) => controller.upgrade(c, next));
    for (const status of [200, 404, 426]) {
      const server = createServer((_incoming, outgoing) => {
        outgoing.statusCode = status;
        outgoing.end("another framework");
      });
      attachWebSocket(server, app);
      const port = await listen(server);
      await Wire.open(port, "/websocket");
      if (status !== 200) await Wire.open(port, "/rooms/7");
      const { answer } = await Wire.request(port, "/nothing");
      assert.deepEqual([answer.status, answer.body], [status, "another framework"]);
    }
  });

  it("asks a bare fetch too when the listeners answer its path with a page, as Vite does with every path", async () => {
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const app = new Hono().get("/websocket", controllerOf().upgrade).get("/page", (c) => c.text("page of the app"));
    const server = createServer((_incoming, outgoing) => void outgoing.end("index.html"));
    server.on("upgrade", () => {}); // Vite's own, which takes its HMR only.
    attachWebSocket(server, { fetch: (request, env) => app.fetch(request, env as object) });
    const port = await listen(server);
    await Wire.open(port, "/websocket");
    const { answer } = await Wire.request(port, "/page");
    assert.deepEqual([answer.status, answer.body], [200, "index.html"]);
  });

  it("upgrades routes behind the listeners when it has no app", async () => {
    const { createAdaptorServer } = await import("@hono/node-server");
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const app = new Hono().get("/websocket", controllerOf().upgrade);
    const server = createAdaptorServer({ fetch: app.fetch }) as Server; // HTTP/1 by default.
    const { connections } = attachWebSocket(server);
    const port = await listen(server);
    const wire = await Wire.open(port, "/websocket");
    assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    assert.equal(connections.size, 1);
  });

  it("upgrades a request that comes before ws is loaded", async () => {
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const app = new Hono().get("/websocket", controllerOf().upgrade);
    const server = createServer();
    // Loading takes a turn at least. The event is passed on in the turn of the attachment.
    server.once("upgrade", (...args) => {
      attachWebSocket(server, app);
      server.emit("upgrade", ...args);
    });
    const wire = await Wire.open(await listen(server), "/websocket");
    assert.equal((await wire.ask({ type: "ping" })).type, "pong");
  });

  it("refuses what is not a server of node:http, and says what to pass", async () => {
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    for (const server of [undefined, null, {}, { port: 3000, fetch: () => {} }]) {
      assert.throws(
        () => attachWebSocket(server as never),
        /^TypeError: Cannot attach: the first argument is not a server of node:http\. Pass /,
      );
    }
  });

  it("leaves upgrades to the server again after detach", async () => {
    const { createAdaptorServer } = await import("@hono/node-server");
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const app = new Hono().get("/websocket", controllerOf().upgrade).get("/", (c) => c.text("page"));
    const server = createAdaptorServer({ fetch: app.fetch }) as Server; // HTTP/1 by default.
    const port = await listen(server);
    const one = attachWebSocket(server, app);
    const wire = await Wire.open(port, "/websocket");
    one.detach();
    one.detach();
    assert.equal((await Wire.request(port, "/websocket")).answer.status !== 101, true);
    assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    attachWebSocket(server, app);
    await Wire.open(port, "/websocket");
  });

  describe("with an app that is not Hono and fails", () => {
    it("answers 500 or the app's own refusal, and ends no process", async () => {
      const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
      for (
        const { name, fail, kind } of [...FAILURES, {
          name: "returns undefined",
          fail: () => undefined as never,
          kind: "returned",
        }]
      ) {
        if (kind === "pending") continue;
        const server = createServer();
        attachWebSocket(server, { fetch: fail });
        const port = await listen(server);
        const unhandled = await unhandledIn(async () => {
          const { answer } = await Wire.request(port, "/anything", { headers: OPENING });
          assert.equal(answer.status, 500, name);
        });
        assert.equal(unhandled.length, 0, name);
      }
    });

    it("ends the connection, and no process, when a request listener throws", async () => {
      const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
      const { error } = console;
      console.error = () => {};
      try {
        for (const { name, fail, kind, isSynchronous } of FAILURES) {
          if (kind !== "thrown" || !isSynchronous) continue;
          const server = createServer();
          attachWebSocket(server);
          server.on("request", fail);
          const port = await listen(server);
          const unhandled = await unhandledIn(async () => {
            const client = connect(port, "127.0.0.1").resume();
            client.write(requestOf("GET", "/anything", OPENING));
            await once(client, "close");
          });
          assert.equal(unhandled.length, 0, name);
        }
      } finally {
        console.error = error;
      }
    });
  });
});
