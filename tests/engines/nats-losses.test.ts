import assert from "node:assert/strict";
import { cpSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { createInbox, type NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { encodeName } from "../../src/engines/broker/channel-name.ts";
import { natsEngine, type NatsEngineOptions } from "../../src/engines/nats/nats.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { startNode } from "./broker-fixture.ts";
import { publish } from "./conformance.ts";
import { type Loss, losses } from "./losses.ts";
import type { TestNode } from "./test-host.ts";

const FAST = { lease: 6_000, checkInterval: 300, linger: 300, timeout: 10_000 };

losses("nats", {
  skip: lacks("nats-server"),
  losses: ["all", "tail", "older", "behind", "channel", "evicted", "empty"],
  async create(loss) {
    const broker = await BrokerProcess.nats();
    const copy = join(broker.folder, "..", `${broker.folder}-copy`);
    const nodes: TestNode[] = [];
    let copied: Snapshot | undefined;
    const history: NatsEngineOptions["history"] = {
      storage: loss === "empty" ? "memory" : "file",
      ...(loss === "evicted" && { maxBytes: 100_000 }),
    };
    return {
      async node() {
        const node = await startNode(natsEngine({ servers: `nats://127.0.0.1:${broker.port}`, history, ...FAST }));
        nodes.push(node);
        return node;
      },
      async copy() {
        // The server writes at once, and a copy of what it has written is what a backup is.
        cpSync(broker.folder, copy, { recursive: true });
        if (loss === "behind") copied = await ask(broker, snapshot);
      },
      async lose(channel) {
        if (loss === "channel") {
          await ask(broker, (connection) => purge(connection, channel));
        } else if (loss === "evicted") await ask(broker, fill);
        else if (loss === "behind") {
          await ask(broker, (connection) => restore(connection, copied!));
        } else await lose(loss, broker, copy);
      },
      async close() {
        await Promise.all(nodes.map(({ engine }) => engine.close()));
        await broker.close();
        rmSync(copy, { recursive: true, force: true });
      },
    };
  },
});

const STREAM = join("jetstream", "$G", "streams", "NOROSHI_noroshi");

async function lose(loss: Loss, broker: BrokerProcess, copy: string): Promise<void> {
  await broker.stop();
  if (loss === "all") {
    const messages = join(broker.folder, STREAM, "msgs");
    for (const name of readdirSync(messages)) {
      rmSync(join(messages, name), { recursive: true });
    }
  } else if (loss === "tail") {
    rmSync(join(broker.folder, STREAM), { recursive: true });
    cpSync(join(copy, STREAM), join(broker.folder, STREAM), { recursive: true });
  } else if (loss === "older") {
    rmSync(join(broker.folder, "jetstream"), { recursive: true });
    cpSync(join(copy, "jetstream"), join(broker.folder, "jetstream"), { recursive: true });
  }
  await broker.start();
}

async function ask<Answer>({ port }: BrokerProcess, ask: (connection: NatsConnection) => Promise<Answer>): Promise<Answer> {
  const connection = await connect({ servers: `127.0.0.1:${port}` });
  try {
    return await ask(connection);
  } finally {
    await connection.close();
  }
}

async function api<Answer>(connection: NatsConnection, method: string, question: object = {}): Promise<Answer> {
  return (await connection.request(`$JS.API.STREAM.${method}.NOROSHI_noroshi`, JSON.stringify(question))).json<Answer>();
}

/** A backup of the stream, as `nats stream backup` makes it. */
interface Snapshot {
  config: object;
  state: object;
  chunks: Uint8Array[];
}

async function snapshot(connection: NatsConnection): Promise<Snapshot> {
  const chunks: Uint8Array[] = [];
  const deliver_subject = createInbox();
  const subscription = connection.subscribe(deliver_subject);
  const { config, state } = await api<Snapshot>(connection, "SNAPSHOT", { deliver_subject });
  for await (const message of subscription) {
    if (message.data.length === 0) break;
    chunks.push(message.data.slice());
    message.respond();
  }
  return { config, state, chunks };
}

/** The reply to a restore request. */
interface Restoring {
  deliver_subject: string;
  error?: { err_code: number };
}

/** JetStream's error code for a stream name that is in use. */
const NAME_IN_USE = 10_130;

/** Puts a backup in place of the stream while the nodes stay connected: as another server does that is behind. */
async function restore(connection: NatsConnection, copied: Snapshot): Promise<void> {
  for (;;) {
    await api(connection, "DELETE");
    const error = await restoreDeleted(connection, copied);
    // A node that notices the missing stream may create it before the restore.
    if (error?.err_code !== NAME_IN_USE) return assert.equal(error, undefined);
  }
}

/** Resolves with the error of the server, if it refuses. */
async function restoreDeleted(connection: NatsConnection, { config, state, chunks }: Snapshot): Promise<Restoring["error"]> {
  const { deliver_subject, error } = await api<Restoring>(connection, "RESTORE", { config, state });
  if (error) return error;
  for (const chunk of chunks) await connection.request(deliver_subject, chunk);
  return (await connection.request(deliver_subject, "", { timeout: 5_000 })).json<Restoring>().error;
}

async function purge(connection: NatsConnection, channel: string): Promise<void> {
  await api(connection, "PURGE", { filter: `noroshi.noroshi.history.*.${encodeName(channel)}` });
}

/** With publications of another channel. */
async function fill(connection: NatsConnection): Promise<void> {
  const { config } = await api<{ config: { subjects: string[] } }>(connection, "INFO");
  const subject = config.subjects[0]!.replace("*", "other");
  for (let count = 0; count < 20; count++) {
    await connection.request(subject, "x".repeat(10_000));
  }
}

/** A backup of before an epoch that the nodes know. */
describe("The engine over a NATS server that goes back to an earlier epoch", { skip: lacks("nats-server") }, () => {
  it("begins a new epoch", { timeout: 300_000 }, async () => {
    const history: HistoryOptions = { size: 100, ttl: 300_000 };
    const broker = await BrokerProcess.nats();
    const copy = `${broker.folder}-copy`;
    const node = await startNode(natsEngine({ servers: `nats://127.0.0.1:${broker.port}`, ...FAST }));
    const { engine, host } = node;
    try {
      const positions = await publish(engine, "room", history, 5);
      cpSync(broker.folder, copy, { recursive: true });
      positions.push(...await publish(engine, "room", history, 5, 5));
      // Another epoch begins, and what is restored is of the one before.
      await ask(broker, (connection) => api(connection, "DELETE"));
      const [position] = await publish(engine, "room", history, 1, 10);
      assert.notEqual(position!.epoch, positions[0]!.epoch);
      host.statuses.length = 0;
      await lose("older", broker, copy);
      await host.until(() => host.statuses.includes("ready"));
      positions.push(...await publish(engine, "room", history, 20, 11));
      for (const [number, position] of positions.slice(0, 10).entries()) {
        const { isComplete, publications } = await engine.read("room", history, position, 100);
        assert.deepEqual([isComplete, publications.length], [false, 0], `${number}`);
      }
    } finally {
      await engine.close();
      await broker.close();
      rmSync(copy, { recursive: true, force: true });
    }
  });
});

describe("The engine over a NATS server that restarts with less data", { skip: lacks("nats-server") }, () => {
  it(
    "begins a new epoch, even when the remaining node has only received the lost publications",
    { timeout: 300_000 },
    async () => {
      const history: HistoryOptions = { size: 100, ttl: 60_000 };
      const broker = await BrokerProcess.nats();
      const copy = `${broker.folder}-copy`;
      // No check comes in between: nothing but the publication shows what there was.
      const options = { servers: `nats://127.0.0.1:${broker.port}`, ...FAST, checkInterval: 20_000, lease: 60_000 };
      const [a, b] = await Promise.all([startNode(natsEngine(options)), startNode(natsEngine(options))]);
      try {
        await b.engine.subscribe("heard", history);
        const [known] = await publish(a.engine, "room", history, 1);
        cpSync(broker.folder, copy, { recursive: true });
        await publish(a.engine, "room", history, 1, 1);
        await publish(a.engine, "heard", history, 1);
        await b.host.until(() => b.host.publications("heard").length === 1);
        await a.engine.close();
        b.host.statuses.length = 0;
        await lose("tail", broker, copy);
        await b.host.until(() => b.host.statuses.includes("ready"));
        assert.equal((await b.engine.read("room", history, known!, 10)).isComplete, false);
      } finally {
        await Promise.all([a, b].map(({ engine }) => engine.close()));
        await broker.close();
        rmSync(copy, { recursive: true, force: true });
      }
    },
  );
});
