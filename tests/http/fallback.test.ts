import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { createClient } from "../../src/client/client.ts";
import { EventSocket } from "../../src/client/sse.ts";
import { WebSocketController, type WebSocketControllerOptions } from "../../mod.ts";
import { fallback, type FallbackOptions } from "../../src/http/http.ts";
import { SHORT_CLOSE_TIMEOUT } from "../../src/protocol/close.ts";
import { observed } from "../otel/collected.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";
import { openStream, URL } from "./event-connection.ts";

/** An app whose route is reached without a network. */
function start(options: WebSocketControllerOptions = {}, ofFallback: FallbackOptions = {}) {
  const controller = new WebSocketController({ mode: "public", heartbeat: false, ...options });
  const app = new Hono();
  app.use("/websocket", fallback(ofFallback));
  app.get("/websocket", controller.upgrade);
  const fetch = async (url: string, init: RequestInit) => await app.request(url, init);
  /** A client that has no WebSocket. */
  class Socket extends EventSocket {
    constructor(url: string, protocols?: string[]) {
      super(url, protocols, fetch);
    }
  }
  return { app, controller, fetch, Socket };
}

/** A connection by hand. */
const open = ({ app }: Pick<ReturnType<typeof start>, "app">, init: RequestInit = {}) => openStream(app, init);

describe("fallback", () => {
  it("gives a client without WebSockets the same connection: requests, broadcasts, its close", async () => {
    const server = start();
    const { controller, Socket } = server;
    controller.handle("say", v.object({ text: v.string() }), ({ message }) => message.text);
    const closes: unknown[] = [];
    const closed = new Stall();
    controller.on("close", ({ code, cause, wasClean }) => {
      closes.push({ code, cause, wasClean });
      closed.resolve();
    });
    const client = createClient(URL, { WebSocket: Socket });
    const heard = new Stall<unknown>();
    client.on("message", ({ message }) => heard.resolve(message));
    assert.equal(await client.request("say", { text: "hello" }), "hello");
    await controller.broadcast({ type: "news", text: "one" });
    assert.deepEqual(await heard.promise, { type: "news", text: "one" });
    const [connected] = [...controller.clients()];
    assert.deepEqual([connected?.handshake.url, connected?.handshake.protocol], [URL, "noroshi.v1"]);
    await client.close();
    await closed.promise;
    assert.deepEqual(closes, [{ code: 1000, cause: "client", wasClean: true }]);
    await controller.close();
  });

  it("is labelled http in the metrics", async () => {
    const { controller, Socket } = start();
    const metrics = observed(controller);
    const client = createClient(URL, { WebSocket: Socket });
    const admitted = new Stall();
    controller.on("connect", () => admitted.resolve());
    client.connect();
    await admitted.promise;
    assert.deepEqual(await metrics.by("noroshi.server.active_connections", "network.protocol.name"), { http: 1 });
    metrics.end();
    await client.close();
    await controller.close();
  });

  it("answers with what proxies need to pass a stream on", async () => {
    const server = start();
    const { response, cancel } = await open(server);
    const { headers } = response;
    assert.equal(headers.get("content-type"), "text/event-stream; charset=utf-8");
    assert.equal(headers.get("cache-control"), "no-store, no-transform");
    assert.equal(headers.get("x-accel-buffering"), "no");
    await cancel();
  });

  it("sends a string with a line break unchanged", async () => {
    const server = start();
    const { next, cancel } = await open(server);
    void server.controller.broadcast("one\r\ntwo\n\nthree");
    assert.deepEqual(await next(), { name: "text", data: "one\r\ntwo\n\nthree" });
    await cancel();
  });

  it("handles a POST once, and none that comes before another", async () => {
    const server = start();
    const { next, post, cancel } = await open(server);
    const ping = (uid: number) => JSON.stringify({ type: "ping", uid });
    assert.equal((await post({ frames: [ping(1), ping(2)] })).status, 204);
    assert.equal((await post({ sequence: 1, frames: [ping(1), ping(2)] })).status, 204);
    assert.equal((await post({ sequence: 4, frames: [ping(4)] })).status, 400);
    assert.equal((await post({ sequence: 2, frames: [ping(3)] })).status, 204);
    for (const uid of [1, 2, 3]) assert.deepEqual((await next())?.data, { type: "pong", uid });
    await cancel();
  });

  it("takes a POST only with the secret, and of the form that it has", async () => {
    const server = start({ maxPayload: 1_000 }, { node: "a" });
    const { connection, post, cancel } = await open(server);
    assert.match(connection, /^a\.[0-9a-f]{32}$/);
    assert.equal((await post({ secret: "guessed", frames: ['{"type":"ping"}'] })).status, 404);
    assert.equal((await post({ frames: [1] })).status, 400);
    assert.equal((await post({ close: { code: 1006, reason: "" } })).status, 400);
    assert.equal((await post({ frames: ["x".repeat(500_000)] })).status, 413);
    assert.equal((await server.app.request(`${URL}?connection=${connection}`, { method: "POST", body: "{" })).status, 400);
    assert.equal((await post({}, { connection: "a.gone" })).status, 404);
    await cancel();
    assert.equal((await post({ sequence: 1 })).status, 404);
  });

  it("answers a POST of another node's connection with 409 and the name of that node", async () => {
    const [one, other] = [start({}, { node: "a" }), start({}, { node: "b" })];
    const { connection, secret, cancel } = await open(one);
    const body = JSON.stringify({ secret, sequence: 1 });
    const answer = await other.app.request(`${URL}?connection=${connection}`, { method: "POST", body });
    assert.equal(answer.status, 409);
    const { error } = await answer.json();
    assert.deepEqual([error.code, error.node], ["INVALID_REQUEST", "a"]);
    await cancel();
  });

  it("refuses as the upgrade does: origin, token, limits, a server that leaves", async () => {
    const authenticate = () => null;
    const accept = { accept: "text/event-stream" };
    const strict = start({ mode: "strict", authenticate });
    assert.equal((await strict.app.request(URL, { headers: accept })).status, 401);
    assert.equal((await strict.app.request(`${URL}?access_token=x`, { headers: accept })).status, 401);
    const full = start({ maxConnections: 1 });
    const { cancel } = await open(full);
    assert.equal((await full.app.request(URL, { headers: accept })).status, 503);
    await cancel();
    await (await open(full)).cancel();
    const foreign = await full.app.request(URL, { headers: { ...accept, origin: "https://evil.example" } });
    assert.deepEqual([foreign.status, foreign.headers.get("access-control-allow-origin")], [403, null]);
    await full.controller.close();
    assert.equal((await full.app.request(URL, { headers: accept })).status, 503);
    assert.equal((await full.app.request(URL, { headers: { ...accept, upgrade: "h2c" } })).status, 426);
    assert.equal((await full.app.request(URL)).status, 426);
  });

  it("lets pages of an allowed origin read, and ask with a token", async () => {
    const server = start({ origins: ["https://app.example"] });
    const headers = { origin: "https://app.example" };
    const { response, connection, secret, cancel } = await open(server, { headers });
    const allowed = (answer: Response) => [
      answer.headers.get("access-control-allow-origin"),
      answer.headers.get("access-control-allow-credentials"),
    ];
    assert.deepEqual(allowed(response), ["https://app.example", "true"]);
    const body = JSON.stringify({ secret, sequence: 1 });
    const posted = await server.app.request(`${URL}?connection=${connection}`, { method: "POST", body, headers });
    assert.deepEqual([posted.status, ...allowed(posted)], [204, "https://app.example", "true"]);
    const preflight = await server.app.request(URL, {
      method: "OPTIONS",
      headers: { ...headers, "access-control-request-method": "GET", "access-control-request-headers": "authorization" },
    });
    assert.deepEqual([preflight.status, ...allowed(preflight)], [204, "https://app.example", "true"]);
    assert.equal(preflight.headers.get("access-control-allow-headers"), "authorization");
    await cancel();
  });

  it("knows a page of its own origin, which sends no Origin with a GET", async () => {
    const authenticate = () => ({ accountability: { user: "ann", role: null, admin: false, app: true }, expires_at: null });
    const server = start({ mode: "strict", authenticate: authenticate as never, cookie: "session" });
    const headers = { cookie: "session=1", "sec-fetch-site": "same-origin", host: "localhost" };
    const { cancel } = await open(server, { headers: { ...headers, referer: "https://localhost/page" } });
    assert.equal([...server.controller.clients()][0]!.handshake.origin, "https://localhost");
    await cancel();
    await (await open(server, { headers })).cancel();
    for (const site of ["same-site", "cross-site", "none"]) {
      const stranger = { ...headers, "sec-fetch-site": site, accept: "text/event-stream" };
      assert.equal((await server.app.request(URL, { headers: stranger })).status, 403, site);
    }
    // Over http:// a page sends its address only.
    const { "sec-fetch-site": _site, ...old } = headers;
    await (await open(server, { headers: { ...old, referer: "http://localhost/page" } })).cancel();
    for (const referer of ["http://evil.example/", "about:blank"]) {
      const answer = await server.app.request(URL, { headers: { ...old, referer, accept: "text/event-stream" } });
      assert.equal(answer.status, 403, referer);
    }
  });

  it("refuses a page of another site that sends no Origin, where a cookie needs none", async () => {
    const server = start({ cookie: "session", authenticate: () => null, allowCookieWithoutOrigin: true });
    for (const site of ["same-site", "cross-site"]) {
      const headers = { accept: "text/event-stream", "sec-fetch-site": site, "sec-fetch-mode": "no-cors" };
      assert.equal((await server.app.request(URL, { headers })).status, 403, site);
    }
  });

  it("lets a page that may connect read why it was refused", async () => {
    const server = start({ mode: "strict", origins: ["https://app.example"], authenticate: () => null });
    const headers = { accept: "text/event-stream", authorization: "Bearer bad" };
    const refused = await server.app.request(URL, { headers: { ...headers, origin: "https://app.example" } });
    assert.deepEqual([refused.status, refused.headers.get("access-control-allow-origin")], [401, "https://app.example"]);
    assert.equal(refused.headers.get("access-control-expose-headers"), "ETag, Retry-After");
    const foreign = await server.app.request(URL, { headers: { ...headers, origin: "https://evil.example" } });
    assert.equal(foreign.headers.get("access-control-allow-origin"), null);
  });

  it("leaves c.env as the server passes it", async () => {
    class Info {
      readonly #address = "192.0.2.1";
      get remoteAddr() {
        return { hostname: this.#address };
      }
    }
    const controller = new WebSocketController({ mode: "public" });
    const app = new Hono();
    const seen: unknown[] = [];
    app.use("/websocket", fallback());
    app.use("/websocket", async (c, next) => {
      seen.push((c.env as Info).remoteAddr.hostname);
      await next();
    });
    app.get("/websocket", controller.upgrade);
    const response = await app.request(URL, { headers: { accept: "text/event-stream" } }, new Info());
    assert.deepEqual([response.status, seen], [200, ["192.0.2.1"]]);
    await response.body?.cancel();
  });

  it("closes a client that does not read with 4508", async () => {
    const clock = new TestClock();
    const server = start({ maxBufferedBytes: 10_000, clock });
    const closed = new Stall<object>();
    server.controller.on("close", ({ code, cause }) => closed.resolve({ code, cause }));
    await open(server);
    while (server.controller.clients().size > 0 && [...server.controller.clients()][0]!.readyState === 1) {
      await server.controller.broadcast({ type: "news", text: "x".repeat(1_000) });
      await turn();
    }
    clock.advance(SHORT_CLOSE_TIMEOUT);
    assert.deepEqual(await closed.promise, { code: 4508, cause: "slow" });
  });

  it("holds a client back by the answer to its POST while its messages wait", async () => {
    const server = start({ maxPipelined: 1 });
    const stalled = new Stall();
    server.controller.use(async (_context, next) => {
      await stalled.promise;
      await next();
    });
    const { post, next, cancel } = await open(server);
    const say = (uid: number) => JSON.stringify({ type: "say", uid });
    let isAnswered = false;
    const posted = post({ frames: [say(1), say(2), say(3)] }).then((answer) => {
      isAnswered = true;
      return answer;
    });
    await turn();
    assert.equal(isAnswered, false);
    stalled.resolve();
    assert.equal((await posted).status, 204);
    for (const uid of [1, 2, 3]) assert.equal(((await next())?.data as { uid: number }).uid, uid);
    await cancel();
  });

  it("sends the close code as its last event, and ends the stream", async () => {
    const server = start();
    const { next } = await open(server);
    void server.controller.disconnect({ uid: [...server.controller.clients()][0]!.uid }, 4403, "Out");
    assert.deepEqual(await next(), { name: "close", data: { code: 4403, reason: "Out" } });
    assert.equal(await next(), null);
  });

  it("opens nothing when middleware answers in place of the route", async () => {
    const controller = new WebSocketController({ mode: "public" });
    const app = new Hono();
    app.use("/websocket", fallback());
    app.use("/websocket", async (c, next) => {
      await next();
      c.res = c.json({ error: "Replaced" }, 503);
    });
    app.get("/websocket", controller.upgrade);
    assert.equal((await app.request(URL, { headers: { accept: "text/event-stream" } })).status, 503);
    const { opened, pending } = controller.stats();
    assert.deepEqual([opened, pending], [0, 0]);
  });

  it("cuts the reason of a client's close", async () => {
    const server = start();
    const closed = new Stall<string>();
    server.controller.on("close", ({ reason }) => closed.resolve(reason));
    const { post } = await open(server);
    await post({ close: { code: 4000, reason: "x".repeat(10_000) } });
    assert.equal((await closed.promise).length, 123);
  });

  it("refuses a token in the URL's subprotocols", async () => {
    const server = start();
    const headers = { accept: "text/event-stream" };
    assert.equal((await server.app.request(`${URL}?protocols=noroshi.v1,bearer.secret`, { headers })).status, 400);
  });

  it("closes a client whose POST has too many frames, or too many characters of them", async () => {
    for (const frames of [Array<string>(8_193).fill(""), ["x".repeat(40_000), "x".repeat(40_000)]]) {
      const server = start({ maxPayload: 50_000 });
      const { post, next } = await open(server);
      assert.equal((await post({ frames })).status, 413);
      assert.deepEqual(await next(), { name: "close", data: { code: 1009, reason: "Message too big" } });
    }
  });

  it("leaves the requests of other routes alone where it stands before the whole app", async () => {
    const app = new Hono();
    app.use(fallback());
    app.post("/api", (c) => c.text("done"));
    const headers = { origin: "https://evil.example", "access-control-request-method": "POST" };
    const preflight = await app.request("/api", { method: "OPTIONS", headers });
    assert.deepEqual([preflight.status, preflight.headers.get("access-control-allow-origin")], [404, null]);
    assert.equal(await (await app.request("/api?connection=5", { method: "POST" })).text(), "done");
  });

  it("answers 408 to a body that does not come, and takes the POST once it is repeated", async () => {
    const clock = new TestClock();
    const server = start({ clock, timeout: 3_000 });
    const { connection, secret, next, post, cancel } = await open(server);
    const body = JSON.stringify({ secret, sequence: 1, frames: ['{"type":"ping","uid":1}'] });
    const asked = new Stall();
    const chunks = [body.slice(0, 10)];
    const slow = server.app.request(`${URL}?connection=${connection}`, {
      method: "POST",
      body: new ReadableStream({
        pull(stream) {
          const chunk = chunks.shift();
          if (chunk !== undefined) return stream.enqueue(new TextEncoder().encode(chunk));
          asked.resolve();
          return new Promise(() => {});
        },
      }),
      duplex: "half",
    } as RequestInit);
    await asked.promise;
    clock.advance(3_000);
    const answer = await slow;
    assert.deepEqual([answer.status, (await answer.json()).error.message], [408, "The body took too long"]);
    assert.equal((await post({ sequence: 1, frames: ['{"type":"ping","uid":1}'] })).status, 204);
    assert.deepEqual((await next())?.data, { type: "pong", uid: 1 });
    await cancel();
  });

  it("reads the client's bodies while others without the secret hold theirs, and answers further ones 429", async () => {
    const clock = new TestClock();
    const server = start({ clock, timeout: 3_000 });
    const { connection, secret, next, post, cancel } = await open(server);
    /** A POST whose body does not come to its end after `begin`, and whether the server has asked for more. */
    const postSlowly = (begin = "") => {
      const read = new Stall();
      let isFirst = true;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          if (isFirst && begin) {
            isFirst = false;
            return controller.enqueue(new TextEncoder().encode(begin));
          }
          read.resolve();
          return new Promise(() => {});
        },
      }, { highWaterMark: 0 });
      const init = { method: "POST", body, duplex: "half" } as RequestInit; // The types of Node have no `duplex`.
      return { read: read.promise, answer: server.app.request(`${URL}?connection=${connection}`, init) };
    };
    const slow = [postSlowly(), postSlowly(), postSlowly(), postSlowly('{"secret":"')];
    for (const { read } of slow) await read;
    /** What an answer to a body says that is not read to its end. */
    const refusalOf = async ({ read, answer }: ReturnType<typeof postSlowly>) => {
      const refused = await Promise.race([read, answer]);
      assert.ok(refused instanceof Response, "the body was read");
      return [refused.status, (await refused.json()).error.code];
    };
    const refusal = [429, "REQUESTS_EXCEEDED"];
    for (const begin of [`{"secret":"${"0".repeat(secret.length)}"`, " ".repeat(1_000), `{"sequence":1,"secret":"${secret}"`]) {
      assert.deepEqual(await refusalOf(postSlowly(begin.padEnd(90))), refusal);
    }
    assert.equal((await post({ sequence: 1, frames: ['{"type":"ping","uid":1}'] })).status, 204);
    assert.deepEqual((await next())?.data, { type: "pong", uid: 1 });
    // Two of its own, and no more.
    const own = [postSlowly(`{"secret":"${secret}"`), postSlowly(`{"secret":"${secret}"`)];
    for (const { read } of own) await read;
    assert.deepEqual(await refusalOf(postSlowly(`{"secret":"${secret}"`)), refusal);
    assert.equal(server.controller.stats().refused.posts, 4);
    clock.advance(3_000);
    for (const { answer } of [...slow, ...own]) assert.equal((await answer).status, 408);
    assert.equal((await post({ sequence: 2, frames: ['{"type":"ping","uid":2}'] })).status, 204);
    assert.deepEqual((await next())?.data, { type: "pong", uid: 2 });
    await cancel();
  });

  it("answers a POST that is repeated as often as by an honest client, and then closes the connection", async () => {
    const server = start({ rateLimit: { messages: 0.001, burst: 1 } });
    const { next, post } = await open(server);
    const first = { sequence: 1, frames: ['{"type":"ping","uid":1}'] };
    assert.equal((await post(first)).status, 204);
    assert.deepEqual((await next())?.data, { type: "pong", uid: 1 });
    for (let repeats = 0; repeats < 8; repeats++) assert.equal((await post(first)).status, 204);
    const answer = await post(first);
    assert.deepEqual([answer.status, (await answer.json()).error.code], [429, "REQUESTS_EXCEEDED"]);
    assert.equal(server.controller.stats().refused.posts, 1);
    assert.deepEqual(await next(), { name: "close", data: { code: 4529, reason: "Too many repeated requests" } });
    assert.equal(await next(), null);
    assert.equal((await post(first)).status, 404);
  });

  it("lets each POST be repeated, and counts those that skip a number", async () => {
    const server = start();
    const { next, post } = await open(server);
    for (let sequence = 1; sequence <= 3; sequence++) {
      for (let repeats = 0; repeats <= 8; repeats++) assert.equal((await post({ sequence, frames: ["{}"] })).status, 204);
      await next();
    }
    assert.equal((await post({ sequence: 4, frames: ["{}"] })).status, 204);
    for (let times = 0; times < 8; times++) assert.equal((await post({ sequence: 9 })).status, 400);
    assert.equal((await post({ sequence: 9 })).status, 429);
  });

  it("counts a POST without messages as one, unless it answers a ping or closes", async () => {
    const clock = new TestClock();
    const server = start({ clock, heartbeat: { period: 10_000 }, rateLimit: { messages: 0.001, burst: 2 } });
    const { next, post } = await open(server);
    for (let pings = 0; pings < 3; pings++) {
      clock.advance(10_000);
      assert.equal((await next())?.name, "ping");
      assert.equal((await post({ pong: null })).status, 204);
    }
    for (let empty = 0; empty < 3; empty++) assert.equal((await post(empty === 1 ? { pong: null } : {})).status, 204);
    const { error } = (await next())?.data as { error: { code: string } };
    assert.equal(error.code, "REQUESTS_EXCEEDED");
    const last = next();
    assert.equal((await post({ close: { code: 1000, reason: "" } })).status, 204);
    assert.equal((await last)?.name, "close");
  });

  it("gives a client whose POSTs were repeated too often the close of the server", async () => {
    const server = start();
    const closed = new Stall<unknown>();
    class Socket extends EventSocket {
      constructor(url: string, protocols?: string[]) {
        super(url, protocols, async (url, init) => {
          if (init.method !== "POST") return await server.fetch(url, init);
          for (let times = 0; times < 9; times++) await server.fetch(url, init); // As a proxy that repeats.
          return await server.fetch(url, init);
        });
      }
    }
    const socket = new Socket(URL, ["noroshi.v1"]);
    socket.onopen = () => socket.send('{"type":"ping"}');
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => closed.resolve({ code, reason });
    assert.deepEqual(await closed.promise, { code: 4529, reason: "Too many repeated requests" });
  });

  it("logs the remedy when a POST reaches another node, once a second", async (t) => {
    const server = start({}, { node: "b" });
    const { mock } = t.mock.method(console, "warn", () => {});
    for (let n = 0; n < 3; n++) await server.app.request(`${URL}?connection=a.1`, { method: "POST" });
    assert.deepEqual([mock.callCount(), String(mock.calls[0]?.arguments).includes("let the proxy route by")], [1, true]);
  });

  it("counts the POSTs that reach another node, and logs the remedy by the logger of the controller", async () => {
    const lines: [string | undefined, string][] = [];
    const logger = { warn: ({ reason }: { reason?: string }, message: string) => void lines.push([reason, message]), error() {} };
    const server = start({ logger }, { node: "b" });
    const { cancel } = await open(server);
    for (let n = 0; n < 3; n++) {
      assert.equal((await server.app.request(`${URL}?connection=a.1`, { method: "POST" })).status, 409);
    }
    assert.equal((await server.app.request(`${URL}?connection=b.1`, { method: "POST" })).status, 404);
    assert.equal(server.controller.stats().refused.node, 3);
    assert.deepEqual([lines.length, lines[0]?.[0]], [1, "node"]);
    assert.match(lines[0]![1], /let the proxy route by the name before the "\."/);
    await cancel();
  });

  it("passes other requests on", async () => {
    const app = new Hono();
    app.use(fallback());
    app.get("/", (c) => c.text("page"));
    app.post("/", async (c) => c.text(await c.req.text()));
    assert.equal(await (await app.request("/")).text(), "page");
    assert.equal(await (await app.request("/", { method: "POST", body: "body" })).text(), "body");
  });

  it("throws for an unknown option and a name that a URL cannot hold", () => {
    assert.throws(() => fallback({ nodes: "a" } as FallbackOptions), /unknown option "nodes"/);
    assert.throws(() => fallback({ node: "a.b" }), /option "node" must be/);
  });
});
