import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type NatsConnection, wsconnect } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { natsEngine, type NatsEngineOptions } from "../../src/engines/nats/nats.ts";
import { brokerFixture } from "./broker-fixture.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { conformance } from "./conformance.ts";

/** Quick to notice all but silence: a busy machine keeps a broker or a node silent for a while. */
const FAST = { lease: 8_000, checkInterval: 300, linger: 300, timeout: 10_000 };

/** Its store is lost when the server is restarted. */
const history = { storage: "memory" } as const;

conformance("nats, over TCP", {
  nodes: 4,
  skip: lacks("nats-server"),
  async create() {
    const broker = await BrokerProcess.nats();
    const servers = `nats://127.0.0.1:${broker.port}`;
    return start(broker, () => Promise.resolve({ servers }));
  },
});

// Node has had a WebSocket since 22.
const hasWebSocket = "WebSocket" in globalThis;

conformance(`nats, signed, over connections of one's own${hasWebSocket ? " by WebSocket" : ""}`, {
  nodes: 4,
  skip: lacks("nats-server"),
  async create() {
    const port = await freePort();
    const broker = await BrokerProcess.nats(async (folder) => {
      const path = join(folder, "nats.conf");
      await writeFile(path, `websocket { listen: "127.0.0.1:${port}", no_tls: true }`);
      return ["-c", path];
    });
    const own: NatsConnection[] = [];
    const fixture = start(broker, async () => {
      const reconnection = { maxReconnectAttempts: -1, reconnectTimeWait: 50 };
      const connection = hasWebSocket
        ? await wsconnect({ servers: `ws://127.0.0.1:${port}`, ...reconnection })
        : await connect({ servers: `127.0.0.1:${broker.port}`, ...reconnection });
      own.push(connection);
      return { connection, secret: "a secret of the tests" };
    });
    return {
      ...fixture,
      async close() {
        await Promise.all(own.map((connection) => connection.close()));
        await fixture.close();
      },
    };
  },
});

function start(broker: BrokerProcess, options: () => Promise<NatsEngineOptions>) {
  const fixture = brokerFixture(async () => natsEngine({ ...await options(), history, ...FAST }), () => broker.restart());
  return {
    ...fixture,
    async close() {
      await fixture.close();
      await broker.close();
    },
  };
}
