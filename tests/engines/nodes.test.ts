import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { redisClient } from "../support/redis.ts";
import { FAST, nodes } from "./nodes.ts";

nodes("Redis", {
  skip: lacks("redis-server"),
  start: () => BrokerProcess.redis(),
  engine: (port) => redisEngine({ client: redisClient(port), ...FAST }),
});

nodes("NATS", {
  skip: lacks("nats-server"),
  start: () => BrokerProcess.nats(),
  engine: (port) => natsEngine({ servers: `nats://127.0.0.1:${port}`, ...FAST }),
});
