import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import pg from "pg";
import { createClient } from "redis";
import type { Deadlines, Timed } from "../../src/base/clock.ts";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { broadcastChannelEngine } from "../../src/engines/broadcast-channel/broadcast-channel.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { createPublisher, type Publisher } from "../../src/publisher/publisher.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { TestHost } from "../engines/test-host.ts";
import { FakeTransport, openOn } from "../support/fake-transport.ts";
import { Stall, turn, until } from "../support/waiting.ts";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
const history = { size: 100, ttl: 300_000 };
const channels = {
  "room:*": { authorize: () => true },
  kept: { authorize: () => true, history },
  log: { authorize: () => true, history },
};
const secret = "a secret of the tests";

/** A client of the node, with the messages it has received. */
function joinAs(controller: WebSocketController, user: string) {
  const { connection, transport } = openOn(new FakeTransport(), controller, {
    identity: { accountability: { user, role: "reader" } },
  });
  // deno-lint-ignore no-explicit-any -- a test reads any message
  const received: any[] = [];
  return {
    transport,
    send: (message: object) => connection.message(JSON.stringify(message)),
    // deno-lint-ignore no-explicit-any -- as above
    async find(condition: (message: any) => boolean): Promise<any> {
      for (;;) {
        received.push(...transport.take());
        const found = received.find(condition);
        if (found) return found;
        await turn();
      }
    },
  };
}

/** Collects the timers of a kind that are running from now on, until they are restored. */
function watchTimers(kind: "Interval" | "Timeout") {
  const [setName, clearName] = [`set${kind}`, `clear${kind}`] as const;
  const { [setName]: set, [clearName]: clear } = globalThis;
  const running = new Set<unknown>();
  const watched = {
    [setName](...timer: Parameters<typeof setTimeout>) {
      const handle = set(...timer);
      running.add(handle);
      return handle;
    },
    [clearName](handle: Parameters<typeof clearTimeout>[0]) {
      running.delete(handle);
      clear(handle);
    },
  };
  Object.assign(globalThis, watched);
  return { running, restore: () => void Object.assign(globalThis, { [setName]: set, [clearName]: clear }) };
}

describe("A publisher", () => {
  it("publishes and broadcasts to nodes without being listed as a node", async () => {
    const namespace = "publisher";
    const controller = new WebSocketController({ engine: broadcastChannelEngine({ namespace }), logger: false });
    new Channels(controller, { "room:*": { authorize: () => true } });
    controller.start();
    const client = joinAs(controller, "ann");
    client.send({ type: "subscribe", channel: "room:1", uid: "s" });
    await client.find(({ event }) => event === "init");
    const publisher = createPublisher({ engine: broadcastChannelEngine({ namespace }) });
    assert.equal(await publisher.publish("room:1", "say", { text: "Hello" }), null);
    assert.deepEqual((await client.find(({ event }) => event === "say")).data, { text: "Hello" });
    await publisher.broadcast({ type: "news", text: "All" });
    await publisher.broadcast({ type: "news", text: "Nobody" }, { user: "bob" });
    await publisher.broadcast({ type: "news", text: "Ann" }, { user: "ann" });
    await client.find(({ text }) => text === "Ann");
    assert.equal(client.transport.sent.some((text) => text.includes("Nobody")), false);
    // The publisher answers requests to all nodes, so no node waits for it.
    assert.deepEqual((await controller.cluster.clients()).missing, []);
    const stats = await controller.cluster.stats();
    assert.deepEqual([Object.keys(stats.nodes).length, stats.missing], [1, []]);
    await publisher.close();
    await assert.rejects(publisher.publish("room:1", "say", 1), { code: "ENGINE_UNAVAILABLE" });
    await controller.engine.close(); // The fake client would not answer a close.
  });

  it("starts its engine at the first call", async () => {
    const engine = broadcastChannelEngine({ namespace: "lazy" });
    const publisher = createPublisher({ engine });
    await publisher.close();
    assert.doesNotThrow(() => engine.start(new TestHost())); // It throws when it was started before.
    engine.close();
  });

  it("throws TypeError for invalid options, channels, events, data, messages and filters", async () => {
    const engine = broadcastChannelEngine({ namespace: "refused" });
    const options = [
      { engine: undefined },
      { engine: {} },
      { engine: new MemoryEngine() },
      { engine, node: "a b" },
      { engine, idWindow: 0 },
      { engine, onError: 5 },
      { engine, onError: null },
      { engine, channels: { "a b": {} } },
      { engine, channels: { log: { history } } }, // This engine keeps none.
      { engine, chanels: {} },
      { engine, channels: "abc" },
      { engine, channels: [] },
      { engine, channels: null },
      { engine, channels: { a: null } },
      { engine, channels: { "x:{id}": {}, "x:{other}": {} } },
      ...[5, null, {}, { size: NaN, ttl: -1 }, { size: 5, ttl: 5, maxrecover: 1 }].map((history) => ({
        engine: { start() {} },
        channels: { a: { history } },
      })),
    ];
    for (const option of options) {
      assert.throws(
        () => createPublisher(option as Parameters<typeof createPublisher>[0]),
        /^TypeError: Cannot (create|declare|keep)/,
      );
    }
    const publisher = createPublisher({ engine, channels: { "room:*": {} } });
    const calls: (() => unknown)[] = [
      () => publisher.publish("other", "say", 1),
      () => publisher.publish("room:1", "", 1),
      () => publisher.publish("room:1", "init", 1),
      () => publisher.publish("room:1", "say", 1n),
      () => publisher.publish("room:1", "say", 1, { id: "" }),
      () => publisher.publish("room:1", "say", 1, { transaction: {} }),
      () => publisher.publish("room:1", "say", 1, { transaction: undefined }),
      () => createPublisher({ engine }).publish("a b", "say", 1),
      () => publisher.broadcast(undefined as unknown as string),
      () => publisher.broadcast("text", { user: "" }),
      () => publisher.disconnect({}),
      () => publisher.disconnect({ user: "ann" }, 1005),
    ];
    for (const [number, call] of calls.entries()) assert.throws(call, TypeError, `call ${number}`);
    await publisher.close();
  });

  it("reports a failed call to onError, even when its promise is ignored", async () => {
    const engine = broadcastChannelEngine({ namespace: "failing" });
    const failure = new Error("Not this one");
    engine.send = () => Promise.reject(failure);
    const reported = new Stall<unknown>();
    const publisher = createPublisher({ engine, onError: (error) => reported.resolve(error) });
    void publisher.broadcast("text");
    await publisher.close();
    assert.equal(await reported.promise, failure);
  });

  it("logs an error that onError throws or rejects with", async (t) => {
    const logged = t.mock.method(console, "error", () => {});
    const engine = broadcastChannelEngine({ namespace: "throwing" });
    engine.send = () => Promise.reject(new Error("Not this one"));
    const thrown = new Error("of the logger");
    const handlers: ((error: unknown) => void)[] = [
      () => {
        throw thrown;
      },
      () => Promise.reject(thrown),
    ];
    for (const onError of handlers) {
      const publisher = createPublisher({ engine: Object.assign(Object.create(engine), { start() {}, close() {} }), onError });
      await assert.rejects(publisher.broadcast("text"), { message: "Not this one" });
      await publisher.close();
      await turn(); // An unhandled rejection would fail the test here.
    }
    assert.deepEqual(logged.mock.calls.map(({ arguments: [error] }) => error), [thrown, thrown]);
  });

  it("lets the process end when the engine cannot be closed", async () => {
    const { running, restore } = watchTimers("Interval");
    const engine = { start() {}, send() {}, close: () => Promise.reject(new Error("Cannot close")) };
    try {
      const publisher = createPublisher({ engine: engine as never }); // It needs no more of an engine here.
      await publisher.broadcast("text");
      assert.equal(running.size, 1);
      await assert.rejects(publisher.close(), { message: "Cannot close" });
      assert.equal(running.size, 0);
    } finally {
      restore();
    }
  });

  it("clears the timers of its engine when it closes", async () => {
    const { running, restore } = watchTimers("Timeout");
    try {
      for (const close of [() => {}, () => Promise.reject(new Error("Cannot close"))]) {
        const host: { deadlines?: Deadlines } = {};
        const engine = {
          start: ({ deadlines }: Required<typeof host>) => void (host.deadlines = deadlines),
          send() {
            const call: Timed = { deadline: 0, heapIndex: -1, due: () => assert.fail("It was answered in time") };
            host.deadlines!.set(call, 30_000);
            host.deadlines!.delete(call);
          },
          close,
        };
        const publisher = createPublisher({ engine: engine as never }); // It needs no more of an engine here.
        await publisher.broadcast("text");
        assert.equal(running.size, 1);
        await publisher.close().catch(() => {}); // The second one rejects.
        assert.equal(running.size, 0);
      }
    } finally {
      restore();
    }
  });

  it("bundles neither the controller nor Hono", async () => {
    const { metafile, outputFiles } = await build({
      entryPoints: [join(root, "src/publisher/publisher.ts")],
      bundle: true,
      format: "esm",
      platform: "neutral",
      minify: true,
      metafile: true,
      write: false,
      external: ["valibot", "mitt"],
    });
    const inputs = Object.keys(metafile.inputs).join();
    assert.doesNotMatch(inputs, /hono|controller\/controller\.ts|channels\/channels\.ts|runtimes\//);
    const bytes = gzipSync(outputFiles[0]!.contents).length;
    assert.ok(bytes < 12_000, `${bytes} bytes gzipped`);
  });
});

/** A broker, with the engines of nodes and of a program that has its URL in `process.argv[2]`. */
interface PublisherBroker {
  readonly skip: string | false;
  readonly imports: string;
  /** The source of an expression that creates the engine from `url`. */
  readonly engineText: string;
  start(): Promise<BrokerProcess>;
  url(port: number): string;
  engine(url: string): BrokerEngine;
}

const FAST = { secret, timeout: 10_000 };
const fast = JSON.stringify(FAST);

const BROKERS: Record<string, PublisherBroker> = {
  Redis: {
    skip: lacks("redis-server"),
    imports: `
      import { createClient } from "redis";
      import { redisEngine } from "${join(root, "src/engines/redis/redis.ts")}";
    `,
    engineText: `redisEngine({ client: createClient({ url }), ...${fast} })`,
    start: () => BrokerProcess.redis(),
    url: (port) => `redis://127.0.0.1:${port}`,
    engine: (url) => redisEngine({ client: createClient({ url }), ...FAST }),
  },
  NATS: {
    skip: lacks("nats-server"),
    imports: `import { natsEngine } from "${join(root, "src/engines/nats/nats.ts")}";`,
    engineText: `natsEngine({ servers: url, ...${fast} })`,
    start: () => BrokerProcess.nats(),
    url: (port) => `nats://127.0.0.1:${port}`,
    engine: (url) => natsEngine({ servers: url, ...FAST }),
  },
  PostgreSQL: {
    skip: lacksPostgres(),
    imports: `
      import pg from "pg";
      import { postgresEngine } from "${join(root, "src/engines/postgres/postgres.ts")}";
    `,
    engineText: `postgresEngine({ client: new pg.Pool({ connectionString: url }), ...${fast} })`,
    start: () => PostgresProcess.postgres(),
    url: (port) => `postgres://noroshi@127.0.0.1:${port}/postgres`,
    engine: (url) => postgresEngine({ client: new pg.Pool({ connectionString: url }), ...FAST }),
  },
};

for (const [name, { skip, imports, engineText, start, url, engine }] of Object.entries(BROKERS)) {
  describe(`A publisher over ${name}`, { skip }, () => {
    let broker: BrokerProcess;
    let controller: WebSocketController;
    let nodes: Channels;
    let folder: string;
    before(async () => {
      broker = await start();
      controller = new WebSocketController({ engine: engine(url(broker.port)), logger: false });
      nodes = new Channels(controller, channels);
      controller.start();
      await until(() => controller.engine.status === "ready");
      folder = mkdtempSync(join(root, "node_modules/.noroshi-publisher-"));
    });
    after(async () => {
      await controller?.engine.close();
      await broker?.close();
      if (folder) rmSync(folder, { recursive: true, force: true });
    });

    it("publishes to the clients and the history of the nodes, and once for an id", async () => {
      const client = joinAs(controller, "ann");
      client.send({ type: "subscribe", channel: "room:1", uid: "r" });
      client.send({ type: "subscribe", channel: "kept", uid: "k" });
      const { epoch, offset } = await client.find(({ event, uid }) => event === "init" && uid === "k");
      await client.find(({ event, uid }) => event === "init" && uid === "r");
      const publisher: Publisher = createPublisher({ engine: engine(url(broker.port)), channels });
      // The node drops what the publisher sends until that has answered its greeting, within a second or later.
      await until(async () => {
        await publisher.broadcast({ type: "known" });
        return client.transport.sent.some((text) => text.includes("known"));
      });
      assert.equal(await publisher.publish("room:1", "say", { text: "Hello" }), null);
      const position = await publisher.publish("kept", "say", 1, { id: "one" });
      assert.deepEqual(await publisher.publish("kept", "say", 1, { id: "one" }), position);
      await publisher.publish("kept", "say", 2);
      await publisher.broadcast({ type: "news", text: "All" });
      assert.deepEqual((await client.find(({ uid, event }) => uid === "r" && event === "say")).data, { text: "Hello" });
      await client.find(({ uid, data }) => uid === "k" && data === 2);
      await client.find(({ text }) => text === "All");
      await publisher.close();
      const page = await nodes.history("kept", { after: { epoch, offset } });
      assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, [1, 2]]);
    });

    it("disconnects clients, and resolves when the nodes have confirmed it", async () => {
      const publisher: Publisher = createPublisher({ engine: engine(url(broker.port)) });
      for (let isLate = true; isLate;) {
        const { transport } = joinAs(controller, "mallory");
        const { missing, isSent } = await publisher.disconnect({ user: "mallory" }, 4403, "Out");
        // A node that a busy machine delays for two seconds is listed as missing, and still carries the order out.
        isLate = missing.length > 0;
        if (isLate) await until(() => transport.closes.length > 0);
        assert.deepEqual([isSent, transport.closes], [true, [{ code: 4403, reason: "Out" }]]);
      }
      await publisher.close();
    });

    it("loses nothing when its process ends after one publication", async () => {
      const program = join(folder, "program.mjs");
      await build({
        stdin: {
          contents: `
            ${imports}
            import { createPublisher } from "${join(root, "src/publisher/publisher.ts")}";
            const [, , url, mode] = process.argv;
            const engine = ${engineText};
            const channels = { log: { history: { size: 100, ttl: 300_000 } } };
            async function main() {
              await using publisher = createPublisher({ engine, channels });
              if (mode === "awaited") await publisher.publish("log", "ran", mode, { id: mode });
              else publisher.publish("log", "ran", mode);
              if (mode === "awaited") process.exit(0);
            }
            await main();
          `,
          resolveDir: root,
        },
        outfile: program,
        bundle: true,
        packages: "external",
        platform: "node",
        format: "esm",
        target: "node20",
      });
      for (const mode of ["awaited", "disposed"]) await run(process.execPath, [program, url(broker.port), mode]);
      const { publications } = await nodes.history("log");
      assert.deepEqual(publications.map(({ event, data }) => [event, data]), [["ran", "awaited"], ["ran", "disposed"]]);
    });
  });
}
