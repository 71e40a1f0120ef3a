import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { copyPackage, type SecondCopy } from "../support/second-copy.ts";
import { HeldServers } from "./held.ts";
import { COMMANDS, PATIENT_SERVE, startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

describe("serve on deno", () => {
  it("accepts connections again after it ran out of file descriptors", { timeout: 300_000 }, async () => {
    const server = await startServer("deno", PATIENT_SERVE, 60);
    const wires: Wire[] = [];
    // More connections than descriptors, so some are not accepted.
    for (let i = 0; i < 100; i++) wires.push(Wire.begin(server.port, "/public"));
    await Promise.all(wires.slice(0, 20).map((wire) => wire.answered));
    for (const wire of wires) wire.reset();
    await Promise.all(wires.map((wire) => wire.closed));
    // Each try is a new connection, and waits for its answer.
    for (let status = 0; status !== 101;) {
      const wire = Wire.begin(server.port, "/public");
      await wire.answered;
      status = wire.answer.status;
    }
    assert.equal(await server.stop(), 0);
  });
});

for (const runtime of ["bun", "deno", "node"] as const) {
  it(
    `a history that is kept for an hour and a BroadcastChannel let the process on ${runtime} exit`,
    { timeout: 300_000 },
    async () => {
      const [command = "", ...args] = COMMANDS[runtime]!; // One of these.
      const child = spawn(command, [...args, fileURLToPath(new URL("fixture/idle.ts", import.meta.url))], { stdio: "inherit" });
      after(() => child.kill());
      const [code] = await once(child, "exit");
      assert.equal(code, 0);
    },
  );

  describe(`serve on ${runtime}`, () => {
    it("closes clients with 1012 and exits with 0 at SIGTERM", { timeout: 300_000 }, async () => {
      const server = await startServer(runtime, PATIENT_SERVE);
      const admitted = await Wire.open(server.port, "/public");
      const pending = await Wire.open(server.port, "/handshake");
      const stopped = server.stop();
      assert.deepEqual(await admitted.closed, { code: 1012, reason: "drained" });
      assert.deepEqual(await pending.closed, { code: 1012, reason: "drained" });
      assert.equal(await stopped, 0);
    });
  });

  describe(`serve on ${runtime} when it closes`, () => {
    let copy: SecondCopy | undefined;
    let servers: HeldServers;
    after(async () => {
      copy?.remove();
      await servers?.kill();
    });

    async function start(drain?: object): Promise<number> {
      await servers?.kill();
      const path = pathToFileURL(join((copy ??= copyPackage()).folder, "src/serve/serve.ts")).href;
      servers = new HeldServers(runtime, path, drain);
      return await servers.port("FIRST");
    }

    it("closes connections without a request in progress at once", { timeout: 300_000 }, async () => {
      const port = await start();
      // Bun does not accept a connection before its first byte, so it cannot close this one.
      const silent = await connected(port);
      const half = await connected(port, "GET / HTTP/1.1\r\nHo");
      const idle = await idleConnection(port);
      const again = await idleConnection(port);
      again.write("GET / HTTP/1.1\r\nHo");
      // The bytes above have arrived when this request is answered.
      await response(port, "/");
      servers.signal("SIGTERM");
      await Promise.all([half, idle, again].map(closed));
      assert.equal(await servers.exited, 0);
      silent.destroy();
    });

    it("answers the request in progress with Connection: close, and exits", { timeout: 300_000 }, async () => {
      const port = await start();
      const idle = await idleConnection(port);
      const agent = new Agent({ keepAlive: true });
      const answer = response(port, "/held/a", agent);
      await servers.held("a");
      servers.signal("SIGTERM");
      await closed(idle); // It is closing.
      servers.release("a");
      const { headers, body } = await answer;
      assert.equal(body, "released");
      assert.equal(headers.connection, "close");
      assert.equal(await servers.exited, 0);
    });

    it("sends the rest of a response that has begun, and exits", { timeout: 300_000 }, async () => {
      const port = await start();
      const idle = await idleConnection(port);
      const answer = response(port, "/stream/a", new Agent({ keepAlive: true }));
      await servers.held("a");
      servers.signal("SIGTERM");
      await closed(idle); // It is closing.
      servers.release("a");
      assert.equal((await answer).body, "begun released");
      assert.equal(await servers.exited, 0);
    });

    it("accepts no further request on a keep-alive connection", { timeout: 300_000 }, async () => {
      const port = await start();
      const idle = await idleConnection(port);
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      assert.equal((await response(port, "/", agent)).body, "plain page");
      const answer = response(port, "/held/a", agent);
      const next = response(port, "/", agent); // Sent after the answer to the first one.
      await servers.held("a");
      servers.signal("SIGTERM");
      await closed(idle); // It is closing.
      servers.release("a");
      assert.equal((await answer).body, "released");
      // Not ECONNRESET: the server has asked the client to open another connection.
      await assert.rejects(next, { code: "ECONNREFUSED" });
      assert.equal(await servers.exited, 0);
    });

    it("refuses an upgrade in progress", { timeout: 300_000 }, async () => {
      const port = await start();
      const idle = await idleConnection(port);
      const wire = Wire.begin(port, "/upgrade/a");
      await servers.held("a");
      servers.signal("SIGTERM");
      await closed(idle); // It is closing.
      servers.release("a");
      await wire.answered;
      assert.equal(wire.answer.status, 503);
      assert.equal(await servers.exited, 0);
    });

    it(
      "closes idle clients first, answers requests in progress, and closes the engine last",
      { timeout: 300_000 },
      async () => {
        const port = await start({ window: 1_000, timeout: 600_000, retryAfter: 1_500 });
        const [busy, idle] = [await Wire.open(port, "/websocket"), await Wire.open(port, "/websocket")];
        const kept = await idleConnection(port);
        assert.equal((await response(port, "/ready")).body, '{"status":"ready"}');
        busy.send({ type: "work", name: "a" });
        await servers.held("a");
        servers.signal("SIGTERM");
        await closed(kept);
        assert.deepEqual(await idle.closed, { code: 1012, reason: "drained retry=1500" });
        // The busy client keeps the server running.
        const refused = await Wire.request(port, "/websocket");
        assert.deepEqual([refused.answer.status, refused.answer.headers["retry-after"]], [503, "2"]);
        const [page, live, ready] = await Promise.all(["/", "/live", "/ready"].map((path) => response(port, path)));
        assert.deepEqual([page!.body, page!.headers.connection], ["plain page", "close"]);
        assert.deepEqual([live!.body, ready!.body], ['{"status":"live"}', '{"status":"draining"}']);
        const answer = response(port, "/held/b");
        await servers.held("b");
        servers.release("a");
        assert.deepEqual(await busy.next(), { type: "work", status: "ok", data: "a" });
        assert.deepEqual(await busy.closed, { code: 1012, reason: "drained retry=1500" });
        servers.release("b");
        assert.equal((await answer).body, "released");
        await servers.saidGoodbye();
        assert.equal(await servers.exited, 0);
      },
    );

    it("exits with 0 when a client never answers the close handshake", { timeout: 300_000 }, async () => {
      const wire = await Wire.open(await start(), "/websocket");
      wire.answersClose = false;
      servers.signal("SIGTERM");
      assert.equal(await servers.exited, 0);
      wire.reset();
    });

    it("exits with 1 when the timeout ends a request over WebSocket or HTTP", { timeout: 300_000 }, async () => {
      const wire = await Wire.open(await start({ timeout: 500 }), "/websocket");
      wire.send({ type: "work", name: "a" });
      await servers.held("a");
      servers.signal("SIGTERM");
      assert.deepEqual(await wire.closed, { code: 1001, reason: "Going away" });
      await servers.saidGoodbye();
      assert.equal(await servers.exited, 1);
      const answer = response(await start({ timeout: 500 }), "/held/b");
      await servers.held("b");
      servers.signal("SIGTERM");
      await assert.rejects(answer);
      assert.equal(await servers.exited, 1);
    });

    for (const [name, whose] of [["SECOND", "of another copy of the package"], ["THIRD", "that handles no signals"]] as const) {
      it(`exits when the last server of the process has closed, including one ${whose}`, { timeout: 300_000 }, async () => {
        const idle = await idleConnection(await start());
        const answer = response(await servers.port(name), "/held/a");
        await servers.held("a");
        servers.signal("SIGINT");
        await closed(idle); // It is closing.
        servers.release("a");
        assert.equal((await answer).body, "released");
        assert.equal(await servers.exited, 0);
      });
    }

    it("exits at once on a second signal", { timeout: 300_000 }, async () => {
      const port = await start();
      const idle = await idleConnection(port);
      const answer = response(port, "/held/a");
      await servers.held("a");
      servers.signal("SIGTERM");
      await closed(idle); // It is closing.
      servers.signal("SIGTERM");
      await assert.rejects(answer);
      assert.equal(await servers.exited, 143);
    });
  });
}

/** The helpers of each runtime that return the client's address behind `serve`. */
const LIBRARIES = {
  bun: ["hono/bun"],
  deno: ["hono/deno", "@hono/node-server/conninfo"],
  node: ["@hono/node-server/conninfo"],
};

for (const runtime of ["bun", "deno", "node"] as const) {
  describe(`an app behind serve on ${runtime}`, () => {
    let server: TestServer;
    before(async () => {
      server = await startServer(runtime, fileURLToPath(new URL("fixture/serve-plain.ts", import.meta.url)));
    });
    after(async () => {
      Wire.resetAll();
      await server?.stop();
    });

    for (const library of LIBRARIES[runtime]) {
      it(`reads the client's address through ${library}`, async () => {
        const { address, port } = JSON.parse((await response(server.port, `/info/${library}`)).body);
        assert.equal(address, "127.0.0.1");
        assert.equal(typeof port, "number");
        const allowed = await Wire.request(server.port, `/allowed/${library}`);
        assert.equal(allowed.answer.status, 101);
        const denied = await Wire.request(server.port, `/denied/${library}`);
        assert.equal(denied.answer.status, 403);
      });
    }

    it("limits messages to the maxPayload of each controller", { timeout: 300_000 }, async () => {
      const measure = (length: number) => ({ type: "measure", text: "x".repeat(length) });
      const usual = await Wire.open(server.port, "/usual");
      // A controller with a larger limit follows while this connection is open.
      for (const [name, length] of [["large", 1_000_000], ["huge", 18_000_000], ["large", 900_000], ["usual", 65_000]] as const) {
        const wire = await Wire.open(server.port, `/${name}`);
        const { data } = await wire.ask(measure(length));
        assert.equal(data, length, name);
        wire.reset();
        await response(server.port, "/close");
      }
      usual.send(measure(70_000));
      assert.equal((await usual.closed).code, 1009);
      const { wasClean: _, ...close } = JSON.parse((await response(server.port, "/close")).body);
      assert.deepEqual(close, { name: "usual", code: 1009, reason: "Message too big", cause: "payload" });
    });
  });
}

// Each test waits for more than ten seconds.
describe("serve times out an incomplete request, but not a response that pauses for longer", { concurrency: true }, () => {
  for (const runtime of ["bun", "deno", "node"] as const) {
    it(`on ${runtime}`, { timeout: 300_000 }, async () => {
      const servers = new HeldServers(runtime);
      after(() => servers.kill());
      const port = await servers.port("FIRST");
      const answers = ["/held/a", "/stream/b"].map((path) => response(port, path));
      const posted = response(port, "/held/c", undefined, "a body");
      await Promise.all(["a", "b", "c"].map((name) => servers.held(name)));
      const silent = await connected(port);
      const half = await connected(port, "GET / HTTP/1.1\r\nHo");
      const again = await idleConnection(port);
      again.write("GET / HTTP/1.1\r\nHo");
      await Promise.all([silent, half].map(closed));
      // Bun lets it wait as long as a response, because the connection has had one.
      if (runtime !== "bun") await closed(again);
      for (const name of ["a", "b", "c"]) servers.release(name);
      const bodies = (await Promise.all([...answers, posted])).map(({ body }) => body);
      assert.deepEqual(bodies, ["released", "begun released", "released"]);
    });
  }
});

describe("serve at SIGTERM ends a request whose body does not arrive within ten seconds", { concurrency: true }, () => {
  for (const runtime of ["bun", "deno", "node"] as const) {
    it(`on ${runtime}`, { timeout: 300_000 }, async () => {
      const servers = new HeldServers(runtime);
      after(() => servers.kill());
      const port = await servers.port("FIRST");
      const head = (name: string, reads = "body") => `POST /${reads}/${name} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n`;
      const half = await connected(port, `${head("a")}\r\nx`);
      const parts = await connected(port, `${head("d", "parts")}\r\nx`);
      const upgrade = await connected(port, `${head("b")}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nx`);
      // The body of this request has arrived, and the request takes longer than the others.
      const posted = response(port, "/held/c", undefined, "a body");
      await Promise.all(["a", "b", "c", "d"].map((name) => servers.held(name)));
      servers.signal("SIGTERM");
      if (runtime !== "bun") await Promise.all([half, parts, upgrade].map(closed)); // Bun ends none of them alone.
      servers.release("c");
      assert.equal((await posted).body, "released");
      await Promise.all([half, parts, upgrade].map(closed));
      assert.equal(await servers.exited, 0);
    });
  }
});

/** Sends the bytes on a connection of its own, which a test may leave open. */
async function connected(port: number, bytes?: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {}); // A reset, which "close" follows.
  await once(socket, "connect");
  if (bytes) socket.write(bytes);
  return socket;
}

/** A connection whose request has been answered: closing ends it. */
async function idleConnection(port: number): Promise<Socket> {
  const socket = await connected(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await once(socket, "data");
  return socket;
}

async function closed(socket: Socket): Promise<void> {
  socket.resume();
  if (!socket.closed) await once(socket, "close");
}

interface Answer {
  headers: IncomingMessage["headers"];
  body: string;
}

async function response(port: number, path: string, agent?: Agent, posted?: string): Promise<Answer> {
  const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
    const method = posted === undefined ? "GET" : "POST";
    request({ port, path, host: "127.0.0.1", agent, method }, resolve).on("error", reject).end(posted);
  });
  let body = "";
  for await (const chunk of incoming) body += chunk;
  return { headers: incoming.headers, body };
}
