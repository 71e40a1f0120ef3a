import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BrokerListener } from "../../src/engines/broker/broker.ts";
import { VirtualNodes } from "./virtual-nodes.ts";

const SECRET = "a secret of the tests";
const HISTORY = { size: 100, ttl: 3_600_000 };

describe("An envelope of an unknown node", () => {
  // Found by the simulation, seed 1000121 with 2 nodes and 4 clients.
  it("that holds a publication is read from the history by an extra check", async () => {
    const nodes = new VirtualNodes({ secret: SECRET, lease: 360_000, checkInterval: 180_000, timeout: 60_000 });
    const old = await nodes.start(0);
    await nodes.during(old.engine.subscribe("room", HISTORY), 1_000);
    nodes.broker.cut(0);
    // Its greeting waits behind the cut, and the publication arrives right after it.
    const young = await nodes.start(1);
    await nodes.during(young.engine.publish("room", { event: "say", data: "1" }, HISTORY), 1_000);
    nodes.broker.restore(0);
    await nodes.advance(3_000);
    assert.deepEqual([old.engine.dropped, old.host.data("room"), old.host.gaps], [{ "unknown node": 1 }, [1], []]);
    await nodes.close();
  });

  // Found by the simulation, seed 5000289 with 2 nodes and 3 clients.
  it("that announces a member makes an extra check read the members", async () => {
    const nodes = new VirtualNodes({ secret: SECRET, lease: 360_000, checkInterval: 180_000, timeout: 60_000 });
    const old = await nodes.start(0);
    await nodes.during(old.engine.subscribe("room", null), 1_000);
    assert.deepEqual(await nodes.during(old.engine.members("room"), 1_000), []);
    nodes.broker.cut(0);
    // As above.
    const young = await nodes.start(1);
    await nodes.during(young.engine.join("room", { user: "ann" }), 1_000);
    nodes.broker.restore(0);
    await nodes.advance(3_000);
    assert.deepEqual(await nodes.during(old.engine.members("room"), 1_000), [{ user: "ann" }]);
    await nodes.close();
  });

  it("that arrives again and again does not remove members that the broker has evicted for a moment", async () => {
    const nodes = new VirtualNodes({ secret: SECRET });
    const [watching, other] = [await nodes.start(0), await nodes.start(1)];
    for (const number of [0, 1]) nodes.broker.cut(number);
    const { attacker, captured } = await eavesdrop(nodes);
    // The two hear nothing of the node that it was from.
    for (const number of [0, 1]) nodes.broker.kill(number);
    await nodes.advance(60_000);
    await nodes.during(watching.engine.subscribe("room", null), 500);
    await nodes.during(other.engine.join("room", { user: "mika" }), 500);
    await nodes.during(watching.engine.members("room"), 500);
    watching.host.presence.length = 0;
    for (let number = 0; number < 240; number++) {
      if (number % 17 === 0) nodes.broker.evict();
      await nodes.during(attacker.send(captured), 500);
    }
    assert.deepEqual([watching.engine.dropped, watching.host.presence], [{ "unknown node": 240 }, []]);
    await nodes.close();
  });
});

describe("A node that signs", () => {
  /** Nodes whose broker delivers their messages after `delay` ms. */
  function over(delay: number, timeout: number): VirtualNodes {
    const nodes = new VirtualNodes({ secret: SECRET, lease: 360_000, checkInterval: 180_000, timeout });
    const of = nodes.broker.of.bind(nodes.broker);
    nodes.broker.of = (number) => {
      const broker = of(number);
      const connect = broker.connect.bind(broker);
      broker.connect = async (...args) => {
        const session = await connect(...args);
        const send = session.send.bind(session);
        session.send = (envelope) => nodes.after(delay).then(() => send(envelope));
        return session;
      };
      return broker;
    };
    return nodes;
  }

  it("waits for the others as long as their answers take over a slow broker", async () => {
    const nodes = over(4_000, 10_000);
    const old = await nodes.start(0, 1);
    await nodes.during(old.engine.join("room", { user: "ann" }), 1);
    const young = await nodes.start(1, 8_001);
    // The question and the answer take as long again.
    assert.deepEqual(await nodes.during(young.engine.members("room"), 8_001), [{ user: "ann" }]);
    await nodes.during(young.engine.send("hello"), 4_001);
    await nodes.during(old.engine.send("hello"), 4_001);
    assert.deepEqual([old, young].map(({ engine, host }) => [engine.dropped, host.messages]), [[{}, ["hello"]], [{}, ["hello"]]]);
    await nodes.close();
  });

  it("waits a second for a dead one when the broker is not slow, whatever the timeout", async () => {
    const nodes = over(0, 60_000);
    (await nodes.start(0)).kill();
    nodes.broker.kill(0);
    await nodes.start(1, 1_100);
    await nodes.close();
  });
});

/** A session of somebody else with the broker, and an envelope of a node that starts, sends it and ends. */
async function eavesdrop(nodes: VirtualNodes) {
  const sent: string[] = [];
  const ignore = () => {};
  const listener: BrokerListener = {
    live: ignore,
    mark: ignore,
    member: ignore,
    message: (envelope) => void (envelope.includes('"kind":"message"') && sent.push(envelope)),
    malformed: ignore,
    ended: ignore,
  };
  const options = {
    node: "attacker",
    namespace: "noroshi",
    lease: 10_000,
    slack: 0,
    timeout: 2_000,
    now: Date.now,
    positions: () => [],
  };
  const attacker = await nodes.during(nodes.broker.of(9).connect(listener, options, new AbortController().signal), 500);
  const short = await nodes.start(2);
  await nodes.during(short.engine.send("hello"), 500);
  nodes.broker.kill(2);
  short.kill();
  return { attacker, captured: sent[0]! }; // It was sent.
}
