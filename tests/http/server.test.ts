/** What `noroshi/http` does behind a real server, on each runtime. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { type Context, Hono } from "hono";
import { WebSocketController, type WebSocketControllerOptions } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { channelsHttp, fallback, webhook } from "../../src/http/http.ts";
import { type RunningServer, serve } from "../../src/serve/serve.ts";
import { sendEndlessBody } from "../support/endless-body.ts";

const SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ACCEPT = { headers: { accept: "text/event-stream" } };

/** What Hono has for this runtime, which `serve` keeps working. */
async function connInfo(): Promise<(c: Context) => { remote: { address?: string } }> {
  if ("Bun" in globalThis) return (await import("hono/bun")).getConnInfo;
  if ("Deno" in globalThis) return (await import("hono/deno")).getConnInfo;
  return (await import("@hono/node-server/conninfo")).getConnInfo;
}

async function start(app: Hono): Promise<RunningServer> {
  return await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });
}

/** The first event of a stream, which is then left. */
async function firstEvent(response: Response): Promise<string> {
  assert.equal(response.status, 200, await (response.ok ? "" : response.text()));
  const reader = response.body!.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return new TextDecoder().decode(value);
}

function create(options: WebSocketControllerOptions = {}) {
  const controller = new WebSocketController({ mode: "public", heartbeat: false, logger: false, ...options });
  return { controller, app: new Hono() };
}

describe("noroshi/http, behind a server", () => {
  it("leaves the address of the client to middleware between the fallback and the route", async () => {
    const { controller, app } = create();
    const getConnInfo = await connInfo();
    const seen: unknown[] = [];
    app.use("/websocket", fallback());
    app.use("/websocket", async (c, next) => {
      seen.push(getConnInfo(c).remote.address);
      await next();
    });
    app.get("/websocket", controller.upgrade);
    const server = await start(app);
    assert.match(await firstEvent(await fetch(`${server.url}websocket`, ACCEPT)), /^event: open/);
    assert.match(String(seen), /^(?:::ffff:)?127\.0\.0\.1$/);
    await server.close();
    await controller.close();
  });

  it("reaches a route behind mount(), whose requests are copies", async () => {
    const { controller, app } = create();
    const inner = new Hono();
    inner.get("/websocket", controller.upgrade);
    app.use("/mounted/*", fallback());
    app.mount("/mounted", inner.fetch as (request: Request, env: unknown) => Promise<Response>);
    const server = await start(app);
    const opened = await firstEvent(await fetch(`${server.url}mounted/websocket`, ACCEPT));
    assert.match(opened, /^event: open/);
    // Nobody else is presented as an upgrade.
    const headers = { ...ACCEPT.headers, "noroshi-presented": "guessed" };
    assert.equal((await fetch(`${server.url}mounted/other`, { headers })).status, 404);
    await server.close();
    await controller.close();
  });

  it("answers 408 to a body that does not come in time", async () => {
    const { controller, app } = create({ timeout: 50 });
    const channels = new Channels(controller, { room: { authorize: () => true } });
    app.use("/websocket", fallback());
    app.get("/websocket", controller.upgrade);
    app.route("/channels", channelsHttp(channels));
    app.post("/webhook", webhook(SECRET, () => {}, { timeout: 50 }));
    const server = await start(app);
    const stream = await fetch(`${server.url}websocket`, ACCEPT);
    const reader = stream.body!.getReader();
    const { value } = await reader.read();
    const [, connection = ""] = /"connection":"([^"]+)"/.exec(new TextDecoder().decode(value)) ?? [];
    const signature = "webhook-id: 1\r\nwebhook-signature: v1,AAAA\r\n" +
      `webhook-timestamp: ${Math.floor(Date.now() / 1_000)}\r\n`;
    for (const path of [`websocket?connection=${connection}`, "channels/room", "webhook"]) {
      const socket = connect(server.port, "127.0.0.1");
      socket.write(`POST /${path} HTTP/1.1\r\nHost: localhost\r\n${signature}Content-Length: 100\r\n\r\n{"secret":`);
      const [answer] = await once(socket, "data");
      assert.match(String(answer), /^HTTP\/1\.1 408 /, path);
      socket.destroy();
    }
    await reader.cancel();
    await server.close();
    await controller.close();
  });

  it("ends the connection of a client that goes on sending its body after the answer, and of no other", async () => {
    const { controller, app } = create({ timeout: 50, authenticate: () => null });
    const channels = new Channels(controller, { room: { authorize: () => true } });
    app.use("/websocket", fallback({ node: "a" }));
    app.get("/websocket", controller.upgrade);
    app.route("/channels", channelsHttp(channels));
    app.post("/webhook/late", webhook(SECRET, () => {}, { timeout: 50 }));
    app.post("/webhook", webhook(SECRET, () => {}, { timeout: 60_000, maxBody: 1_000 }));
    const server = await start(app);
    const signature = "webhook-id: 1\r\nwebhook-signature: v1,AAAA\r\n" +
      `webhook-timestamp: ${Math.floor(Date.now() / 1_000)}\r\n`;
    for (
      const [path, headers, status, chunks] of [
        ["webhook/late", signature, 408, 1],
        ["webhook", signature, 413, 20],
        ["webhook", "", 401, 1],
        ["channels/room", "", 408, 1],
        ["channels/room", "Authorization: Bearer wrong\r\n", 401, 1],
        ["websocket?connection=a.unknown", "", 404, 1],
      ] as const
    ) {
      const answer = await sendEndlessBody(server.port, `POST /${path} HTTP/1.1\r\nHost: localhost\r\n${headers}`, chunks);
      assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), path);
    }
    const kept = connect(server.port, "127.0.0.1");
    let answers = "";
    for (let n = 1; n <= 2; n++) {
      kept.write(`POST /webhook HTTP/1.1\r\nHost: localhost\r\n${signature}Content-Length: 2\r\n\r\n{}`);
      while (answers.split("The signature is not valid").length <= n) answers += (await once(kept, "data"))[0];
    }
    kept.destroy();
    await server.close();
    await controller.close();
  });
});
