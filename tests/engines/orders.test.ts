/** Orders reach disconnected nodes after their reconnect, and affect no connection that began after the order. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { FakeTransport, openOn } from "../support/fake-transport.ts";
import { Proxy } from "../support/proxy.ts";
import { until } from "../support/waiting.ts";
import { type Attacker, attackNats, attackRedis } from "./attacker.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { redisClient } from "../support/redis.ts";
import { untilAcquainted } from "./acquainted.ts";

const SECRET = "a secret of the tests";
const TIMEOUT = { timeout: 300_000 };
const HOURS = 3_600_000;
/** The longest that an authentication takes, in ms: a late order also closes connections up to this much younger. */
const AUTHENTICATION = 500;
/** A lease long enough for a node that is disconnected or delayed by a busy machine. */
const FAST = { secret: SECRET, lease: 15_000, checkInterval: 300, timeout: 10_000 };

const BROKERS = {
  Redis: {
    program: "redis-server",
    start: () => BrokerProcess.redis(),
    attack: attackRedis,
    keeps: 10_000,
    engine: (port: number) => redisEngine({ client: redisClient(port), ...FAST }),
  },
  NATS: {
    program: "nats-server",
    start: () => BrokerProcess.nats(),
    attack: attackNats,
    keeps: 1_000,
    engine: (port: number) => natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { storage: "memory" }, ...FAST }),
  },
};

/** Lets more time pass than an authentication may take. */
async function pass(): Promise<void> {
  const start = performance.now();
  await until(() => performance.now() - start > 2 * AUTHENTICATION);
}

/** Options with which a node keeps its clients when it asks about them, and the users that it has asked about. */
function revalidating(): { asked: string[]; options: WebSocketControllerOptions } {
  const asked: string[] = [];
  return {
    asked,
    options: {
      authenticate: () => null,
      revalidate: ({ accountability }) => {
        asked.push(accountability.user!); // All have one.
        return { accountability };
      },
    },
  };
}

for (const [name, { program, start, attack, keeps, engine }] of Object.entries(BROKERS)) {
  describe(`An order over ${name}`, { skip: lacks(program) }, () => {
    let broker: BrokerProcess;
    let attacker: Attacker;
    const ends: (() => Promise<unknown>)[] = [];
    before(async () => void (broker = await start()), TIMEOUT);
    after(() => broker?.close(), TIMEOUT);
    beforeEach(async () => {
      await broker.restart();
      attacker = await attack(broker.port);
    }, TIMEOUT);
    afterEach(async () => {
      for (const end of ends.splice(0)) await end();
      await attacker.close();
    }, TIMEOUT);

    /** A node behind a network of its own. @param skew of its wall clock, in ms. */
    const create = async (skew = 0, options: WebSocketControllerOptions = {}) => {
      const proxy = await Proxy.open(broker.port);
      const errors: unknown[] = [];
      const controller = new WebSocketController({
        engine: engine(proxy.port),
        clock: { ...systemClock, now: () => Date.now() + skew },
        timeout: AUTHENTICATION,
        logger: false,
        ...options,
      });
      controller.on("error", ({ error }) => void errors.push(error));
      ends.push(async () => {
        await controller.engine.close();
        await proxy.close();
      });
      await until(() => controller.engine.status === "ready");
      const join = (user: string) => {
        const { transport } = openOn(new FakeTransport(), controller, { identity: { accountability: { user, role: "reader" } } });
        return { closes: () => transport.closes.map(({ code }) => code) };
      };
      const cut = async () => {
        proxy.isDown = true;
        proxy.cut();
        await until(() => controller.engine.status === "unavailable");
      };
      const heal = async () => {
        proxy.isDown = false;
        await until(() => controller.engine.status === "ready");
      };
      // A node lists itself first.
      const [node] = Object.keys((await controller.cluster.stats()).nodes);
      return { controller, proxy, errors, join, cut, heal, node, dropped: () => (controller.engine as BrokerEngine).dropped };
    };

    it("is executed by all nodes at once, whatever their clocks say", TIMEOUT, async () => {
      const nodes = [await create(), await create(2 * HOURS), await create(-2 * HOURS)];
      await untilAcquainted(nodes);
      const before = nodes.map(({ errors, dropped }) => ({ errors: [...errors], dropped: dropped() }));
      for (const { controller } of nodes) {
        for (let areLate = true; areLate;) {
          const anns = nodes.map(({ join }) => join("ann"));
          const { missing, isSent } = await controller.disconnect({ user: "ann" });
          // A node that a busy machine delays for two seconds is listed as missing, and still carries the order out.
          areLate = missing.length > 0;
          if (areLate) await until(() => anns.every(({ closes }) => closes().length > 0));
          assert.deepEqual([isSent, anns.map(({ closes }) => closes())], [true, anns.map(() => [4403])]);
        }
      }
      assert.deepEqual(nodes.map(({ errors, dropped }) => ({ errors, dropped: dropped() })), before);
    });

    it("lists a disconnected node as missing, which closes the earlier connections after its reconnect", TIMEOUT, async () => {
      const [a, b] = [await create(2 * HOURS), await create(-2 * HOURS)];
      const before = [b.join("ann"), b.join("bob")];
      await b.cut();
      const result = await a.controller.disconnect({ user: "ann" });
      assert.deepEqual([result.isSent, result.missing], [true, [b.node]]);
      assert.deepEqual(before.map(({ closes }) => closes()), [[], []]);
      await pass();
      const later = b.join("ann");
      await b.heal();
      await until(() => before[0]!.closes().length > 0);
      // The next session reads the order again.
      await b.cut();
      await b.heal();
      await a.controller.disconnect({ user: "nobody" });
      assert.deepEqual([...before, later].map(({ closes }) => closes()), [[4403], [], []]);
    });

    it("is read by a disconnected node after its sender has closed", TIMEOUT, async () => {
      const b = await create();
      const ann = b.join("ann");
      await b.cut();
      const a = await create();
      await a.controller.disconnect({ role: "reader" }, 4999, "Out");
      await a.controller.engine.close();
      await b.heal();
      await until(() => ann.closes().length > 0);
      assert.deepEqual(ann.closes(), [4999]);
    });

    it("of a disconnected node resolves as not sent, and is sent after its reconnect", TIMEOUT, async () => {
      const [a, b] = [await create(), await create()];
      const [here, there] = [a.join("ann"), b.join("ann")];
      await a.controller.engine.nodes();
      await a.cut();
      const result = await a.controller.disconnect({ user: "ann" });
      assert.deepEqual([result.isSent, result.missing], [false, [b.node]]);
      assert.deepEqual([here.closes(), there.closes()], [[4403], []]);
      await a.heal();
      await until(() => there.closes().length > 0);
      assert.deepEqual(there.closes(), [4403]);
    });

    it("to revalidate clients reaches a disconnected node, too", TIMEOUT, async () => {
      const { asked, options } = revalidating();
      const [a, b] = [await create(0, options), await create(0, options)];
      b.join("ann");
      b.join("bob");
      await b.cut();
      const { missing } = await a.controller.refresh({ user: "ann" });
      assert.equal(missing.length, 1);
      await b.heal();
      await until(() => asked.length > 0);
      assert.deepEqual(asked, ["ann"]);
    });

    it(
      "is reported as lost by a node that missed more orders than the broker stores, which revalidates all its clients",
      TIMEOUT,
      async () => {
        const { asked, options } = revalidating();
        const [a, b] = [await create(), await create(0, options)];
        b.join("ann");
        b.join("bob");
        const order = (user: string) => JSON.stringify({ type: "disconnect", filter: { user }, code: 4403, reason: "" });
        const give = (count: number) =>
          Promise.all(Array.from({ length: count }, (_, number) => a.controller.engine.order!(order(`user ${number}`))));
        await b.cut();
        await give(keeps - 1);
        await b.heal();
        await a.controller.disconnect({ user: "nobody" });
        const lost = () => b.errors.filter((error) => WebSocketError.from(error)?.code === "ORDERS_LOST").length;
        assert.deepEqual([lost(), asked], [0, []]);
        await b.cut();
        await give(keeps);
        await b.heal();
        await until(() => asked.length >= 2);
        assert.deepEqual(asked.sort(), ["ann", "bob"]);
        assert.equal(lost(), 1);
      },
    );

    it("that is captured and replayed disconnects no client on any node", TIMEOUT, async () => {
      const [a, b] = [await create(), await create()];
      await a.controller.disconnect({ user: "ann" });
      const c = await create();
      await pass();
      const anns = [a, b, c].map(({ join }) => join("ann"));
      await attacker.hear();
      const captured = [...attacker.captured];
      for (let times = 0; times < 3; times++) for (const each of captured) await each.again();
      await attacker.copyOrders();
      for (const node of [b, c]) {
        await node.cut();
        await node.heal();
      }
      // This order arrives after the replayed ones.
      for (const { controller } of [b, c]) while ((await controller.disconnect({ user: "bob" })).missing.length > 0);
      assert.deepEqual(anns.map(({ closes }) => closes()), [[], [], []]);
      for (const { dropped } of [b, c]) assert.ok(dropped()["replayed"]! > 0, JSON.stringify(dropped()));
    });
  });
}
