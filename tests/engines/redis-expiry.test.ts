import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient } from "redis";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { LATEST_POSITIONS } from "../../src/engines/redis/scripts.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { connectToRedis } from "../support/redis.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish } from "./conformance.ts";

const [LONG, SHORT]: HistoryOptions[] = [{ size: 100, ttl: 3_000_000 }, { size: 100, ttl: 300_000 }];

/** Longer than any test takes, in ms. */
const MARGIN = 600_000;

describe("Nodes over Redis that declare different ttls for a channel", { skip: lacks("redis-server") }, () => {
  let broker: BrokerProcess;
  let client: Awaited<ReturnType<typeof connectToRedis>>;
  const nodes: BrokerNode[] = [];
  const remaining = (...keys: string[]) => Promise.all(keys.map((key) => client.pTTL(key)));

  async function start() {
    const node = await startNode(redisEngine({ client: createClient({ url: `redis://127.0.0.1:${broker.port}` }) }));
    nodes.push(node);
    return node.engine;
  }

  before(async () => {
    broker = await BrokerProcess.redis();
    client = await connectToRedis(broker.port);
  });
  after(async () => {
    for (const { engine } of nodes) await engine.close();
    await client?.close();
    await broker?.close();
  });

  it("keep a history for the longest ttl", async () => {
    const [long, short] = [await start(), await start()];
    const keys = ["noroshi:h:room", "noroshi:s:room"];
    await publish(short, "room", SHORT!, 1);
    for (const left of await remaining(...keys)) assert.ok(left > 0 && left < LONG!.ttl - MARGIN, `${left}`);
    await publish(long, "room", LONG!, 1, 1);
    await publish(short, "room", SHORT!, 1, 2);
    await short.read("room", SHORT!, null, 10);
    for (const left of await remaining(...keys)) assert.ok(left > LONG!.ttl - MARGIN, `${left}`);
    const { publications, isComplete } = await long.read("room", LONG!, null, 10);
    assert.deepEqual([publications.length, isComplete], [3, true]);
  });

  it("keep the end of a history when only a node with a shorter ttl subscribes", async () => {
    const long = await start();
    await publish(long, "followed", LONG!, 1);
    const key = "noroshi:h:followed";
    const run = await client.hGet(key, "run") ?? "";
    await client.eval(LATEST_POSITIONS, { keys: [key, "noroshi:run"], arguments: [run, `${SHORT!.ttl}`, "", "0"] });
    const [left = 0] = await remaining(key);
    assert.ok(left > LONG!.ttl - MARGIN, `${left}`);
  });
});
