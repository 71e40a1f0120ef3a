/** The broker in memory against what every engine has to do: Redis and NATS pass the same. */
import { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { MemoryBroker } from "../../src/testing/memory-broker.ts";
import { Turns } from "../../src/testing/turns.ts";
import { VirtualClock, VirtualTime } from "../../src/testing/virtual-time.ts";
import { type BrokerNode, startNode } from "../engines/broker-fixture.ts";
import { conformance } from "../engines/conformance.ts";

const FAST = { lease: 4_000, checkInterval: 300, linger: 300, timeout: 10_000 };

/** How much time passes in each ms of the machine's, while a test waits. */
const PACE = 10;

for (const secret of [[], ["a secret of the tests"]]) {
  conformance(`a broker in memory${secret.length > 0 ? ", signed" : ""}`, {
    nodes: 4,
    isVirtual: true,
    channels: 200,
    create() {
      const turns = new Turns((error) => {
        throw error;
      });
      const time = new VirtualTime(1_800_000_000_000, () => turns.settle());
      const broker = new MemoryBroker(turns, () => time.now);
      const nodes: BrokerNode[] = [];
      turns.watch();
      let isOver = false;
      const pass = async () => {
        while (!isOver) {
          await time.advance(PACE);
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      };
      const passing = pass();
      const node = async () => {
        const engine = new BrokerEngine(broker.of(nodes.length), { secret, ...FAST });
        const started = await startNode(engine, new VirtualClock(time, `node ${nodes.length}`));
        nodes.push(started);
        return started;
      };
      return Promise.resolve({
        node,
        advance: (ms) => time.advance(ms),
        async forget() {
          broker.forget();
          return await node();
        },
        held: ({ engine }) => (engine as BrokerEngine).channels, // As `node` made it.
        async close() {
          await Promise.all(nodes.map(({ engine, host }) => host.isStopped ? undefined : engine.close()));
          isOver = true;
          await passing;
          turns.unwatch();
        },
      });
    },
  });
}
