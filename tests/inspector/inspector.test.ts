/** The inspector on an app in memory: who may look and act, what it shows, and what it costs while nobody looks. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { RegExpRouter } from "hono/router/reg-exp-router";
import * as v from "valibot";
import { Channels } from "../../src/channels/channels.ts";
import type { StreamingClient } from "../../src/client/client.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { EngineHost } from "../../src/engines/engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { encodeMessage, type InspectorMessage } from "../../src/inspector/query.ts";
import { inspector, type InspectorOptions } from "../../src/inspector/inspector.ts";
import {
  type Answers,
  CHANNEL,
  type ChannelDetail,
  type Part,
  type Snapshot,
  TAP_CHANNEL,
  type TapBatch,
} from "../../src/inspector/shown.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { testkit, UpgradeRefused } from "../../src/testing/testkit.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { Stall } from "../support/waiting.ts";

const everybody = () => true;

/** An app with an inspector. */
function createNode(options: Partial<InspectorOptions> = {}, controllerOptions: WebSocketControllerOptions = {}) {
  const controller = new WebSocketController({
    authenticate: (credentials) => {
      const user = "access_token" in credentials ? credentials.access_token : "bad";
      return user === "bad" ? null : { accountability: { user, role: "reader" } };
    },
    logger: false,
    revalidate: (client) => ({ accountability: client.accountability }),
    ...controllerOptions,
  });
  const channels = new Channels(controller, {
    "room:*": { authorize: () => true, history: { size: 100, ttl: 60_000 }, presence: { data: () => ({ token: "k" }) } },
    plain: { authorize: () => true },
  });
  controller.handle("say", v.object({ text: v.string() }), ({ message }) => message.text);
  controller.handle("fail", v.object({}), () => {
    throw new Error("the handler broke");
  });
  controller.handle("count", v.object({}), async function* ({ signal }) {
    yield 1;
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  });
  const app = new Hono();
  app.get("/websocket", controller.upgrade);
  app.route("/inspector", inspector(controller, { authorize: everybody, channels, ...options }));
  return { app, controller, channels };
}

/** Notes of other nodes come in when the test says so. */
class SharedEngine extends MemoryEngine {
  override readonly isAlone = (false as boolean) as true; // The type of `MemoryEngine`, which has no other nodes.
  readonly isSigned: boolean;
  readonly sent: InspectorMessage[] = [];
  #host: EngineHost | undefined;

  constructor(isSigned: boolean) {
    super();
    this.isSigned = isSigned;
  }

  override start(host: EngineHost): void {
    this.#host = host;
    super.start(host);
  }

  override send(message = ""): void {
    const { type, text } = JSON.parse(message);
    if (type === "note") this.sent.push(JSON.parse(text));
  }

  receive(message: InspectorMessage | string): void {
    const text = typeof message === "string" ? message : encodeMessage(message);
    this.#host?.received(JSON.stringify({ type: "note", to: "noroshi/inspector", text }));
  }
}

const PAGE = { path: "/inspector/live" };

/** Asks as the page does. */
async function look<About extends keyof Answers>(
  page: StreamingClient,
  about: About,
  query: object = {},
): Promise<Part<About>[]> {
  const parts: Part<About>[] = [];
  for await (const part of page.stream("look", { about, ...query })) parts.push(part as Part<About>); // As the server answers.
  return parts;
}

const post = (app: Hono, action: string, body: unknown, headers: Record<string, string> = {}) =>
  app.request(`http://localhost/inspector/actions/${action}`, {
    method: "POST",
    headers: { "content-type": "application/json", host: "localhost", ...headers },
    body: JSON.stringify(body),
  });

describe("inspector", () => {
  it("throws without authorize, for an unknown option and for what is no controller", () => {
    const controller = new WebSocketController();
    assert.throws(() => inspector(controller, {} as InspectorOptions), /pass the option "authorize"/);
    assert.throws(() => inspector(controller, undefined as unknown as InspectorOptions), TypeError);
    assert.throws(() => inspector(controller, { authorize: true } as unknown as InspectorOptions), TypeError);
    assert.throws(() => inspector(controller, { authorize: everybody, tap: 1 } as InspectorOptions), /unknown option "tap"/);
    assert.throws(() => inspector({} as WebSocketController, { authorize: everybody }), /pass a WebSocketController/);
    assert.throws(() => inspector(controller, { authorize: everybody, channels: {} as Channels }), /new Channels\(\)/);
    for (const origins of ["*", ["https://ops.example/path"], [1]] as unknown as string[][]) {
      assert.throws(() => inspector(controller, { authorize: everybody, origins }), /option "origins" must be a list/);
    }
    inspector(controller, { authorize: everybody });
    assert.throws(() => inspector(controller, { authorize: everybody }), /observes it already/);
  });

  it("asks authorize for each request, for each action, and allows with true only", async () => {
    const asked: string[] = [];
    let allowed: unknown = true;
    const { app } = createNode({
      authorize: (c, action) => {
        asked.push(`${c.req.path} ${action}`);
        return allowed as boolean;
      },
    });
    assert.equal((await app.request("/inspector")).status, 200);
    assert.equal((await post(app, "broadcast", { message: { type: "hi" }, filter: {} })).status, 200);
    assert.deepEqual(asked.splice(0), [
      "/inspector view",
      "/inspector/actions/broadcast view",
      "/inspector/actions/broadcast broadcast",
    ]);
    for (allowed of [false, undefined, 1, "yes"]) {
      for (const path of ["/inspector", "/inspector/main.js", "/inspector/style.css", "/inspector/live", "/inspector/actions"]) {
        assert.equal((await app.request(path)).status, 403, path);
      }
    }
    allowed = new Response(null, { status: 302, headers: { location: "/login" } });
    assert.equal((await app.request("/inspector")).headers.get("location"), "/login");
  });

  it("refuses, and reports it, when authorize throws", async () => {
    const { app, controller } = createNode({
      authorize: () => {
        throw new Error("the session store is away");
      },
    });
    const errors: unknown[] = [];
    controller.on("error", ({ error }) => void errors.push(error));
    assert.equal((await app.request("/inspector")).status, 403);
    assert.match(String(errors), /the session store is away/);
  });

  it("asks for each action separately", async () => {
    for (const only of ["read", "disconnect", "refresh", "broadcast", "publish"] as const) {
      const { app } = createNode({ authorize: (_, action) => action === "view" || action === only });
      assert.deepEqual(await (await app.request("/inspector/actions")).json(), { actions: [only] });
      const bodies = {
        read: { name: "room:1" },
        disconnect: { filter: { user: "nobody" } },
        refresh: { filter: { user: "nobody" } },
        broadcast: { message: { type: "hi" }, filter: {} },
        publish: { channel: "plain", event: "say", data: 1 },
      };
      for (const [action, body] of Object.entries(bodies)) {
        assert.equal((await post(app, action, body)).status, action === only ? 200 : 403, `${action}, allowed ${only}`);
      }
    }
  });

  it("accepts pages of its own host and of its own origins, not of those of the controller", async () => {
    const { app, controller } = createNode({ origins: ["https://ops.example"] }, { origins: ["https://app.example"] });
    await using t = testkit({ app, controller });
    const body = { filter: { user: "ann" } };
    for (
      const [origin, status] of [["https://ops.example", 200], ["http://localhost", 200], ["https://app.example", 403]] as const
    ) {
      assert.equal((await post(app, "disconnect", body, { origin })).status, status, origin);
    }
    await t.socket({ path: "/websocket", headers: { origin: "https://app.example" } });
    await assert.rejects(t.socket({ ...PAGE, headers: { origin: "https://app.example" } }), UpgradeRefused);
    await t.socket({ ...PAGE, headers: { origin: "https://ops.example" } });
  });

  it("refuses actions of other sites, of forms, and of invalid payloads", async () => {
    const { app } = createNode();
    const body = { filter: { user: "ann" } };
    assert.equal((await post(app, "disconnect", body, { origin: "https://evil.example" })).status, 403);
    assert.equal((await post(app, "disconnect", body, { origin: "http://localhost" })).status, 200);
    assert.equal((await post(app, "disconnect", body, { "content-type": "text/plain" })).status, 415);
    assert.equal((await post(app, "disconnect", { filter: {} })).status, 400);
    assert.equal((await post(app, "disconnect", { filter: { name: "ann" } })).status, 400);
    assert.equal((await post(app, "publish", { channel: "undeclared", event: "say", data: 1 })).status, 400);
    assert.equal((await post(app, "broadcast", { filter: {}, message: { type: "x", text: "a".repeat(70_000) } })).status, 413);
    assert.equal((await post(app, "view", {})).status, 404);
  });

  it("serves a page that asks its own server only, under any path", async () => {
    const { app } = createNode();
    for (const [path, base] of [["/inspector", "./inspector/"], ["/inspector?x", "./inspector/"]]) {
      const response = await app.request(path!);
      assert.match(response.headers.get("content-security-policy")!, /^default-src 'none'; script-src 'self'/);
      const text = await response.text();
      assert.match(text, new RegExp(`src="${base}main.js"`));
      assert.doesNotMatch(text, /<script>|style=|https?:/);
    }
    assert.match((await app.request("/inspector/main.js")).headers.get("content-type")!, /javascript/);
    assert.match((await app.request("/inspector/style.css")).headers.get("content-type")!, /css/);
  });

  it("serves the page with a slash at its end, too, wherever it is mounted", async () => {
    const { controller } = createNode();
    const page = inspector(new WebSocketController({ logger: false }), { authorize: everybody });
    const other = inspector(new WebSocketController({ logger: false }), { authorize: everybody });
    const app = new Hono({ router: new RegExpRouter() }).route("/inspector", page);
    app.route("/live", other).get("/websocket", controller.upgrade);
    for (const path of ["/inspector/", "/live/"]) {
      const response = await app.request(path);
      assert.equal(response.status, 200);
      assert.ok(response.headers.get("content-security-policy"));
      assert.match(await response.text(), /src="\.\/main\.js"/);
    }
    assert.equal((await app.request("/inspector/clients/")).status, 404);
    assert.equal((await app.request("/inspector/x")).status, 404);
  });

  it("serves the page with a slash at its end in an application that requires Hono, another copy of it", async () => {
    const required = createRequire(import.meta.url)("hono") as { Hono: typeof Hono }; // The same module.
    assert.notEqual(required.Hono, Hono);
    const app = new required.Hono().basePath("/ops");
    app.route("/inspector", inspector(new WebSocketController(), { authorize: everybody }));
    for (const path of ["/ops/inspector", "/ops/inspector/"]) {
      const answer = await app.request(path);
      assert.match(await answer.text(), /^<!doctype html>/i, path);
    }
    assert.equal((await app.request("/ops/inspector/none/")).status, 404);
  });

  it("sends its headers whatever the request wants to upgrade to", async () => {
    for (const mount of ["/inspector", "/live"]) {
      const app = new Hono().route(mount, inspector(new WebSocketController({ logger: false }), { authorize: everybody }));
      for (const path of ["", "/main.js", "/style.css"]) {
        const response = await app.request(mount + path, { headers: { upgrade: "h2c" } });
        assert.equal(response.status, 200);
        assert.match(response.headers.get("content-security-policy") ?? "", /^default-src 'none'/);
        assert.equal(response.headers.get("x-content-type-options"), "nosniff");
      }
    }
  });

  it("shows a snapshot each second, without its own connections, and stops when nobody looks", async () => {
    const { app, controller } = createNode();
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann" });
    const page = await t.connect(PAGE);
    const seen: Snapshot[] = [];
    page.subscribe(CHANNEL, { onEvent: ({ data }) => void seen.push(data as Snapshot) });
    await t.advance(1_001);
    await Promise.all([ann.request("say", { text: "hi" }), ann.request("say", { text: "hi" })]);
    await t.advance(1_000);
    const last = seen.at(-1)!;
    assert.deepEqual([last.stats.active, last.stats.clients, last.received, last.handled.count], [1, 1, 2, 2]);
    assert.deepEqual([last.status, last.engine, last.isSigned], ["running", "ready", true]);
    const count = seen.length;
    await t.advance(3_000);
    assert.equal(seen.length, count + 3);
    assert.deepEqual(seen.slice(-3).map(({ seq }) => seq - last.seq), [1, 2, 3]);
    await page.close();
    await t.advance(6_000);
    await ann.request("say", { text: "nobody looks" });
    const again = await t.connect(PAGE);
    again.subscribe(CHANNEL, { onEvent: ({ data }) => void seen.push(data as Snapshot) });
    await t.advance(1_500);
    assert.equal(seen.at(-1)!.received, 2, "it counted a message while nobody looked");
  });

  it("finds clients by user, role, address and uid, and says why a closed one was closed", async () => {
    const { app, controller } = createNode();
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket?ticket=SECRET", token: "ann", ip: "192.0.2.7" });
    await t.connect({ path: "/websocket", token: "ben", ip: "192.0.2.8" });
    await t.connect({ path: "/websocket", token: "eve", ip: "192.0.2.9" });
    const page = await t.connect(PAGE);
    const users = async (query: object) =>
      (await look(page, "clients", query)).flatMap(({ data }) => data.rows.map(({ user }) => user)).sort();
    assert.deepEqual(await users({}), ["ann", "ben", "eve"]);
    assert.deepEqual(await users({ text: "AN" }), ["ann"]);
    assert.deepEqual(await users({ text: "reader" }), ["ann", "ben", "eve"]);
    assert.deepEqual(await users({ text: "192.0.2.8" }), ["ben"]);
    const { uid } = [...controller.clients()].find(({ accountability }) => accountability.user === "ann")!;
    assert.deepEqual(await users({ text: uid.slice(0, 13) }), ["ann"]);

    ann.subscribe("room:1");
    await ann.request("say", { text: "hi" });
    await ann.request("say", { text: "hi" });
    const [open] = await look(page, "client", { client: uid });
    assert.deepEqual(open!.data.client!.channels, ["room:1"]);
    assert.equal(open!.data.client!.url, "/websocket?ticket=•••");
    assert.deepEqual(open!.data.client!.timeline.map(({ kind, text, count }) => [kind, text, count]), [
      ["opened", "The upgrade was accepted", 1],
      ["admitted", "The client was admitted", 1],
      ["auth", "Credentials accepted", 1],
      ["message", "Sent subscribe", 1],
      ["message", "Sent say", 2],
    ]);

    await post(app, "disconnect", { filter: { uid }, code: 4403, reason: "Enough" });
    await t.advance(100);
    assert.deepEqual(await users({}), ["ben", "eve"]);
    assert.deepEqual(await users({ state: "closed" }), ["ann"]);
    const [closed] = await look(page, "client", { client: uid });
    const { closed: ending, timeline, url } = closed!.data.client!;
    assert.equal(url, "/websocket?ticket=•••");
    assert.deepEqual([ending!.cause, ending!.code, ending!.reason], ["server", 4403, "Enough"]);
    assert.equal(timeline.at(-1)!.text, "Closed with 4403 “Enough”: server");
  });

  it("lists the newest clients up to the limit, and counts all", async () => {
    const { app, controller } = createNode();
    await using t = testkit({ app, controller });
    for (let index = 0; index < 1_200; index++) {
      controller.open(new FakeTransport(), HANDSHAKE, { accountability: { user: `user-${index}`, role: null } });
    }
    const page = await t.connect(PAGE);
    const read = async (query: object) => {
      const parts = (await look(page, "clients", query)).map(({ data }) => data);
      const users = parts.flatMap(({ rows }) => rows.map(({ user }) => user));
      return { users, total: parts.reduce((sum, { total }) => sum + total, 0) };
    };
    const first = await read({});
    assert.deepEqual([first.users.length, first.users[0], first.users.at(-1), first.total], [
      500,
      "user-700",
      "user-1199",
      1_200,
    ]);
    const more = await read({ limit: 2_000 });
    assert.deepEqual([more.users.length, more.total], [1_200, 1_200]);
    const some = await read({ text: "user-11", limit: 3 });
    assert.deepEqual(some, { users: ["user-1197", "user-1198", "user-1199"], total: 111 });
    await assert.rejects(read({ limit: 20_001 }), { code: "INVALID_PAYLOAD" });
    for (const token of ["ann", "ben"]) {
      const client = await t.connect({ path: "/websocket", token });
      await client.close();
    }
    await t.advance(100);
    assert.deepEqual(await read({ state: "closed", limit: 1 }), { users: ["ben"], total: 2 });
  });

  it("keeps the refusals with their reasons, and the errors", async () => {
    const { app, controller } = createNode({}, { maxConnectionsPerIp: 1, mode: "strict" });
    controller.on("auth.failure", () => {}); // It takes the log, not the inspector.
    controller.on("error", () => {});
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann", tokenIn: "protocol", ip: "192.0.2.7" });
    const refused = (options: object) =>
      assert.rejects(t.socket({ path: "/websocket", ip: "192.0.2.7", ...options }), UpgradeRefused);
    await refused({ protocols: ["noroshi.v1", "bearer.ann"] });
    await refused({ ip: "192.0.2.8", protocols: ["noroshi.v1", "bearer.bad"] });
    await assert.rejects(ann.request("fail"), { code: "INTERNAL_ERROR" });
    const page = await t.connect({ ...PAGE, ip: "192.0.2.9" });
    const [refusals] = await look(page, "refusals");
    assert.deepEqual(refusals!.data.rows.map(({ kind, ip, code }) => [kind, ip, code]), [
      ["token", "192.0.2.8", "AUTH_FAILED"],
      ["ip", "192.0.2.7", "LIMIT_EXCEEDED"],
    ]);
    const [errors] = await look(page, "errors");
    const [error] = errors!.data.rows;
    assert.equal(error!.text, "Error: the handler broke");
    assert.equal(error!.client, [...controller.clients()][0]!.uid);
    assert.match(error!.stack!, /inspector\.test/);
  });

  it("keeps an error though a client has others reported again and again, with texts that it chooses", async () => {
    const { app, controller } = createNode();
    controller.on("error", () => {});
    controller.handle("find", v.object({ id: v.number() }), ({ message: { id } }) => {
      throw new Error(`There is no order ${id}`);
    });
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann" });
    await assert.rejects(ann.request("fail"), { code: "INTERNAL_ERROR" });
    for (let id = 0; id < 300; id++) await assert.rejects(ann.request("find", { id }), { code: "INTERNAL_ERROR" });
    const [errors] = await look(await t.connect(PAGE), "errors");
    assert.ok(errors!.data.rows.some(({ text }) => text === "Error: the handler broke"));
    assert.ok(errors!.data.rows.some(({ text, count }) => text.startsWith("Error: There is no order") && count > 1));
  });

  it("lists streams until they end, and open channels with their history and members", async () => {
    const { app, controller, channels } = createNode();
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann" });
    const stream = ann.stream("count")[Symbol.asyncIterator]();
    await stream.next();
    ann.subscribe("room:1", { presence: true });
    ann.subscribe("plain");
    await t.advance(10);
    const page = await t.connect(PAGE);
    const [streams] = await look(page, "streams");
    assert.deepEqual(streams!.data.rows.map(({ type, user }) => [type, user]), [["count", "ann"]]);
    await stream.return?.();
    await t.advance(10);
    assert.deepEqual((await look(page, "streams"))[0]!.data.rows, []);

    for (let index = 1; index <= 60; index++) await channels.publish("room:1", "say", { index });
    const [open] = await look(page, "channels");
    assert.deepEqual(
      open!.data.rows.map(({ name, declared, subscriptions, position }) => [name, declared, subscriptions, position?.offset]),
      [
        ["room:1", "room:*", 1, 60],
        ["plain", "plain", 1, undefined],
      ],
    );
    const read = async (query: object) => (await (await post(app, "read", query)).json()).result as ChannelDetail;
    const latest = await read({ name: "room:1" });
    assert.deepEqual(latest.members, [{ user: "ann", data: { token: "•••" } }]);
    assert.deepEqual(
      latest.history!.publications.map(({ offset }) => offset),
      Array.from({ length: 50 }, (_, index) => index + 11),
    );
    const after = { epoch: latest.history!.epoch, offset: 5 };
    const earlier = await read({ name: "room:1", after });
    assert.deepEqual(earlier.history!.publications[0], { event: "say", data: { index: 6 }, offset: 6 });
    assert.deepEqual(await read({ name: "plain" }), { members: null, history: null });
    await channels.publish("room:1", "say", { password: "hunter2", text: "x".repeat(500) });
    const { history, members } = await read({ name: "room:2" });
    assert.deepEqual([history!.publications, members], [[], []]);
    const shown = (await read({ name: "room:1" })).history!.publications.at(-1)!.data as Record<string, string>;
    assert.deepEqual([shown["password"], shown["text"]!.length], ["•••", 201]);
    for (const query of [{ name: "nowhere" }, { name: "room:1", after: { epoch: "x", offset: -1 } }]) {
      const response = await post(app, "read", query);
      assert.equal(response.status, 400);
      assert.match((await response.json()).error.message, /^Cannot read "(nowhere|room:1)"/);
    }
  });

  it("taps messages for those who may, redacted and bounded, and nothing before", async () => {
    const may: Record<string, boolean> = { view: true, tap: false };
    const { app, controller } = createNode({
      authorize: (_, action) => may[action] === true,
      redact: ({ hidden, ...message }) => hidden === true ? undefined : message,
    });
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann" });
    const page = await t.connect(PAGE);
    await assert.rejects(page.subscribe(TAP_CHANNEL)[Symbol.asyncIterator]().next(), { code: "FORBIDDEN" });
    await assert.rejects(t.socket({ path: "/inspector/live?tap" }), UpgradeRefused);
    may["tap"] = true;
    const tapping = await t.connect({ path: "/inspector/live?tap" });
    const batches: TapBatch[] = [];
    tapping.subscribe(TAP_CHANNEL, { onEvent: ({ data }) => void batches.push(data as TapBatch) });
    await ann.request("say", { text: "before the first second is over" });
    await t.advance(2_000);
    batches.length = 0;
    const text = "x".repeat(500);
    void ann.request("say", {
      text,
      password: "hunter2",
      deep: { api_key: "k", list: Array.from({ length: 50 }, (_, at) => at) },
    })
      .catch(() => {});
    void ann.request("say", { text: "hidden", hidden: true }).catch(() => {});
    for (let index = 0; index < 30; index++) void ann.send({ type: "note", index });
    await t.advance(1_000);
    const [{ messages, skipped }] = batches as [TapBatch];
    assert.equal(messages.length, 20);
    assert.equal(skipped, 32 - 20 - 1);
    assert.deepEqual([messages[0]!.user, messages[0]!.type], ["ann", "say"]);
    const shown = JSON.stringify(messages[0]!.message);
    assert.doesNotMatch(shown, /hunter2|"k"|x{300}/);
    assert.match(shown, /•••.*…/);
    await tapping.close();
    await t.advance(6_000);
    batches.length = 0;
    await ann.request("say", { text: "unseen" });
    await t.advance(2_000);
    assert.deepEqual(batches, []);
  });

  it("reports what redact throws and what is no JSON, counts it as skipped, and never shows credentials", async () => {
    const { app, controller } = createNode({
      redact: ({ text, ...message }) => ({ ...message, text: (text as string).toUpperCase(), ...text === "big" && { size: 1n } }),
    });
    const errors: string[] = [];
    controller.on("error", ({ error }) => void errors.push(String(error)));
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann" });
    const tapping = await t.connect({ path: "/inspector/live?tap" });
    const batches: TapBatch[] = [];
    tapping.subscribe(TAP_CHANNEL, { onEvent: ({ data }) => void batches.push(data as TapBatch) });
    await t.advance(2_000);
    void ann.send({ type: "nothing" });
    void ann.send({ type: "note", text: "big" });
    void ann.send({ type: "note", text: "hi" });
    const socket = await t.socket({ path: "/websocket" });
    socket.send({ type: "auth", access_token: "ben", text: "a secret" });
    socket.send({ type: "ping", text: "a heartbeat" });
    await t.advance(1_000);
    const [{ messages, skipped }] = batches as [TapBatch];
    assert.deepEqual(messages.map(({ message }) => message), [{ type: "note", text: "HI" }]);
    assert.equal(skipped, 2);
    assert.match(errors.join(), /toUpperCase.*BigInt/);
  });

  for (const isSigned of [true, false]) {
    it(`${isSigned ? "answers" : "ignores"} messages of other nodes when the engine ${isSigned ? "signs" : "does not sign"}`, async () => {
      const engine = new SharedEngine(isSigned);
      const { app, controller } = createNode({}, { engine });
      await using t = testkit({ app, controller });
      const ann = await t.connect({ path: "/websocket", token: "ann" });
      engine.receive({ kind: "ask", id: "a question", query: { about: "clients" } });
      engine.receive({ kind: "watch", isTapping: true });
      await t.advance(100);
      await ann.request("say", { text: "a message of ann" });
      await t.advance(2_000);
      const kinds = [...new Set(engine.sent.map(({ kind }) => kind))].sort();
      assert.deepEqual(kinds, isSigned ? ["answer", "snapshot", "tapped"] : []);

      const page = await t.connect(PAGE);
      const seen: Snapshot[] = [];
      page.subscribe(CHANNEL, { onEvent: ({ data }) => void seen.push(data as Snapshot) });
      await t.advance(1_001);
      assert.equal(seen.at(-1)!.isSigned, isSigned);
    });
  }

  it("authorizes a page and a tap again within a minute", async () => {
    const may = new Set(["view", "tap"]);
    const { app, controller } = createNode({ authorize: (_, action) => may.has(action) });
    await using t = testkit({ app, controller });
    const page = await t.connect(PAGE);
    const tapping = await t.connect({ path: "/inspector/live?tap", maxAttempts: 1 });
    may.delete("tap");
    await t.advance(65_000);
    assert.equal(tapping.status, "closed");
    assert.equal(page.status, "open");
    may.clear();
    await t.advance(60_000);
    assert.notEqual(page.status, "open");
  });

  it("keeps 20 types of messages of a client with their counts, while somebody looks", async () => {
    const { app, controller } = createNode();
    await using t = testkit({ app, controller });
    const ann = await t.connect({ path: "/websocket", token: "ann" });
    const { uid } = [...controller.clients()][0]!; // The client of ann.
    const timeline = async (page: StreamingClient) => {
      const [part] = await look(page, "client", { client: uid });
      const { timeline, forgotten } = part!.data.client!;
      return { texts: timeline.slice(3).map(({ text, count }) => `${text} ${count}`), forgotten };
    };
    const count = async () => {
      const stream = ann.stream("count")[Symbol.asyncIterator]();
      await stream.next();
      await stream.return?.();
      await t.advance(10);
    };
    await count();
    const page = await t.connect(PAGE);
    await t.advance(10);
    assert.deepEqual(await timeline(page), { texts: [], forgotten: 0 }, "a stream while nobody looks");
    for (let round = 0; round < 3; round++) {
      for (const type of ["note", "sign"]) void ann.send({ type });
    }
    await t.advance(10);
    assert.deepEqual(await timeline(page), { texts: ["Sent note 3", "Sent sign 3"], forgotten: 0 });
    await count();
    assert.match((await timeline(page)).texts.join(), /Sent count 1,.*Stream count ended 1/);
    for (let index = 0; index < 30; index++) void ann.send({ type: `type-${index}` });
    await t.advance(20_000); // The client keeps to the rate limit.
    const full = await timeline(page);
    assert.deepEqual(full.texts, Array.from({ length: 20 }, (_, index) => `Sent type-${index + 10} 1`));
    // The page is connected anew each minute.
    await page.close();
    await t.advance(2_000);
    const again = await t.connect(PAGE);
    assert.equal((await timeline(again)).texts.length, 20);
    await again.close();
    await t.advance(10_000);
    assert.deepEqual((await timeline(await t.connect(PAGE))).texts, []);
  });

  it("ignores messages of another version, and snapshots without the fields that the page reads", async () => {
    const engine = new SharedEngine(true);
    const { app, controller } = createNode({}, { engine });
    await using t = testkit({ app, controller });
    const page = await t.connect(PAGE);
    const seen: Snapshot[] = [];
    page.subscribe(CHANNEL, { onEvent: ({ data }) => void seen.push(data as Snapshot) });
    await t.advance(1_001);
    const snapshot = seen.at(-1)!;
    const receive = (message: object) => engine.receive(JSON.stringify(message));
    const others = () => [...new Set(seen.map(({ node }) => node))].filter((node) => node !== snapshot.node);
    receive({ v: 2, kind: "snapshot", snapshot: { ...snapshot, node: "newer" } });
    receive({ kind: "snapshot", snapshot: { ...snapshot, node: "older" } });
    receive({ v: 1, kind: "snapshot", snapshot: { ...snapshot, node: "no-stats", stats: {} } });
    receive({ v: 1, kind: "snapshot", snapshot: { ...snapshot, node: "no-handled", handled: undefined } });
    receive({ v: 1, kind: "tapped", batch: { node: "no-messages" } });
    receive({ v: 1, kind: "snapshot", snapshot: { ...snapshot, node: "the-same" } });
    await t.advance(1_000);
    assert.deepEqual(others(), ["the-same"]);
  });

  it("closes the page with the controller", async () => {
    const { app, controller } = createNode();
    await using t = testkit({ app, controller });
    const page = await t.connect({ ...PAGE, reconnect: false });
    await controller.close();
    await t.advance(2_000);
    assert.equal(page.status, "closed");
  });

  it("shows a drain until the clients have left, and does not hold the server of one's own", async () => {
    const { app, controller } = createNode();
    const work = new Stall();
    controller.handle("work", v.object({}), () => work.promise);
    await using t = testkit({ app, controller });
    const client = await t.connect({ token: "ada" });
    const page = await t.connect({ ...PAGE, reconnect: false });
    const answered = client.request("work");
    await t.advance(100);
    const closes: unknown[] = [];
    page.on("close", ({ code }) => closes.push(code));
    // As a server's `close`, it waits for all sockets.
    const stop = async () => {
      while (page.status !== "closed") await new Promise<void>((resolve) => t.clock.setTimeout(resolve, 100));
    };
    const drained = controller.drain({ window: 1_000, timeout: 60_000, stop });
    await t.advance(3_000);
    assert.equal(page.status, "open");
    const second = await t.connect({ ...PAGE, reconnect: false });
    work.resolve();
    await answered;
    await t.advance(2_000);
    assert.deepEqual([closes, page.status, second.status], [[1012], "closed", "closed"]);
    await assert.rejects(t.connect({ ...PAGE, reconnect: false }));
    assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
  });
});

describe("inspector, on two nodes", () => {
  const start = () =>
    testkit((node) => {
      const { app, controller } = createNode({}, { node: `node-${node}` });
      return { app, controller };
    }, { nodes: 2 });

  it("shows both nodes from either, and finds what is on the other", async () => {
    await using t = start();
    const ann = await t.connect({ path: "/websocket", token: "ann", node: 1 });
    const page = await t.connect({ ...PAGE, node: 0 });
    const seen = new Map<string, Snapshot>();
    page.subscribe(CHANNEL, { onEvent: ({ data }) => void seen.set((data as Snapshot).node, data as Snapshot) });
    await t.advance(3_000);
    const names = [...seen.keys()].sort();
    assert.deepEqual(names.map((name) => name.slice(0, 6)), ["node-0", "node-1"]);
    assert.deepEqual(names.map((name) => seen.get(name)!.stats.clients), [0, 1]);

    await ann.request("say", { text: "hi" });
    const rows = (await look(page, "clients", { text: "ann" })).flatMap(({ data }) => data.rows);
    assert.deepEqual(rows.map(({ node, user }) => [node, user]), [[names[1], "ann"]]);
    const { uid } = rows[0]!;
    const [part, ...others] = await look(page, "client", { client: uid, node: names[1] });
    assert.deepEqual([part!.node, others], [names[1], []]);
    assert.equal(part!.data.client!.timeline.at(-1)!.text, "Sent say");
    assert.deepEqual(await look(page, "client", { client: uid, node: names[0] }), [{ node: names[0], data: { client: null } }]);

    await page.close();
    await t.advance(10_000);
    const sent = t.sent(page).length;
    await t.advance(5_000);
    assert.equal(t.sent(page).length, sent);
  });

  it("taps the other node, and goes on when it is killed", async () => {
    await using t = start();
    const ann = await t.connect({ path: "/websocket", token: "ann", node: 1, reconnect: false });
    const page = await t.connect({ path: "/inspector/live?tap", node: 0 });
    const tapped: string[] = [];
    const nodes: string[] = [];
    page.subscribe(TAP_CHANNEL, {
      onEvent: ({ data }) => void tapped.push(...(data as TapBatch).messages.map(({ type }) => type)),
    });
    page.subscribe(CHANNEL, { onEvent: ({ data }) => void nodes.push((data as Snapshot).node.slice(0, 6)) });
    await t.advance(3_000);
    await ann.request("say", { text: "hi" });
    await t.advance(2_000);
    assert.deepEqual(tapped, ["say"]);
    t.kill(1);
    await t.advance(6_000);
    nodes.length = 0;
    await t.advance(2_000);
    assert.deepEqual([...new Set(nodes)], ["node-0"]);
    const started = look(page, "clients");
    await t.advance(2_500);
    assert.equal((await started).length, 1);
  });
});
