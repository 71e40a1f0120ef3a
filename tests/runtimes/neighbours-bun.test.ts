/** Other code in a Bun process: copies of the package, sockets and handlers of other libraries, and middleware. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { COMMANDS, startServer, type TestServer } from "./server.ts";
import { frame, Wire } from "./wire.ts";

const fixtures = join(dirname(fileURLToPath(import.meta.url)), "fixture/neighbours");

let bun: TestServer;
let ports: Record<string, number>;
before(async () => {
  bun = await startServer("bun", join(fixtures, "bun-servers.ts"));
  ports = await bun.control("all", "ports");
});
after(() => bun.stop());
afterEach(() => Wire.resetAll());

const open = (server: string, path: string) => Wire.open(ports[server]!, path);

/** Checks that a client of this package is served. */
async function serves(server: string, path = "/ours"): Promise<void> {
  const wire = await open(server, path);
  assert.deepEqual(await wire.ask({ type: "hello" }), { type: "echo", message: { type: "hello" }, ip: "127.0.0.1" });
  wire.write(frame(9, "")); // A ping.
  await wire.ponged(1);
  assert.equal((await wire.close(1000)).code, 1000);
}

const NOBODY = { active: 0, clients: 0, pending: 0, reserved: 0, deadlines: 0, connected: 0 };

describe("Two copies of the package on one Bun server", () => {
  for (const server of ["first handler", "second handler"]) {
    it(`each serve their own sockets with the ${server}`, async () => {
      for (const path of ["/first?access_token=ada", "/second?access_token=bob"]) await serves(server, path);
    });

    it(`send a broadcast of one copy to no client of the other with the ${server}`, async () => {
      for (const [ours, theirs] of [["first", "second"], ["second", "first"]] as const) {
        const guests = await Promise.all([1, 2].map(() => open(server, `/${ours}?access_token=guest`)));
        const admins = await Promise.all([1, 2].map(() => open(server, `/${theirs}?access_token=admin`)));
        await bun.control(ours, "broadcast", { role: "guest" });
        for (const guest of guests) assert.deepEqual(await guest.next(), { type: "secret", of: ours });
        await bun.control(theirs, "broadcast", { role: "admin" });
        for (const admin of admins) assert.deepEqual(await admin.next(), { type: "secret", of: theirs });
        for (const guest of guests) assert.equal((await guest.ask({ type: "hello" })).type, "echo", "nothing came before it");
        for (const wire of [...guests, ...admins]) await wire.close(1000);
      }
    });
  }
});

describe("A socket of another library under the handler of noroshi/bun", () => {
  /** A message, a ping and a pong, read with the handshake: no callback may throw. */
  const everything = Buffer.concat([frame(1, "text"), frame(2, Buffer.from([0])), frame(9, "ping"), frame(10, "pong")]);

  it("is closed with 1011, whatever its data, and the log names the remedy", async () => {
    const data = ["absent", "undefined", "null", "text", "number", "list", "empty", "frozen", "nothing"];
    for (const path of ["/hono", ...data.map((name) => `/bare/${name}`)]) {
      const wire = await Wire.open(ports["foreign"]!, path, { follow: everything });
      assert.deepEqual(await wire.closed, { code: 1011, reason: "No handler for this socket" }, path);
    }
    await serves("foreign");
    const [line = ""] = await bun.control("all", "logged", { text: "another library upgraded" });
    assert.match(JSON.parse(line).message, /websocketWith\(/);
  });

  it("may be reset without an effect on other sockets", async () => {
    for (const path of ["/hono", "/bare/absent"]) (await open("foreign", path)).reset();
    await serves("foreign");
  });

  it("is served by the handler of its library with websocketWith", async () => {
    const wire = await open("both", "/hono");
    assert.equal(await wire.text(), "opened");
    wire.send("hello");
    assert.equal(await wire.text(), "echo hello");
    wire.write(frame(9, "ping"));
    wire.write(frame(10, "pong"));
    await wire.ponged(1);
    await bun.control("all", "log");
    assert.equal((await wire.close(1000)).code, 1000);
    await bun.control("all", "logged", { text: "hono saw a close" });
    await serves("both");
  });

  it("is ignored by a handler of websocketWith that has no callback for the event", async () => {
    const wire = await Wire.open(ports["few"]!, "/bare/empty", { follow: everything });
    await wire.ponged(1);
    assert.equal((await wire.close(1000)).code, 1000);
    await serves("few");
  });
});

describe("A socket of this package on a Bun server with another handler", () => {
  for (const server of ["wrong hono", "wrong bare"]) {
    it(`releases its slot and is reported: ${server}`, async () => {
      const wire = await open(server, "/ours");
      assert.deepEqual(await bun.control(server, "stats"), NOBODY);
      const [line = ""] = await bun.control("all", "logged", { text: "another WebSocket handler" });
      assert.match(JSON.parse(line).message, /pass websocket of "noroshi\/bun", or websocketWith\(/);
      await bun.control("all", "log");
      // Without a callback of this package, nothing can close the socket.
      if (server === "wrong hono") assert.deepEqual(await wire.closed, { code: 1011, reason: "No handler for this socket" });
    });
  }

  it("is closed with 1011 and released when the handler is replaced while it is open", async () => {
    const ours = await open("exchanged", "/ours");
    assert.equal((await ours.ask({ type: "hello" })).type, "echo");
    await bun.control("exchanged", "exchange", { handler: "hono" });
    const theirs = await open("exchanged", "/hono");
    assert.equal(await theirs.text(), "opened");
    ours.send({ type: "hello" });
    assert.equal((await ours.closed).code, 1011);
    assert.deepEqual(await bun.control("exchanged", "stats"), { ...NOBODY, connected: 1 });
    await bun.control("exchanged", "exchange", { handler: "ours" });
    theirs.send("hello");
    assert.equal((await theirs.closed).code, 1011);
    await serves("exchanged");
  });

  it("is answered 501 with the remedy when there is no handler", async () => {
    const { answer } = await Wire.request(ports["none"]!, "/ours");
    assert.equal(answer.status, 501);
    const { error } = JSON.parse(answer.body);
    assert.equal(error.code, "SERVICE_UNAVAILABLE");
    assert.match(error.message, /Bun\.serve has no WebSocket handler, pass websocket of "noroshi\/bun"/);
    assert.deepEqual(await bun.control("none", "stats"), NOBODY);
  });
});

describe("A copy of the request on Bun", () => {
  it("is answered 501 with the remedies", async () => {
    for (const path of ["/mount/ours", "/clone"]) {
      const { answer } = await Wire.request(ports["mount"]!, path);
      assert.equal(answer.status, 501, path);
      const { error } = JSON.parse(answer.body);
      assert.equal(error.code, "SERVICE_UNAVAILABLE");
      assert.match(error.message, /Bun upgrades only the Request that it passed to fetch/);
      assert.match(error.message, /app\.route\(\), or fetch: \(request, server\) => app\.fetch\(request, { server, request }\)/);
    }
    assert.deepEqual(await bun.control("mount", "stats"), NOBODY);
  });

  it("is not made by route() or by a mount that keeps the request", async () => {
    for (const path of ["/route/ours", "/same/ours"]) await serves("mount", path);
  });

  it("is upgraded behind noroshi/serve, and with { server, request } as env", async () => {
    for (const server of ["mount with request", "routes", "serve"]) {
      for (const path of ["/mount/ours", "/clone", "/route/ours", "/same/ours"]) await serves(server, path);
    }
  });
});

describe("Middleware on Bun", () => {
  it("leaves no connection when it answers before the upgrade", async () => {
    const wire = await Wire.request(ports["late"]!, "/timeout?access_token=ada");
    assert.equal(wire.answer.status, 504);
    await bun.control("authenticate", "release");
    assert.deepEqual(await bun.control("late", "stats"), NOBODY);
  });

  for (const [path, how] of [["/throws", "throws"], ["/answers", "returns another response"]] as const) {
    it(`keeps the connection when it ${how} after next(), because the 101 has been sent`, () => serves("late", path));
  }

  it("does not delay the connection when it awaits after next(), because the 101 has been sent", async () => {
    await serves("late", "/awaits");
    await bun.control("middleware", "release");
  });
});

describe("A Bun server after a hot reload", () => {
  it("keeps earlier sockets open, and sends a broadcast to admins to no earlier guest", async () => {
    const folder = mkdtempSync(join(tmpdir(), "noroshi-hot-"));
    const main = join(folder, "main.ts");
    const load = (count: number) =>
      writeFileSync(main, `import ${JSON.stringify(pathToFileURL(join(fixtures, "bun-hot.ts")).href)}; // ${count}\n`);
    load(1);
    const [command = "", ...args] = COMMANDS["bun"]!;
    const child = spawn(command, ["--hot", "--no-clear-screen", ...args, main], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const port = Number((await lines.next()).value!.replace("PORT ", ""));
      const broadcast = async (role: string): Promise<number> => {
        const response = await fetch(`http://127.0.0.1:${port}/control/${role}/broadcast`, {
          method: "POST",
          headers: { connection: "close" },
        });
        return (await response.json() as { result: number }).result;
      };
      const join = (role: string) => Promise.all([1, 2].map(() => Wire.open(port, `/websocket?access_token=${role}`)));

      const guests = await join("guest");
      assert.equal(await broadcast("guest"), 1);
      for (const guest of guests) assert.deepEqual(await guest.next(), { type: "secret", load: 1 });
      load(2);
      assert.equal((await lines.next()).value, "LOAD 2");
      const admins = await join("admin");
      assert.equal(await broadcast("admin"), 2);
      for (const admin of admins) assert.deepEqual(await admin.next(), { type: "secret", load: 2 });
      for (const guest of guests) assert.equal((await guest.ask({ type: "hello" })).type, "echo", "nothing came before it");
    } finally {
      child.kill();
      rmSync(folder, { recursive: true });
    }
  });
});
