import type { Clock } from "../../src/base/clock.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { Awaitable } from "../../src/engines/engine.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { until } from "../support/waiting.ts";
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

/**
 * Repeats a call that the engine refuses: on a busy machine an answer may take longer than its timeout. The call must be safe to repeat: a
 * publication needs an id.
 */
export async function untilAnswered<Answer>(ask: () => Awaitable<Answer>): Promise<Answer> {
  let answered: { answer: Answer } | undefined;
  await until(async () => {
    try {
      answered = { answer: await ask() };
    } catch (error) {
      if (!(error instanceof WebSocketError)) throw error;
    }
    return answered !== undefined;
  });
  return answered!.answer; // `until` has waited for it.
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
