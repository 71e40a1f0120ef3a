import { Redis } from "ioredis";
import { createClient } from "redis";
import { redisEngine, type RedisEngineOptions } from "../../src/engines/redis/redis.ts";
import { brokerFixture } from "./broker-fixture.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { conformance } from "./conformance.ts";

const CLIENTS: Record<string, (port: number) => RedisEngineOptions["client"]> = {
  redis: (port) => createClient({ url: `redis://127.0.0.1:${port}` }),
  ioredis: (port) => new Redis(port, "127.0.0.1", { lazyConnect: true }),
};

/** Quick to notice all but silence: a busy machine keeps a broker or a node silent for a while. */
const FAST = { lease: 8_000, checkInterval: 300, linger: 300, timeout: 10_000 };

const SECRETS: Record<string, string[]> = { redis: [], ioredis: ["a secret of the tests"] };

for (const [library, clientOf] of Object.entries(CLIENTS)) {
  const secret = SECRETS[library]!; // Of both.
  conformance(`redis, by ${library}${secret.length > 0 ? ", signed" : ""}`, {
    nodes: 4,
    skip: lacks("redis-server"),
    async create() {
      const broker = await BrokerProcess.redis();
      const fixture = brokerFixture(
        () => redisEngine({ client: clientOf(broker.port), secret, ...FAST }),
        () => broker.restart(),
      );
      return {
        ...fixture,
        async close() {
          await fixture.close();
          await broker.close();
        },
      };
    },
  });
}
