import { Hono } from "hono";
import { WebSocketController, WebSocketService } from "noroshi";
import { Channels } from "noroshi/channels";
import { natsEngine } from "noroshi/nats";
import { serve } from "noroshi/serve";
import process from "node:process";
import * as v from "valibot";

const { PORT = "3000", HOST = "0.0.0.0", NODE_NAME = "chat", NATS_URL, NODE_SECRET } = process.env;

// Without a broker this is one node.
const engine = NATS_URL ? natsEngine({ servers: NATS_URL, ...(NODE_SECRET && { secret: NODE_SECRET }) }) : undefined;
const controller = new WebSocketController({
  clientIp: 1, // proxies that append to X-Forwarded-For
  node: NODE_NAME,
  ...(engine && { engine }),
});

const service = new WebSocketService(controller);
controller.handle("say", v.object({ text: v.string() }), ({ client, message }) => {
  service.broadcast({ type: "said", text: message.text });
  return { address: client.handshake.ip };
});
new Channels(controller, { "room:*": { authorize: () => true, history: { size: 100, ttl: 300_000 } } });

const app = new Hono();
app.get("/websocket", controller.upgrade);
// Ready: this node reaches its broker, so it may have new clients.
app.get("/ready", (c) => c.text(controller.engine.status, controller.engine.status === "ready" ? 200 : 503));
// Live: this process answers. A restart does not bring a broker back.
app.get("/live", (c) => c.text("ok"));
app.get("/metrics", (c) => c.text(`# TYPE chat_connections gauge\nchat_connections ${controller.stats().active}\n`));

await serve(app, { port: Number(PORT), hostname: HOST });
