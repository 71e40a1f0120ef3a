/** The hooks of React in a real browser, against a server of the project's. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import type { Browser, Page } from "playwright-core";
import { createElement, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import * as v from "valibot";
import { WebSocketController } from "../../mod.ts";
import { Channels, type ChannelsStats } from "../../src/channels/channels.ts";
import { serve } from "../../src/serve/serve.ts";
import { freePort } from "../support/brokers.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { Proxy } from "../support/proxy.ts";
import { App, type Rooms, type RoomsPage } from "./react-page.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** `hydrates`: what the server has rendered is taken over. */
const SCRIPT = `
import { createElement, StrictMode } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { App } from "./tests/product/react-page.ts";
const { first, hydrates } = JSON.parse(document.getElementById("data").textContent);
const element = document.getElementById("root");
const app = createElement(StrictMode, null, createElement(App, { first }));
if (hydrates) hydrateRoot(element, app);
else createRoot(element).render(app);
`;

/** A server whose channels begin with what was said, which outlives it. */
async function startServer(script: string, said: unknown[], port: number) {
  const controller = new WebSocketController({
    authenticate: (credentials) =>
      "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
    logger: false,
  });
  const channels = new Channels(controller, {
    "room:*": { authorize: () => true, history: { size: 100, ttl: 600_000 }, presence: { grace: 0 }, snapshot: () => said },
  });
  controller.handle("stats", v.object({}), () => channels.stats());
  controller.handle("streams", v.object({}), () => controller.stats().streams);
  controller.handle("count", v.object({ to: v.optional(v.number()) }), async function* ({ message: { to }, signal }) {
    for (let n = 1; n <= (to ?? 3); n++) yield `${n} `;
    if (to === undefined) await new Promise((resolve) => signal.addEventListener("abort", resolve));
    return "counted";
  });
  const app = new Hono()
    .get("/websocket", controller.upgrade)
    .get("/script.js", (c) => c.body(script, 200, { "content-type": "text/javascript; charset=utf-8" }))
    .get("/", (c) => {
      const first: Rooms = JSON.parse(c.req.query("rooms") ?? "{}");
      const hydrates = c.req.query("hydrates") !== undefined;
      const content = hydrates ? renderToString(createElement(StrictMode, null, createElement(App, { first }))) : "";
      return c.html(
        `<!doctype html><title>Rooms</title><link rel="icon" href="data:,"><div id="root">${content}</div>` +
          `<script type="application/json" id="data">${JSON.stringify({ first, hydrates })}</script>` +
          `<script type="module" src="/script.js"></script>`,
      );
    });
  const server = await serve(app, { port, hostname: "127.0.0.1", onListen: false });
  return {
    port: server.port,
    close: () => server.close(),
    channels,
    async say(text: string): Promise<void> {
      said.push(text);
      await channels.publish("room:1", "say", text);
    },
  };
}

describe("The hooks of React, in a browser", { skip: elsewhere || noBrowser }, () => {
  let script: string;
  let browser: Browser;
  let said: unknown[];
  let server: Awaited<ReturnType<typeof startServer>>;
  let proxy: Proxy;
  let page: Page;
  /** What the page has complained of, but for connections that were cut. */
  let complaints: string[];

  before(async () => {
    const { build } = await import("esbuild");
    const { outputFiles: [bundle] } = await build({
      stdin: { contents: SCRIPT, resolveDir: root },
      bundle: true,
      format: "esm",
      // React says what is wrong, and StrictMode mounts twice, in development only.
      define: { "process.env.NODE_ENV": '"development"' },
      write: false,
    });
    script = bundle!.text;
    browser = await launchBrowser();
  });
  after(() => browser?.close());

  async function open(rooms: Rooms, hydrates = false): Promise<void> {
    said = ["a", "b"];
    server = await startServer(script, said, await freePort());
    proxy = await Proxy.open(server.port);
    page = await browser.newPage();
    complaints = [];
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => {
      const isOfNetwork = message.text().includes("WebSocket connection to");
      if (["error", "warning"].includes(message.type()) && !isOfNetwork) complaints.push(message.text());
    });
    const query = `rooms=${encodeURIComponent(JSON.stringify(rooms))}${hydrates ? "&hydrates" : ""}`;
    await page.goto(`http://127.0.0.1:${proxy.port}/?${query}`);
  }
  afterEach(async () => {
    await page?.close();
    proxy?.close();
    await server?.close();
    assert.deepEqual(complaints, []);
  });

  /** Waits until a room shows this. */
  const shows = (id: string, text: string): Promise<unknown> =>
    page.waitForFunction(([id, text]) => document.getElementById(id!)?.textContent === text, [id, text]).catch(async (error) => {
      throw new Error(`#${id} shows "${await page.textContent(`#${id}`, { timeout: 1_000 })}", not "${text}"`, { cause: error });
    });
  const show = (rooms: Rooms): Promise<void> => page.evaluate((rooms) => (globalThis as unknown as RoomsPage).show(rooms), rooms);
  /** Asked over the client's own connection: what it sent before has been read. */
  const stats = (): Promise<ChannelsStats> =>
    page.evaluate(() => (globalThis as unknown as RoomsPage).client.request("stats")) as Promise<ChannelsStats>;

  it("are one subscription each in StrictMode, and leave none behind when they are unmounted and mounted again", async () => {
    await open({ one: "room:1" });
    await shows("one", "open | a,b | ann | fine");
    assert.deepEqual(await stats(), { channels: 1, subscriptions: 2, subscribers: 1 });
    await server.say("c");
    await shows("one", "open | a,b,c | ann | fine");
    for (let round = 0; round < 3; round++) {
      await show({});
      // The effects of the unmounting run some time after the page has changed.
      await page.waitForFunction(async () => {
        const { subscriptions } = await (globalThis as unknown as RoomsPage).client.request("stats") as ChannelsStats;
        return subscriptions === 0;
      });
      assert.deepEqual(await server.channels.presence("room:1"), []);
      await show({ one: "room:1" });
      await shows("one", "open | a,b,c | ann | fine");
      assert.equal((await stats()).subscriptions, 2);
    }
  });

  it("show a stream until it ends, is stopped or is unmounted, which ends it at the server", async () => {
    await open({ one: "count" });
    await shows("one", "idle | 0 |  | - | fine");
    const start = (payload: object) =>
      page.evaluate((payload) => (globalThis as unknown as RoomsPage).answer!.start(payload), payload);
    const ended = () =>
      page.waitForFunction(async () => await (globalThis as unknown as RoomsPage).client.request("streams") === 0);
    await start({ to: 300 });
    await page.waitForFunction(() => document.getElementById("one")?.textContent?.startsWith("done | 300 |"));
    await start({});
    await shows("one", "streaming | 3 | 1 2 3  | - | fine");
    await page.evaluate(() => (globalThis as unknown as RoomsPage).answer!.stop());
    await shows("one", "stopped | 3 | 1 2 3  | counted | fine");
    await start({});
    await shows("one", "streaming | 3 | 1 2 3  | - | fine");
    await show({});
    await ended();
    await show({ one: "count" });
    await shows("one", "idle | 0 |  | - | fine");
    await start({});
    await shows("one", "streaming | 3 | 1 2 3  | - | fine");
    proxy.cut();
    await shows("one", "failed | 3 | 1 2 3  | - | DISCONNECTED");
    await ended();
  });

  it("go over to another channel, and back to one that begins anew", async () => {
    await open({ one: "room:1" });
    await shows("one", "open | a,b | ann | fine");
    await show({ one: "elsewhere" });
    await shows("one", "open |  |  | FORBIDDEN");
    assert.equal((await stats()).subscriptions, 0);
    await server.say("c");
    await show({ one: "room:1" });
    await shows("one", "open | a,b,c | ann | fine");
    assert.equal((await stats()).subscriptions, 2);
    // Changed and changed back before anything was answered.
    await page.evaluate(async () => {
      const page = globalThis as unknown as RoomsPage;
      const all: Rooms[] = ["room:2", "room:1", "room:2", "room:1"].map((channel) => ({ one: channel }));
      for (const rooms of all) setTimeout(() => page.show(rooms));
      // The page showed the last room before, too.
      while (page.shown !== all.at(-1)) await new Promise((resolve) => setTimeout(resolve));
    });
    await server.say("d");
    await shows("one", "open | a,b,c,d | ann | fine");
    assert.deepEqual(await stats(), { channels: 1, subscriptions: 2, subscribers: 1 });
  });

  it("show the same in two components of one channel, of which each may go", async () => {
    await open({ one: "room:1", two: "room:1" });
    await Promise.all([shows("one", "open | a,b | ann | fine"), shows("two", "open | a,b | ann | fine")]);
    await server.say("c");
    await Promise.all([shows("one", "open | a,b,c | ann | fine"), shows("two", "open | a,b,c | ann | fine")]);
    assert.deepEqual(await stats(), { channels: 1, subscriptions: 4, subscribers: 1 });
    await show({ two: "room:1" });
    await server.say("d");
    await shows("two", "open | a,b,c,d | ann | fine");
    assert.equal((await stats()).subscriptions, 2);
    assert.deepEqual(await server.channels.presence("room:1"), [{ user: "ann" }]);
  });

  it("show all once when the connection was cut, and when the server was restarted", async () => {
    await open({ one: "room:1", two: "room:1" });
    await shows("one", "open | a,b | ann | fine");
    proxy.isDown = true;
    proxy.cut();
    await shows("one", "waiting | a,b | ann | fine");
    await server.say("while away");
    proxy.isDown = false;
    await Promise.all(["one", "two"].map((id) => shows(id, "open | a,b,while away | ann | fine")));
    const { port } = server;
    await server.close();
    said.push("while down");
    server = await startServer(script, said, port);
    await Promise.all(["one", "two"].map((id) => shows(id, "open | a,b,while away,while down | ann | fine")));
    await server.say("d");
    await Promise.all(["one", "two"].map((id) => shows(id, "open | a,b,while away,while down,d | ann | fine")));
    assert.deepEqual(await stats(), { channels: 1, subscriptions: 4, subscribers: 1 });
  });

  it("take over what a server has rendered, without a complaint", async () => {
    await open({ one: "room:1" }, true);
    await shows("one", "open | a,b | ann | fine");
    assert.deepEqual(await stats(), { channels: 1, subscriptions: 2, subscribers: 1 });
    const rendered = await (await page.request.get(page.url())).text();
    assert.ok(rendered.includes('<p id="one">connecting |  |  | fine</p>'), rendered);
  });
});
