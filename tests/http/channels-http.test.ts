import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController, type WebSocketControllerOptions, WebSocketError } from "../../mod.ts";
import { type ChannelDeclarations, Channels } from "../../src/channels/channels.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { channelsHttp } from "../../src/http/http.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const ann = { user: "ann", role: "editor" };

function start(declarations: ChannelDeclarations, options: WebSocketControllerOptions = {}) {
  const controller = new WebSocketController({
    mode: "public",
    heartbeat: false,
    authenticate: (credentials) =>
      "access_token" in credentials && credentials.access_token === "ann" ? { accountability: ann, expires_at: null } : null,
    ...options,
  });
  const channels = new Channels(controller, declarations);
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    c.header("x-after", "1");
  });
  app.route("/channels", channelsHttp(channels));
  const get = async (path: string, headers: Record<string, string> = {}) => await app.request(`/channels/${path}`, { headers });
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}) =>
    await app.request(`/channels/${path}`, { method: "POST", body: JSON.stringify(body), headers });
  return { app, controller, channels, get, post };
}

const ROOM: ChannelDeclarations = {
  "room:*": { authorize: () => true, history: { size: 10, ttl: 60_000 }, snapshot: () => ({ topic: "news" }) },
};

/** Reads an event stream event by event. */
function events(response: Response) {
  assert.equal(response.status, 200);
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let text = "";
  return {
    cancel: () => reader.cancel(),
    async next(): Promise<Record<string, string> | null> {
      for (;;) {
        const end = text.indexOf("\n\n");
        if (end >= 0) {
          const event = text.slice(0, end);
          text = text.slice(end + 2);
          return Object.fromEntries(
            event.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
          );
        }
        const { done, value } = await reader.read();
        if (done) return null;
        text += decoder.decode(value);
      }
    },
  };
}

const STREAM = { accept: "text/event-stream" };
const ANN = { authorization: "Bearer ann" };

describe("channelsHttp", () => {
  it("streams a channel: init with the snapshot, then each publication with its position", async () => {
    const { channels, get } = start(ROOM);
    const before = await channels.publish("room:1", "say", "one");
    const response = await get("room:1", STREAM);
    assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
    assert.equal(response.headers.get("x-accel-buffering"), "no");
    assert.equal(response.headers.get("x-after"), "1");
    const { next, cancel } = events(response);
    const id = ({ epoch, offset }: { epoch: string; offset: number }) => `${epoch}:${offset}`;
    assert.deepEqual(await next(), { id: id(before!), event: "init", data: '{"data":{"topic":"news"}}' });
    const position = await channels.publish("room:1", "say", { text: 'two,"data":' });
    assert.deepEqual(await next(), { id: id(position!), event: "say", data: JSON.stringify({ text: 'two,"data":' }) });
    await cancel();
  });

  it("recovers by Last-Event-ID all that was missed, or says that it cannot", async () => {
    const { channels, get } = start(ROOM);
    const first = (await channels.publish("room:1", "say", 1))!;
    for (const n of [2, 3]) await channels.publish("room:1", "say", n);
    const id = `${first.epoch}:${first.offset}`;
    const recovered = events(await get("room:1", { ...STREAM, "last-event-id": id }));
    assert.deepEqual(await recovered.next(), { id, event: "init", data: '{"recovered":true}' });
    assert.deepEqual([(await recovered.next())?.["data"], (await recovered.next())?.["data"]], ["2", "3"]);
    await recovered.cancel();
    const lost = events(await get("room:1", { ...STREAM, "last-event-id": "other:1" }));
    assert.deepEqual(JSON.parse((await lost.next())!["data"]!), { data: { topic: "news" }, recovered: false });
    await lost.cancel();
  });

  it("keeps a name with a line break in its field", async () => {
    const { channels, get } = start({ news: { authorize: () => true } });
    const { next, cancel } = events(await get("news", STREAM));
    assert.deepEqual(await next(), { event: "init", data: "{}" });
    await channels.publish("news", "a\ndata: forged\r", null);
    assert.deepEqual(await next(), { event: "a data: forged ", data: "null" });
    await cancel();
  });

  it("sends only the event that the request names", async () => {
    const { channels, get } = start(ROOM);
    const { next, cancel } = events(await get("room:1?event=say", STREAM));
    assert.equal((await next())?.["event"], "init");
    await channels.publish("room:1", "other", 1);
    await channels.publish("room:1", "say", 2);
    assert.equal((await next())?.["data"], "2");
    await cancel();
  });

  it("refuses with a status what a socket is refused with an error", async () => {
    const { get, post } = start({
      closed: { authorize: () => false },
      ann: { authorize: ({ client }) => client.accountability.user === "ann", history: { size: 10, ttl: 60_000 } },
      gone: {
        authorize: () => {
          throw new WebSocketError("subscribe", "NOT_FOUND", "No such article");
        },
      },
    });
    for (const headers of [STREAM, {}]) {
      assert.equal((await get("closed", headers)).status, 403);
      assert.equal((await get("unknown", headers)).status, 403);
      assert.equal((await get("ann", headers)).status, 403);
      assert.equal((await get("gone", headers)).status, 404);
      assert.equal((await get("ann", { ...headers, authorization: "Bearer bob" })).status, 401);
      assert.equal((await get("a b", headers)).status, 400);
      const allowed = await get("ann", { ...headers, authorization: "Bearer ann" });
      assert.equal(allowed.status, 200);
      await allowed.body?.cancel();
    }
    assert.equal((await get("ann", { ...STREAM, "last-event-id": "nonsense" })).status, 400);
    const refused = await post("closed", { event: "say" });
    assert.deepEqual([refused.status, (await refused.json()).error.code], [403, "FORBIDDEN"]);
  });

  it("asks a client for a token where the server needs one", async () => {
    const { controller, get, post } = start(ROOM, { mode: "handshake" });
    assert.equal((await get("room:1", STREAM)).status, 401);
    assert.equal((await get("room:1")).status, 401);
    assert.equal((await post("room:1", { event: "say" })).status, 401);
    const { active } = controller.stats();
    assert.equal(active, 0);
  });

  it("answers the history as JSON, by pages, with what a cache needs", async () => {
    const { channels, get } = start(ROOM);
    const positions = [];
    for (const n of [1, 2, 3]) positions.push((await channels.publish("room:1", "say", n))!);
    const all = await get("room:1");
    const record = await all.json();
    assert.deepEqual(record.publications.map(({ data }: { data: number }) => data), [1, 2, 3]);
    assert.equal(all.headers.get("cache-control"), "private, no-cache");
    const etag = all.headers.get("etag")!;
    // RFC 9110 §13.1.2: a list, compared weakly. nginx and CDNs that compress make the validator weak.
    const same = [etag, `W/${etag}`, `"other", ${etag}`, `W/"a,b" ,W/${etag}`, `"x",${etag},"y"`, "*", " * "];
    for (const match of same) {
      const answer = await get("room:1", { "if-none-match": match });
      assert.deepEqual([answer.status, answer.headers.get("etag"), await answer.text()], [304, etag, ""], match);
    }
    const others = ['"other"', etag.slice(1, -1), `"*"`, `${etag.slice(0, -1)}1"`, `"a,${etag.slice(1)}`, "", "*, *"];
    for (const match of others) assert.equal((await get("room:1", { "if-none-match": match })).status, 200, match);
    await channels.publish("room:1", "say", 4);
    assert.equal((await get("room:1", { "if-none-match": etag })).status, 200);

    const page = await get(`room:1?after=${positions[0]!.epoch}:${positions[0]!.offset}&limit=2`);
    const { publications, reason } = await page.json();
    assert.deepEqual([publications.map(({ data }: { data: number }) => data), reason], [[2, 3], "limit"]);
    assert.match(page.headers.get("cache-control")!, /immutable/);
    assert.equal((await get("room:1?limit=many")).status, 400);
    assert.equal((await get("room:1?after=1")).status, 400);
  });

  it("publishes once by an Idempotency-Key, checked by the schema", async () => {
    const { channels, post } = start({
      news: { authorize: () => true, schema: { said: v.object({ text: v.string() }) }, history: { size: 10, ttl: 60_000 } },
    });
    const said = { event: "said", data: { text: "hello" } };
    const first = await post("news", said, { "idempotency-key": '"k1"' });
    assert.equal(first.status, 200);
    const position = await first.json();
    assert.deepEqual(await (await post("news", said, { "idempotency-key": "k1" })).json(), position);
    const { publications, epoch } = await channels.history("news");
    assert.deepEqual([publications.length, epoch], [1, position.epoch]);
    const invalid = await post("news", { event: "said", data: { text: 1 } });
    assert.deepEqual([invalid.status, (await invalid.json()).error.code], [400, "INVALID_PAYLOAD"]);
    assert.equal((await post("news", "text")).status, 400);
    assert.equal((await post("news", said, { "idempotency-key": "x".repeat(65) })).status, 400);
    assert.equal((await post("news", { event: "said", data: { text: "x".repeat(100_000) } })).status, 413);
  });

  it("lists the members, of channels that have any", async () => {
    const { get } = start({ room: { authorize: () => true, presence: true }, news: { authorize: () => true } });
    const { next, cancel } = events(await get("room?presence", { ...STREAM, authorization: "Bearer ann" }));
    assert.equal((await next())?.["event"], "init");
    assert.deepEqual(await next(), { event: "presence", data: '{"event":"init","members":[]}' });
    assert.deepEqual(await next(), { event: "presence", data: '{"event":"join","members":[{"user":"ann"}]}' });
    assert.deepEqual(await (await get("room/presence")).json(), { members: [{ user: "ann" }] });
    assert.equal((await get("news/presence")).status, 404);
    assert.equal((await get("news")).status, 404);
    await cancel();
  });

  it("ends the stream of a client that may not read any more", async () => {
    const allowed = new Set(["ann"]);
    const { controller, get } = start({
      news: { authorize: ({ client }) => allowed.has(client.accountability.user ?? "") },
    }, { revalidate: () => ({ accountability: { user: "bob", role: null }, expires_at: null }) });
    const { next } = events(await get("news", { ...STREAM, authorization: "Bearer ann" }));
    assert.equal((await next())?.["event"], "init");
    await controller.refresh({ user: "ann" });
    assert.deepEqual(await next(), { event: "unsubscribe", data: '{"reason":"FORBIDDEN"}' });
    assert.deepEqual(await next(), { event: "close", data: '{"code":4403,"reason":"FORBIDDEN"}' });
    assert.equal(await next(), null);
  });

  it("leaves nothing of a client that has gone while a middleware keeps its message", async () => {
    for (const method of ["GET", "POST"]) {
      const { app, controller } = start(ROOM);
      const kept = new Stall();
      controller.use(() => kept.resolve());
      const abort = new AbortController();
      const body = method === "POST" ? { body: '{"event":"say","data":1}' } : {};
      const answer = app.request("/channels/room:1", { method, headers: STREAM, signal: abort.signal, ...body });
      await kept.promise;
      assert.equal(controller.stats().active, 1);
      abort.abort();
      await answer;
      await turn();
      assert.deepEqual([controller.stats().active, controller.stats().reserved], [0, 0]);
    }
  });

  it("answers a publication that was published while revalidate was asked about its credentials", async () => {
    const clock = new TestClock();
    const state = () => ({ accountability: ann, expires_at: clock.now() / 1000 + 60 });
    const [publishing, published, revalidated] = [new Stall(), new Stall(), new Stall()];
    class SlowEngine extends MemoryEngine {
      override publish(...publication: Parameters<MemoryEngine["publish"]>): never {
        publishing.resolve();
        return published.promise.then(() => super.publish(...publication)) as never; // As that of a broker.
      }
    }
    const { post } = start(ROOM, {
      clock,
      engine: new SlowEngine(),
      authenticate: state,
      revalidate: () => revalidated.promise.then(state),
    });
    const answer = post("room:1", { event: "say", data: 1 }, ANN);
    await publishing.promise;
    clock.advance(60_000);
    published.resolve();
    await turn();
    revalidated.resolve();
    assert.equal((await answer).status, 200);
  });

  it("spreads the clients of a server that leaves", async () => {
    const { controller, get } = start(ROOM);
    const { next } = events(await get("room:1", STREAM));
    await next();
    [...controller.clients()][0]!.close(1012, "Restart");
    const { retry, ...close } = (await next())!;
    assert.deepEqual(close, { event: "close", data: '{"code":1012,"reason":"Restart"}' });
    assert.ok(Number(retry) >= 1_000 && Number(retry) < 5_000, String(retry));
  });

  it("sends an EventSource away for the time that the server names, up to five minutes", async () => {
    const closeBy = (reason: string) => (controller: WebSocketController<unknown>) =>
      [...controller.clients()][0]!.close(1012, reason); // The stream's.
    const drain = (controller: WebSocketController<unknown>) =>
      controller.drain({ window: 0, timeout: 60_000, retryAfter: 60_000 });
    const cases = [
      [drain, "drained retry=60000", 60_000],
      [closeBy("retry=1"), "retry=1", 1_000],
      [closeBy("moved, retry=86400000"), "moved, retry=86400000", 300_000],
    ] as const;
    for (const [end, reason, shortest] of cases) {
      const { controller, get } = start(ROOM);
      const { next } = events(await get("room:1", STREAM));
      await next();
      const ended = end(controller);
      const { retry, ...close } = (await next())!;
      assert.deepEqual(close, { event: "close", data: JSON.stringify({ code: 1012, reason }) });
      const longest = shortest + Math.max(4_000, shortest);
      assert.ok(Number(retry) >= shortest && Number(retry) < longest, `${reason}: ${retry}`);
      assert.equal(await next(), null);
      await ended;
    }
  });

  it("lets pages of an allowed origin read and publish, and no others", async () => {
    const { app, get, post } = start(ROOM, { origins: ["https://app.example"] });
    const origin = { origin: "https://app.example" };
    for (const answer of [await get("room:1", origin), await post("room:1", { event: "say" }, origin)]) {
      assert.deepEqual([answer.status, answer.headers.get("access-control-allow-origin")], [200, "https://app.example"]);
    }
    assert.equal((await post("room:1", { event: "say" }, { origin: "https://evil.example" })).status, 403);
    const refused = await get("room:1", { ...origin, authorization: "Bearer bob" });
    assert.deepEqual([refused.status, refused.headers.get("access-control-allow-origin")], [401, "https://app.example"]);
    const headers = { ...origin, "access-control-request-method": "POST" };
    const preflight = await app.request("/channels/room:1", { method: "OPTIONS", headers });
    assert.match(preflight.headers.get("access-control-allow-headers")!, /idempotency-key/);
  });

  it("counts a request against the limits, and its connection is over with the answer", async () => {
    const { controller, get } = start(ROOM, { rateLimit: { messages: 1, burst: 20 } });
    const statuses = [];
    for (let n = 0; n < 12; n++) statuses.push((await get("room:1", { authorization: "Bearer ann" })).status);
    assert.ok(statuses.includes(429), statuses.join(" "));
    assert.equal(controller.stats().active, 0);
  });

  it("subscribes nothing for a HEAD, whose body is never read", async () => {
    const { app, channels } = start(ROOM);
    assert.equal((await app.request("/channels/room:1", { method: "HEAD", headers: STREAM })).status, 200);
    assert.equal(channels.stats().subscribers, 0);
  });

  it("ends a subscription whose response was replaced while authorize ran", async () => {
    const stalled = new Stall();
    const late = new Stall();
    const { controller, channels } = start({
      news: { authorize: () => stalled.promise.then(() => true) },
    });
    const app = new Hono();
    app.use(async (c, next) => {
      void next().then(() => late.resolve());
      await turn();
      c.res = c.json({ error: "Late" }, 504);
    });
    app.route("/channels", channelsHttp(channels));
    assert.equal((await app.request("/channels/news", { headers: STREAM })).status, 504);
    stalled.resolve();
    await late.promise;
    await turn();
    assert.deepEqual([controller.stats().active, channels.stats().subscribers], [0, 0]);
  });

  it("closes a stream that its client does not read, and keeps one that is read", async () => {
    const clock = new TestClock();
    const { controller, channels, get } = start(ROOM, {
      clock,
      closeTimeout: 1_000,
      heartbeat: { period: 1_000, timeout: 1_000 },
    });
    const read = events(await get("room:1", STREAM));
    const { body } = await get("room:1", STREAM);
    assert.equal((await read.next())?.["event"], "init");
    const following = (async () => {
      while (await read.next());
    })();
    assert.equal(channels.stats().subscribers, 2);
    for (let n = 0; n < 50; n++) {
      clock.advance(100);
      await turn();
    }
    assert.deepEqual([channels.stats().subscribers, controller.stats().active], [1, 1]);
    await assert.rejects(async () => await body!.getReader().read(), /closed/);
    await read.cancel();
    await following;
  });

  it("answers a client that was closed before its request", async () => {
    const { controller, get, post } = start(ROOM);
    controller.on("connect", ({ client }) => client.close(4403, "Banned"));
    for (const answer of [await post("room:1", { event: "say" }), await get("room:1"), await get("room:1", STREAM)]) {
      assert.deepEqual([answer.status, (await answer.json()).error.message], [403, "Banned"]);
    }
    assert.equal(controller.stats().active, 0);
  });

  it("answers 403 to a client that is disconnected while its body arrives", async () => {
    const { app, controller } = start(ROOM);
    const arrived = new Stall();
    const reading = new Stall();
    const body = new ReadableStream({
      async pull(stream) {
        reading.resolve();
        await arrived.promise;
        stream.enqueue(new TextEncoder().encode('{"event":"say"}'));
        stream.close();
      },
    }, { highWaterMark: 0 });
    const init = { method: "POST", body, duplex: "half", headers: { authorization: "Bearer ann" } };
    const answer = app.request("/channels/room:1", init);
    await reading.promise;
    await controller.disconnect({ user: "ann" });
    arrived.resolve();
    assert.equal((await answer).status, 403);
  });

  it("reads nothing for a client that is closed or gets other rights while authorize runs", async () => {
    let stalled = new Stall();
    const { controller, channels, get } = start({
      news: { authorize: () => stalled.promise.then(() => true), history: { size: 10, ttl: 60_000 }, presence: true },
    }, { revalidate: () => ({ accountability: { user: "bob", role: null }, expires_at: null }) });
    await channels.publish("news", "say", "secret");
    for (const path of ["news", "news/presence"]) {
      for (const revoke of [() => controller.disconnect({ user: "ann" }), () => controller.refresh({ user: "ann" })]) {
        const answer = get(path, { authorization: "Bearer ann" });
        await turn();
        await revoke();
        stalled.resolve();
        stalled = new Stall();
        const { status } = await answer;
        assert.ok(status === 403 || status === 503, String(status));
      }
    }
  });

  it("keeps publications from forging events of the stream", async () => {
    const { channels, get } = start({ news: { authorize: () => true } });
    const { next, cancel } = events(await get("news", STREAM));
    await next();
    const names = ["presence", "close", "server", "open", "error", "~close", "closed", "message"];
    for (const name of names) await channels.publish("news", name, 1);
    const seen = [];
    for (const _ of names) seen.push((await next())?.["event"]);
    assert.deepEqual(seen, ["~presence", "~close", "~server", "~open", "~error", "~~close", "closed", "message"]);
    await cancel();
  });

  it("refuses JSON that is too deep, and counts malformed bodies against the rate limit", async () => {
    const { app, post } = start(ROOM, { clock: new TestClock(), rateLimit: { messages: 1, burst: 3 } });
    const body = `{"event":"say","data":${"[".repeat(30_000)}${"]".repeat(30_000)}}`;
    const deep = await app.request("/channels/room:1", { method: "POST", body, headers: ANN });
    const { error } = await deep.json();
    assert.deepEqual([deep.status, error.code, error.message], [400, "INVALID_PAYLOAD", "Nested deeper than 32 levels"]);
    const statuses = [];
    for (let n = 0; n < 4; n++) statuses.push((await post("room:1", { event: 1 }, ANN)).status);
    assert.deepEqual(statuses.slice(-2), [429, 429], statuses.join(" "));
  });

  it("counts what it answers against the rate limit, and cuts a page at maxBufferedBytes", async () => {
    const { channels, get } = start(ROOM, { maxBufferedBytes: 10_000 });
    const positions = [];
    for (let n = 0; n < 5; n++) positions.push((await channels.publish("room:1", "say", `${n}${"x".repeat(4_000)}`))!);
    const read = async (path: string) => {
      const record = await (await get(path)).json();
      return [record.publications.map(({ offset }: { offset: number }) => offset), record.offset, record.reason];
    };
    const [first, second, third, fourth, fifth] = positions.map(({ offset }) => offset);
    assert.deepEqual(await read("room:1"), [[fourth, fifth], fifth, undefined]);
    const { epoch } = positions[0]!;
    assert.deepEqual(await read(`room:1?after=${epoch}:${first}`), [[second, third], third, "limit"]);
    assert.deepEqual(await read(`room:1?after=${epoch}:${third}`), [[fourth, fifth], fifth, undefined]);
    const small = start(ROOM, { clock: new TestClock(), rateLimit: { messages: 1, burst: 50 } });
    for (let n = 0; n < 10; n++) await small.channels.publish("room:1", "say", "x".repeat(60_000));
    const statuses = [];
    for (let n = 0; n < 4; n++) statuses.push((await small.get("room:1", ANN)).status);
    assert.deepEqual(statuses.at(-1), 429, statuses.join(" "));
  });

  it("lets a full page be kept only where no credential was shown, and fixes its end", async () => {
    const { channels, get } = start(ROOM);
    const positions = [];
    for (const n of [1, 2, 3]) positions.push((await channels.publish("room:1", "say", n))!);
    const path = `room:1?after=${positions[0]!.epoch}:${positions[0]!.offset}&limit=1`;
    const page = await get(path);
    assert.match(page.headers.get("vary")!, /Accept, Authorization, Cookie, Origin/);
    const text = await page.text();
    await channels.publish("room:1", "say", 4);
    assert.equal(await (await get(path)).text(), text);
    assert.equal(JSON.parse(text).offset, positions[1]!.offset);
    for (const headers of [{ authorization: "Bearer ann" }, { cookie: "a=1" }]) {
      assert.equal((await get(path, headers)).headers.get("cache-control"), "private, no-cache");
    }
  });

  it("answers 408 to a body that does not come, and 400 to one that breaks off", async () => {
    const clock = new TestClock();
    const { app, controller } = start(ROOM, { clock, timeout: 1_000 });
    const reading = new Stall();
    const post = (body: ReadableStream) =>
      app.request("/channels/room:1", { method: "POST", body, duplex: "half" } as RequestInit); // DOM's type lacks duplex.
    const slow = post(new ReadableStream({ pull: () => reading.resolve() }));
    await reading.promise;
    await turn();
    clock.advance(1_000);
    assert.equal((await slow).status, 408);
    const broken = await post(new ReadableStream({ pull: (stream) => stream.error(new Error("Aborted")) }));
    assert.equal(broken.status, 400);
    assert.equal(controller.stats().active, 0);
  });

  it("answers a stream that may succeed later with a close event and a retry time, which an EventSource understands", async () => {
    const { controller, get } = start(ROOM, { maxConnections: 1, origins: ["https://app.example"] });
    const held = events(await get("room:1", STREAM));
    await held.next();
    const origin = { origin: "https://app.example" };
    const read = async (answer: Response) => {
      const event = (await events(answer).next())!;
      assert.equal(answer.headers.get("content-type"), "text/event-stream; charset=utf-8");
      assert.equal(answer.headers.get("access-control-allow-origin"), "https://app.example");
      assert.equal(answer.headers.get("retry-after"), null);
      assert.equal(event["event"], "close");
      return [JSON.parse(event["data"]!), Number(event["retry"])] as const;
    };
    const [full, retry] = await read(await get("room:1", { ...STREAM, ...origin }));
    assert.deepEqual(full, { code: 1013, reason: "Too many connections" });
    assert.ok(retry >= 5_000 && retry <= 10_000, String(retry));
    assert.equal((await get("room:1")).status, 503); // No stream.
    await held.cancel();
    void controller.close();
    assert.deepEqual((await read(await get("room:1", { ...STREAM, ...origin })))[0], {
      code: 1013,
      reason: "The server is going away",
    });
    assert.equal(controller.stats().refused.draining, 1);

    const limits = { clock: new TestClock(), rateLimit: { messages: 1, burst: 1 } };
    const limited = start(ROOM, { ...limits, origins: ["https://app.example"] });
    await events(await limited.get("room:1", { ...STREAM, ...ANN })).next();
    const [tooMany] = await read(await limited.get("room:1", { ...STREAM, ...ANN, ...origin }));
    assert.equal(tooMany.code, 4529);
  });

  it("answers a stream that never works with an error status, at which an EventSource stays away", async () => {
    const { get } = start({ ...ROOM, secret: { authorize: () => false } });
    assert.equal((await get("secret", STREAM)).status, 403);
    assert.equal((await get("room:1", { ...STREAM, authorization: "Bearer bob" })).status, 401);
    assert.equal((await get("room:1?after=x", STREAM)).status, 400);
  });

  it("answers 503 while the engine is unavailable, and hides no fault of the application", async () => {
    const { app, channels, get } = start({ ...ROOM, broken: { authorize: () => (undefined as never as () => true)() } });
    const errors: unknown[] = [];
    app.onError((error, c) => {
      errors.push(error);
      return c.text("Fault", 500);
    });
    channels.history = () => Promise.reject(new WebSocketError("engine", "ENGINE_UNAVAILABLE", "The engine is unavailable"));
    assert.equal((await get("room:1")).status, 503);
    assert.equal((await get("broken")).status, 500);
    assert.ok(errors[0] instanceof TypeError);
  });

  it("sends presence events only with presence=true, and refuses another value", async () => {
    const { get } = start({ room: { authorize: () => true, presence: true } });
    assert.equal((await get("room?presence=false", STREAM)).status, 400);
    const { next, cancel } = events(await get("room?presence=true", STREAM));
    await next();
    assert.equal((await next())?.["event"], "presence");
    await cancel();
  });

  it("waits for nobody between two events with stopAndWait", async () => {
    const { channels, get } = start(ROOM, { stopAndWait: "all" });
    const { next, cancel } = events(await get("room:1", STREAM));
    await next();
    const seen = [];
    for (const n of [1, 2, 3]) await channels.publish("room:1", "say", n);
    while (seen.length < 3) {
      const event = await next();
      if (event?.["event"]) seen.push(event["data"]);
    }
    assert.deepEqual(seen, ["1", "2", "3"]);
    await cancel();
  });
});
