import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HistoryOptions, Position } from "../../src/engines/engine.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { connectToRedis } from "../support/redis.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish, range } from "./conformance.ts";

const FAST = { lease: 6_000, checkInterval: 300, linger: 300, timeout: 10_000 };
const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
const TIMEOUT = { timeout: 300_000 };

describe("The engine over a Redis that evicts keys", {
  skip: lacks("redis-server"),
}, () => {
  it(
    "restores evicted members when one leaves before the eviction is noticed",
    TIMEOUT,
    async () => {
      const broker = await BrokerProcess.redis();
      const client = await connectToRedis(broker.port);
      const { engine, host } = await startNode(
        redisEngine({ client, ...FAST }),
      );
      try {
        for (const user of ["mika", "noa", "gone"]) {
          await engine.join("room", { user });
        }
        await client.del([`noroshi:m:${host.node}:room`, `noroshi:w:room`]);
        await engine.leave("room", "gone");
        for (let names = ""; names !== "mika noa";) {
          names = (await engine.members("room")).map(({ user }) => user).sort()
            .join(" ");
        }
      } finally {
        await engine.close();
        await client.close();
        await broker.close();
      }
    },
  );
});

// Both wait for heartbeats most of the time.
describe("The engine over a Redis that is full", { skip: lacks("redis-server"), concurrency: true }, () => {
  for (const policy of ["allkeys-lru", "allkeys-random"]) {
    describe(`with ${policy}`, () => {
      const run = async (test: (start: () => Promise<BrokerNode>, evict: (key: string) => Promise<void>) => Promise<void>) => {
        const broker = await BrokerProcess.redis("--maxmemory", "4mb", "--maxmemory-policy", policy);
        const nodes: BrokerNode[] = [];
        const client = await connectToRedis(broker.port);
        try {
          let written = 0;
          await test(async () => {
            const node = await startNode(redisEngine({ client, ...FAST }));
            nodes.push(node);
            return node;
          }, async (key) => {
            // Another application writes keys that are used more often.
            while (await client.exists(key) > 0) {
              const keys = range(20).map(() => `other:${++written % 5_000}`);
              await Promise.all(keys.map((other) => client.set(other, "x".repeat(2_000))));
            }
          });
        } finally {
          await Promise.all(nodes.map(({ engine, host }) => host.isStopped ? undefined : engine.close()));
          await client.close();
          await broker.close();
        }
      };

      it(
        "announces members again whose keys are evicted, and never reports them as left",
        TIMEOUT,
        () =>
          run(async (start, evict) => {
            const [a, b] = [await start(), await start()];
            for (const channel of ["room", "hall"]) {
              await b.engine.subscribe(channel, null);
              await a.engine.join(channel, { user: "mika" });
              await a.engine.join(channel, { user: "noa" });
              await b.host.until(() => "noa" in b.host.membersOf(channel));
            }
            for (const key of [`m:${a.host.node}:room`, "w:room", `c:${a.host.node}`, "nodes"]) {
              await evict(`noroshi:${key}`);
              // A new node reads the members from the broker.
              const c = await start();
              for (let names = ""; names !== "mika noa";) {
                names = (await c.engine.members("room")).map(({ user }) => user).sort().join(" ");
              }
              await c.engine.close();
            }
            // A node that is killed now is silent for a lease before its member leaves: by then the others would have left, too.
            const killed = await start();
            await killed.engine.join("room", { user: "last" });
            await b.host.until(() => "last" in b.host.membersOf("room"));
            killed.kill();
            await b.host.until(() => !("last" in b.host.membersOf("room")));
            assert.deepEqual(b.host.presence.flatMap(({ left }) => left), ["last"]);
            for (const channel of ["room", "hall"]) {
              assert.deepEqual((await b.engine.members(channel)).map(({ user }) => user).sort(), ["mika", "noa"]);
            }
          }),
      );

      for (const key of ["h", "s"]) {
        it(`recovers all or nothing when the key ${key} of a history is evicted`, TIMEOUT, () =>
          run(async (start, evict) => {
            const [a, b] = [await start(), await start()];
            const positions = [(await b.engine.subscribe("room", HISTORY))!];
            let count = 0;
            for (const _ of range(2)) {
              positions.push(...await publish(a.engine, "room", HISTORY, 10, count));
              await evict(`noroshi:${key}:room`);
              positions.push(...await publish(a.engine, "room", HISTORY, 5, count + 10));
              count += 15;
              const last = positions.at(-1)!;
              const isPast = (place: Position | undefined) => place?.epoch === last.epoch && place.offset >= last.offset;
              await b.host.until(() =>
                b.host.data("room").at(-1) === count - 1 || isPast(b.host.gapsOf("room").at(-1)?.position)
              );
              for (const { engine } of [a, b, await start()]) {
                for (const [seen, position] of positions.entries()) {
                  const { isComplete, publications } = await engine.read("room", HISTORY, position, 100);
                  const data = publications.map(({ data }) => JSON.parse(data));
                  assert.deepEqual(data, isComplete ? range(count).slice(seen) : [], `${seen} seen`);
                }
              }
            }
          }));
      }
    });
  }
});
