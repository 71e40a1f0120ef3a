import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { createClient } from "../../src/client/client.ts";
import { testkit, UpgradeRefused } from "../../src/testing/testkit.ts";
import { createChat, received } from "./chat.ts";

describe("testkit", () => {
  it("connects a client to an app, a controller, both, or what a function returns", async () => {
    const { app, controller } = createChat();
    for (const tested of [app, () => createChat().app, () => createChat().controller, () => createChat()]) {
      const t = testkit(tested);
      const client = await t.connect({ token: "alice", ...(typeof tested === "function" && { path: pathOf(tested()) }) });
      assert.equal(await client.request("who"), "alice");
      await t.close();
    }
    assert.equal(controller.isClosed, true);
  });

  it("runs the middleware of the app, and takes headers, an address and bindings", async () => {
    const controller = new WebSocketController({ clientIp: 1 });
    const app = new Hono<{ Bindings: { key: string } }>();
    app.use(async (c, next) => {
      if (c.req.header("x-key") !== c.env.key) return c.text("No entry", 403);
      c.header("x-before", "1");
      await next();
      c.header("x-after", "2");
    });
    app.get("/websocket", controller.upgrade);
    const t = testkit(app, { env: { key: "k" } });
    await assert.rejects(t.socket(), (error: UpgradeRefused) => {
      assert.ok(error instanceof UpgradeRefused);
      assert.deepEqual([error.status, error.body], [403, "No entry"]);
      return true;
    });
    const socket = await t.socket({
      headers: { "x-key": "k", "x-forwarded-for": "203.0.113.7" },
      protocols: ["noroshi.v1"],
      path: "/websocket?a=1",
    });
    assert.deepEqual([socket.headers.get("x-before"), socket.headers.get("x-after")], ["1", "2"]);
    assert.equal(socket.protocol, "noroshi.v1");
    const [client] = controller.clients();
    assert.deepEqual([client?.handshake.ip, client?.handshake.url], ["203.0.113.7", "http://localhost/websocket?a=1"]);
    await t.close();
  });

  it("rejects with why a client is not admitted, and leaves nothing of it", async () => {
    const t = testkit(createChat().app);
    await assert.rejects(t.connect({ token: "nobody" }), { code: "AUTH_FAILED" });
    await assert.rejects(t.connect({ token: () => "nobody" }), { code: "AUTH_FAILED" });
    await assert.rejects(t.connect({ token: "nobody", tokenIn: "protocol" }), { code: "AUTH_FAILED" });
    await t.close();
  });

  it("sends and receives frames over a bare socket", async () => {
    const t = testkit(createChat().app);
    const socket = await t.socket();
    assert.deepEqual(await socket.ask({ type: "auth", uid: 1, access_token: "bob" }), { type: "auth", status: "ok", uid: 1 });
    assert.equal((await socket.ask({ type: "who", uid: 2 }))["data"], "bob");
    assert.equal((await socket.ask("{")).type, "server");
    assert.deepEqual(await socket.close(4000, "bye"), { code: 4000, reason: "bye" });
    await assert.rejects(socket.next(), /ended: 4000 bye/);
    await t.close();
  });

  it("lets time pass for servers and clients, in order and at once", async () => {
    const { app, controller } = createChat(() => t.now);
    const t = testkit(app);
    const start = t.now;
    const ends: number[] = [];
    controller.on("close", () => ends.push(t.now - start));
    const client = await t.connect({ token: "guest", reconnect: false });
    const socket = await t.socket();
    await t.advance(9_999);
    assert.equal(socket.readyState, 1);
    await t.advance(1);
    assert.deepEqual(await socket.closed, { code: 4408, reason: "Authentication timed out" });
    await t.advance(49_999);
    assert.equal(client.status, "open");
    await t.advance(20_000);
    assert.equal(client.error?.code, "TOKEN_EXPIRED");
    assert.equal(t.now - start, 79_999);
    assert.equal(ends.length, 1);
    await t.close();
  });

  it("records the frames of a client both ways, the same ones each time", async () => {
    const run = async () => {
      const t = testkit(createChat().app, { now: 1_800_000_000_000 });
      const client = await t.connect({ token: "alice" });
      received(client.subscribe("room:1"));
      await t.advance(0);
      await client.request("say", { text: "hi" });
      t.cut(client);
      await t.advance(1_000);
      await client.close();
      await t.close();
      return t.sent(client);
    };
    const sent = await run();
    assert.deepEqual(sent, await run());
    assert.deepEqual(sent[0], [">", { type: "auth", uid: (sent[0]![1] as { uid: string }).uid, access_token: "alice" }]);
    assert.ok(
      sent.some(([direction, frame]) => direction === "<" && JSON.stringify(frame).includes('"data":{"by":"alice","text":"hi"}')),
    );
    assert.ok(sent.some(([, frame]) => JSON.stringify(frame) === '{"close":1006,"reason":""}'));
    assert.deepEqual(sent.at(-1), ["<", { close: 1000, reason: "" }]);
  });

  it("has a WebSocket for other clients", async () => {
    const t = testkit(createChat().app);
    const { WebSocket, clock } = t;
    const client = createClient("ws://localhost/websocket", { WebSocket, clock, token: "zoe" });
    assert.equal(await client.request("who"), "zoe");
    await client.close();
    await t.close();
  });

  it("fails to close when a connection or a timer is left", async () => {
    const t = testkit(createChat().app);
    const client = createClient("ws://localhost/websocket", { WebSocket: t.WebSocket, clock: t.clock, token: "zoe" });
    await client.ready;
    await assert.rejects(t.close(), /The test has left a timer of the test, due in \d+ ms/);
    const other = testkit(createChat().app);
    other.clock.setTimeout(() => {}, 1_000);
    await assert.rejects(other.close(), /a timer of the test, due in 1000 ms/);
  });

  it("closes a socket that has not answered a close frame", async () => {
    const { app, controller } = createChat();
    const t = testkit(app);
    const socket = await t.socket();
    socket.answersClose = false;
    void controller.close();
    await t.advance(1_000);
    assert.equal(socket.readyState, 1);
    await t.close();
    assert.deepEqual((await socket.closed).code, 1005);
  });

  it("closes what does not answer, as far as time lets it", async () => {
    const t = testkit(createChat().app);
    const client = await t.connect({ token: "alice" });
    const lost = await t.connect({ token: "bob" });
    const socket = await t.socket();
    t.stall(client);
    t.cut(lost, { silent: true });
    socket.answersClose = false;
    await t.close();
  });

  it("closes bare sockets that receive nothing, before and after the server has given them up", async () => {
    for (const passed of [0, 120_000]) {
      const t = testkit(createChat().app);
      t.stall(await t.socket());
      t.cut(await t.socket(), { silent: true });
      await t.advance(passed);
      await t.close();
    }
  });

  it("puts back what it wraps when kits that overlap are closed in any order", async () => {
    const methods = Object.getOwnPropertyNames(SubtleCrypto.prototype).filter((name) => name !== "constructor");
    const wrapped = () => [
      globalThis.setImmediate,
      globalThis.clearImmediate,
      ...methods.map((name) => crypto.subtle[name as "sign"]),
    ];
    const real = wrapped();
    assert.ok(methods.includes("generateKey"));
    for (const order of [[0, 1], [1, 0]]) {
      const kits = [testkit(createChat().app), testkit(createChat().app)];
      for (const [index, each] of wrapped().entries()) assert.notEqual(each, real[index], `${methods[index - 2]}`);
      for (const index of order) await kits[index]!.close();
      assert.deepEqual(wrapped(), real);
    }
  });

  it("says what cannot be tested, and which path is missing", async () => {
    assert.throws(() => testkit({} as never), /Cannot test the app: pass a Hono app/);
    assert.throws(() => testkit(createChat().app, { nodes: 2 }), /need a function/);
    assert.throws(() => testkit(createChat().app, { node: 2 } as never), /unknown option "node", use one of nodes, path/);
    assert.throws(() => testkit(createChat().app, { nodes: 0 }), /"nodes" must be a whole number/);
    const { app, controller } = createChat();
    app.get("/other", controller.upgrade);
    const t = testkit(app);
    assert.throws(() => t.client(), /the routes are \/websocket, \/other, pass the option "path"/);
    assert.equal(await (await t.connect({ token: "alice", path: "/other" })).request("who"), "alice");
    assert.throws(() => t.hibernate(), /pass the option "hibernates"/);
    assert.throws(() => t.kill(1), /there is none/);
    assert.throws(() => t.sent({}), /Cannot find the client/);
    for (const ms of [-1, NaN, Infinity, "5"]) assert.throws(() => t.advance(ms as number), /a number of ms from 0/);
    await t.close();
  });

  it("waits for cryptography outside of the event loop", async () => {
    const key = await crypto.subtle.importKey("raw", new Uint8Array(32), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const { controller } = createChat(undefined, {
      timeout: 1_000,
      authenticate: async () => {
        // Much longer than a few turns of the event loop.
        for (let n = 0; n < 20; n++) await crypto.subtle.sign("HMAC", key, new Uint8Array(100_000));
        for (let n = 0; n < 20; n++) await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, true, ["sign"]);
        return { accountability: { user: "slow", role: null } };
      },
    });
    const t = testkit(controller);
    const client = t.client({ token: "any", timeout: 1_000, reconnect: false });
    await t.advance(60_000);
    assert.equal(client.status, "open");
    await t.close();
  });
});

const pathOf = (tested: object): string => "controller" in tested || "fetch" in tested ? "/websocket" : "/";
