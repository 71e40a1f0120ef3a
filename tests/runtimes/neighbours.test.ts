/** Other libraries on the same `node:http` server: each socket is answered once, by its owner. */
import assert from "node:assert/strict";
import { cp, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { createAdaptorServer, getRequestListener, upgradeWebSocket } from "@hono/node-server";
import { createNodeWebSocket } from "@hono/node-ws";
import { Server as Engine } from "engine.io";
import { Hono } from "hono";
import { createServer as createVite } from "vite";
import { createServer as createVite7 } from "vite7";
import { WebSocketServer } from "ws";
import { WebSocketController } from "../../mod.ts";
import { attachWebSocket } from "../../src/runtimes/node.ts";
import { listen, openConnections, OPENING, requestOf, Stubborn } from "../support/node-server.ts";
import { Wire } from "./wire.ts";

const TIMEOUT = { timeout: 300_000 };
const root = fileURLToPath(new URL("../..", import.meta.url));

/** A library beside this package. */
interface Neighbour {
  /** Builds the server. The library attaches before or after the call of `attach`. */
  start(app: Hono, attach: (server: Server, app: Hono) => void): Promise<Server> | Server;
  /** The path of its own WebSockets. */
  path: string;
  headers?: Record<string, string>;
  /** Checks that its socket works. */
  check(wire: Wire): Promise<void>;
  /** The response to a plain GET of `/page`. @default `page` */
  page?: RegExp;
  /** Whether the app answers no plain request. */
  isAlone?: boolean;
}

async function echoes(wire: Wire): Promise<void> {
  assert.deepEqual(await wire.ask({ echo: 1 }), { echo: 1 });
  assert.deepEqual(await wire.ask({ echo: 2 }), { echo: 2 });
}

const serverOf = (app: Hono) => createAdaptorServer({ fetch: app.fetch }) as Server; // HTTP/1 unless asked for more.

function echo(server: Server, whenOpen: () => Promise<void> | undefined = () => undefined): void {
  const wss = new WebSocketServer({ noServer: true });
  server.on("upgrade", async (incoming, socket: Socket, head: Buffer) => {
    if (incoming.url !== "/theirs") return;
    const opened = whenOpen();
    if (opened) await opened;
    wss.handleUpgrade(incoming, socket, head, (ws) => ws.on("message", (data) => ws.send(String(data))));
  });
}

function viteBeside(create: typeof createVite7, appType: "spa" | "custom", falls: boolean): Neighbour {
  return {
    async start(app, attach) {
      const directory = await mkdtemp(join(tmpdir(), "noroshi-vite-"));
      await writeFile(join(directory, "index.html"), "<!doctype html><title>the page of Vite</title>");
      const server = createServer();
      const vite = await create({
        root: directory,
        configFile: false,
        logLevel: "silent",
        cacheDir: join(directory, "cache"),
        appType,
        server: { middlewareMode: true, hmr: { server }, watch: null },
      });
      after(async () => {
        await vite.close();
        await rm(directory, { recursive: true, force: true, maxRetries: 5 });
      });
      const listener = getRequestListener(app.fetch);
      server.on("request", (incoming, outgoing) =>
        vite.middlewares(incoming, outgoing, () => {
          if (falls) return void listener(incoming, outgoing);
          outgoing.statusCode = 404;
          outgoing.end("nothing");
        }));
      attach(server, app);
      return server;
    },
    path: "/",
    headers: { "Sec-WebSocket-Protocol": "vite-hmr" },
    async check(wire) {
      assert.equal((await wire.next()).type, "connected");
    },
    isAlone: !falls,
    page: appType === "spa" ? /the page of Vite/ : falls ? /page/ : /nothing/,
  };
}

const NEIGHBOURS: Record<string, Neighbour> = {
  "a plain listener": {
    start(app, attach) {
      const server = serverOf(app);
      echo(server);
      attach(server, app);
      return server;
    },
    path: "/theirs",
    check: echoes,
  },
  "a plain listener added later, on a server without request listeners": {
    start(app, attach) {
      const server = createServer();
      attach(server, app);
      echo(server);
      server.on("request", getRequestListener(app.fetch));
      return server;
    },
    path: "/theirs",
    check: echoes,
  },
  "a plain listener that awaits before it takes the socket": {
    start(app, attach) {
      const server = serverOf(app);
      attach(server, app);
      echo(server, () => new Promise((resolve) => setTimeout(resolve, 100))); // Longer than the pipeline takes to answer 404.
      return server;
    },
    path: "/theirs",
    check: echoes,
  },
  "upgradeWebSocket of @hono/node-server in the same app": {
    start(app, attach) {
      app.get("/theirs", upgradeWebSocket(() => ({ onMessage: ({ data }, ws) => ws.send(String(data)) })));
      const server = createAdaptorServer({
        fetch: app.fetch,
        websocket: { server: new WebSocketServer({ noServer: true }) as never }, // Its type wants the option that is given.
      }) as Server; // As above.
      attach(server, app);
      return server;
    },
    path: "/theirs",
    check: echoes,
  },
  "@hono/node-ws in the same app": {
    start(app, attach) {
      const { injectWebSocket, upgradeWebSocket } = createNodeWebSocket({ app });
      app.get("/theirs", upgradeWebSocket(() => ({ onMessage: ({ data }, ws) => ws.send(String(data)) })));
      const server = serverOf(app);
      attach(server, app);
      injectWebSocket(server);
      return server;
    },
    path: "/theirs",
    check: echoes,
  },
  "@hono/node-ws in an app of its own, injected first": {
    start(app, attach) {
      const theirs = new Hono();
      const { injectWebSocket, upgradeWebSocket } = createNodeWebSocket({ app: theirs });
      theirs.get("/theirs", upgradeWebSocket(() => ({ onMessage: ({ data }, ws) => ws.send(String(data)) })));
      const server = serverOf(app);
      injectWebSocket(server);
      attach(server, app);
      return server;
    },
    path: "/theirs",
    check: echoes,
  },
  "engine.io": {
    start(app, attach) {
      const server = serverOf(app);
      attach(server, app);
      const engine = new Engine();
      engine.attach(server, { path: "/engine.io" });
      engine.on("connection_error", (error) => assert.fail(error));
      after(() => engine.close());
      return server;
    },
    path: "/engine.io/?EIO=4&transport=websocket",
    async check(wire) {
      assert.match(await wire.text() ?? "", /^0{"sid"/);
    },
  },
  "our own, with a second app": {
    start(app, attach) {
      const server = serverOf(app);
      attach(server, app);
      attach(server, new Hono().get("/theirs", new WebSocketController({ mode: "public", logger: false }).upgrade));
      return server;
    },
    path: "/theirs",
    async check(wire) {
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  "our own, with the same app": {
    start(app, attach) {
      const server = serverOf(app);
      attach(server, app);
      attach(server, app);
      return server;
    },
    path: "/websocket",
    async check(wire) {
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  "our own, detached and attached again": {
    start(app, attach) {
      const server = serverOf(app);
      for (let i = 0; i < 20; i++) attachWebSocket(server, app).detach();
      attach(server, app);
      return server;
    },
    path: "/websocket",
    async check(wire) {
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  "a second copy of this package": {
    async start(app, attach) {
      const server = serverOf(app);
      const copy = await importCopy();
      copy.attachWebSocket(
        server,
        new Hono().get("/theirs", new copy.WebSocketController({ mode: "public", logger: false }).upgrade),
      );
      attach(server, app);
      return server;
    },
    path: "/theirs",
    async check(wire) {
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  "a second copy of this package, attached last": {
    async start(app, attach) {
      const server = serverOf(app);
      const copy = await importCopy();
      attach(server, app);
      copy.attachWebSocket(
        server,
        new Hono().get("/theirs", new copy.WebSocketController({ mode: "public", logger: false }).upgrade),
      );
      return server;
    },
    path: "/theirs",
    async check(wire) {
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  "Vite 7": viteBeside(createVite7, "custom", true),
  "Vite 7 alone, with its page on every path": viteBeside(createVite7, "spa", false),
  "Vite 8": viteBeside(createVite as never, "custom", true), // Two versions of the types of one function.
  "Vite 8 alone": viteBeside(createVite as never, "custom", false), // As above.
  "Vite 8 alone, with its page on every path": viteBeside(createVite as never, "spa", false), // As above.
};

let copied: Promise<{ attachWebSocket: typeof attachWebSocket; WebSocketController: typeof WebSocketController }> | undefined;

/** A second copy of the package, as with two versions in one process. */
function importCopy(): NonNullable<typeof copied> {
  return copied ??= (async () => {
    const directory = await mkdtemp(join(tmpdir(), "noroshi-copy-"));
    after(() => rm(directory, { recursive: true, force: true }));
    for (const name of ["src", "mod.ts"]) await cp(join(root, name), join(directory, name), { recursive: true });
    await writeFile(join(directory, "package.json"), JSON.stringify({ type: "module" }));
    await symlink(join(root, "node_modules"), join(directory, "node_modules"));
    const [{ attachWebSocket }, { WebSocketController }] = await Promise.all([
      import(join(directory, "src/runtimes/node.ts")),
      import(join(directory, "mod.ts")),
    ]);
    return { attachWebSocket, WebSocketController };
  })();
}

// An unclaimed upgrade waits for 5 s, so the neighbours are tested concurrently.
describe("attachWebSocket", { concurrency: true }, () => {
  after(() => Wire.resetAll());

  for (const [name, neighbour] of Object.entries(NEIGHBOURS)) testBeside(name, neighbour);
  testListeners();
});

function testBeside(name: string, neighbour: Neighbour): void {
  describe(`Beside ${name}`, () => {
    const start = async () => {
      const controller = new WebSocketController({ mode: "public", logger: false });
      const app = new Hono();
      const server = await neighbour.start(app, (server, app) => void attachWebSocket(server, app));
      app.get("/websocket", controller.upgrade).get("/page", (c) => c.text("page")).post(
        "/posted",
        async (c) => c.text(await c.req.text()),
      );
      return { server, port: await listen(server), controller };
    };
    const { path, headers = {}, page = /page/, isAlone = false } = neighbour;

    it("opens sockets of both, concurrently and in either order", TIMEOUT, async () => {
      const { port, controller } = await start();
      const first = await Promise.all([Wire.open(port, path, { headers }), Wire.open(port, "/websocket")]);
      const second = await Promise.all([Wire.open(port, "/websocket"), Wire.open(port, path, { headers })]);
      for (const wire of [first[0], second[1]]) await neighbour.check(wire);
      for (const wire of [first[1], second[0]]) {
        assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), { type: "pong", uid: 1 });
        assert.deepEqual(await wire.ask({ type: "ping", uid: 2 }), { type: "pong", uid: 2 });
      }
      assert.equal(controller.stats().active, path === "/websocket" ? 4 : 2);
    });

    it("answers plain requests", TIMEOUT, async () => {
      const { port } = await start();
      const response = await fetch(`http://127.0.0.1:${port}/page`, { headers: { accept: "text/html", connection: "close" } });
      assert.match(await response.text(), page);
    });

    it("passes a POST that offers h2c to the request listeners with its body", TIMEOUT, async () => {
      const { port } = await start();
      const client = new Stubborn(
        port,
        requestOf(
          "POST",
          "/posted",
          { Connection: "Upgrade, HTTP2-Settings, close", Upgrade: "h2c", "Content-Length": "5" },
          "hello",
        ),
      );
      const posted = isAlone ? /^HTTP\/1.1 404 / : /^HTTP\/1.1 200 [^]*hello$/;
      assert.match(await client.until(posted), posted);
      client.reset();
    });

    it("ends an upgrade that no library claims, and survives resets of such clients", TIMEOUT, async () => {
      const { server, port, controller } = await start();
      const unknown = new Stubborn(port, requestOf("GET", "/nothing", OPENING));
      const other = new Stubborn(port, requestOf("GET", "/nothing", { Connection: "Upgrade", Upgrade: "x" }));
      const resets = Array.from({ length: 5 }, (_, n) => Wire.begin(port, n % 2 ? "/nothing" : "/websocket"));
      for (const wire of resets) wire.socket.once("connect", () => wire.reset());
      await Promise.all(resets.map((wire) => wire.closed));
      await openConnections(server, 0);
      assert.equal(controller.stats().reserved, 0);
      for (const client of [unknown, other]) client.reset();
      await neighbour.check(await Wire.open(port, path, { headers }));
      assert.equal((await (await Wire.open(port, "/websocket")).ask({ type: "ping" })).type, "pong");
    });
  });
}

function testListeners(): void {
  describe("Beside an upgrade listener", () => {
    it("hides upgrades of the app's routes from it, however long authentication takes", TIMEOUT, async () => {
      const seen: (string | undefined)[] = [];
      let release = () => {};
      const verified = new Promise<void>((resolve) => release = resolve);
      const controller = new WebSocketController({
        mode: "public",
        logger: false,
        authenticate: async () => {
          await verified;
          return { accountability: { user: "ann", role: null } };
        },
      });
      const app = new Hono().route(
        "/api",
        new Hono().onError((_error, c) => c.text("Failed", 500)).get("/:room", controller.upgrade),
      );
      const server = serverOf(app);
      server.on("upgrade", ({ url }) => seen.push(url));
      attachWebSocket(server, app);
      const port = await listen(server);
      const slow = Wire.begin(port, "/api/room?access_token=ann");
      const unknown = await Wire.request(port, "/nothing"); // Waits as long as a neighbour may take.
      assert.equal(unknown.answer.status, 404);
      release();
      await slow.answered;
      assert.equal(slow.answer.status, 101);
      assert.deepEqual(seen, ["/nothing"]);
    });

    it("upgrades a route whose own handler calls controller.upgrade", TIMEOUT, async () => {
      const controller = new WebSocketController({ mode: "public", logger: false });
      const app = new Hono().get("/rooms/:room", (c, next) => controller.upgrade(c, next));
      const server = serverOf(app);
      echo(server);
      attachWebSocket(server, app);
      const port = await listen(server);
      assert.equal((await (await Wire.open(port, "/rooms/7")).ask({ type: "ping" })).type, "pong");
      await echoes(await Wire.open(port, "/theirs"));
    });

    it("leaves it the upgrades to other protocols", TIMEOUT, async () => {
      const server = serverOf(new Hono());
      server.on("upgrade", ({ headers }, socket: Socket) => {
        if (headers.upgrade === "tcp") {
          socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello");
        }
        socket.once("data", (data) => socket.end(data));
      });
      attachWebSocket(server, new Hono());
      const client = new Stubborn(await listen(server), requestOf("POST", "/", { Connection: "Upgrade", Upgrade: "tcp" }));
      await client.until(/hello$/);
      client.socket.write("bye");
      assert.match(await client.until(/bye$/), /^HTTP\/1.1 101 [^]*hellobye$/);
      client.reset();
    });
  });
}
