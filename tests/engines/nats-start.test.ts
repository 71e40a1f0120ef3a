import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it, type TestContext } from "node:test";
import type { NatsConnection } from "@nats-io/nats-core";
import { connect, type NodeConnectionOptions } from "@nats-io/transport-node";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { natsEngine, type NatsEngineOptions } from "../../src/engines/nats/nats.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { startNode } from "./broker-fixture.ts";
import { publish } from "./conformance.ts";
import { TestHost } from "./test-host.ts";

const FAST = { lease: 6_000, checkInterval: 100, linger: 300, timeout: 10_000 };
const HISTORY = { size: 10, ttl: 60_000 };
const TIMEOUT = { timeout: 300_000 };
const USER = { user: "app", pass: "secret" };

const permitting = (permissions: string) =>
  `authorization { users = [{ user: app, password: secret, permissions: { ${permissions} } }] }`;

/** What keeps it from the start, and what it says. */
const FAULTS: {
  title: string;
  config?: string;
  storage?: "none";
  options?: Partial<NatsEngineOptions>;
  cause: RegExp;
}[] = [
  {
    title: "JetStream is off",
    storage: "none",
    cause: /JetStream: it is not enabled for this account/,
  },
  {
    title: "JetStream has no room",
    config: "jetstream { max_file_store: 1MB }",
    cause: /insufficient storage resources available, for a stream of 16777216 bytes: lower history\.maxBytes/,
  },
  {
    title: "JetStream has no room for what is asked",
    config: "jetstream { max_file_store: 60MB }",
    options: { history: { maxBytes: 2 ** 27 } },
    cause: /for a stream of 134217728 bytes/,
  },
  {
    title: "JetStream has no memory",
    config: "jetstream { max_memory_store: 1MB }",
    options: { history: { storage: "memory" } },
    cause: /insufficient|exceeded/,
  },
  {
    title: "the password is wrong",
    config: permitting(""),
    options: { options: { ...USER, pass: "wrong" } },
    cause: /Authorization Violation/,
  },
  { title: "there is no password", config: permitting(""), cause: /Authorization Violation/ },
  {
    title: "it may not make a stream",
    config: permitting('publish: { deny: ["$JS.API.STREAM.CREATE.>"] }'),
    options: { options: USER },
    cause: /Permissions Violation for Publish to "\$JS\.API\.STREAM\.CREATE/,
  },
  {
    title: "it may not listen",
    config: permitting('subscribe: { deny: ["noroshi.>"] }'),
    options: { options: USER },
    cause: /Permissions Violation for Subscription to "noroshi\.noroshi\.nodes"/,
  },
  {
    title: "it may not have answers",
    config: permitting('subscribe: { deny: ["_INBOX.>"] }'),
    options: { options: USER },
    cause: /Permissions Violation for Subscription to "_INBOX/,
  },
];

/** Ends what a test has started, the last first. */
class Ends {
  readonly #ends: (() => Promise<unknown>)[] = [];

  constructor(t: TestContext) {
    t.after(async () => {
      for (const end of this.#ends.reverse()) await end();
    });
  }

  engine(port: number, options: Partial<NatsEngineOptions> = {}): BrokerEngine {
    const engine = natsEngine({ servers: `nats://127.0.0.1:${port}`, ...FAST, ...options });
    this.#ends.push(() => engine.close());
    return engine;
  }

  async server(config: string, storage?: "none"): Promise<BrokerProcess> {
    const broker = await BrokerProcess.natsWith(config, storage);
    this.#ends.push(() => broker.close());
    return broker;
  }

  async connection(options: NodeConnectionOptions): Promise<NatsConnection> {
    const connection = await connect(options);
    this.#ends.push(() => connection.close());
    return connection;
  }

  /** What an engine reports that it cannot start by. */
  async failure(port: number, options: Partial<NatsEngineOptions> = {}) {
    const engine = this.engine(port, options);
    const host = new TestHost();
    engine.start(host);
    await host.until(() => host.errors.length > 0);
    assert.deepEqual(host.statuses, ["unavailable"]);
    return { engine, error: host.errors[0] as WebSocketError & { cause: Error } };
  }
}

// Beside each other: most wait for three timeouts, or for a lease.
describe("An engine over NATS", { skip: lacks("nats-server"), concurrency: true }, () => {
  for (const { title, config = "", storage, options, cause } of FAULTS) {
    it(`names the first cause when ${title}, in its error and in those of calls meanwhile`, TIMEOUT, async (t) => {
      const ends = new Ends(t);
      const { port } = await ends.server(config, storage);
      // Calls at the start wait for three of its timeouts.
      const { engine, error } = await ends.failure(port, { ...options, timeout: 3_000 });
      assert.match(error.message, cause);
      assert.match(error.cause.message, cause);
      await assert.rejects(async () => await engine.publish("room", { event: "say", data: "1" }, null), (refusal) => {
        assert.ok(refusal instanceof WebSocketError && refusal.code === "ENGINE_UNAVAILABLE");
        // The client is shown the message, and never the cause.
        assert.doesNotMatch(refusal.message, cause);
        assert.match((refusal.cause as Error).message, cause);
        return true;
      });
    });
  }

  it("names the first cause when no server listens", TIMEOUT, async (t) => {
    const { error } = await new Ends(t).failure(await freePort());
    assert.match(error.message, /connection refused|ECONNREFUSED/i);
  });

  it(
    "reports what a missing permission prevents, and keeps a connection of the application open",
    TIMEOUT,
    async (t) => {
      const ends = new Ends(t);
      const { port } = await ends.server(permitting('subscribe: { deny: ["noroshi.noroshi.channel.secret.>"] }'));
      const connection = await ends.connection({ servers: `127.0.0.1:${port}`, ...USER, maxReconnectAttempts: -1 });
      const { engine, host } = await startNode(ends.engine(port, { connection }));
      // What is the application's own is no matter of the engine's.
      connection.publish("elsewhere", "x");
      await engine.subscribe("room", HISTORY);
      await assert.rejects(async () => await engine.subscribe("secret", null));
      await host.until(() => host.errors.length > 0);
      assert.match(String(host.errors[0]), /Permissions Violation for Subscription to "noroshi\.noroshi\.channel\.secret/);
      assert.ok(!connection.isClosed());
    },
  );

  it("starts by default where JetStream has little room", TIMEOUT, async (t) => {
    const ends = new Ends(t);
    const { port } = await ends.server("jetstream { max_file_store: 60MB }");
    const { engine } = await startNode(ends.engine(port));
    assert.equal((await publish(engine, "room", HISTORY, 3)).length, 3);
  });

  it("needs no more than the permissions that the documentation has", TIMEOUT, async (t) => {
    const ends = new Ends(t);
    const page = await readFile(new URL("../../docs/guides/nats.md", import.meta.url), "utf8");
    const [, config] = page.match(/```(?:text|conf)?\n(authorization [^`]+)```/) ?? [];
    assert.ok(config !== undefined);
    const { port } = await ends.server(config);
    const options = { ...FAST, namespace: "shop", options: { user: "shop", pass: "a password", inboxPrefix: "_INBOX_shop" } };
    const [a, b] = [await startNode(ends.engine(port, options)), await startNode(ends.engine(port, options))];
    for (const { engine } of [a, b]) await engine.subscribe("room", HISTORY);
    const [first] = await publish(a.engine, "room", HISTORY, 5);
    await publish(a.engine, "plain", null, 1);
    await a.engine.join("room", { user: "mika" });
    await b.host.until(() => b.host.publications("room").length === 5 && "mika" in b.host.membersOf("room"));
    assert.equal((await b.engine.read("room", HISTORY, first!, 10)).publications.length, 4);
    assert.equal((await b.engine.read("room", HISTORY, null, 10)).publications.length, 5);
    assert.deepEqual(await b.engine.members("room"), [{ user: "mika" }]);
    await a.engine.send("hello");
    await b.host.until(() => b.host.messages.length > 0);
    await a.engine.leave("room", "mika");
    await b.host.until(() => !("mika" in b.host.membersOf("room")));
    // A node that was killed is swept by another one.
    const killed = await startNode(ends.engine(port, options));
    await killed.engine.join("room", { user: "yuki" });
    await b.host.until(() => "yuki" in b.host.membersOf("room"));
    killed.kill();
    await b.host.until(() => !("yuki" in b.host.membersOf("room")));
    assert.deepEqual([a, b].map(({ host }) => [host.statuses, host.errors]), [[["ready"], []], [["ready"], []]]);
  });
});
