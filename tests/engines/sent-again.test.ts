import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { connect } from "@nats-io/transport-node";
import type { HistoryOptions, Position } from "../../src/engines/engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { connectToRedis, redisClient } from "../support/redis.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";

const HISTORY: HistoryOptions = { size: 10_000, ttl: 60_000 };
const OPTIONS = { secret: "sixteen or more ✓", lease: 4_000, checkInterval: 1_000, timeout: 5_000 };
const PUBLICATIONS = 300;
const ROUNDS = 5;

/** What makes an engine send a publication once more, and how. */
const CASES = {
  nats: {
    title: "whose stream was deleted",
    skip: lacks("nats-server"),
    start: () => BrokerProcess.nats(),
    // In memory: nats-server may delete the file of the stream that takes the place of a deleted one, and then refuses everything.
    engine: (port: number) =>
      natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { maxSize: 10_000, storage: "memory" }, ...OPTIONS }),
    async disturb(port: number) {
      const connection = await connect({ servers: `127.0.0.1:${port}` });
      await connection.request("$JS.API.STREAM.DELETE.NOROSHI_noroshi");
      await connection.close();
    },
  },
  redis: {
    title: "whose scripts were flushed",
    skip: lacks("redis-server"),
    start: () => BrokerProcess.redis(),
    engine: (port: number) => redisEngine({ client: redisClient(port), ...OPTIONS }),
    async disturb(port: number) {
      const client = await connectToRedis(port);
      await client.scriptFlush();
      client.destroy();
    },
  },
};

for (const [name, { title, skip, start, engine, disturb }] of Object.entries(CASES)) {
  describe(`Signed publications to ${name}`, { skip }, () => {
    let broker: BrokerProcess | undefined;
    const nodes: BrokerNode[] = [];
    after(async () => {
      await Promise.all(nodes.map(({ engine }) => engine.close()));
      await broker?.close();
    }, { timeout: 300_000 });

    it(`are not treated as copies when they are sent again to a server ${title}`, { timeout: 300_000 }, async () => {
      broker = await start();
      const { port } = broker;
      nodes.push(...await Promise.all([1, 2].map(() => startNode(engine(port)))));
      const [publisher, reader] = nodes as [BrokerNode, BrokerNode]; // As just pushed.
      await reader.engine.subscribe("log", HISTORY);
      for (let rounds = 0; rounds < ROUNDS;) {
        for (const { engine, host } of nodes) await host.until(() => engine.status === "ready");
        const publishing: Promise<Position | null>[] = [];
        const disturbing = disturb(port);
        for (let number = 0; number < PUBLICATIONS; number++) {
          const publication = Promise.resolve(publisher.engine.publish("log", { event: "wrote", data: `${number}` }, HISTORY));
          publication.catch(() => {}); // Settled below, when all are sent.
          publishing.push(publication);
          await new Promise((resolve) => setImmediate(resolve));
        }
        await disturbing;
        const settled = await Promise.allSettled(publishing);
        const acknowledged = settled.flatMap((each) => each.status === "fulfilled" ? [each.value!] : []); // With a history.
        const { publications, position } = await reader.engine.read("log", HISTORY, null, HISTORY.size);
        const stored = new Set(publications.map(({ position }) => position?.offset));
        const lost = acknowledged.filter(({ epoch, offset }) => epoch === position?.epoch && !stored.has(offset));
        assert.deepEqual(lost, []);
        // nats-server answers nothing that it received before it deleted the stream: sometimes that is all of a round.
        if (acknowledged.length > 0) rounds++;
      }
      for (const { engine } of nodes) {
        assert.equal(engine.dropped["replayed"] ?? 0, 0);
      }
    });
  });
}
