/** A node with an inspector, as a program that a test may kill. */
import process from "node:process";
import { Hono } from "hono";
import { createClient } from "redis";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { inspector } from "../../src/inspector/inspector.ts";
import { serve } from "../../src/serve/serve.ts";

const { NAME = "", REDIS = "" } = process.env;
const engine = redisEngine({
  client: createClient({ url: `redis://127.0.0.1:${REDIS}` }),
  secret: "a secret of the tests",
  lease: 2_000,
});
const controller = new WebSocketController({
  engine,
  node: NAME,
  authenticate: (credentials) =>
    "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
});
const channels = new Channels(controller, { "room:*": { authorize: () => true } });
const app = new Hono().get("/websocket", controller.upgrade);
app.route("/inspector", inspector(controller, { channels, authorize: () => true }));
const { port } = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
console.log(port);
