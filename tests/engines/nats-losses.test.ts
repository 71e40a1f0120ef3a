import { cpSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { encodeName } from "../../src/engines/channel-name.ts";
import { natsEngine, type NatsEngineOptions } from "../../src/engines/nats.ts";
import { BrokerProcess, lacks } from "./brokers.ts";
import { startNode } from "./broker-fixture.ts";
import { type Loss, losses } from "./losses.ts";
import type { TestNode } from "./test-host.ts";

const FAST = { lease: 1_500, checkInterval: 300, linger: 300, timeout: 2_000 };

losses("nats", {
  skip: lacks("nats-server"),
  losses: ["all", "tail", "older", "channel", "evicted", "empty"],
  async create(loss) {
    const broker = await BrokerProcess.nats();
    const copy = join(broker.folder, "..", `${broker.folder}-copy`);
    const nodes: TestNode[] = [];
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
      },
      lose: (channel) => lose(loss, broker, copy, channel),
      async close() {
        await Promise.all(nodes.map(({ engine }) => engine.close()));
        await broker.close();
        rmSync(copy, { recursive: true, force: true });
      },
    };
  },
});

const STREAM = join("jetstream", "$G", "streams", "NOROSHI_noroshi");

async function lose(loss: Loss, broker: BrokerProcess, copy: string, channel: string): Promise<void> {
  if (loss === "channel" || loss === "evicted") {
    const connection = await connect({ servers: `127.0.0.1:${broker.port}` });
    if (loss === "channel") await purge(connection, channel);
    else await fill(connection);
    return await connection.close();
  }
  await broker.stop();
  if (loss === "all") {
    const messages = join(broker.folder, STREAM, "msgs");
    for (const name of readdirSync(messages)) rmSync(join(messages, name), { recursive: true });
  } else if (loss === "tail") {
    rmSync(join(broker.folder, STREAM), { recursive: true });
    cpSync(join(copy, STREAM), join(broker.folder, STREAM), { recursive: true });
  } else if (loss === "older") {
    rmSync(join(broker.folder, "jetstream"), { recursive: true });
    cpSync(join(copy, "jetstream"), join(broker.folder, "jetstream"), { recursive: true });
  }
  await broker.start();
}

async function purge(connection: NatsConnection, channel: string): Promise<void> {
  const filter = `noroshi.noroshi.history.*.${encodeName(channel)}`;
  await connection.request("$JS.API.STREAM.PURGE.NOROSHI_noroshi", JSON.stringify({ filter }));
}

/** With publications of another channel. */
async function fill(connection: NatsConnection): Promise<void> {
  const info = (await connection.request("$JS.API.STREAM.INFO.NOROSHI_noroshi")).json<{ config: { subjects: string[] } }>();
  const subject = info.config.subjects[0]!.replace("*", "other");
  for (let count = 0; count < 20; count++) await connection.request(subject, "x".repeat(10_000));
}
