/** Nodes on Bun, Deno and Node together: every second and third one is a process of another runtime than the one that this runs on. */
import process from "node:process";
import { startNode } from "./broker-fixture.ts";
import { BrokerProcess, lacks } from "./brokers.ts";
import { conformance } from "./conformance.ts";
import { type BrokerName, createEngine, type RemoteNode, type Runtime, startRemoteNode } from "./remote-node.ts";
import type { TestNode } from "./test-host.ts";

const here: Runtime = "Deno" in globalThis ? "deno" : process.versions["bun"] ? "bun" : "node";
const ALL: readonly Runtime[] = ["node", "bun", "deno"];
const start = ALL.indexOf(here);
const RUNTIMES = [...ALL.slice(start), ...ALL.slice(0, start)];

const BROKERS: Record<BrokerName, { skip: string | false; start(): Promise<BrokerProcess> }> = {
  redis: { skip: lacks("redis-server"), start: () => BrokerProcess.redis() },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
};

for (const name of ["redis", "nats"] as const) {
  const { skip, start } = BROKERS[name];
  conformance(`${name}, on ${RUNTIMES.join(", ")}`, {
    nodes: 4,
    channels: 200,
    skip,
    async create() {
      const broker = await start();
      const remote = new Map<TestNode, RemoteNode>();
      const local: { node: TestNode; channels(): number }[] = [];
      let count = 0;
      const node = async () => {
        const runtime = RUNTIMES[count++ % RUNTIMES.length]!; // Within its length.
        if (runtime === here) {
          const node = await startNode(createEngine(name, broker.port));
          local.push({ node, channels: () => node.engine.channels });
          return node;
        }
        const node = await startRemoteNode(runtime, name, broker.port);
        remote.set(node, node);
        return node;
      };
      return {
        node,
        advance: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
        async forget() {
          await broker.restart();
          return await node();
        },
        held: (held) => remote.get(held)?.channels() ?? local.find(({ node }) => node === held)!.channels(), // One of the two made it.
        async close() {
          await Promise.all([...remote.values()].map((node) => node.end()));
          await Promise.all(local.map(({ node }) => node.host.isStopped ? undefined : node.engine.close()));
          await broker.close();
        },
      };
    },
  });
}
