/** The project as one of several nodes, on Bun, Deno and Node. `node.ts broadcast|load|kept redis|nats [signed] URL` */
import { Hono } from "hono";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "redis";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { serve } from "../../src/serve/serve.ts";
import { said } from "./message.ts";

const [target = "", broker, ...rest] = process.argv.slice(2);
const url = rest.at(-1)!;
const options = rest.length > 1 ? { secret: "a secret of the bench" } : {};
const engine = broker === "nats"
  ? natsEngine({ ...options, servers: url })
  : redisEngine({ ...options, client: createClient({ url }) });
const controller = new WebSocketController({ rateLimit: false, maxPending: Infinity, engine });
const anybody = { authorize: () => true };
const channels = new Channels(controller, { load: anybody, kept: { ...anybody, history: { size: 100, ttl: 3_600_000 } } });

controller.on("message", ({ message }) => {
  const data = said(message["seq"] as number); // As the generator sends it.
  if (target === "broadcast") controller.broadcast(data);
  else channels.publish(target, "said", data).catch(console.error);
});

while (controller.engine.status !== "ready") await sleep(5);
await serve(new Hono().get("/websocket", controller.upgrade), {
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }) => console.log(`PORT ${port}`),
});
