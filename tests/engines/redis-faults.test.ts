import { Redis } from "ioredis";
import { createClient } from "redis";
import { encodeName } from "../../src/engines/broker/channel-name.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { connectToRedis } from "../support/redis.ts";
import { faults, NOWHERE } from "./faults.ts";

const CLIENTS = {
  redis: (port: number) => createClient({ url: `redis://127.0.0.1:${port}` }),
  ioredis: (port: number) => new Redis(port, "127.0.0.1", { lazyConnect: true }),
};

for (const [library, clientOf] of Object.entries(CLIENTS)) {
  faults(`redis, by ${library}`, {
    skip: lacks("redis-server"),
    start: (keeps) => BrokerProcess.redis(...(keeps ? ["--appendonly", "yes", "--appendfsync", "always"] : [])),
    engine: (port, persistent, options) => redisEngine({ client: clientOf(port), persistent, ...options }),
    async inject(port, texts) {
      const client = await connectToRedis(port);
      for (const { to, channel, text, position: { epoch, offset } = NOWHERE } of texts) {
        const head = to === "publication" ? `${epoch}\n${offset} 000001 0\n` : to === "all" ? "" : `${to}\n`;
        await client.publish(to === "all" ? "noroshi:all" : `noroshi:ch:${encodeName(channel)}`, head + text);
      }
      await client.close();
    },
  });
}
