/** The client in a real browser: its network goes and comes back, its page freezes, reloads and has a twin. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, CDPSession, Page } from "playwright-core";
import { Channels } from "../src/channels.ts";
import { WebSocketController } from "../mod.ts";
import { serve } from "../src/serve.ts";
import { Hono } from "hono";
import { executablePath, noBrowser, QUIET } from "./browser.ts";
import { Proxy } from "./proxy.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** What the page does; the tests look at what it writes down. */
const PAGE = `
import { createClient } from "noroshi/client";
const seen = window.seen = { status: [], data: [], gaps: 0, present: [], closes: [] };
const kept = JSON.parse(sessionStorage.getItem("position") ?? "null") ?? undefined;
// One that is patient comes back in good time only when it is told that the network is there.
const backoff = location.search === "?patient" ? { base: 1e6, cap: 1e6 } : {};
const client = window.client = createClient("/websocket?port=" + location.port, { token: "ann", heartbeat: 5_000, backoff });
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

interface Seen {
  status: string[];
  data: unknown[];
  gaps: number;
  present: string[];
  closes: { code: number; at: number }[];
}

describe("createClient, in a browser", { skip: elsewhere || noBrowser, timeout: 120_000 }, () => {
  let browser: Browser;
  let server: Awaited<ReturnType<typeof serve>>;
  let controller: WebSocketController;
  let channels: Channels;
  let proxy: Proxy;
  let url: string;
  let contexts: BrowserContext[] = [];

  before(async () => {
    const [{ build }, { chromium }] = await Promise.all([import("esbuild"), import("playwright-core")]);
    const { outputFiles: [script] } = await build({
      stdin: { contents: PAGE.replace("noroshi/client", "./src/client/client.ts"), resolveDir: root },
      bundle: true,
      format: "esm",
      write: false,
    });
    controller = new WebSocketController({
      authenticate: (credentials) =>
        "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
      logger: false,
    });
    channels = new Channels(controller, {
      "room:*": { authorize: () => true, history: { size: 100, ttl: 600_000 }, presence: true },
    });
    const app = new Hono().get("/websocket", controller.upgrade)
      .get("/page", (c) => c.html(`<!doctype html><title>The client</title><script type="module">${script!.text}</script>`));
    server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
    browser = await chromium.launch({ executablePath: executablePath!, args: QUIET });
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
    page.setDefaultTimeout(20_000);
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
    const { page, cdp } = await open();
    await cdp.send("Page.setWebLifecycleState", { state: "frozen" });
    proxy.blackHole();
    await channels.publish("room:1", "say", "while frozen");
    // The page's clock goes on by minutes while nothing of it runs.
    await cdp.send("Page.setWebLifecycleState", { state: "active" });
    const start = await page.evaluate(() => {
      const { now } = Date;
      Date.now = () => now() + 5 * 60_000;
      return Date.now();
    });
    await page.waitForFunction(() => (globalThis as unknown as { seen: Seen }).seen.closes.length > 0);
    const { closes: [close] } = await seen(page);
    assert.ok(close!.at - start < 1_000, `${close!.at - start} ms`);
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
});
