/** The client behind an nginx that refuses upgrades: on Node, and in a browser. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import type { Browser, Page } from "playwright-core";
import { WebSocket } from "ws";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { type Client, createClient, type WebSocketConstructor } from "../../src/client/client.ts";
import { withFallback } from "../../src/client/sse.ts";
import { channelsHttp, fallback } from "../../src/http/http.ts";
import { serve } from "../../src/serve/serve.ts";
import { Nginx } from "../runtimes/nginx.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { freePort, lacks } from "../support/brokers.ts";
import { Firefox, noFirefox } from "../support/firefox.ts";
import { PATIENT } from "../support/patient.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** What the page does; the tests look at what it writes down. */
const PAGE = `
import { createClient } from "noroshi/client";
import { withFallback } from "noroshi/client/sse";
const seen = window.seen = { inits: 0, data: [], gaps: 0, opened: [], errors: [] };
class Watched extends WebSocket {
  constructor(...request) {
    super(...request);
    seen.opened.push("WebSocket");
  }
}
const watched = (url, init) => {
  seen.opened.push(init.method ?? "GET");
  return fetch(url, init);
};
const client = window.client = createClient("/websocket", {
  ...${JSON.stringify(PATIENT)},
  WebSocket: withFallback({ WebSocket: Watched, fetch: watched }),
});
client.on("error", ({ error }) => seen.errors.push(String(error)));
client.subscribe("room:1", {
  onInit: () => seen.inits++,
  onEvent: ({ data }) => seen.data.push(data),
  onGap: () => seen.gaps++,
});
const source = new EventSource("/channels/room:1");
source.addEventListener("init", ({ data }) => (seen.source ??= []).push(data));
source.addEventListener("say", ({ data, lastEventId }) => seen.source.push({ data, lastEventId }));
`;

interface Seen {
  inits: number;
  data: unknown[];
  gaps: number;
  opened: string[];
  errors: string[];
  source?: unknown[];
}

let html = "";

async function buildPage(): Promise<string> {
  const { build } = await import("esbuild");
  const { outputFiles: [script] } = await build({
    stdin: {
      contents: PAGE.replace("noroshi/client/sse", "./src/client/sse.ts").replace("noroshi/client", "./src/client/client.ts"),
      resolveDir: root,
    },
    bundle: true,
    format: "esm",
    write: false,
  });
  return `<!doctype html><title>Fallback</title><script type="module">${script!.text}</script>`;
}

/** One node, with what the tests use of it. */
async function start(node: string) {
  const controller = new WebSocketController({ mode: "public", logger: false, clientIp: 1 });
  const channels = new Channels(controller, { "room:*": { authorize: () => true, history: { size: 100, ttl: 600_000 } } });
  const app = new Hono();
  app.use("/websocket", fallback({ node }));
  app.get("/websocket", controller.upgrade);
  app.route("/channels", channelsHttp(channels));
  app.get("/page", (c) => c.html(html));
  const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
  return { controller, channels, server };
}

describe("withFallback, behind an nginx that refuses upgrades", {
  skip: elsewhere || lacks("nginx"),
}, () => {
  const nginx = new Nginx();
  let one: Awaited<ReturnType<typeof start>>;
  let other: Awaited<ReturnType<typeof start>>;
  let port: number;
  let unrouted: number;

  before(async () => {
    html = await buildPage();
    [one, other] = await Promise.all([start("a"), start("b")]);
    [port, unrouted] = [await freePort(), await freePort()];
    // As it is by default: Upgrade is not passed on, responses are buffered and compressed.
    const common = `proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_http_version 1.1;
      gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;`;
    await nginx.start(`
      upstream a { server 127.0.0.1:${one.server.port}; }
      upstream b { server 127.0.0.1:${other.server.port}; }
      upstream nodes { server 127.0.0.1:${one.server.port}; server 127.0.0.1:${other.server.port}; }
      map $arg_connection $node { ~^a\\. a; ~^b\\. b; default nodes; }
      server { listen 127.0.0.1:${port}; location / { proxy_pass http://$node; ${common} } }
      server { listen 127.0.0.1:${unrouted}; location / { proxy_pass http://nodes; ${common} } }
    `);
  });
  after(async () => {
    await nginx.stop();
    await Promise.all([one, other].map(async (each) => {
      await each?.server.close();
      await each?.controller.close();
    }));
  });

  const socket = WebSocket as unknown as WebSocketConstructor; // The class of ws has what the client uses.

  it("reaches the node of its stream by the name of the connection", async () => {
    const clients: Client[] = [];
    for (let count = 0; count < 4; count++) {
      const WebSocket = withFallback({ WebSocket: socket });
      const client = createClient(`ws://127.0.0.1:${port}/websocket`, { WebSocket, ...PATIENT });
      clients.push(client);
      await client.ready; // One after the other: nginx takes the nodes in turn.
    }
    assert.equal(one.controller.clients().size + other.controller.clients().size, 4);
    assert.ok(one.controller.clients().size > 0 && other.controller.clients().size > 0);
    for (const { handshake } of [...one.controller.clients(), ...other.controller.clients()]) {
      assert.deepEqual([handshake.ip, handshake.protocol], ["127.0.0.1", "noroshi.v1"]);
    }
    const heard = clients.map((client) => new Promise((resolve) => client.on("message", ({ message }) => resolve(message))));
    for (const { controller } of [one, other]) void controller.broadcast({ type: "news" });
    assert.deepEqual(await Promise.all(heard), clients.map(() => ({ type: "news" })));
    await Promise.all(clients.map((client) => client.close()));
  });

  it("fails with 409 where a proxy sends its messages to another node", async () => {
    const client = createClient(`ws://127.0.0.1:${unrouted}/websocket`, {
      WebSocket: withFallback({ WebSocket: socket }),
      backoff: { base: 1, cap: 1 },
      ...PATIENT,
    });
    const reason = await new Promise((resolve) =>
      client.on("reconnecting", ({ close }) => {
        if (close.reason) resolve(close.reason);
      })
    );
    assert.equal(reason, "POST: HTTP 409");
    await client.close();
  });

  it("is closed with 1001 when its server stops, which does not wait for it", async () => {
    const third = await start("c");
    const client = createClient(`ws://127.0.0.1:${third.server.port}/websocket`, {
      WebSocket: withFallback({
        // Refused by the network, not by the server.
        WebSocket: class extends WebSocket {
          constructor() {
            super("ws://127.0.0.1:1/");
          }
        } as unknown as WebSocketConstructor, // As above.
      }),
      reconnect: false,
      ...PATIENT,
    });
    await client.ready;
    const closed = new Promise((resolve) => client.on("close", ({ code, reason }) => resolve({ code, reason })));
    await third.server.close();
    assert.deepEqual(await closed, { code: 1001, reason: "Going away" });
    await third.controller.close();
  });

  describe("in a browser", { skip: noBrowser }, () => {
    let browser: Browser;
    let page: Page;

    before(async () => {
      browser = await launchBrowser();
      page = await browser.newPage();
    });
    after(() => browser?.close());

    const seen = (): Promise<Seen> => page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen);
    /** The client and the `EventSource` are both subscribed: an open client need not be, yet. */
    const isReady = () =>
      page.waitForFunction(() => {
        const { inits, source } = (globalThis as unknown as { seen: Seen }).seen;
        return inits === 1 && source?.length === 1;
      });
    const received = (data: unknown) =>
      page.waitForFunction((data) => (globalThis as unknown as { seen: Seen }).seen.data.includes(data), data);
    const publish = (event: string, data: string) =>
      Promise.all([one, other].map(({ channels }) => channels.publish("room:1", event, data)));

    it("works as over a WebSocket, without an error, and remembers for the next page", async () => {
      await page.goto(`http://127.0.0.1:${port}/page`);
      await isReady();
      await publish("say", "hello");
      await received("hello");
      const { errors, gaps, opened } = await seen();
      assert.deepEqual([errors, gaps, opened.slice(0, 3)], [[], 0, ["WebSocket", "GET", "POST"]]);
      await page.reload();
      await isReady();
      await publish("say", "again");
      await received("again");
      assert.equal((await seen()).opened.includes("WebSocket"), false);
    });

    it("serves an EventSource: events by their name, and a position to recover from", async () => {
      await page.waitForFunction(() => ((globalThis as unknown as { seen: Seen }).seen.source?.length ?? 0) >= 2);
      const [init, say] = (await seen()).source as [string, { data: string; lastEventId: string }];
      assert.equal(init, "{}");
      assert.equal(say.data, '"again"');
      assert.match(say.lastEventId, /^.+:\d+$/);
    });
  });

  it("works in Firefox as in Chromium, with an EventSource beside it", { skip: noFirefox }, async (t) => {
    const firefox = await Firefox.launch();
    t.after(() => firefox.close());
    await firefox.goto(`http://127.0.0.1:${port}/page`);
    await firefox.until("window.seen?.inits === 1 && window.seen.source?.length === 1", "window.seen");
    await Promise.all([one, other].map(({ channels }) => channels.publish("room:1", "say", "hello")));
    await firefox.until(`window.seen.data.includes("hello") && window.seen.source.length === 2`, "window.seen");
    const seen = await firefox.evaluate(`() => JSON.stringify(window.seen)`) as string; // As asked for.
    const { errors, gaps, opened } = JSON.parse(seen) as Seen; // As the page keeps it.
    assert.deepEqual([errors, gaps, opened.slice(0, 3)], [[], 0, ["WebSocket", "GET", "POST"]]);
    await firefox.evaluate(`() => window.client.close()`);
  });
});
