import { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { BrokerEngineOptions } from "../../src/engines/broker/options.ts";
import { MemoryBroker } from "../../src/testing/memory-broker.ts";
import { Turns } from "../../src/testing/turns.ts";
import { VirtualClock, VirtualTime } from "../../src/testing/virtual-time.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";

/** Nodes over a broker in memory, in virtual time. */
export class VirtualNodes {
  readonly broker: MemoryBroker;
  readonly #options: BrokerEngineOptions;
  readonly #turns: Turns;
  readonly #time: VirtualTime;
  readonly #nodes: BrokerNode[] = [];

  constructor(options: BrokerEngineOptions) {
    this.#options = options;
    const turns = this.#turns = new Turns((error) => {
      throw error;
    });
    turns.watch();
    this.#time = new VirtualTime(1_800_000_000_000, () => turns.settle());
    this.broker = new MemoryBroker(turns, () => this.#time.now);
  }

  /** Starts a node, which has this time to hear of the others, in ms. */
  async start(number: number, ms = 2_000): Promise<BrokerNode> {
    const engine = new BrokerEngine(this.broker.of(number), this.#options);
    const node = await this.during(startNode(engine, new VirtualClock(this.#time, `node ${number}`)), ms);
    this.#nodes.push(node);
    return node;
  }

  /** Resolves once so many ms have passed. */
  after(ms: number): Promise<void> {
    return new Promise((resolve) => new VirtualClock(this.#time, "the test").setTimeout(resolve, ms));
  }

  /** Lets so many ms pass. */
  advance(ms: number): Promise<void> {
    return this.#time.advance(ms);
  }

  /** Lets so many ms pass, in which the promise resolves. */
  async during<Value>(promise: Promise<Value>, ms: number): Promise<Value> {
    await this.advance(ms);
    return await promise;
  }

  async close(): Promise<void> {
    const left = this.#nodes.filter(({ host }) => !host.isStopped);
    await this.during(Promise.all(left.map(({ engine }) => engine.close())), 1_000);
    this.#turns.unwatch();
  }
}
