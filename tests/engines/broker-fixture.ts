import type { Clock } from "../../src/base/clock.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { EngineFixture } from "./conformance.ts";
import { TestHost, type TestNode } from "./test-host.ts";

/** A node over a broker. */
export interface BrokerNode extends TestNode {
  readonly engine: BrokerEngine;
}

/** Starts an engine, and resolves when it is ready. */
export async function startNode(engine: BrokerEngine, clock?: Clock): Promise<BrokerNode> {
  const host = new TestHost(clock);
  engine.start(host);
  await host.until(() => host.statuses.includes("ready"));
  return { engine, host, kill: () => host.stop() };
}

export function brokerFixture(
  makeEngine: () => BrokerEngine | Promise<BrokerEngine>,
  forget: () => Promise<void>,
): EngineFixture {
  const nodes: BrokerNode[] = [];
  const node = async () => {
    const started = await startNode(await makeEngine());
    nodes.push(started);
    return started;
  };
  return {
    node,
    // A broker has a time of its own.
    advance: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    async forget() {
      await forget();
      return await node();
    },
    held: ({ engine }) => (engine as BrokerEngine).channels, // As `node` made it.
    async close() {
      await Promise.all(nodes.map(({ engine, host }) => host.isStopped ? undefined : engine.close()));
    },
  };
}
