import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type createClient, RESP_TYPES } from "redis";
import type { HistoryOptions, Position } from "../../src/engines/engine.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { Proxy } from "../support/proxy.ts";
import { connectToRedis, redisClient } from "../support/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish, range } from "./conformance.ts";
import { type Loss, losses } from "./losses.ts";
import { TestHost } from "./test-host.ts";
import { until } from "../support/waiting.ts";

const FAST = { lease: 6_000, checkInterval: 300, linger: 300, timeout: 10_000 };
const LASTING = ["--appendonly", "yes", "--appendfsync", "always"];
const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };

/** The servers, proxies and nodes of a test, closed at its end. */
class Fixture {
  readonly servers: BrokerProcess[] = [];
  readonly nodes: BrokerNode[] = [];
  readonly proxies: Proxy[] = [];

  async redis(...flags: string[]): Promise<BrokerProcess> {
    const server = await BrokerProcess.redis(...flags);
    this.servers.push(server);
    return server;
  }

  async proxy(server: BrokerProcess): Promise<Proxy> {
    const proxy = await Proxy.open(server.port);
    this.proxies.push(proxy);
    return proxy;
  }

  async node(persistent: boolean, port = this.servers[0]!.port, checkInterval = FAST.checkInterval): Promise<BrokerNode> {
    const client = redisClient(port);
    const node = await startNode(redisEngine({ client, persistent, ...FAST, checkInterval }));
    this.nodes.push(node);
    return node;
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map(({ engine }) => engine.close()));
    await Promise.all(this.proxies.map((proxy) => proxy.close()));
    await Promise.all(this.servers.map((server) => server.close()));
  }
}

/** Asks the server as an operator does. */
async function ask<Answer>(
  server: BrokerProcess,
  run: (client: ReturnType<typeof createClient>) => Promise<Answer>,
): Promise<Answer> {
  const client = await connectToRedis(server.port);
  try {
    return await run(client);
  } finally {
    await client.close();
  }
}

const aof = ({ folder }: BrokerProcess): string => join(folder, "appendonlydir");

/** Makes the server a replica, and resolves when it is in sync. */
async function follow(replica: BrokerProcess, master: BrokerProcess, port: number): Promise<void> {
  await ask(replica, (client) => client.sendCommand(["REPLICAOF", "127.0.0.1", `${port}`]));
  await ask(master, async (client) => {
    // WAIT counts only writes after the replica has connected.
    while (`${await client.sendCommand(["WAIT", "1", "1000"])}` !== "1") {
      await client.sendCommand(["SET", "a-test", "1"]);
    }
  });
}

for (const persistent of [false, true]) {
  losses(`redis, ${persistent ? "persistent" : "in memory"}`, {
    skip: lacks("redis-server"),
    losses: persistent
      ? ["all", "tail", "older", "behind", "channel", "evicted", "empty"]
      : ["all", "behind", "channel", "evicted", "empty"],
    async create(loss: Loss) {
      const fixture = new Fixture();
      // A new replica does not wait for others.
      const server = await fixture.redis("--repl-diskless-sync-delay", "0", ...(persistent ? LASTING : []));
      let replica: BrokerProcess | undefined;
      const [door, replication] = [await fixture.proxy(server), await fixture.proxy(server)];
      if (loss === "behind") {
        replica = await fixture.redis(...(persistent ? LASTING : []));
        await follow(replica, server, replication.port);
      }
      const copy = `${server.folder}-copy`;
      return {
        node: () => fixture.node(persistent, door.port),
        async copy() {
          if (loss === "tail" || loss === "older") {
            cpSync(aof(server), copy, { recursive: true });
          } // The replica has everything so far, and receives nothing from here on.
          else if (replica) {
            await ask(server, (client) => client.sendCommand(["WAIT", "1", "0"]));
            replication.freeze();
          }
        },
        async lose(channel) {
          if (loss === "all") {
            await ask(server, (client) => client.sendCommand(["FLUSHALL"]));
          } else if (loss === "channel" || loss === "evicted") {
            const key = loss === "channel" ? "h" : "s";
            await ask(server, (client) => client.sendCommand(["UNLINK", `noroshi:${key}:${channel}`]));
          } else if (replica) {
            await ask(replica, (client) => client.sendCommand(["REPLICAOF", "NO", "ONE"]));
            door.target = replica.port;
            door.cut();
          } else {
            await server.stop();
            rmSync(aof(server), { recursive: true, force: true });
            if (loss !== "empty") {
              cpSync(copy, aof(server), { recursive: true });
            }
            await server.start();
          }
        },
        async close() {
          await fixture.close();
          rmSync(copy, { recursive: true, force: true });
        },
      };
    },
  });
}

/** Keys are restored to earlier values while all nodes are connected. */
describe("The engine over a Redis whose keys are restored to earlier values", { skip: lacks("redis-server") }, () => {
  const restore = async (server: BrokerProcess, keys: readonly string[], copies: Buffer[]) => {
    await ask(server, async (client) => {
      for (const [number, key] of keys.entries()) {
        await client.restore(`noroshi:${key}:room`, 0, copies[number]!, { REPLACE: true });
      }
    });
  };
  const dump = (server: BrokerProcess, keys: readonly string[]) =>
    ask(server, async (client) => {
      const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
      return await Promise.all(keys.map(async (key) => (await bytes.dump(`noroshi:${key}:room`))! as unknown as Buffer)); // As mapped.
    });

  for (const keys of [["h"], ["s"], ["h", "s"]]) {
    for (const notices of ["the next publication", "a look"]) {
      it(
        `reports every loss: ${keys.join(" and ")}, noticed by ${notices}`,
        { timeout: 300_000 },
        async () => {
          const fixture = new Fixture();
          try {
            const server = await fixture.redis();
            const check = notices === "a look" ? 200 : 60_000;
            const [live, publisher, stranger] = [
              await fixture.node(false, server.port, check),
              await fixture.node(false, server.port, check),
              await fixture.node(false, server.port, check),
            ];
            const start = await live.engine.subscribe("room", HISTORY);
            const positions: Position[] = [
              start!,
              ...await publish(publisher.engine, "room", HISTORY, 5),
            ];
            const copies = await dump(server, keys);
            positions.push(
              ...await publish(publisher.engine, "room", HISTORY, 5, 5),
            );
            await live.host.until(() => live.host.publications("room").length === 10);
            await restore(server, keys, copies);
            const isLost = keys.includes("h");
            if (notices === "a look" && isLost) {
              await live.host.until(() => live.host.gaps.length > 0);
            }
            // The publisher has not noticed the restore.
            for (const number of range(10)) {
              await publish(stranger.engine, "room", HISTORY, 1, 10 + number);
            }
            await publish(stranger.engine, "room", HISTORY, 1, 20);
            await live.host.until(() =>
              live.host.data("room").at(-1) === 20 ||
              (live.host.gapsOf("room").at(-1)?.told ?? 0) >= 10
            );
            if (!isLost) {
              assert.deepEqual([live.host.data("room"), live.host.gaps], [
                range(21),
                [],
              ]);
            } else assert.ok(live.host.gaps.length > 0);
            for (
              const { engine } of [
                live,
                publisher,
                stranger,
                await fixture.node(false),
              ]
            ) {
              for (const [seen, position] of positions.entries()) {
                const page = await engine.read("room", HISTORY, position, 100);
                const told = page.publications.map(({ data }) => Number(data));
                assert.deepEqual(
                  told,
                  page.isComplete ? range(21).slice(seen) : [],
                  `${seen} seen`,
                );
              }
            }
          } finally {
            await fixture.close();
          }
        },
      );
    }
  }
});

/** Lease in ms of a node that others wait for, longer than a busy machine stands still. */
const PATIENT = 300_000;

/** Only a node that was connected during a run of Redis knows the last position of that run. */
describe("The engine over a Redis that is persistent and was killed", { skip: lacks("redis-server") }, () => {
  const create = async (lease = PATIENT) => {
    const fixture = new Fixture();
    const server = await fixture.redis(...LASTING);
    const node = async () => {
      const proxy = await fixture.proxy(server);
      const client = redisClient(proxy.port);
      const engine = redisEngine({ client, persistent: true, ...FAST, lease });
      return { engine, proxy };
    };
    const started = async () => {
      const { engine, proxy } = await node();
      const started = await startNode(engine);
      fixture.nodes.push(started);
      return { ...started, proxy };
    };
    const isCutOff = ({ proxy }: { proxy: Proxy }, isDown: boolean) => {
      proxy.isDown = isDown;
      if (isDown) proxy.cut();
    };
    return { fixture, server, node, started, isCutOff };
  };

  it("continues when the first node to reconnect missed a run and another did not", { timeout: 300_000 }, async () => {
    const { fixture, server, started, isCutOff } = await create();
    try {
      const [knowing, late] = [await started(), await started()];
      const positions = [await knowing.engine.subscribe("room", HISTORY), ...await publish(late.engine, "room", HISTORY, 2)];
      for (const node of [late, knowing]) {
        // The first time only `knowing` reconnects and publishes, so `late` misses that run.
        isCutOff(node, true);
        await server.restart();
        if (node === late) {
          await knowing.host.until(() =>
            knowing.host.statuses.at(-1) === "ready" && knowing.host.statuses.includes("unavailable")
          );
          positions.push(...await publish(knowing.engine, "room", HISTORY, 2, 2));
        } else {
          late.proxy.isDown = false;
          await until(async () =>
            late.engine.status === "ready" || /knows/.test(await late.engine.send("-").catch(({ cause }) => `${cause}`) ?? "")
          );
        }
      }
      isCutOff(knowing, false);
      for (const { host, engine } of [knowing, late]) {
        await host.until(() => engine.status === "ready");
        const page = await engine.read("room", HISTORY, positions[0]!, 100);
        assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, ["0", "1", "2", "3"]]);
      }
    } finally {
      await fixture.close();
    }
  });

  for (const comes of [true, false]) {
    it(
      `lets a new node wait for one that knows the last run, ${comes ? "until it reconnects" : "as long as its lease"}`,
      { timeout: 300_000 },
      async () => {
        const { fixture, server, node, started, isCutOff } = await create(comes ? PATIENT : 1_500);
        try {
          const knowing = await started();
          const start = await knowing.engine.subscribe("room", HISTORY);
          await publish(knowing.engine, "room", HISTORY, 3);
          isCutOff(knowing, true);
          await server.restart();
          const { engine } = await node();
          const host = new TestHost();
          engine.start(host);
          fixture.nodes.push({ engine, host, kill() {} });
          await host.until(() => host.errors.some((error) => /knows/.test(String(error))) || engine.status === "ready");
          if (comes) isCutOff(knowing, false);
          await host.until(() => engine.status === "ready");
          const page = await engine.read("room", HISTORY, start, 100);
          assert.deepEqual([page.isComplete, page.publications.length], comes ? [true, 3] : [false, 0]);
        } finally {
          await fixture.close();
        }
      },
    );
  }
});

describe("The engine over a persistent Redis that restarts with less data", { skip: lacks("redis-server") }, () => {
  it(
    "ends the histories, even when the remaining node has only received the lost publications",
    { timeout: 300_000 },
    async () => {
      const fixture = new Fixture();
      const server = await fixture.redis(...LASTING);
      const copy = `${server.folder}-copy`;
      try {
        const [a, b] = [await fixture.node(true), await fixture.node(true)];
        await b.engine.subscribe("heard", HISTORY);
        const [known] = await publish(a.engine, "room", HISTORY, 1);
        cpSync(aof(server), copy, { recursive: true });
        await publish(a.engine, "room", HISTORY, 1, 1);
        await publish(a.engine, "heard", HISTORY, 1);
        await b.host.until(() => b.host.publications("heard").length === 1);
        await a.engine.close();
        b.host.statuses.length = 0;
        await server.stop();
        rmSync(aof(server), { recursive: true, force: true });
        cpSync(copy, aof(server), { recursive: true });
        await server.start();
        await b.host.until(() => b.host.statuses.includes("ready"));
        assert.equal((await b.engine.read("room", HISTORY, known!, 10)).isComplete, false);
      } finally {
        await fixture.close();
        rmSync(copy, { recursive: true, force: true });
      }
    },
  );
});
