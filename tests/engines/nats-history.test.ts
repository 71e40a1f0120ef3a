import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import type { NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { systemClock } from "../../src/base/clock.ts";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { natsEngine, type NatsEngineOptions } from "../../src/engines/nats/nats.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish, range } from "./conformance.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 60_000 };
const FAST = { lease: 6_000, checkInterval: 50, linger: 300, timeout: 5_000 };
const TIMEOUT = { timeout: 300_000 };

describe("The stream of histories", { skip: lacks("nats-server") }, () => {
  let broker: BrokerProcess;
  let connection: NatsConnection;
  let nodes: BrokerNode[] = [];

  before(async () => {
    broker = await BrokerProcess.nats();
    connection = await connect({ servers: `127.0.0.1:${broker.port}` });
  }, TIMEOUT);
  after(async () => {
    await connection?.close();
    await broker?.close();
  }, TIMEOUT);
  afterEach(async () => {
    await Promise.all(nodes.map(({ engine }) => engine.close()));
    nodes = [];
  }, TIMEOUT);

  const node = async (options: Partial<NatsEngineOptions> = {}, hours = 0) => {
    const clock = { ...systemClock, now: () => Date.now() + hours * 3_600_000 };
    const started = await startNode(natsEngine({ servers: `nats://127.0.0.1:${broker.port}`, ...FAST, ...options }), clock);
    nodes.push(started);
    return started;
  };
  const ask = async <Answer>(method: string, question: object = {}): Promise<Answer> =>
    (await connection.request(`$JS.API.STREAM.${method}`, JSON.stringify(question))).json<Answer>();
  /** The number of messages of a channel. Others of the stream are replaced meanwhile. */
  const messagesOf = async (channel: string): Promise<number> => {
    const info = await ask<{ state: { subjects: Record<string, number> } }>("INFO.NOROSHI_noroshi", { subjects_filter: ">" });
    return Object.entries(info.state.subjects).find(([subject]) => subject.endsWith(`.${channel}`))![1]; // It has some.
  };

  /** Resolves when the nodes have checked the positions of their channels this often. */
  const looks = async (count: number) => {
    const subscription = connection.subscribe(
      "$JS.API.STREAM.MSG.GET.NOROSHI_noroshi",
    );
    for await (const message of subscription) {
      if (message.string().includes("room") && --count === 0) break;
    }
  };

  for (const hours of [2, -2]) {
    it(`keeps its publications when a node's clock is off by ${hours} h`, TIMEOUT, async () => {
      const { engine } = await node({}, hours);
      await engine.subscribe("room", HISTORY);
      await publish(engine, "room", HISTORY, 3);
      const before = await messagesOf("room");
      await looks(30);
      assert.equal(await messagesOf("room"), before);
    });
  }

  it("marks a quiet channel by the server's time, and recovers from its last position", TIMEOUT, async () => {
    const { engine, host } = await node({ namespace: "quiet", history: { maxTtl: 500 } });
    const history = { size: 10, ttl: 500 };
    const start = await engine.subscribe("quiet", history);
    const [position] = await publish(engine, "quiet", history, 1);
    const marks = connection.subscribe("noroshi.quiet.channel.quiet.publication");
    let count = 0;
    for await (const message of marks) if (message.string().startsWith("mark ") && ++count === 2) break;
    assert.deepEqual(await engine.read("quiet", history, position!, 10), { position, publications: [], isComplete: true });
    assert.equal((await engine.read("quiet", history, start!, 10)).isComplete, false);
    await publish(engine, "quiet", history, 1, 1);
    await host.until(() => host.publications("quiet").length === 2);
    assert.deepEqual([host.data("quiet"), host.gaps, host.errors], [[0, 1], [], []]);
  });

  it("is read no further than the limit of the read", TIMEOUT, async () => {
    const own = await connect({ servers: `127.0.0.1:${broker.port}`, maxReconnectAttempts: -1 });
    const { engine } = await node({ connection: own, namespace: "large", checkInterval: 60_000, lease: 60_000 });
    const data = JSON.stringify("x".repeat(10_000));
    const [count, asked] = [100, 3];
    for (let number = 0; number < count; number++) await engine.publish("large", { event: "say", data }, HISTORY);
    await publish(engine, "large", HISTORY, 1, 7);
    const { inBytes } = own.stats();
    const page = await engine.read("large", HISTORY, null, asked);
    const bytes = own.stats().inBytes - inBytes;
    assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, [data, data, "7"]]);
    assert.deepEqual(page.position, page.publications.at(-1)!.position);
    assert.ok(bytes < count * data.length / 2, `${bytes} bytes for ${asked} publications of ${data.length}`);
    await engine.close();
    await own.close();
  });

  it("is recreated with a new epoch when it is deleted, and stores what is published meanwhile", TIMEOUT, async () => {
    const [a, b] = [await node(), await node()];
    await b.engine.subscribe("deleted", HISTORY);
    const [old] = await publish(a.engine, "deleted", HISTORY, 1);
    await b.host.until(() => b.host.publications("deleted").length === 1);
    await ask("DELETE.NOROSHI_noroshi");
    const [next] = await publish(a.engine, "deleted", HISTORY, 1, 1);
    assert.notEqual(next!.epoch, old!.epoch);
    await b.host.until(() => b.host.gaps.includes("deleted"));
    await publish(a.engine, "deleted", HISTORY, 1, 2);
    await b.host.until(() => b.host.data("deleted").at(-1) === 2);
    for (const { engine, host } of [a, b]) {
      assert.deepEqual((await engine.read("deleted", HISTORY, old!, 10)).publications, []);
      assert.equal((await engine.read("deleted", HISTORY, next!, 10)).isComplete, true);
      assert.ok(await engine.subscribe("after", HISTORY));
      assert.ok(!host.statuses.includes("unavailable"));
      engine.unsubscribe("after");
    }
  });

  it("is recreated when it is deleted and nothing is published", TIMEOUT, async () => {
    const { engine, host } = await node();
    await engine.subscribe("idle", HISTORY);
    await ask("DELETE.NOROSHI_noroshi");
    await host.until(() => host.gaps.includes("idle"));
    assert.ok(await engine.publish("idle", { event: "say", data: "1" }, HISTORY));
    await host.until(() => host.publications("idle").length === 1);
  });

  for (const bucket of ["members", "nodes"]) {
    it(
      `restores its members and nodes when the bucket of ${bucket} is deleted`,
      TIMEOUT,
      async () => {
        const options = {
          namespace: `bucket-${bucket}`,
          checkInterval: 1_000,
        };
        const [a, b] = [await node(options), await node(options)];
        await a.engine.join("room", { user: "mika" });
        await b.engine.subscribe("room", null);
        assert.deepEqual(await b.engine.members("room"), [{ user: "mika" }]);
        await ask(`DELETE.KV_noroshi-${options.namespace}-${bucket}`);
        // Both nodes notice the deletion and write their entries again.
        for (const { host } of [a, b]) {
          await host.until(() => host.statuses.join().endsWith("unavailable,ready"));
        }
        await a.engine.join("room", { user: "yuki" });
        const c = await node(options);
        await c.engine.subscribe("room", null);
        const there = new Set(
          [...await c.engine.members("room")].map(({ user }) => user),
        );
        await c.host.until(() => ["mika", "yuki"].every((user) => there.has(user) || user in c.host.membersOf("room")));
        assert.equal((await a.engine.nodes()).length, 3);
        await b.host.until(() => "yuki" in b.host.membersOf("room"));
        // No member that stayed was reported as left.
        assert.ok(!b.host.presence.some(({ left }) => left.includes("mika")));
      },
    );
  }

  it("accepts members with long names, and handles what follows them", TIMEOUT, async () => {
    const [a, b] = [await node({ namespace: "long" }), await node({ namespace: "long" })];
    const users = ["漢".repeat(512), "漢".repeat(511) + "字", "@".repeat(512), "x".repeat(512), "y".repeat(100)];
    await b.engine.subscribe("room", HISTORY);
    assert.deepEqual(await b.engine.members("room"), []);
    for (const user of users) await a.engine.join("room", { user });
    await b.host.until(() => Object.keys(b.host.membersOf("room")).length === users.length);
    const c = await node({ namespace: "long" });
    assert.deepEqual([...await c.engine.members("room")].map(({ user }) => user).sort(), [...users].sort());
    await publish(a.engine, "room", HISTORY, 20);
    await b.host.until(() => b.host.publications("room").length === 20);
    for (const user of users) await a.engine.leave("room", user);
    assert.deepEqual(await c.engine.members("room"), []);
    assert.deepEqual([a, b].map(({ host }) => [host.statuses, host.errors]), range(2).map(() => [["ready"], []]));
  });
});
