/** The page of the inspector in a real browser. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import type { Browser, Page } from "playwright-core";
import * as v from "valibot";
import { WebSocket } from "ws";
import { assetsPath, buildAssets } from "../../scripts/inspector.ts";
import { Channels } from "../../src/channels/channels.ts";
import { createClient, type StreamingClient } from "../../src/client/client.ts";
import { streams } from "../../src/client/streams.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { inspector, type InspectorAction } from "../../src/inspector/inspector.ts";
import { type RunningServer, serve } from "../../src/serve/serve.ts";
import { findViolations } from "../support/axe.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { Firefox, noFirefox } from "../support/firefox.ts";
import { PATIENT } from "../support/patient.ts";
import { TYPESCRIPT } from "../support/typescript.ts";

const here = dirname(fileURLToPath(import.meta.url));

/** An app with an inspector, which serves. */
class Node {
  readonly controller: WebSocketController;
  readonly channels: Channels;
  /** What `authorize` allows. */
  readonly allowed = new Set<InspectorAction>(["view", "read", "disconnect", "refresh", "broadcast", "publish", "tap"]);
  readonly #clients: StreamingClient[] = [];
  #server: RunningServer | undefined;

  constructor() {
    this.controller = new WebSocketController({
      node: "harbour",
      logger: false,
      authenticate: (credentials) =>
        "access_token" in credentials && credentials.access_token !== "bad"
          ? { accountability: { user: credentials.access_token, role: "reader" } }
          : null,
      revalidate: ({ accountability }) => ({ accountability }),
    });
    this.channels = new Channels(this.controller, {
      "room:*": { authorize: () => true, history: { size: 100, ttl: 60_000 }, presence: true },
    });
    this.controller.handle("say", v.object({ text: v.string() }), ({ message }) => message.text);
    this.controller.handle("fail", v.object({}), () => {
      throw new Error("the archive does not answer");
    });
    this.controller.handle("feed", v.object({}), async function* ({ signal }) {
      yield 1;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    });
    this.controller.on("error", () => {}); // Seen on the page.
  }

  get url(): string {
    return this.#server!.url; // It was started.
  }

  async start(port?: number): Promise<this> {
    port ??= await freePort();
    const app = new Hono();
    const { controller, channels } = this;
    app.get("/websocket", controller.upgrade);
    app.route("/inspector", inspector(controller, { channels, authorize: (_, action) => this.allowed.has(action) }));
    this.#server = await serve(app, { port, hostname: "127.0.0.1", onListen: false, handleSignals: false });
    return this;
  }

  async connect(token: string): Promise<StreamingClient> {
    const client = createClient(`${this.url}websocket`, { token, WebSocket, streams, ...PATIENT });
    this.#clients.push(client);
    await client.ready;
    return client;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
    await this.#server?.close();
    await this.controller.close();
  }
}

const VIEWS = ["Overview", "Clients", "Channels", "Streams", "Errors", "Tap"];

describe("The page of the inspector", { skip: noBrowser }, () => {
  let browser: Browser;
  before(async () => void (browser = await launchBrowser()));
  after(() => browser?.close());

  const goTo = (page: Page, view: string) => page.getByRole("link", { name: view, exact: true }).click();
  const isLive = (page: Page) => page.getByText(/^Live/).waitFor();
  const rowOf = (page: Page, user: string) => page.locator(".row").filter({ hasText: user });

  async function openPage(t: { after(end: () => Promise<void>): void }, node: Node, options: object = {}): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(`${node.url}inspector`);
    await isLive(page);
    return page;
  }

  async function startNode(t: { after(end: () => Promise<void>): void }): Promise<Node> {
    const node = await new Node().start();
    t.after(() => node.stop());
    return node;
  }

  it("is built from its sources", async () => {
    assert.equal(readFileSync(assetsPath, "utf8"), await buildAssets(), "run npm run build:inspector");
  });

  it("shows what happens as it happens, and breaks no rule of its policy", async (t) => {
    const node = await startNode(t);
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const [complaints, requests]: [string[], string[]] = [[], []];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("request", (request) => requests.push(request.url()));
    await page.goto(`${node.url}inspector`);
    const tile = page.locator(".tile").filter({ hasText: "Connections" }).locator(".value");
    await tile.filter({ hasText: /^0$/ }).waitFor();
    const ann = await node.connect("ann");
    await tile.filter({ hasText: /^1$/ }).waitFor();
    await ann.close();
    await page.locator('.bars [data-name="client"] .count').filter({ hasText: /^1$/ }).waitFor();
    const bad = createClient(`${node.url}websocket`, { token: "bad", WebSocket });
    await assert.rejects(bad.ready, { code: "AUTH_FAILED" });
    await page.locator('.bars [data-name="token"]').getByText("The credentials are missing, late or not valid.").waitFor();
    await page.getByRole("row", { name: /harbour running ready 0/ }).waitFor();
    for (const view of VIEWS) await goTo(page, view);
    assert.deepEqual(complaints, []);
    assert.deepEqual(requests.filter((url) => !url.startsWith(node.url) && url !== "data:,"), []);
  });

  it("finds a client by keyboard, shows its life, disconnects it and says why it was closed", async (t) => {
    const node = await startNode(t);
    const [ann] = await Promise.all(["ann", "ben", "eve"].map((user) => node.connect(user)));
    const page = await openPage(t, node);
    await goTo(page, "Clients");
    await rowOf(page, "eve").waitFor();
    await page.getByLabel("Search clients").fill("an");
    await page.getByText("1 client", { exact: true }).waitFor();
    await ann!.request("say", { text: "hi" });
    await page.getByRole("listbox", { name: "Clients" }).focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    const panel = page.getByRole("complementary", { name: "Client" });
    await panel.getByText("Sent say").waitFor();
    await panel.getByRole("button", { name: "Disconnect…" }).click();
    await page.getByRole("textbox", { name: "Reason" }).fill("Enough for today");
    await page.keyboard.press("Enter");
    await page.getByText("Disconnected.", { exact: true }).waitFor();
    await assert.rejects(ann!.request("say", { text: "closed" }), { code: "FORBIDDEN" });
    await panel.getByText("Closed with 4403 “Enough for today”: server").first().waitFor();
    await page.keyboard.press("Escape");
    await panel.waitFor({ state: "hidden" });
    await page.getByLabel("Which clients").selectOption("Closed lately");
    await rowOf(page, "ann").getByText(/closed .* server 4403/).waitFor();
  });

  it("broadcasts, refreshes and publishes, and reads the history of a channel", async (t) => {
    const node = await startNode(t);
    const ann = await node.connect("ann");
    const said = new Promise<unknown>((resolve) => ann.on("message", ({ message }) => resolve(message["text"])));
    ann.subscribe("room:1", { presence: true });
    for (let index = 1; index <= 60; index++) await node.channels.publish("room:1", "say", { index });
    const page = await openPage(t, node);
    await goTo(page, "Clients");
    await page.getByRole("button", { name: "Broadcast…" }).click();
    await page.getByRole("textbox", { name: "Message" }).fill("no JSON");
    await page.getByRole("button", { name: "Broadcast", exact: true }).click();
    await page.getByText("The message must be JSON").waitFor();
    await page.getByRole("textbox", { name: "Message" }).fill('{ "type": "notice", "text": "We close at six" }');
    await page.getByRole("button", { name: "Broadcast", exact: true }).click();
    assert.equal(await said, "We close at six");
    await page.getByRole("button", { name: "Refresh…" }).click();
    await page.getByRole("button", { name: "Refresh", exact: true }).click();
    await page.getByText("The rights were checked.").waitFor();

    await goTo(page, "Channels");
    await page.getByRole("button", { name: "room:1" }).click();
    const panel = page.getByRole("complementary", { name: "Channel" });
    await panel.getByText("Members (1)").waitFor();
    await panel.getByText(" at 60").waitFor();
    assert.equal(await panel.getByText(" at 10", { exact: true }).count(), 0);
    await panel.getByRole("button", { name: "Earlier" }).click();
    await panel.getByText(" at 10", { exact: true }).waitFor();
    await panel.getByRole("button", { name: "Publish…" }).click();
    await page.getByRole("textbox", { name: "Event" }).fill("say");
    await page.getByRole("textbox", { name: "Data" }).fill('{ "index": "from the page" }');
    await page.getByRole("button", { name: "Publish", exact: true }).click();
    await page.getByText("Published.", { exact: true }).waitFor();
    await panel.getByRole("button", { name: "Latest" }).click();
    await panel.getByText("from the page").waitFor();
  });

  it("offers what this person may do", async (t) => {
    const node = await startNode(t);
    await node.connect("ann");
    for (const action of ["disconnect", "refresh", "broadcast", "publish", "tap"] as const) node.allowed.delete(action);
    const page = await openPage(t, node);
    await goTo(page, "Clients");
    await rowOf(page, "ann").click();
    await page.getByRole("complementary", { name: "Client" }).getByText("Timeline").waitFor();
    assert.equal(await page.getByRole("button", { name: "…" }).count(), 0);
    await goTo(page, "Tap");
    await page.getByText("You are not allowed to tap.").waitFor();
    assert.ok(await page.getByRole("button", { name: "Start" }).isDisabled());
  });

  it("lists errors with their client, and streams, and taps messages", async (t) => {
    const node = await startNode(t);
    const ann = await node.connect("ann");
    await assert.rejects(ann.request("fail"), { code: "INTERNAL_ERROR" });
    const stream = ann.stream("feed")[Symbol.asyncIterator]();
    await stream.next();
    const page = await openPage(t, node);
    await goTo(page, "Streams");
    await page.getByText("feed", { exact: true }).waitFor();
    await goTo(page, "Errors");
    await page.getByText("Error: the archive does not answer").waitFor();
    await page.getByRole("link", { name: "The client" }).click();
    await page.getByRole("heading", { name: "ann" }).waitFor();
    await goTo(page, "Tap");
    await page.getByRole("button", { name: "Start" }).click();
    // It begins within a second: what is sent before is not seen.
    const talking = setInterval(() => ann.request("say", { text: "hi", password: "hunter2" }).catch(() => {}), 100);
    t.after(() => clearInterval(talking));
    await page.getByText('"password": "•••"').first().waitFor();
    assert.equal(await page.getByText("hunter2").count(), 0);
    await page.getByRole("button", { name: "Stop" }).click();
    await stream.return?.();
  });

  it("shows 10,000 clients with the rows that are seen", async (t) => {
    const node = await startNode(t);
    for (let index = 0; index < 10_000; index++) {
      node.controller.open(new FakeTransport(), HANDSHAKE, { accountability: { user: `user-${index}`, role: null } });
    }
    const page = await openPage(t, node);
    await goTo(page, "Clients");
    await page.getByText("10,000 clients").waitFor();
    const list = page.getByRole("listbox", { name: "Clients" });
    assert.ok(await page.locator(".row").count() < 100);
    await list.focus();
    // Each end of the list brings more: 500, 2,000, 8,000, all.
    for (const last of [500, 2_000, 8_000, 10_000]) {
      await page.locator(`.row[aria-setsize="${last}"]`).first().waitFor();
      await page.keyboard.press("End");
    }
    await page.locator('.row[aria-posinset="10000"][aria-selected="true"]').waitFor();
    assert.ok(await page.locator(".row").count() < 100);
    await page.keyboard.press("PageUp");
    await page.locator('.row[aria-selected="true"]:not([aria-posinset="10000"])').waitFor();
    await page.getByLabel("Search clients").fill("user-123");
    await page.getByText("11 clients").waitFor();
  });

  it("comes back when its node does, and ends when this person may look no more", async (t) => {
    let node = await new Node().start();
    t.after(() => node.stop());
    const page = await openPage(t, node);
    await goTo(page, "Clients");
    await node.stop();
    await page.getByText("Connection lost, trying again…").waitFor();
    node = await new Node().start(Number(new URL(node.url).port));
    await node.connect("ann");
    await isLive(page);
    await rowOf(page, "ann").waitFor();

    await node.stop();
    const another = new Node();
    another.allowed.delete("view");
    node = await another.start(Number(new URL(node.url).port));
    await page.getByText("You may not look any more").waitFor();
  });

  for (const [name, width] of [["a desk", 1180], ["a phone", 360]] as const) {
    it(`has no fault that axe finds, and no small target, on ${name}`, async (t) => {
      const node = await startNode(t);
      const ann = await node.connect("ann");
      ann.subscribe("room:1", { presence: true });
      await node.channels.publish("room:1", "say", { text: "hi" });
      await assert.rejects(ann.request("fail"));
      // The policy of the page refuses the script of axe.
      const page = await openPage(t, node, { viewport: { width, height: 740 }, bypassCSP: true });
      for (const view of VIEWS) {
        await goTo(page, view);
        if (view === "Clients") {
          await rowOf(page, "ann").click();
          await page.getByText("Timeline").waitFor();
        }
        if (view === "Channels") {
          await page.getByRole("button", { name: "room:1" }).click();
          await page.getByText(" at 1", { exact: true }).waitFor();
        }
        if (view === "Errors") await page.getByText("Stack").click();
        if (width > 400) assert.deepEqual(await findViolations(page), [], view);
        else assert.deepEqual(await faultsOnPhone(page), [0], view);
      }
    });
  }
});

describe(
  "The page of the inspector, on two nodes over Redis",
  { skip: noBrowser || lacks("redis-server"), timeout: 300_000 },
  () => {
    it("shows both nodes, and goes on with the other one when the node that it is connected to is killed", async (t) => {
      const redis = await BrokerProcess.redis();
      const nodes = await Promise.all(["harbour", "quay"].map((name) => startProgram(t, name, redis.port)));
      const browser = await launchBrowser();
      t.after(async () => {
        await browser.close();
        await redis.close();
      });
      // One address for both, as behind a load balancer.
      let target = nodes[0]!;
      const front = createServer((socket) => {
        const through = connect(target.port, "127.0.0.1");
        for (const [one, other] of [[socket, through], [through, socket]] as const) {
          one.on("error", () => {}); // "close" follows.
          one.on("close", () => other.destroy());
          one.pipe(other);
        }
      });
      front.listen(0, "127.0.0.1");
      t.after(() => front.close());
      await once(front, "listening");
      const { port } = front.address() as { port: number }; // Of a TCP server.
      const ann = createClient(`ws://127.0.0.1:${nodes[1]!.port}/websocket`, { token: "ann", WebSocket, ...PATIENT });
      t.after(() => ann.close());
      await ann.ready;

      const page = await browser.newPage({ viewport: { width: 1280, height: 860 } });
      await page.goto(`http://127.0.0.1:${port}/inspector#clients`);
      await page.getByText("Live, 2 nodes").waitFor();
      const row = page.locator(".row").filter({ hasText: "ann" }).filter({ hasText: "quay" });
      await row.click();
      await page.getByText("Timeline").waitFor();

      target = nodes[1]!;
      process.kill(nodes[0]!.pid, "SIGKILL");
      await page.getByText("Live, one node").waitFor();
      await page.getByRole("button", { name: "Disconnect…" }).last().click();
      await page.getByRole("button", { name: "Disconnect", exact: true }).click();
      await page.getByText("Closed with 4403").first().waitFor();
    });

    /** Starts the program of a node. */
    async function startProgram(t: { after(end: () => void): void }, name: string, redis: number) {
      const child = spawn(process.execPath, [...TYPESCRIPT, join(here, "inspector-node.ts")], {
        env: { ...process.env, NAME: name, REDIS: `${redis}` },
        stdio: ["ignore", "pipe", "inherit"],
      });
      t.after(() => child.kill("SIGKILL"));
      const [text] = await once(child.stdout, "data");
      return { pid: child.pid!, port: Number(text) }; // It runs.
    }
  },
);

describe("The page of the inspector, in Firefox", { skip: noFirefox }, () => {
  it("shows clients, disconnects one by keyboard, and comes back when its node does", async (t) => {
    let node = await new Node().start();
    const firefox = await Firefox.launch();
    t.after(async () => {
      await firefox.close();
      await node.stop();
    });
    const shows = (text: string) => firefox.until(`document.body.innerText.includes(${JSON.stringify(text)})`);
    const click = (name: string) =>
      firefox.evaluate(
        `() => [...document.querySelectorAll("a, button")].findLast((each) => each.textContent === ${
          JSON.stringify(name)
        }).click()`,
      );
    const ann = await node.connect("ann");
    await firefox.goto(`${node.url}inspector`);
    await shows("Live, one node");
    await shows("harbour");
    await click("Clients");
    await shows("1 client");
    await firefox.evaluate(`() => document.querySelector(".virtual").focus()`);
    await firefox.press("\uE015", "\uE007"); // Arrow down, Enter.
    await shows("Timeline");
    await shows("Credentials accepted");
    await click("Disconnect…");
    await firefox.press("\uE007");
    await shows("Closed with 4403");
    await assert.rejects(ann.request("say", { text: "closed" }), { code: "FORBIDDEN" });
    await node.stop();
    await shows("Connection lost, trying again…");
    node = await new Node().start(Number(new URL(node.url).port));
    await shows("Live, one node");
  });
});

/** Controls that are smaller than 44 px, and how far the page is wider than the screen. */
const faultsOnPhone = (page: Page) =>
  page.evaluate(() => {
    const shown = [...document.querySelectorAll("a, button, input, select, textarea, summary")].filter((each) =>
      each.checkVisibility()
    );
    const small = shown.filter((each) => {
      const { width, height } = each.getBoundingClientRect();
      return width < 44 || height < 44;
    });
    return [...small.map((each) => each.outerHTML), document.documentElement.scrollWidth - innerWidth];
  });
