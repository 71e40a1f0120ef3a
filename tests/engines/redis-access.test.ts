/** How applications on one Redis are separated, and which servers and users the engine refuses. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Cluster, Redis } from "ioredis";
import { createClient, createCluster } from "redis";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { redisEngine, type RedisEngineOptions } from "../../src/engines/redis/redis.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { connectToRedis } from "../support/redis.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish } from "./conformance.ts";
import { until } from "../support/waiting.ts";
import { TestHost } from "./test-host.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
/** A lease longer than a busy machine delays a node: a node that is silent for a lease counts as left. */
const FAST = { lease: 4_500, checkInterval: 300, linger: 300, timeout: 10_000 };

type Client = RedisEngineOptions["client"];

/** Two applications that must not affect each other. */
const SEPARATED: Record<string, (port: number) => [Client, Client]> = {
  "databases, by the URL of redis": (port) => [
    createClient({ url: `redis://127.0.0.1:${port}/0` }),
    createClient({ url: `redis://127.0.0.1:${port}/1` }),
  ],
  "databases, by the option of redis": (port) => [
    createClient({ socket: { port }, database: 2 }),
    createClient({ socket: { port }, database: 12 }),
  ],
  "databases, by ioredis": (port) => [
    new Redis(`redis://127.0.0.1:${port}/3`, { lazyConnect: true }),
    new Redis({ port, db: 4, lazyConnect: true }),
  ],
  "keyPrefix of ioredis": (port) => [
    new Redis({ port, keyPrefix: "shop:", lazyConnect: true }),
    new Redis({ port, keyPrefix: "blog:", lazyConnect: true }),
  ],
  "keyPrefix of redis": (port) => [
    createClient({ socket: { port }, keyPrefix: "one:" }),
    createClient({ socket: { port }, keyPrefix: "two:" }),
  ],
};

/** The commands that the docs list. */
const COMMANDS = ("+hello +auth +select +ping +info +client|info +client|setname +script|load +eval +evalsha " +
  "+publish +subscribe +unsubscribe +time +del +exists +pexpire +pttl +hget +hmget +hset +hincrby +hlen +hvals +hdel " +
  "+xadd +xrange +xrevrange +xdel +zadd +zscore +zrem +zrangebyscore +sadd +srem +sismember +smembers +spop").split(" ");

describe("redisEngine", { skip: lacks("redis-server") }, () => {
  let broker: BrokerProcess;
  before(async () => void (broker = await BrokerProcess.redis()));
  after(() => broker?.close());

  const admin = async (...commands: string[][]) => {
    const client = await connectToRedis(broker.port);
    for (const command of commands) await client.sendCommand(command);
    await client.close();
  };
  const clientsOf = (username: string, password: string): [library: string, client: Client][] => [
    ["redis", createClient({ url: `redis://${username}:${password}@127.0.0.1:${broker.port}` })],
    ["ioredis", new Redis(broker.port, "127.0.0.1", { username, password, lazyConnect: true })],
  ];
  /** The cause that the engine reports when Redis refuses it. */
  const refusal = async (client: Client): Promise<string> => {
    const engine = redisEngine({ client, ...FAST });
    const host = new TestHost();
    engine.start(host);
    await host.until(() => host.errors.length > 0);
    const [error] = host.errors;
    assert.ok(error instanceof WebSocketError && error.code === "ENGINE_UNAVAILABLE");
    assert.ok(!host.statuses.includes("ready"));
    await engine.close();
    return String(error.cause);
  };

  for (const [what, clients] of Object.entries(SEPARATED)) {
    it(`separates applications by ${what}`, { timeout: 300_000 }, async () => {
      const nodes: BrokerNode[] = [];
      try {
        for (const client of clients(broker.port)) {
          nodes.push(await startNode(redisEngine({ client, ...FAST })));
        }
        const [a, b] = nodes as [BrokerNode, BrokerNode];
        for (const { engine } of nodes) {
          await engine.subscribe("kept", HISTORY);
          await engine.subscribe("fleeting", null);
          assert.deepEqual(await engine.members("fleeting"), []);
        }
        await a.engine.send("hello");
        await a.engine.join("fleeting", { user: "mika" });
        await publish(a.engine, "kept", HISTORY, 2);
        await publish(a.engine, "fleeting", null, 1);
        // Once b has these publications, it would have received those of a, too.
        await publish(b.engine, "kept", HISTORY, 1, 7);
        await publish(b.engine, "fleeting", null, 1, 7);
        await b.host.until(() => b.host.publications("kept").length > 0 && b.host.publications("fleeting").length > 0);
        assert.deepEqual([b.host.data("kept"), b.host.data("fleeting"), b.host.messages, b.host.presence], [[7], [7], [], []]);
        assert.deepEqual([await b.engine.members("fleeting"), await b.engine.nodes()], [[], [b.host.node]]);
        const { publications } = await b.engine.read("kept", HISTORY, null, 10);
        assert.deepEqual(publications.map(({ data }) => data), ["7"]);
        await a.host.until(() => "mika" in a.host.membersOf("fleeting"));
        assert.deepEqual([a.host.data("kept"), a.host.data("fleeting")], [[0, 1], [0]]);
      } finally {
        await Promise.all(nodes.map(({ engine }) => engine.close()));
      }
    });
  }

  it(
    "runs as a user with only the permissions that the docs list",
    { timeout: 300_000 },
    async () => {
      await admin([
        "ACL",
        "SETUSER",
        "few",
        "on",
        ">secret",
        "~noroshi:*",
        "resetchannels",
        "&noroshi:*",
        "-@all",
        ...COMMANDS,
      ]);
      for (const [library, client] of clientsOf("few", "secret")) {
        for (const persistent of [false, true]) {
          const { engine, host } = await startNode(
            redisEngine({ client, persistent, ...FAST }),
          );
          const channel = `room:${library}:${persistent}`;
          const start = await engine.subscribe(channel, HISTORY);
          await publish(engine, channel, HISTORY, 3);
          assert.equal(
            (await engine.read(channel, HISTORY, start, 10)).isComplete,
            true,
          );
          await engine.publish(channel, { event: "say", data: "1" }, null);
          assert.equal(
            (await engine.read(channel, HISTORY, start, 10)).isComplete,
            false,
          );
          await engine.join(channel, { user: "mika" });
          await engine.members(channel);
          await engine.leave(channel, "mika");
          await engine.send("hello");
          await engine.nodes();
          await host.until(() => host.publications(channel).length >= 4);
          await engine.close();
          assert.deepEqual(host.errors, []);
        }
      }
    },
  );

  it(
    "reports the first cause when Redis refuses it",
    { timeout: 300_000 },
    async () => {
      for (const [, client] of clientsOf("nobody", "wrong")) {
        assert.match(await refusal(client), /WRONGPASS/);
      }
      // Without one of the commands that it needs at a time.
      for (
        const missing of [
          "+info",
          "+client|info",
          "+script|load",
          "+evalsha",
          "+subscribe",
          "+publish",
          "+xadd",
          "+hincrby",
          "+sismember",
        ]
      ) {
        const commands = COMMANDS.filter((command) => command !== missing);
        await admin([
          "ACL",
          "SETUSER",
          "fewer",
          "reset",
          "on",
          ">secret",
          "~noroshi:*",
          "resetchannels",
          "&noroshi:*",
          "-@all",
          ...commands,
        ]);
        for (const [library, client] of clientsOf("fewer", "secret")) {
          const name = missing.slice(1).split("|")[0]!;
          assert.match(
            await refusal(client),
            new RegExp(`NOPERM.*${name}`, "i"),
            `${missing}, ${library}`,
          );
        }
      }
      for (
        const [keys, channels] of [["~other:*", "&noroshi:*"], [
          "~noroshi:*",
          "&other:*",
        ]] as const
      ) {
        await admin([
          "ACL",
          "SETUSER",
          "elsewhere",
          "reset",
          "on",
          ">secret",
          keys,
          "resetchannels",
          channels,
          "-@all",
          ...COMMANDS,
        ]);
        for (const [, client] of clientsOf("elsewhere", "secret")) {
          assert
            .match(await refusal(client), /NOPERM/);
        }
      }
    },
  );

  it(
    "refuses a client of Redis Cluster at once, and a cluster server at the start",
    { timeout: 300_000 },
    async () => {
      const cluster = new Cluster([{ host: "127.0.0.1", port: broker.port }], {
        lazyConnect: true,
      });
      for (
        const client of [
          cluster,
          createCluster({
            rootNodes: [{ url: `redis://127.0.0.1:${broker.port}` }],
          }),
        ]
      ) {
        assert.throws(
          () => redisEngine({ client: client as unknown as Client }),
          /^TypeError: .*Redis Cluster/,
        ); // Whatever the types say.
      }
      // By default its other port is 10,000 higher, where the system may have given it to a connection.
      const server = await BrokerProcess.redis("--cluster-enabled", "yes", "--cluster-port", `${await freePort()}`);
      try {
        for (
          const client of [
            createClient({ url: `redis://127.0.0.1:${server.port}` }),
            new Redis(server.port, "127.0.0.1", {
              lazyConnect: true,
              enableReadyCheck: false,
            }),
          ]
        ) assert.match(await refusal(client), /Redis Cluster/);
      } finally {
        await server.close();
      }
    },
  );

  it(
    "restores members whose keys were deleted from Redis",
    { timeout: 300_000 },
    async () => {
      const client = () => createClient({ url: `redis://127.0.0.1:${broker.port}` });
      const namespace = "evicted";
      const [a, b] = [
        await startNode(
          redisEngine({
            client: client(),
            namespace,
            ...FAST,
            checkInterval: 60_000,
          }),
        ),
        await startNode(
          redisEngine({
            client: client(),
            namespace,
            ...FAST,
            checkInterval: 60_000,
          }),
        ),
      ];
      try {
        for (const channel of ["one", "two"]) {
          for (const user of ["mika", "yuki"]) {
            await a.engine.join(channel, {
              user,
            });
          }
        }
        for (
          const key of [
            `m:${a.host.node}:one`,
            "w:two",
            `c:${a.host.node}`,
            "nodes",
          ]
        ) {
          await admin(["DEL", `evicted:${key}`]);
          // Each member is joined again, which is reported to subscribers.
          await b.engine.subscribe("one", null);
          await b.engine.subscribe("two", null);
          await b.host.until(() => ["one", "two"].every((channel) => Object.keys(b.host.membersOf(channel)).length === 2));
          for (const channel of ["one", "two"]) {
            assert.deepEqual(
              (await b.engine.members(channel)).map(({ user }) => user).sort(),
              ["mika", "yuki"],
            );
            b.engine.unsubscribe(channel);
          }
          b.host.presence.splice(0);
        }
      } finally {
        await Promise.all([a, b].map(({ engine }) => engine.close()));
      }
    },
  );

  it(
    "never reports members as left whose keys were deleted from Redis, however often another node compares them",
    { timeout: 300_000 },
    async () => {
      const client = () => createClient({ url: `redis://127.0.0.1:${broker.port}` });
      // The second node compares members in its second check, and in each check after it has missed some.
      const [a, b] = [
        await startNode(redisEngine({ client: client(), namespace: "given-up", ...FAST })),
        await startNode(redisEngine({ client: client(), namespace: "given-up", ...FAST, checkInterval: 1_650 })),
      ];
      try {
        await a.engine.join("room", { user: "mika" });
        await b.engine.subscribe("room", null);
        assert.deepEqual(await b.engine.members("room"), [{ user: "mika" }]);
        const watcher = await connectToRedis(broker.port);
        for (const _ of Array.from({ length: 4 })) {
          await watcher.del(`given-up:m:${a.host.node}:room`);
          // A heartbeat joins the member again.
          await until(async () => await watcher.exists(`given-up:m:${a.host.node}:room`) > 0);
        }
        await watcher.close();
        assert.deepEqual(b.host.presence.flatMap(({ left }) => left), []);
        assert.deepEqual(await b.engine.members("room"), [{ user: "mika" }]);
      } finally {
        await Promise.all([a, b].map(({ engine }) => engine.close()));
      }
    },
  );
});
