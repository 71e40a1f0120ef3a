/** A node that starts together with its broker: its first clients wait for it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocket } from "ws";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { serve } from "../../src/serve/serve.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { redisClient } from "../support/redis.ts";

/** Calls wait for three of these (ms), in which a busy machine starts a broker. */
const TIMEOUT = 30_000;

const BROKERS = {
  Redis: {
    program: "redis-server",
    start: () => BrokerProcess.redis(),
    engine: (port: number) => redisEngine({ client: redisClient(port), timeout: TIMEOUT }),
  },
  NATS: {
    program: "nats-server",
    start: () => BrokerProcess.nats(),
    engine: (port: number) => natsEngine({ servers: `nats://127.0.0.1:${port}`, timeout: TIMEOUT }),
  },
};

for (const [name, { program, start, engine }] of Object.entries(BROKERS)) {
  describe(`A node over ${name}`, { skip: lacks(program) }, () => {
    it("lets its first clients subscribe and publish while the broker starts", { timeout: 300_000 }, async () => {
      const broker = await start();
      await broker.stop();
      const controller = new WebSocketController({
        engine: engine(broker.port),
        logger: false,
        authenticate: () => null,
        mode: "public",
      });
      const channels = new Channels(controller, { room: { authorize: () => true, history: { size: 10, ttl: 60_000 } } });
      const app = new Hono().get("/", controller.upgrade);
      const failed = new Promise((resolve) => controller.on("error", resolve));
      const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
      const socket = new WebSocket(server.url.replace("http", "ws").replace("localhost", "127.0.0.1"));
      try {
        await new Promise((resolve) => socket.addEventListener("open", resolve));
        const messages: Record<string, unknown>[] = [];
        const subscribed = new Promise<void>((resolve) =>
          socket.addEventListener("message", ({ data }) => {
            messages.push(...[JSON.parse(String(data))].flat());
            resolve();
          })
        );
        socket.send(JSON.stringify({ type: "subscribe", channel: "room", uid: "1" }));
        // The engine had tried to connect before the client came.
        await failed;
        const published = channels.publish("room", "say", "hello");
        await broker.start();
        await Promise.all([published, subscribed]);
        assert.equal(messages[0]!["event"], "init");
      } finally {
        socket.close();
        await server.close();
        await controller.close();
        await broker.close();
      }
    });
  });
}
