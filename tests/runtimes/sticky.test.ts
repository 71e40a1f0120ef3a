/** The fallback over two nodes behind a proxy that routes by the name of the node, with the configurations of the guide. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController } from "../../mod.ts";
import { createClient } from "../../src/client/client.ts";
import { EventSocket } from "../../src/client/sse.ts";
import { fallback } from "../../src/http/http.ts";
import { type RunningServer, serve } from "../../src/serve/serve.ts";
import { freePort, lacks } from "../support/brokers.ts";
import { PATIENT } from "../support/patient.ts";
import { Caddy } from "./caddy.ts";
import { Nginx } from "./nginx.ts";

const guide = readFileSync(new URL("../../docs/guides/without-websockets.md", import.meta.url), "utf8");
const NAMES = ["a", "b"] as const;
const TIMEOUT = { timeout: 300_000 };

/** The number of concurrent clients. */
const CLIENTS = 4;

interface Node {
  readonly controller: WebSocketController;
  readonly server: RunningServer;
}

async function startNode(node: string): Promise<Node> {
  const controller = new WebSocketController({ mode: "public", logger: false });
  controller.handle("where", v.object({}), () => node);
  const app = new Hono();
  app.use("/websocket", fallback({ node }));
  app.get("/websocket", controller.upgrade);
  return { controller, server: await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false }) };
}

describe("The fallback over two nodes", () => {
  let nodes: Node[];
  before(async () => void (nodes = await Promise.all(NAMES.map(startNode))));
  after(async () => {
    for (const { controller, server } of nodes ?? []) {
      await server.close();
      await controller.close();
    }
  });

  /** The guide's snippet in a language, with the addresses of the nodes. */
  function snippet(language: string): string {
    const [, text] = new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(guide) ?? [];
    assert.ok(text, `the guide has a snippet of ${language}`);
    return nodes.reduce((text, { server }, n) => text.replaceAll(`10.0.0.${n + 1}:3000`, `127.0.0.1:${server.port}`), text);
  }

  const misrouted = () => nodes.map(({ controller }) => controller.stats().refused.node);

  /** Resolves when both nodes have answered clients, each client always by the same node. */
  async function askBoth(port: number): Promise<void> {
    // nginx distributes clients to the nodes in turn, and Caddy at random.
    for (const seen = new Set<string>(); seen.size < NAMES.length;) for (const node of await ask(port)) seen.add(node);
  }

  async function ask(port: number): Promise<string[]> {
    const answers = Array.from({ length: CLIENTS }, async () => {
      const client = createClient(`ws://127.0.0.1:${port}/websocket`, { WebSocket: EventSocket, ...PATIENT });
      const first = await client.request("where", {}) as string; // As the handler answers.
      for (let n = 0; n < 3; n++) assert.equal(await client.request("where", {}), first);
      await client.close();
      return first;
    });
    return await Promise.all(answers);
  }

  it("works behind nginx", { skip: lacks("nginx"), ...TIMEOUT }, async () => {
    const nginx = new Nginx();
    const port = await freePort();
    const before = misrouted();
    try {
      await nginx.start(snippet("nginx").replace("server {\n  location", `server {\n  listen 127.0.0.1:${port};\n  location`));
      await askBoth(port);
      assert.deepEqual(misrouted(), before);
    } finally {
      await nginx.stop();
    }
  });

  it("works behind Caddy", { skip: lacks("caddy"), ...TIMEOUT }, async () => {
    const caddy = new Caddy();
    const [port, other] = [await freePort(), await freePort()];
    const before = misrouted();
    try {
      // Caddy is ready when it has the certificate of a site.
      await caddy.start(`localhost:${other} {\n}\n${snippet("caddyfile").replace("example.com", `http://127.0.0.1:${port}`)}`);
      await askBoth(port);
      assert.deepEqual(misrouted(), before);
    } finally {
      await caddy.stop();
    }
  });

  it("counts a misrouted request behind a round-robin proxy", { skip: lacks("nginx"), ...TIMEOUT }, async () => {
    const nginx = new Nginx();
    const port = await freePort();
    const before = misrouted();
    try {
      await nginx.start(`upstream nodes {\n${nodes.map(({ server }) => `server 127.0.0.1:${server.port};`).join("\n")}\n}
        server { listen 127.0.0.1:${port}; location / { proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Host $http_host; } }`);
      const open = async () => {
        const socket = new EventSocket(`ws://127.0.0.1:${port}/websocket`, ["noroshi.v1"]);
        await new Promise<void>((resolve) => socket.onopen = () => resolve());
        return socket;
      };
      const [first, second] = [await open(), await open()]; // One on each node, so the next request reaches the node of the first.
      const closed = new Promise<void>((resolve) => second.onclose = () => resolve());
      second.send("{}");
      await closed;
      first.terminate();
      assert.equal(misrouted().reduce((sum, count, n) => sum + count - before[n]!, 0), 1);
    } finally {
      await nginx.stop();
    }
  });
});
