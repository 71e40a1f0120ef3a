/**
 * Nodes on Bun, Deno and Node together: every second and third one is a process of another runtime than the one that this runs on. It runs on
 * Bun and on Deno. On Node the suite of each broker does, so that here Node is always another process.
 */
import process from "node:process";
import { brokerFixture } from "./broker-fixture.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { conformance } from "./conformance.ts";
import { type BrokerName, createEngine, type RemoteNode, type Runtime, startRemoteNode } from "./remote-node.ts";
import type { TestNode } from "./test-host.ts";

const here: Runtime = "Deno" in globalThis ? "deno" : process.versions["bun"] ? "bun" : "node";

/** The runtimes of the second and the third node. Most tests have two nodes: each pair of runtimes meets at two of the three brokers. */
const OTHERS: Record<BrokerName, Record<Runtime, readonly Runtime[]>> = {
  redis: { bun: ["node", "deno"], deno: ["bun", "node"], node: ["bun", "deno"] },
  nats: { bun: ["node", "deno"], deno: ["node", "bun"], node: ["bun", "deno"] },
  postgres: { bun: ["deno", "node"], deno: ["node", "bun"], node: ["bun", "deno"] },
};

const BROKERS: Record<BrokerName, { skip: string | false; start(): Promise<BrokerProcess> }> = {
  redis: { skip: lacks("redis-server"), start: () => BrokerProcess.redis() },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
  postgres: { skip: lacksPostgres(), start: () => PostgresProcess.postgres() },
};

for (const name of ["redis", "nats", "postgres"] as const) {
  const { skip, start } = BROKERS[name];
  const runtimes = [here, ...OTHERS[name][here]];
  conformance(`${name}, on ${runtimes.join(", ")}`, {
    nodes: 4,
    channels: 200,
    skip,
    async create() {
      const broker = await start();
      const local = brokerFixture(() => createEngine(name, broker.port), () => broker.restart());
      const remote = new Map<TestNode, RemoteNode>();
      let count = 0;
      const node = async () => {
        const runtime = runtimes[count++ % runtimes.length]!; // Within its length.
        if (runtime === here) return await local.node();
        const node = await startRemoteNode(runtime, name, broker.port);
        remote.set(node, node);
        return node;
      };
      return {
        ...local,
        node,
        async forget() {
          await broker.restart();
          return await node();
        },
        held: (node) => remote.get(node)?.channels() ?? local.held(node),
        async close() {
          await Promise.all([...remote.values()].map((node) => node.end()));
          await local.close();
          await broker.close();
        },
      };
    },
  });
}
