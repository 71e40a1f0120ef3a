/** Which channels a node tells of a gap after a connect: those it was subscribed to before, and no others. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Broker, BrokerListener, BrokerSession } from "../../src/engines/broker/broker.ts";
import { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";
import { TestHost } from "./test-host.ts";

/** A node that signs, at the moment when its session is ready and the stored orders are not read yet. */
async function create() {
  const clock = new TestClock();
  const host = new TestHost(clock);
  let listener: BrokerListener | undefined;
  let orders = new Stall();
  const done = () => Promise.resolve();
  const session = {
    fullNamespace: "namespace",
    now: () => clock.now(),
    listen: done,
    unlisten: done,
    send: done,
    heartbeat: () => Promise.resolve(true),
    nodes: () => Promise.resolve([host.node]),
    ownMembers: () => Promise.resolve([]),
    storedOrders: async () => {
      await orders.promise;
      return { envelopes: [], isWhole: true };
    },
    retire: done,
    close() {},
  };
  const broker: Broker = {
    name: "Fake",
    connect(given) {
      listener = given;
      return Promise.resolve(session as unknown as BrokerSession); // With all that is asked of it here.
    },
  };
  const engine = new BrokerEngine(broker, { secret: "a secret of the tests", lease: 3e6, checkInterval: 1e6 });
  engine.start(host);
  await host.until(() => engine.status === "ready");
  return {
    engine,
    host,
    async release() {
      orders.resolve();
      await turn();
    },
    async reconnect() {
      orders = new Stall();
      listener!.ended(new Error("ended")); // It has connected.
      clock.advance(100);
      await host.until(() => engine.status === "ready");
    },
  };
}

describe("A node that has connected", () => {
  it("reports no gap in a channel that is subscribed to while it reads the orders", async () => {
    const { engine, host, release } = await create();
    await engine.subscribe("events", null);
    await release();
    assert.deepEqual(host.gaps, []);
    await engine.close();
  });

  it("reports a gap in a channel that it was subscribed to before, unless that subscription has ended", async () => {
    const { engine, host, release, reconnect } = await create();
    await release();
    for (const channel of ["events", "ended", "again"]) await engine.subscribe(channel, null);
    await reconnect();
    for (const channel of ["ended", "again"]) engine.unsubscribe(channel);
    await engine.subscribe("again", null);
    await release();
    assert.deepEqual(host.gaps, ["events"]);
    await engine.close();
  });
});
