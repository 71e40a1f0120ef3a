/** What others see of a member whose page is left: reloaded, followed by another, or put aside in the back/forward cache of a real browser. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import type { Browser, Page } from "playwright-core";
import { WebSocket } from "ws";
import { WebSocketController, WebSocketService } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { type Client, createClient } from "../../src/client/client.ts";
import { serve } from "../../src/serve/serve.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** What the page does. The channel is in the URL. */
const PAGE = `
import { createClient } from "./src/client/client.ts";
const seen = window.seen = { present: 0, data: [], shown: 0 };
addEventListener("pageshow", ({ persisted }) => persisted && seen.shown++);
const client = window.client = createClient("/websocket", { token: "ann" });
window.subscription = client.subscribe(location.search.slice(1), {
  onPresence: ({ present }) => seen.present = present.length,
  onEvent: ({ data }) => seen.data.push(data),
});
`;

interface Window {
  seen: { present: number; data: unknown[]; shown: number };
  client: Client;
  subscription: { unsubscribe(): void };
}

describe("A member whose page is left", { skip: elsewhere || noBrowser }, () => {
  let html: string;
  let server: Awaited<ReturnType<typeof serve>>;
  let controller: WebSocketController;
  let channels: Channels;
  let watcher: Client;
  const browsers: Record<"with" | "without", Browser | undefined> = { with: undefined, without: undefined };
  let page: Page;
  /** What the watcher is told, without its own joining. */
  let changes: string[];
  let ended: number;
  let look = () => {};

  /** Resolves once the condition holds: it is looked at after each presence message, and each end of a connection. */
  const until = (condition: () => boolean) =>
    new Promise<void>((resolve) => {
      look = () => {
        if (condition()) resolve();
      };
      look();
    });

  before(async () => {
    const { build } = await import("esbuild");
    const { outputFiles: [script] } = await build({
      stdin: { contents: PAGE, resolveDir: root },
      bundle: true,
      format: "esm",
      write: false,
    });
    html = `<!doctype html><title>The member</title><a href="/other">other</a><script type="module">${script!.text}</script>`;
    controller = new WebSocketController({
      authenticate: (credentials) =>
        "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
      logger: false,
    });
    const history = { size: 100, ttl: 600_000 };
    channels = new Channels(controller, {
      // So long that no test ends in it, and so short that it is over when the browser has left.
      "patient:*": { authorize: () => true, history, presence: { grace: 3_600_000 } },
      "brief:*": { authorize: () => true, history, presence: { grace: 1 } },
    });
    new WebSocketService(controller).on("close", () => {
      ended++;
      look();
    });
    const app = new Hono().get("/websocket", controller.upgrade)
      .get("/page", (c) => c.html(html)).get("/other", (c) => c.html("<!doctype html><h1>Another page</h1>"));
    server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
    // Playwright switches the cache off.
    browsers.with = await launchBrowser({ ignoreDefaultArgs: ["--disable-back-forward-cache"] });
    browsers.without = await launchBrowser();
  });
  beforeEach(() => {
    changes = [];
    ended = 0;
  });
  afterEach(async () => {
    await page?.close();
    await watcher?.close();
    // Of one that ends later the next test would know nothing.
    await until(() => controller.stats().clients === 0);
  });
  after(async () => {
    await browsers.with?.close();
    await browsers.without?.close();
    await server?.close();
  });

  /** Opens the page, whose user is then seen to be a member. */
  async function open(browser: Browser, channel: string): Promise<void> {
    watcher = createClient(`${server.url}websocket`, { WebSocket, token: "eve" });
    await new Promise<void>((resolve) => {
      watcher.subscribe(channel, {
        onPresence: ({ event, members }) => {
          for (const { user } of members) if (user !== "eve") changes.push(`${event} ${user}`);
          if (event === "join") resolve();
          look();
        },
      });
    });
    page = await browser.newPage();
    await page.goto(`${server.url}page?${channel}`);
    await member();
    await until(() => changes.length > 0);
    assert.deepEqual(changes.splice(0), ["join ann"]);
  }

  const member = () => page.waitForFunction(() => (globalThis as unknown as Window).seen?.present === 2);

  for (const cache of ["with", "without"] as const) {
    it(`is the same for others after a reload and a normal navigation, ${cache} a back/forward cache`, async () => {
      const channel = `patient:${cache}`;
      await open(browsers[cache]!, channel);
      await page.reload();
      await until(() => ended === 1);
      await member();
      await page.goto(`${server.url}other`);
      await until(() => ended === 2);
      assert.deepEqual(await channels.presence(channel), [{ user: "eve" }, { user: "ann" }]);
      await page.goto(`${server.url}page?${channel}`);
      await member();
      assert.deepEqual(changes, []);
    });
  }

  for (const leave of ["subscription.unsubscribe()", "client.close()"]) {
    it(`has left at once by ${leave}`, async () => {
      await open(browsers.with!, `patient:${leave.slice(0, 6)}`);
      await page.evaluate(`void ${leave}`);
      await until(() => changes.length > 0);
      assert.deepEqual(changes, ["leave ann"]);
    });
  }

  it("leaves when its page is kept in the back/forward cache, and is back when the page is", async () => {
    await open(browsers.with!, "brief:1");
    await page.click("a");
    await until(() => changes.length > 0);
    assert.deepEqual([changes.splice(0), ended], [["leave ann"], 1]);
    await channels.publish("brief:1", "said", "meanwhile");
    await page.evaluate(() => (globalThis as unknown as { history: { back(): void } }).history.back());
    await page.waitForFunction(() => (globalThis as unknown as Window).seen?.shown === 1);
    await until(() => changes.length > 0);
    assert.deepEqual(changes, ["join ann"]);
    await page.waitForFunction(() => (globalThis as unknown as Window).seen.data.includes("meanwhile"));
  });
});
