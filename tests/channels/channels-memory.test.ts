/** An empty channel costs nothing: what came and went is not on the heap any more. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { Channels } from "../../src/channels/channels.ts";
import { TestPeer } from "../support/channels-fixture.ts";
import { open } from "../support/fake-transport.ts";
import { heapUsed } from "../support/heap.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

const CHANNELS = 15_000;

/** Far below what one channel takes that is kept: with its history alone some 400 bytes. */
const MAX_GROWTH = CHANNELS * 60;

describe("Channels, 15,000 of them", () => {
  it("cost nothing once they came and went", { timeout: 300_000 }, async () => {
    const engine = new MemoryEngine();
    // Its sockets have no topics, which a test of those would keep.
    const { clock, controller, takeNames } = observe({ engine, rateLimit: false });
    const channels = new Channels(controller, {
      "*": {
        authorize: () => true,
        presence: { data: "client", grace: 1_000 },
        history: { size: 10, ttl: 5_000 },
        snapshot: () => "all",
      },
    });
    let names = 0;
    /** So many channels are subscribed to, published to, and left: by unsubscribe, a close, or a lost connection. */
    const pass = async (count: number) => {
      for (let first = 0; first < count; first += 100) {
        const identity = { accountability: { user: first % 300 === 0 ? null : `user ${first % 700}`, role: null } };
        const { connection, client, transport } = open(controller, { identity });
        const peer = new TestPeer(connection, client, transport);
        const all = Array.from({ length: 100 }, () => `channel:${++names}`);
        for (const [uid, channel] of all.entries()) peer.send({ type: "subscribe", channel, uid, presence: true, data: uid });
        await turn();
        for (const channel of all) void channels.publish(channel, "say", channel);
        await turn();
        if (first % 200 === 0) peer.send({ type: "unsubscribe" });
        await turn();
        peer.leave(first % 300 === 0);
        peer.transport.take();
        // Some are in their grace while the next ones come.
        clock.advance(100);
      }
      clock.advance(60_000);
      takeNames();
      clock.delays.length = 0;
    };
    await pass(5_000);
    const before = await heapUsed();
    await pass(CHANNELS);
    assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
    assert.deepEqual([engine.channels, engine.historyBytes, controller.stats().deadlines, clock.timers], [0, 0, 0, 0]);
    const growth = await heapUsed() - before;
    assert.ok(growth < MAX_GROWTH, `the heap has grown by ${growth} bytes`);
  });
});
