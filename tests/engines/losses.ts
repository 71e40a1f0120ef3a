/**
 * What a store can lose, and what may be said then: the table {loss} × {live, recovering, new}, with nodes that were there and with
 * nodes that know nothing. A page is either all that was published since its position, or none of it and not complete.
 */
import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import type { Engine, HistoryOptions, Position } from "../../src/engines/engine.ts";
import { until } from "../support/waiting.ts";
import { publish, range } from "./conformance.ts";
import type { TestNode } from "./test-host.ts";

/**
 * - `all`: everything that was published; what configures the store stays.
 * - `tail`: the last publications.
 * - `older`: everything since the copy was made.
 * - `behind`: as `tail`, while the nodes stay connected or find another server by themselves.
 * - `channel`: everything of one channel.
 * - `evicted`: whatever the store gives up when it is full.
 * - `empty`: the store itself.
 */
export type Loss =
  | "all"
  | "tail"
  | "older"
  | "behind"
  | "channel"
  | "evicted"
  | "empty";

/** One store, and how it loses. */
export interface LossFixture {
  /** Resolves when the node is ready. */
  node(): Promise<TestNode>;
  /** Keeps a copy, where the loss needs one. */
  copy?(): Promise<void>;
  /** Loses; resolves when nodes can connect. */
  lose(channel: string): Promise<void>;
  close(): Promise<void>;
}

export interface LossFixtureOptions {
  skip?: string | false;
  /** Losses that the store can have. */
  losses: readonly Loss[];
  create(loss: Loss): Promise<LossFixture>;
}

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
const TIMEOUT = { timeout: 300_000 };

/** Publications before the copy, before the loss, and after it: offsets of after the loss pass those of before. */
const [COPIED, BEFORE, AFTER] = [4, 10, 30];

export function losses(name: string, { skip = false, losses, create }: LossFixtureOptions): void {
  // Each has a store of its own, and waits most of the time.
  describe(`The engine "${name}" over a store that loses`, { skip, concurrency: 4 }, () => {
    const open = async (t: TestContext, loss: Loss) => {
      const fixture = await create(loss);
      t.after(() => fixture.close(), TIMEOUT);
      return fixture;
    };

    for (const loss of losses) {
      /** Publishes up to the loss; where each publication stands, and before them where the channel began. */
      const begin = async (t: TestContext, channel: string) => {
        const fixture = await open(t, loss);
        const [live, publisher] = [await fixture.node(), await fixture.node()];
        const start = await live.engine.subscribe(channel, HISTORY);
        const positions = [start!, ...await publish(publisher.engine, channel, HISTORY, COPIED)];
        await fixture.copy?.();
        positions.push(...await publish(publisher.engine, channel, HISTORY, BEFORE - COPIED, COPIED));
        await live.host.until(() => live.host.publications(channel).length === BEFORE);
        return { fixture, live, publisher, positions };
      };

      it(`${loss}: a subscribed node receives each publication or a gap`, TIMEOUT, async (t) => {
        const { fixture, live, publisher, positions } = await begin(t, "room");
        await fixture.lose("room");
        await publishAll(publisher, "room");
        await live.host.until(() => coversAll(live, "room"));
        // It goes on without a gap.
        await publish(publisher.engine, "room", HISTORY, 3, BEFORE + AFTER);
        await live.host.until(() => live.host.data("room").at(-1) === BEFORE + AFTER + 2);
        assertGrowing(live.host.data("room") as number[]);
        for (const node of [live, publisher, await fixture.node()]) await assertWhole(node, "room", positions, AFTER + 3);
      });

      if (loss === "older" || loss === "behind") {
        it(
          `${loss}: members that have left since are gone`,
          TIMEOUT,
          async (t) => {
            const fixture = await open(t, loss);
            const [node, watcher] = [
              await fixture.node(),
              await fixture.node(),
            ];
            await watcher.engine.subscribe("room", null);
            for (const user of ["gone", "stays"]) {
              await node.engine.join("room", { user });
            }
            await watcher.host.until(() => "stays" in watcher.host.membersOf("room"));
            await fixture.copy?.();
            await node.engine.leave("room", "gone");
            await watcher.host.until(() => !("gone" in watcher.host.membersOf("room")));
            const { statuses } = node.host;
            statuses.length = 0;
            await fixture.lose("room");
            if (loss === "older") {
              await node.host.until(() => statuses.includes("ready"));
            }
            const other = await fixture.node();
            const names = async (engine: Engine) => {
              const members = await Promise.resolve(engine.members("room"))
                .catch(() => []); // It may be on its way back.
              return members.map(({ user }) => user).join();
            };
            for (const { engine } of [other, watcher]) {
              let listed = "";
              await until(async () => (listed = await names(engine)) === "stays", () => listed);
            }
            await node.host.until(() => node.engine.status === "ready");
          },
        );
      }

      it(
        `${loss}: nodes that know nothing of it recover all, or nothing`,
        TIMEOUT,
        async (t) => {
          const { fixture, live, publisher, positions } = await begin(t, "room");
          for (const node of [live, publisher]) await node.engine.close();
          await fixture.lose("room");
          const node = await fixture.node();
          // Nobody is left who knows that anything came after the copy: a position of the copy is good, and the copy is all there is.
          const known = ["tail", "older", "behind"].includes(loss) ? positions.slice(COPIED + 1) : positions;
          await assertWhole(node, "room", known, 0);
          await publish(node.engine, "room", HISTORY, AFTER, BEFORE);
          for (const each of [node, await fixture.node()]) {
            await assertWhole(each, "room", known, AFTER);
          }
        },
      );

      it(`${loss}: a new subscription starts at the end of the history, and recovers from there`, TIMEOUT, async (t) => {
        // While others know more, the next epoch may begin at any moment.
        const { fixture, live, publisher } = await begin(t, "room");
        for (const node of [live, publisher]) await node.engine.close();
        await fixture.lose("room");
        const node = await fixture.node();
        const start = await node.engine.subscribe("room", HISTORY);
        const positions = await publish(node.engine, "room", HISTORY, 5, 100);
        await node.host.until(() => node.host.publications("room").length >= 5);
        assert.deepEqual([node.host.data("room"), node.host.gaps], [range(5).map((number) => 100 + number), []]);
        const page = await node.engine.read("room", HISTORY, start, 100);
        assert.deepEqual([page.isComplete, page.publications.length, page.position], [true, 5, positions.at(-1)]);
      });
    }
  });
}

/** Publishes what comes after the loss, one by one: what the engine refuses meanwhile is published again. */
async function publishAll({ engine, host }: TestNode, channel: string): Promise<void> {
  for (const number of range(AFTER)) {
    for (;;) {
      await host.until(() => engine.status === "ready");
      try {
        await publish(engine, channel, HISTORY, 1, BEFORE + number);
        break;
      } catch (error) {
        assert.equal((error as { code?: string }).code, "ENGINE_UNAVAILABLE");
        // It may say so before its status does.
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }
}

/** Whether the node has been told of all that came after the loss, or of a gap since it was told of the last one. */
function coversAll({ host }: TestNode, channel: string): boolean {
  const told = host.data(channel) as number[];
  if (told.at(-1) === BEFORE + AFTER - 1 && new Set(told).size === BEFORE + AFTER) return true;
  const gap = host.gapsOf(channel).at(-1);
  // What is told after the last gap goes on without one up to the end.
  return gap !== undefined && (gap.told === told.length || told.at(-1) === BEFORE + AFTER - 1) &&
    isConsecutive(told.slice(gap.told));
}

const isConsecutive = (told: readonly number[]): boolean =>
  told.every((number, place) => place === 0 || number === told[place - 1]! + 1);

function assertGrowing(told: readonly number[]): void {
  assert.deepEqual(told, [...new Set(told)].sort((one, other) => one - other));
}

/** From each position of before: all that was published since, or nothing. */
async function assertWhole({ engine }: TestNode, channel: string, positions: readonly Position[], after: number): Promise<void> {
  for (const [number, position] of positions.entries()) {
    const seen = BEFORE + 1 - positions.length + number;
    const page = await engine.read(channel, HISTORY, position, 100);
    const expected = page.isComplete ? range(BEFORE + after).slice(seen) : [];
    assert.deepEqual(
      page.publications.map(({ data }) => JSON.parse(data)),
      expected,
      `${seen} seen, at ${JSON.stringify(position)}`,
    );
  }
}
