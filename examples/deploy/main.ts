import { Hono } from "hono";
import { health, WebSocketController, WebSocketService } from "noroshi";
import { Channels } from "noroshi/channels";
import { natsEngine } from "noroshi/nats";
import { serve } from "noroshi/serve";
import process from "node:process";
import * as v from "valibot";

const { PORT = "3000", HOST = "0.0.0.0", NODE_NAME = "chat", NATS_URL, NODE_SECRET, CLIENT_IP_HEADER } = process.env;

// Without a secret, any program that reaches the broker could publish, and disconnect clients.
if (NATS_URL && !NODE_SECRET) throw new Error("Cannot start: NATS_URL is set, and NODE_SECRET is not");
// Without a broker this is one node.
const engine = NATS_URL && NODE_SECRET ? natsEngine({ servers: NATS_URL, secret: NODE_SECRET }) : undefined;
const controller = new WebSocketController({
  // A header that the proxy sets, such as fly-client-ip, or the number of proxies that append to X-Forwarded-For.
  clientIp: CLIENT_IP_HEADER ? ({ headers, address }) => headers.get(CLIENT_IP_HEADER) ?? address : 1,
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
// Ready: this node reaches its broker and does not drain, so it may have new clients. Live: this process answers.
const { live, ready } = health(controller);
app.get("/ready", ready).get("/live", live);
// For Prometheus, which reads it from each node. What comes through the proxy has this header.
app.get("/metrics", (c) => {
  if (c.req.header("X-Forwarded-For") !== undefined) return c.notFound();
  return c.text(`# TYPE chat_connections gauge\nchat_connections ${controller.stats().active}\n`);
});

// On SIGTERM the clients leave over half a minute. The service manager must wait for longer than the timeout.
await serve(app, { port: Number(PORT), hostname: HOST, drain: { window: 30_000, timeout: 45_000 } });
