import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { TestClock } from "../support/test-clock.ts";
import { conformance, publish, range } from "./conformance.ts";
import { TestHost, type TestNode } from "./test-host.ts";

const LONG = { size: 100, ttl: 300_000 };

function start(engine = new MemoryEngine(), clock = new TestClock()) {
  const host = new TestHost(clock);
  engine.start(host);
  return { engine, host, clock, kill: () => {} };
}

conformance("memory", {
  nodes: 1,
  channels: 10_000,
  isVirtual: true,
  create() {
    const clock = new TestClock();
    const node = (): Promise<TestNode> => Promise.resolve(start(new MemoryEngine(), clock));
    return Promise.resolve({
      node,
      advance: (ms: number) => clock.advance(ms),
      forget: node,
      held: ({ engine }: TestNode) => (engine as MemoryEngine).channels, // As `node` made it.
      close: () => Promise.resolve(),
    });
  },
});

describe("MemoryEngine", () => {
  it("deletes publications of the least recently used channels when histories exceed maxHistoryBytes", async () => {
    const { engine } = start(new MemoryEngine({ maxHistoryBytes: 40_000 }));
    const data = JSON.stringify("x".repeat(4_000)); // Some 8 kB each.
    for (const channel of ["a", "b", "c", "d"]) await engine.publish(channel, { event: "say", data }, LONG);
    const used = engine.read("a", LONG, null, 1).position;
    await engine.publish("e", { event: "say", data }, LONG);
    assert.ok(engine.historyBytes <= 40_000);
    const sizes = Object.fromEntries(
      ["a", "b", "c", "d", "e"].map((c) => [c, engine.read(c, LONG, null, 9).publications.length]),
    );
    assert.deepEqual(sizes, { a: 1, b: 0, c: 1, d: 1, e: 1 });
    assert.equal(engine.read("a", LONG, used, 9).isComplete, true);
  });

  it("remembers 100,000 ids, refuses another one with LIMIT_EXCEEDED, and accepts it after they expire", async () => {
    const { engine, clock } = start();
    const once = (id: number) =>
      engine.publish("a", { event: "say", data: "1" }, null, {
        id: `${id}`,
        window: 60_000,
      });
    for (const id of range(100_000)) once(id);
    assert.throws(() => once(100_000), { code: "LIMIT_EXCEEDED" });
    assert.equal(once(0), null);
    await clock.advance(60_000);
    assert.equal(once(100_000), null);
  });

  it("never recovers across deleted publications", async () => {
    const { engine } = start(new MemoryEngine({ maxHistoryBytes: 20_000 }));
    engine.subscribe("a", LONG);
    const positions = await publish(engine, "a", LONG, 5);
    await engine.publish("b", { event: "say", data: JSON.stringify("x".repeat(9_900)) }, LONG);
    const page = engine.read("a", LONG, positions[0]!, 100);
    assert.deepEqual([page.isComplete, page.publications], [false, []]);
    // Subscribers continue in the same epoch.
    assert.deepEqual(page.position, positions.at(-1));
  });

  it("limits the number of channels without publications", () => {
    const { engine } = start(new MemoryEngine({ maxHistoryBytes: 200_000 }));
    for (const number of range(10_000)) engine.read(`empty:${number}`, LONG, null, 1);
    assert.ok(engine.historyBytes <= 200_000);
    assert.ok(engine.channels < 2_000, `${engine.channels} channels`);
  });

  it("counts no bytes, channels or timers when everything has expired", async () => {
    const { engine, clock } = start();
    await publish(engine, "a", { size: 10, ttl: 1_000 }, 20);
    assert.ok(engine.historyBytes > 0);
    clock.advance(20_000);
    assert.deepEqual([engine.historyBytes, engine.channels, clock.timers], [0, 0, 0]);
  });

  it("throws for a limit out of range", () => {
    for (const maxHistoryBytes of [0, -1, 1.5, NaN]) assert.throws(() => new MemoryEngine({ maxHistoryBytes }), TypeError);
  });
});
