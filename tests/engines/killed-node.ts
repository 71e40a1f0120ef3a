/** A process that publishes and handles with ids, and writes what it does, until it is killed: see nodes-killed.test.ts. */
import process from "node:process";
import pg from "pg";
import { createClient } from "redis";
import * as v from "valibot";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { answerOnce } from "../../src/once/once.ts";
import { open } from "../support/fake-transport.ts";
import { untilAnswered } from "./broker-fixture.ts";

export const HISTORY = { size: 100_000, ttl: 3_600_000 };

/** An engine whose store outlives its broker. */
export function createEngine(broker: string, port: number): BrokerEngine {
  const options = { lease: 2_000, checkInterval: 500, timeout: 5_000 };
  if (broker === "postgres") {
    return postgresEngine({
      client: new pg.Pool({ connectionString: `postgres://noroshi@127.0.0.1:${port}/postgres` }),
      ...options,
    });
  }
  return broker === "redis"
    ? redisEngine({
      client: createClient({ url: `redis://127.0.0.1:${port}` }),
      persistent: true,
      ...options,
    })
    : natsEngine({
      servers: `nats://127.0.0.1:${port}`,
      history: { maxSize: 100_000, maxTtl: 3_600_000 },
      ...options,
    });
}

export const onceOf = (number: number) => ({
  id: `${number}`,
  window: 3_600_000,
});

/** A controller with a handler that must run once for each number, and a way to ask it. */
export function createHandler(
  engine: BrokerEngine,
  handled: (number: number) => void,
) {
  const controller = new WebSocketController({
    engine,
    logger: false,
    rateLimit: false,
    heartbeat: false,
    once: answerOnce({
      window: 3_600_000,
      patience: 300,
      maxPerUser: Infinity,
    }),
  });
  controller.on("error", () => {}); // The broker is away now and then.
  controller.handle(
    "count",
    v.object({ number: v.number() }),
    ({ message: { number } }) => {
      handled(number);
      return number;
    },
  );
  const { connection, transport } = open(controller);
  const ask = (number: number) => {
    connection.message(
      JSON.stringify({ type: "count", uid: `${number}.once`, number }),
    );
  };
  return { controller, ask, transport };
}

async function run(broker: string, port: number, first: number): Promise<void> {
  const write = (text: string) => void process.stdout.write(`${text}\n`);
  const engine = createEngine(broker, port);
  const { ask, controller } = createHandler(
    engine,
    (number) => write(`handled ${number}`),
  );
  controller.start();
  await untilAnswered(() => engine.nodes()); // Waits for the broker.
  for (let number = first;; number++) {
    write(`begin ${number}`);
    ask(number);
    const position = await untilAnswered(() =>
      engine.publish("log", { event: "wrote", data: `${number}` }, HISTORY, onceOf(number))
    );
    write(`published ${number} ${position!.offset}`);
  }
}

const [, path = "", broker, port, first] = process.argv;
if (path.endsWith("killed-node.mjs")) {
  await run(broker!, Number(port), Number(first)); // As the test says.
}
