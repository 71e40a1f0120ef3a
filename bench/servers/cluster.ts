/** The project as one of several nodes, for `takeover.ts` and `revocation.ts`: `cluster.ts redis|nats PORT`, the broker's. */
import { Hono } from "hono";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "redis";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { serve } from "../../src/serve/serve.ts";

const [broker, port] = process.argv.slice(2);
const secret = "a secret of the bench";
const engine = broker === "nats"
  ? natsEngine({ servers: `nats://127.0.0.1:${port}`, secret })
  : redisEngine({ client: createClient({ url: `redis://127.0.0.1:${port}` }), secret, persistent: true });

const controller = new WebSocketController({
  mode: "public",
  rateLimit: false,
  engine,
  // A token is a user; one that begins so takes its time.
  authenticate: async (credentials) => {
    const user = "access_token" in credentials ? credentials.access_token : "";
    if (user.startsWith("slow")) await sleep(100);
    return { accountability: { user, role: null } };
  },
  revalidate: () => null,
});
new Channels(controller, { "log:*": { authorize: () => true, history: { size: 1_000, ttl: 600_000 } } });

controller.on("message", ({ message: { type, user } }) => {
  if (type === "disconnect") controller.disconnect({ user: String(user) });
  else if (type === "refresh") void controller.refresh({ user: String(user) });
});

while (controller.engine.status !== "ready") await sleep(5);
await serve(new Hono().get("/websocket", controller.upgrade), {
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }) => console.log(`PORT ${port}`),
});
