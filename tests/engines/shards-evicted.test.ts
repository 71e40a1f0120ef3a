/** Deliveries of shards when an object is evicted at any of their calls. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RelayEngine } from "../../src/engines/shards/relay-engine.ts";
import { range } from "./conformance.ts";
import { HOME, ShardedObjects } from "./sharded-objects.ts";
import { noSqlite } from "./sqlite.ts";
import { turn } from "../support/waiting.ts";

const LONG = { size: 100, ttl: 300_000 };
const RELAYS = range(12).map((number) => `${HOME}#${number}`);
const COUNT = 8;

/** What the clients of each relay have received, and how often objects have called each other. */
interface Run {
  readonly received: ReadonlyMap<string, number[]>;
  readonly calls: number;
}

/** Publishes to all relays. @param evicted which object stops at a call, by the number of the call; `undefined`: none */
async function run(evicted: (call: number, name: string, phase: "before" | "after") => string | undefined): Promise<Run> {
  const objects = new ShardedObjects();
  const received = new Map<string, number[]>(RELAYS.map((name) => [name, []]));
  objects.onStart = (name, engine, host) => {
    const numbers = received.get(name);
    if (!(engine instanceof RelayEngine) || !numbers) return;
    host.published = (_channel, { data }) => void (objects.isRunning(name, engine) && numbers.push(Number(data)));
    // Clients would recover a gap from the history. This test counts it as a failure.
    host.gap = () => numbers.push(NaN);
    Promise.resolve(engine.subscribe("room", LONG)).catch(() => {});
  };
  for (const name of RELAYS) await (objects.start(name).engine as RelayEngine).nodes();
  let [calls, isOver] = [0, false];
  objects.onCall = (name, phase) => {
    const victim = evicted(phase === "before" ? ++calls : calls, name, phase);
    if (victim === undefined) return;
    objects.evict(victim);
    // Its alarm.
    if (victim === HOME) setTimeout(() => isOver || objects.start(HOME), 0);
  };
  for (const number of range(COUNT)) {
    const publish = () =>
      objects.start(number % 2 ? HOME : RELAYS[number % RELAYS.length]!).engine.publish(
        "room",
        { event: "say", data: `${number}` },
        LONG,
        { id: `${number}`, window: 300_000 },
      );
    for (let isDone = false; !isDone;) {
      try {
        await publish();
        isDone = true;
      } catch {
        await turn(); // It has stopped: published again.
      }
    }
  }
  while ([...received.values()].some((numbers) => new Set(numbers).size < COUNT)) await turn();
  isOver = true;
  objects.stop();
  return { received, calls };
}

function assertWhole({ received }: Run, what: string): void {
  for (const [name, numbers] of received) assert.deepEqual(numbers, range(COUNT), `${name}, ${what}`);
}

describe("Shards", { skip: noSqlite, timeout: 300_000 }, () => {
  for (const phase of ["before", "after"] as const) {
    it(`deliver each publication once and in order when an object is evicted ${phase} any of its calls`, async () => {
      const whole = await run(() => undefined);
      assertWhole(whole, "undisturbed");
      for (const call of range(Math.min(whole.calls, 25))) {
        const what = `evicted ${phase} call ${call + 1}`;
        assertWhole(await run((number, name, at) => number === call + 1 && at === phase ? name : undefined), what);
      }
    });
  }

  it("deliver each publication once and in order when the home object is evicted at any call of a relay", async () => {
    for (const call of range(12)) {
      assertWhole(
        await run((number, _name, at) => number === call + 1 && at === "before" ? HOME : undefined),
        `call ${call + 1}`,
      );
    }
  });

  // A relay that stops during a call delivers again what it had not stored.
  it("deliver every publication when objects are evicted again and again", async () => {
    for (const every of [2, 3, 5, 7]) {
      const victims = [HOME, ...RELAYS];
      const { received } = await run((number, _name, at) =>
        at === "before" && number % every === 0 && number < 200 ? victims[number % victims.length] : undefined
      );
      for (const [name, numbers] of received) {
        const what = `${name}, every ${every} calls`;
        assert.deepEqual([...new Set(numbers)], range(COUNT), what);
        for (const [place, number] of numbers.entries()) assert.ok(number <= 1 + Math.max(-1, ...numbers.slice(0, place)), what);
      }
    }
  });
});
