/** The client in a real browser: its network goes and comes back, its page freezes, reloads and has a twin. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, CDPSession, Page } from "playwright-core";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController, WebSocketService } from "../../mod.ts";
import { serve } from "../../src/serve/serve.ts";
import { Hono } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { Proxy } from "../support/proxy.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** What the page does; the tests look at what it writes down. */
const PAGE = `
import { createClient } from "noroshi/client";
const seen = window.seen = { status: [], data: [], gaps: 0, present: [], closes: [] };
const kept = JSON.parse(sessionStorage.getItem("position") ?? "null") ?? undefined;
// One that is patient comes back in good time only when it is told that the network is there.
const backoff = location.search === "?patient" ? { base: 1e6, cap: 1e6 } : {};
// Without a heartbeat, but where a page sleeps: a machine that stands still for seconds would look like one that slept.
const heartbeat = location.search === "?sleepy" ? 3_600_000 : 0;
const client = window.client = createClient("/websocket?port=" + location.port, { token: "ann", heartbeat, backoff });
client.on("status", ({ status }) => seen.status.push(status));
client.on("close", (close) => seen.closes.push({ ...close, at: Date.now() }));
const subscription = client.subscribe("room:1", {
  recover: kept,
  onEvent: ({ data }) => {
    seen.data.push(data);
    sessionStorage.setItem("position", JSON.stringify(subscription.position));
  },
  onInit: () => sessionStorage.setItem("position", JSON.stringify(subscription.position)),
  onGap: () => seen.gaps++,
  onPresence: ({ present }) => seen.present = present.map(({ user }) => user),
});
`;

/** What `window` has in the page of refusals. */
interface Door {
  outcome: { code: string; message: string; status: string; statuses: string[]; errors: string[] } | undefined;
  connect(path: string, options: object, session?: string): void;
  client: { connect(): void; ready: Promise<void> };
  attempt?: number;
}

/** A page whose clients are let in, or not. */
const DOOR = `
import { createClient } from "noroshi/client";
const renew = async () => (await fetch("/session", { method: "POST" })).ok;
window.connect = (path, options, session) => {
  const client = window.client = createClient(path, { backoff: { base: 20, cap: 50 }, ...(session && { renew }), ...options });
  const statuses = [], errors = [];
  window.outcome = undefined;
  client.on("status", ({ status }) => statuses.push(status));
  client.on("error", ({ error }) => errors.push(error.code));
  client.on("reconnecting", ({ attempt }) => window.attempt = attempt);
  const settled = ({ code, message }) => window.outcome = { code, message, status: client.status, statuses, errors };
  client.ready.then(() => settled({ code: "", message: "" }), settled);
};
`;

interface Seen {
  status: string[];
  data: unknown[];
  gaps: number;
  present: string[];
  closes: { code: number; at: number }[];
}

describe("createClient, in a browser", { skip: elsewhere || noBrowser }, () => {
  let browser: Browser;
  let server: Awaited<ReturnType<typeof serve>>;
  let controller: WebSocketController;
  let strict: WebSocketController;
  let channels: Channels;
  let proxy: Proxy;
  let url: string;
  let contexts: BrowserContext[] = [];

  before(async () => {
    const { build } = await import("esbuild");
    const scriptOf = async (page: string) => {
      const { outputFiles: [script] } = await build({
        stdin: { contents: page.replace("noroshi/client", "./src/client/client.ts"), resolveDir: root },
        bundle: true,
        format: "esm",
        write: false,
      });
      return `<!doctype html><title>The client</title><script type="module">${script!.text}</script>`;
    };
    const [page, door] = await Promise.all([scriptOf(PAGE), scriptOf(DOOR)]);
    controller = new WebSocketController({
      authenticate: (credentials) =>
        "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
      logger: false,
    });
    channels = new Channels(controller, {
      "room:*": { authorize: () => true, history: { size: 100, ttl: 600_000 }, presence: true },
    });
    strict = new WebSocketController({
      mode: "strict",
      cookie: "session",
      authenticate: (credentials) =>
        "access_token" in credentials && credentials.access_token === "ann"
          ? { accountability: { user: "ann", role: null } }
          : null,
      // Asked by `refresh`: the session in the cookie has expired.
      revalidate: () => null,
      logger: false,
    });
    const app = new Hono().get("/websocket", controller.upgrade).get("/strict", strict.upgrade)
      .post("/session", (c) => {
        if (getCookie(c, "refresh") !== "ann") return c.body(null, 401);
        setCookie(c, "session", "ann", { httpOnly: true });
        return c.body(null, 204);
      })
      .get("/page", (c) => c.html(page)).get("/door", (c) => c.html(door));
    server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
    browser = await launchBrowser();
  });
  afterEach(async () => {
    await Promise.all(contexts.map((context) => context.close()));
    contexts = [];
    proxy?.close();
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  async function open(context?: BrowserContext, search = ""): Promise<{ page: Page; context: BrowserContext; cdp: CDPSession }> {
    if (!context) {
      proxy = await Proxy.open(server.port);
      url = `http://127.0.0.1:${proxy.port}/page${search}`;
      context = await browser.newContext();
      contexts.push(context);
    }
    const page = await context.newPage();
    await page.goto(url);
    await page.waitForFunction(() => (globalThis as unknown as { seen?: Seen }).seen?.present.length === 1);
    return { page, context, cdp: await context.newCDPSession(page) };
  }

  const seen = (page: Page): Promise<Seen> => page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen);
  const received = (page: Page, data: unknown) =>
    page.waitForFunction((data) => (globalThis as unknown as { seen: Seen }).seen.data.includes(data), data);
  const status = (page: Page, status: string) =>
    page.waitForFunction((status) => (globalThis as unknown as { client: { status: string } }).client.status === status, status);

  it("comes back when the network does, and has missed nothing", async () => {
    const { page, context } = await open(undefined, "?patient");
    await channels.publish("room:1", "say", "before");
    await received(page, "before");
    await context.setOffline(true);
    proxy.cut();
    await status(page, "waiting");
    await channels.publish("room:1", "say", "while offline");
    await context.setOffline(false);
    await received(page, "while offline");
    const { data, gaps } = await seen(page);
    assert.deepEqual([data, gaps], [["before", "while offline"], 0]);
  });

  it("notices at once, when it is seen again, that its link has died while it was frozen", async () => {
    const { page, cdp } = await open(undefined, "?sleepy");
    await cdp.send("Page.setWebLifecycleState", { state: "frozen" });
    proxy.blackHole();
    await channels.publish("room:1", "say", "while frozen");
    // The page's clock goes on by hours while nothing of it runs.
    await cdp.send("Page.setWebLifecycleState", { state: "active" });
    const start = await page.evaluate(() => {
      const { now } = Date;
      Date.now = () => now() + 2 * 3_600_000;
      return Date.now();
    });
    await page.waitForFunction(() => (globalThis as unknown as { seen: Seen }).seen.closes.length > 0);
    const { closes: [close] } = await seen(page);
    // Long before its heartbeat could have.
    assert.ok(close!.at - start < 3_600_000, `${close!.at - start} ms`);
    await received(page, "while frozen");
  });

  it("goes on from where it was after a reload", async () => {
    const { page } = await open();
    await channels.publish("room:1", "say", "first");
    await received(page, "first");
    await page.goto("about:blank");
    await channels.publish("room:1", "say", "while away");
    await page.goto(url);
    await received(page, "while away");
    const { data, gaps } = await seen(page);
    assert.deepEqual([data, gaps], [["while away"], 0]);
  });

  it("is one member in two tabs of one user, until both are closed", async () => {
    const { page, context } = await open();
    const { page: other } = await open(context);
    await channels.publish("room:1", "say", "to both");
    await Promise.all([received(page, "to both"), received(other, "to both")]);
    assert.deepEqual((await seen(page)).present, ["ann"]);
    assert.deepEqual([controller.stats().clients, await channels.presence("room:1")], [2, [{ user: "ann" }]]);
    await other.close();
    await channels.publish("room:1", "say", "to one");
    await received(page, "to one");
    assert.deepEqual((await seen(page)).present, ["ann"]);
  });

  async function openDoor(cookies: Record<string, string> = {}): Promise<Page> {
    proxy?.close(); // Of an earlier door, which would keep the process from ending.
    proxy = await Proxy.open(server.port);
    url = `http://127.0.0.1:${proxy.port}`;
    const context = await browser.newContext();
    contexts.push(context);
    await context.addCookies(Object.entries(cookies).map(([name, value]) => ({ name, value, url, httpOnly: true })));
    const page = await context.newPage();
    await page.goto(`${url}/door`);
    await page.waitForFunction(() => "connect" in globalThis);
    return page;
  }

  async function outcome(page: Page, path: string, options: object = {}, session = "") {
    await page.evaluate(
      ([path, options, session]) => (globalThis as unknown as Door).connect(path, options, session),
      [path, options, session] as const,
    );
    return await settled(page);
  }

  async function settled(page: Page) {
    const handle = await page.waitForFunction(() => (globalThis as unknown as Door).outcome);
    return await handle.jsonValue() as NonNullable<Door["outcome"]>;
  }

  it("says what it knows of a refused upgrade, a wrong path and a server that is down: the close code", async () => {
    const page = await openDoor();
    const refusals: [path: string, options: object][] = [
      ["/strict", {}],
      ["/strict", { token: "bad", tokenIn: "protocol" }],
      ["/strict", { token: "bad", tokenIn: "query" }],
      ["/nowhere?key=secret", {}],
    ];
    const told = async (path: string, options: object) => {
      const { code, message, status, statuses, errors } = await outcome(page, path, { maxAttempts: 3, ...options });
      assert.deepEqual([code, status, statuses.includes("open"), errors], ["NOT_CONNECTED", "closed", false, ["NOT_CONNECTED"]]);
      const shown = path.replace(/[?].*/, "?…");
      assert.equal(message, `Not connected: 3 attempts to ws://127.0.0.1:${proxy.port}${shown}, last close 1006`);
    };
    for (const [path, options] of refusals) await told(path, options);
    proxy.isDown = true;
    await told("/websocket", { token: "ann" });
    proxy.isDown = false;
    assert.equal((await outcome(page, "/strict", { token: "ann", tokenIn: "protocol" })).status, "open");
  });

  it("asks renew whether a refused session can go on: closed with AUTH_FAILED when it cannot, open when it can", async () => {
    const page = await openDoor();
    const ended = await outcome(page, "/strict", {}, "renew");
    assert.deepEqual([ended.code, ended.status, ended.statuses.includes("open")], ["AUTH_FAILED", "closed", false]);
    // The user logs in, and the same client goes on.
    await page.context().addCookies([{ name: "session", value: "ann", url, httpOnly: true }]);
    await page.evaluate(() => {
      const { client } = globalThis as unknown as Door;
      client.connect();
      return client.ready;
    });
    const renewed = await openDoor({ session: "stale", refresh: "ann" });
    assert.equal((await outcome(renewed, "/strict", {}, "renew")).status, "open");
  });

  it("goes on for as long as the server is down, and does not take that for the end of a session", async () => {
    const page = await openDoor({ session: "ann", refresh: "ann" });
    proxy.isDown = true;
    proxy.cut(); // Of the page, too, on which renew would ask.
    await page.evaluate(() => (globalThis as unknown as Door).connect("/strict", {}, "renew"));
    // Renew, which is asked after the third, cannot say either.
    await page.waitForFunction(() => ((globalThis as unknown as Door).attempt ?? 0) >= 6);
    proxy.isDown = false;
    const { status, errors } = await settled(page);
    assert.deepEqual([status, errors], ["open", ["NOT_CONNECTED", "TOKEN_FAILED"]]);
  });

  it("opens another connection with the renewed cookie when its session has expired", async () => {
    const page = await openDoor({ session: "ann", refresh: "ann" });
    const { statuses } = await outcome(page, "/strict", {}, "renew");
    assert.deepEqual(statuses, ["open"]);
    const before = [...strict.clients()].map(({ uid }) => uid);
    const connected = new Promise<string>((resolve) =>
      new WebSocketService(strict).on("connect", ({ client }) => resolve(client.uid))
    );
    await strict.refresh({ user: "ann" });
    assert.ok(!before.includes(await connected));
    await page.waitForFunction(() => (globalThis as unknown as { client: { status: string } }).client.status === "open");
  });
});
