/**
 * The time to the first publication: from `createPublisher` until the broker has it, connection included.
 *
 * `node --import tsx bench/publisher.ts [--times=50]`
 */
import process from "node:process";
import { parseArgs } from "node:util";
import pg from "pg";
import { createClient } from "redis";
import type { Engine } from "../src/engines/engine.ts";
import { natsEngine } from "../src/engines/nats/nats.ts";
import { postgresEngine } from "../src/engines/postgres/postgres.ts";
import { redisEngine } from "../src/engines/redis/redis.ts";
import { createPublisher } from "../src/publisher/publisher.ts";
import { BrokerProcess, lacks } from "../tests/support/brokers.ts";
import { lacksPostgres, PostgresProcess } from "../tests/support/postgres.ts";

const { values } = parseArgs({ options: { times: { type: "string", default: "50" } } });
const times = Number(values.times);

const BROKERS: Record<string, { lack: string | false; start(): Promise<BrokerProcess>; engine(port: number): Engine }> = {
  redis: {
    lack: lacks("redis-server"),
    start: () => BrokerProcess.redis(),
    engine: (port) => redisEngine({ client: createClient({ url: `redis://127.0.0.1:${port}` }) }),
  },
  nats: {
    lack: lacks("nats-server"),
    start: () => BrokerProcess.nats(),
    engine: (port) => natsEngine({ servers: `nats://127.0.0.1:${port}` }),
  },
  postgres: {
    lack: lacksPostgres(),
    start: () => PostgresProcess.postgres({ flags: ["-c", "fsync=on"] }),
    engine: (port) =>
      postgresEngine({ client: new pg.Pool({ connectionString: `postgres://noroshi@127.0.0.1:${port}/postgres` }) }),
  },
};

const channels = { log: { history: { size: 100, ttl: 300_000 } } };

async function first(engine: Engine): Promise<number> {
  const begin = performance.now();
  const publisher = createPublisher({ engine, channels });
  await publisher.publish("log", "ran", { text: "Hello" });
  const ms = performance.now() - begin;
  await publisher.close();
  return ms;
}

console.log("| broker | the first, which creates the tables or streams, ms | median, ms | 95 of 100, ms |");
console.log("| --- | ---: | ---: | ---: |");
for (const [name, { lack, start, engine }] of Object.entries(BROKERS)) {
  if (lack) {
    console.log(lack);
    continue;
  }
  const broker = await start();
  const creating = await first(engine(broker.port));
  const taken: number[] = [];
  for (let time = 0; time < times; time++) taken.push(await first(engine(broker.port)));
  taken.sort((one, other) => one - other);
  const at = (part: number) => taken[Math.floor(part * (times - 1))]!.toFixed(1); // Within its length.
  console.log(`| ${name} | ${creating.toFixed(1)} | ${at(0.5)} | ${at(0.95)} |`);
  await broker.close();
}
process.exit(0);
