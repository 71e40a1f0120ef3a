/** The server of `stalled.ts`: broadcasts as many messages as asked, and answers what that cost. */
import process from "node:process";
import { Hono } from "hono";
import { WebSocketController } from "../mod.ts";
import { serve } from "../src/serve/serve.ts";

const controller = new WebSocketController({
  logger: false,
  rateLimit: false,
  maxPendingPerIp: Infinity,
  slowConsumer: process.env["SLOW_CONSUMER"] === "drop" ? "drop" : "close",
});

const app = new Hono().get("/websocket", controller.upgrade).get("/broadcast", async (c) => {
  const before = process.cpuUsage();
  const text = "x".repeat(1_000);
  let sent = 0;
  for (let left = Number(c.req.query("messages")); left > 0; left--) {
    sent += (await controller.broadcast({ type: "tick", text })).sent;
  }
  const { user, system } = process.cpuUsage(before);
  return c.json({ sent, cpu: user + system });
});

const { url } = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
console.log(`listening ${url}`);
