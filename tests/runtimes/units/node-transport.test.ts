/** Writes of `src/runtimes/node.ts` under backpressure: on Node, and on Deno as in `noroshi/serve`. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../../mod.ts";
import { Channels } from "../../../src/channels/channels.ts";
import { begin, channelOf, said } from "../channel-client.ts";
import { Wire } from "../wire.ts";
import { turn } from "../../support/waiting.ts";

describe("NodeTransport", { skip: "Bun" in globalThis }, () => {
  it("writes the frames of each client complete and in order while some clients do not read", async () => {
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const controller = new WebSocketController({ mode: "public" });
    const channels = new Channels(controller, { "open:*": { authorize: () => true } });
    const server = createServer();
    attachWebSocket(server, new Hono().get("/websocket", controller.upgrade));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo; // It listens on TCP.
    const channel = channelOf("open");
    const wires: Wire[] = [];
    for (let uid = 0; uid < 4; uid++) {
      const wire = await Wire.open(port, "/websocket");
      await begin(wire, channel, { uid });
      wires.push(wire);
    }
    const slow = wires.slice(0, 2);
    for (const { socket } of slow) socket.pause();
    const text = (n: number) => `${n} ${"é".repeat(n % 2 === 0 ? 2_500 : 10)}`;
    let count = 0;
    // Two per turn even after the first one waits, so that they are joined.
    for (let after = 0; after < 20;) {
      for (let n = 0; n < 2; n++) void channels.publish(channel, "say", text(count++));
      await turn();
      if ([...controller.clients()].filter(({ bufferedAmount }) => bufferedAmount > 0).length >= 2) after++;
    }
    for (const { socket } of slow) socket.resume();
    for (const [uid, wire] of wires.entries()) {
      for (let n = 0; n < count; n++) assert.deepEqual(await wire.next(), said(channel, text(n), { uid }));
    }
    const closed = controller.close();
    await Promise.all(wires.map(({ closed }) => closed));
    await closed;
    server.close();
  });

  it("respects maxBufferedBytes when the server's sockets would buffer more", async () => {
    const { attachWebSocket } = await import("../../../src/runtimes/node.ts");
    const limit = 262_144;
    const controller = new WebSocketController({ mode: "public", maxBufferedBytes: limit });
    const server = createServer({ highWaterMark: 64 * 1024 * 1024 });
    attachWebSocket(server, new Hono().get("/websocket", controller.upgrade));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const connected = new Promise<void>((resolve) => controller.on("connect", () => resolve()));
    const causes: string[] = [];
    controller.on("close", ({ cause }) => void causes.push(cause));
    const wire = await Wire.open((server.address() as AddressInfo).port, "/websocket"); // It listens on TCP.
    await connected;
    wire.socket.pause();
    const [client] = [...controller.clients()]; // It is connected.
    const text = "x".repeat(16_384);
    let most = 0;
    while (client!.readyState === 1 && most <= 2 * limit) {
      controller.broadcast({ type: "news", text });
      await turn();
      most = Math.max(most, client!.bufferedAmount);
    }
    assert.ok(most > 0 && most <= limit + 17_000, `${most} bytes`);
    while (causes.length === 0) await turn();
    assert.deepEqual(causes, ["slow"]);
    const closed = controller.close();
    wire.socket.destroy();
    await closed;
    server.close();
  });
});
