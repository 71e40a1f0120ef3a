/** What was captured from the broker and is written again is delivered to nobody: live, from the history, as a member, or as an order. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import type { BrokerEngineOptions } from "../../src/engines/broker/options.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { type Attacker, attackNats, attackRedis } from "./attacker.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { redisClient } from "../support/redis.ts";
import { until } from "../support/waiting.ts";
import { publish, range } from "./conformance.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
const FAST = { secret: "a secret of the tests", lease: 15_000, checkInterval: 300, linger: 300, timeout: 10_000 };
const TIMEOUT = { timeout: 300_000 };
const HOURS = 3_600_000;

const BROKERS = {
  redis: {
    start: () => BrokerProcess.redis(),
    attack: attackRedis,
    engine: (port: number, options: BrokerEngineOptions) => redisEngine({ client: redisClient(port), ...FAST, ...options }),
    rename: (subject: string) => subject.replace("noroshi:", "prod:"),
  },
  nats: {
    start: () => BrokerProcess.nats(),
    attack: attackNats,
    engine: (port: number, options: BrokerEngineOptions) =>
      natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { storage: "memory" }, ...FAST, ...options }),
    rename: (subject: string) => subject.replace("noroshi.noroshi.", "noroshi.prod."),
  },
};

for (const [name, { start, attack, engine, rename }] of Object.entries(BROKERS)) {
  describe(`A replayed envelope over ${name}`, { skip: lacks(`${name}-server`) }, () => {
    let broker: BrokerProcess;
    let attacker: Attacker;
    let nodes: BrokerNode[] = [];
    before(async () => void (broker = await start()), TIMEOUT);
    after(() => broker?.close(), TIMEOUT);
    beforeEach(async () => {
      await broker.restart();
      attacker = await attack(broker.port);
    }, TIMEOUT);
    afterEach(async () => {
      await attacker.close();
      await Promise.all(nodes.map(({ engine }) => engine.close()));
      nodes = [];
    }, TIMEOUT);
    /** @param skew of its wall clock, in ms. */
    const node = async (options: BrokerEngineOptions = {}, skew = 0) => {
      const started = await startNode(engine(broker.port, options), { ...systemClock, now: () => Date.now() + skew });
      nodes.push(started);
      return started;
    };
    /** Writes all that has gone over the broker again, three times; resolves when the node has heard it. */
    const replay = async (from: BrokerNode, to: BrokerNode) => {
      await attacker.hear();
      const captured = [...attacker.captured];
      for (const _ of range(3)) for (const each of captured) await each.again();
      await arrive(from, to);
    };
    let marks = 0;
    /** Resolves when the second node has what the first one sends now: again, until it knows that one. */
    const arrive = async (from: BrokerNode, to: BrokerNode) => {
      const mark = `mark ${++marks}`;
      await until(async () => {
        await from.engine.send(mark);
        return to.host.messages.includes(mark);
      }, () => to.host.messages);
    };

    it("is not accepted as a publication, live or in the history", TIMEOUT, async () => {
      const [a, b] = [await node({}, 2 * HOURS), await node({}, -2 * HOURS)];
      const first = await b.engine.subscribe("room", HISTORY);
      const positions = [first!, ...await publish(a.engine, "room", HISTORY, 5)];
      await b.host.until(() => b.host.data("room").length === 5);
      await replay(a, b);
      await attacker.copyHistory("room");
      await replay(a, b);
      await publish(a.engine, "room", HISTORY, 2, 5);
      await b.host.until(() => b.host.data("room").includes(6));
      await attacker.copyHistory("room");
      await replay(a, b);
      assert.deepEqual([b.host.data("room"), b.host.gaps], [range(7), []]);
      assert.ok(b.engine.dropped["replayed"]! >= 15, JSON.stringify(b.engine.dropped));
      for (const { engine } of [a, b, await node()]) {
        for (const [number, position] of positions.entries()) {
          const page = await engine.read("room", HISTORY, position, 100);
          assert.deepEqual([page.isComplete, page.publications.map(({ data }) => Number(data))], [true, range(7).slice(number)]);
          // Who goes on from the end of the page misses nothing.
          const rest = await engine.read("room", HISTORY, page.position, 100);
          assert.deepEqual([rest.isComplete, rest.publications], [true, []]);
        }
        for (const limit of [100, 7, 4]) {
          const page = await engine.read("room", HISTORY, null, limit);
          assert.deepEqual(page.publications.map(({ data }) => Number(data)), range(7).slice(-limit));
        }
      }
    });

    it("is not accepted as a publication by a node that started after all others had gone", TIMEOUT, async () => {
      const [a, b] = [await node(), await node()];
      const ones = await publish(a.engine, "room", HISTORY, 3);
      const twos = await publish(b.engine, "room", HISTORY, 3, 3);
      await Promise.all([a, b].map(({ engine }) => engine.close()));
      await attacker.copyHistory("room");
      const c = await node();
      await c.engine.subscribe("room", HISTORY);
      for (const [position, from] of [[twos[2]!, 6], [twos[0]!, 4], [ones[0]!, 1]] as const) {
        const page = await c.engine.read("room", HISTORY, position, 100);
        assert.deepEqual([page.isComplete, page.publications.map(({ data }) => Number(data))], [true, range(6).slice(from)]);
      }
      await attacker.copyHistory("room");
      await publish(c.engine, "room", HISTORY, 1, 6);
      await c.host.until(() => c.host.data("room").length === 1);
      assert.deepEqual([c.host.data("room"), c.host.gaps], [[6], []]);
      assert.ok(c.engine.dropped["replayed"]! > 0);
    });

    it(
      "is not accepted as an event or message, even by a node that started later",
      TIMEOUT,
      async () => {
        const [a, b] = [await node({}, 2 * HOURS), await node({}, -2 * HOURS)];
        await b.engine.subscribe("room", null);
        await arrive(a, b);
        await publish(a.engine, "room", null, 3);
        await a.engine.send("order");
        await b.host.until(() => b.host.messages.includes("order") && b.host.data("room").length === 3);
        await replay(a, b);
        const c = await node({}, -2 * HOURS);
        await c.engine.subscribe("room", null);
        await replay(a, c);
        await a.engine.send("again");
        await c.host.until(() => c.host.messages.includes("again"));
        await publish(a.engine, "room", null, 1, 3);
        for (const { host } of [b, c]) {
          await host.until(() => host.data("room").includes(3));
        }
        assert.deepEqual([b.host.data("room"), c.host.data("room")], [
          range(4),
          [3],
        ]);
        assert.equal(
          b.host.messages.filter((text) => text === "order").length,
          1,
        );
        assert.deepEqual(
          c.host.messages.filter((text) => text === "order"),
          [],
        );
        for (const { engine } of [b, c]) {
          assert.ok(
            engine.dropped["replayed"]! > 0,
            JSON.stringify(engine.dropped),
          );
        }
        // Nor on one that starts when who sent it is gone.
        await a.engine.close();
        await b.engine.close();
        const d = await node();
        await d.engine.subscribe("room", null);
        await replay(c, d);
        assert.deepEqual([
          d.host.data("room"),
          d.host.messages.includes("order"),
        ], [[], false]);
      },
    );

    it("does not restore a member that has left", TIMEOUT, async () => {
      const [a, b] = [await node({}, 2 * HOURS), await node({}, -2 * HOURS)];
      await b.engine.subscribe("room", null);
      assert.deepEqual(await b.engine.members("room"), []);
      await a.engine.join("room", { user: "ann", data: "1" });
      await a.engine.join("room", { user: "bob" });
      await b.host.until(() => Object.keys(b.host.membersOf("room")).length === 2);
      const restore = await attacker.copyMembers();
      await a.engine.leave("room", "ann");
      await a.engine.join("room", { user: "bob", data: "2" });
      await b.host.until(() => b.host.membersOf("room")["bob"] === "2" && !("ann" in b.host.membersOf("room")));
      const told = b.host.presence.length;
      await restore();
      await replay(a, b);
      const c = await node();
      await c.engine.subscribe("room", null);
      const d = await node();
      // The node of the members is the last to read: it writes again what the broker should hold.
      for (const { engine } of [b, d, d, c, a]) {
        assert.deepEqual(await engine.members("room"), [{ user: "bob", data: "2" }]);
      }
      assert.deepEqual(b.host.presence.slice(told), []);
      for (const { engine } of [b, d]) {
        assert.ok(
          engine.dropped["replayed"]! > 0,
          JSON.stringify(engine.dropped),
        );
      }
    });

    it(
      "is not accepted in another namespace or channel",
      TIMEOUT,
      async () => {
        const [a, b, other] = [
          await node(),
          await node(),
          await node({ namespace: "prod" }),
        ];
        const prod = await node({ namespace: "prod" });
        for (const { engine } of [b, prod]) {
          await engine.subscribe("room", null);
          await engine.subscribe("hall", null);
          await engine.members("room");
        }
        await arrive(a, b);
        await publish(a.engine, "room", null, 3);
        await a.engine.join("room", { user: "ann" });
        await arrive(a, b);
        await b.host.until(() => "ann" in b.host.membersOf("room"));
        await attacker.hear();
        for (const each of [...attacker.captured]) {
          await each.again(rename);
          await each.again((subject) => subject.replace("room", "hall"));
        }
        await arrive(a, b);
        await arrive(other, prod);
        assert.deepEqual([
          prod.host.data("room"),
          prod.host.membersOf("room"),
          b.host.data("hall"),
        ], [[], {}, []]);
        assert.equal(
          new Set(prod.host.messages.filter((text) => text.startsWith("mark"))).size,
          1,
        );
        for (const { engine } of [b, prod]) {
          assert.ok(
            engine.dropped["forged"]! >= 3,
            JSON.stringify(engine.dropped),
          );
        }
      },
    );
  });
}
