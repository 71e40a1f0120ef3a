/**
 * What every engine must do, tested through its interface alone: the engine in memory and those over a broker all pass it.
 * Real brokers run in real time: a test waits for an event and never expects it by a given moment.
 */
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { after, before, describe, it } from "node:test";
import { clearInterval, setInterval } from "node:timers";
import type {
  Engine,
  HistoryOptions,
  HistoryPage,
  Member,
  Position,
  Publication,
  PublishOnce,
} from "../../src/engines/engine.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { positionCases } from "./positions.ts";
import type { TestNode } from "./test-host.ts";
import { until } from "../support/waiting.ts";

/** Engines of one namespace, with controls that only a test needs. */
export interface EngineFixture {
  /** Starts one more node, or the only one, and resolves when its engine is ready. */
  node(): Promise<TestNode>;
  /** Lets time pass, on the broker's clock too. */
  advance(ms: number): void | Promise<void>;
  /** Loses all histories, as the restart of an in-memory store does; resolves with a node that uses the new store. */
  forget(): Promise<TestNode>;
  /** Resolves when all nodes have applied every change so far, for an engine that keeps members in each node. @default at once */
  settle?(): Promise<void>;
  /** The number of channels that the node holds state of. */
  held(node: TestNode): number | Promise<number>;
  close(): Promise<void>;
}

/** How an engine is made for the suite. */
export interface EngineFixtureOptions {
  /** How many nodes it connects; with 1, tests that need another node are skipped. */
  nodes: number;
  /** Whether it keeps histories; otherwise tests of histories are skipped, and the others run without one. @default {true} */
  histories?: boolean;
  /** How many channels the test of released state uses. @default {500} */
  channels?: number;
  /** Whether only the test advances time; otherwise tests that wait run concurrently. @default {false} */
  isVirtual?: boolean;
  /** Why the suite cannot run here. */
  skip?: string | false;
  create(): Promise<EngineFixture>;
}

/** Longer than any test. */
const LONG: HistoryOptions = { size: 100, ttl: 300_000 };

const TIMEOUT = 300_000;

export function conformance(name: string, options: EngineFixtureOptions): void {
  const { nodes, skip = false, histories = true, channels = 500, isVirtual = false } = options;
  const alone = { timeout: TIMEOUT };
  const joined = { timeout: TIMEOUT, skip: nodes < 2 && "it joins no nodes" };
  const keeping = { timeout: TIMEOUT, skip: !histories && "it keeps no histories" };
  /** For tests that work with or without a history. */
  const ANY = histories ? LONG : null;

  describe(`The engine "${name}"`, { skip }, () => {
    let fixture: EngineFixture;
    let a: TestNode;
    let b: TestNode;
    let names = 0;
    /** A channel of its own for each test. */
    const channelOf = (text = "room") => `${text}:${++names}`;

    before(async () => {
      fixture = await options.create();
      a = await fixture.node();
      b = nodes > 1 ? await fixture.node() : a;
    }, { timeout: TIMEOUT });
    after(() => fixture?.close(), { timeout: TIMEOUT });

    describe("publish and subscribe", () => {
      it("delivers each publication once, in order, with its position in the history", keeping, async () => {
        const channel = channelOf();
        const start = await a.engine.subscribe(channel, LONG);
        const positions = await publish(b.engine, channel, LONG, 50);
        await a.host.until(() => a.host.publications(channel).length >= 50);
        assert.deepEqual(a.host.data(channel), range(50));
        assert.deepEqual(a.host.publications(channel).map(({ position }) => position), positions);
        assertGrowing([start!, ...positions]);
      });

      it(
        "delivers publications to all nodes in one order, which keeps the order of each publisher",
        nodes > 1 ? keeping : joined,
        async () => {
          const channel = channelOf();
          // More than is published: a node that polls the history before everything is delivered reads the rest from there.
          const history = { ...LONG, size: 300 };
          await Promise.all(
            [a, b].map(({ engine }) => engine.subscribe(channel, history)),
          );
          await Promise.all(
            [a, b].flatMap(({ engine }, node) =>
              range(100).map((number) =>
                engine.publish(channel, {
                  event: "say",
                  data: JSON.stringify([node, number]),
                }, history)
              )
            ),
          );
          for (const { host } of [a, b]) {
            await host.until(() => host.publications(channel).length >= 200);
          }
          assert.deepEqual(
            a.host.publications(channel).map(plain),
            b.host.publications(channel).map(plain),
          );
          assertGrowing(
            a.host.publications(channel).map(({ position }) => position!),
          );
          for (const node of [0, 1]) {
            const own = a.host.data(channel).filter((data) => (data as number[])[0] === node);
            assert.deepEqual(own, range(100).map((number) => [node, number]));
          }
        },
      );

      it("neither loses nor repeats a publication that is made while the node subscribes", keeping, async () => {
        const channel = channelOf();
        const publishing = publish(b.engine, channel, LONG, 60);
        const start = await a.engine.subscribe(channel, LONG);
        const positions = await publishing;
        const missed = positions.filter(({ offset }) => offset > start!.offset);
        await a.host.until(() => a.host.publications(channel).length >= missed.length);
        assert.deepEqual(a.host.publications(channel).map(({ position }) => position), missed);
      });

      it("returns no position for a channel without a history", alone, async () => {
        const channel = channelOf();
        for (const { engine } of new Set([a, b])) {
          assert.equal(await engine.subscribe(channel, null), null);
        }
        for (const data of range(20)) {
          assert.equal(await a.engine.publish(channel, { event: "say", data: `${data}` }, null), null);
        }
        for (const { host } of [a, b]) {
          await host.until(() => host.publications(channel).length >= 20);
          assert.deepEqual(
            host.publications(channel).map(plain),
            range(20).map((data) => ({ event: "say", data: `${data}`, position: null })),
          );
        }
      });

      it(
        "delivers nothing from a channel without a subscription, or after unsubscribe",
        alone,
        async () => {
          const [gone, other, fence] = [channelOf(), channelOf(), channelOf()];
          await a.engine.subscribe(gone, ANY);
          await a.engine.subscribe(fence, ANY);
          a.engine.unsubscribe(gone);
          for (const channel of [gone, other, fence]) {
            await publish(b.engine, channel, ANY, 1);
          }
          await a.host.until(() => a.host.publications(fence).length > 0);
          assert.deepEqual([
            a.host.publications(gone),
            a.host.publications(other),
          ], [[], []]);
        },
      );

      it("subscribes again after unsubscribe, from the current position of the channel", keeping, async () => {
        const channel = channelOf();
        await a.engine.subscribe(channel, LONG);
        a.engine.unsubscribe(channel);
        const [missed] = await publish(b.engine, channel, LONG, 1);
        assert.deepEqual(await a.engine.subscribe(channel, LONG), missed);
        // Once more, in one turn.
        a.engine.unsubscribe(channel);
        assert.deepEqual(await a.engine.subscribe(channel, LONG), missed);
        await publish(b.engine, channel, LONG, 2);
        await a.host.until(() => a.host.publications(channel).length >= 2);
        assert.deepEqual(a.host.data(channel), [0, 1]);
      });

      it(
        "delivers nothing when the node unsubscribes before its subscribe has resolved",
        alone,
        async () => {
          const [channel, fence] = [channelOf(), channelOf()];
          const subscribing = Promise.resolve(a.engine.subscribe(channel, ANY))
            .catch(() => null);
          a.engine.unsubscribe(channel);
          await subscribing;
          await a.engine.subscribe(fence, ANY);
          for (const each of [channel, fence]) {
            await publish(b.engine, each, ANY, 1);
          }
          await a.host.until(() => a.host.publications(fence).length > 0);
          assert.deepEqual(a.host.publications(channel), []);
        },
      );

      it("keeps channels separate, whatever their names", alone, async () => {
        const long = "x".repeat(255);
        const all = [
          "a",
          "A",
          "a.b",
          "a/b",
          "a:b",
          "a=b",
          "a+b",
          "a@b",
          "a~b",
          "a-b",
          "a_b",
          ".",
          "..",
          "a.",
          "=2E",
          "=",
          "~",
          long,
        ];
        for (const channel of all) {
          await a.engine.subscribe(channel, ANY);
        }
        for (const channel of all) {
          await b.engine.publish(channel, {
            event: "say",
            data: JSON.stringify(channel),
          }, ANY);
        }
        for (const channel of all) {
          await a.host.until(() => a.host.publications(channel).length > 0);
          assert.deepEqual(a.host.data(channel), [channel]);
          if (ANY) {
            assert.deepEqual(
              (await b.engine.read(channel, ANY, null, 10)).publications.map(
                dataOf,
              ),
              [channel],
            );
          }
        }
      });

      it("delivers and stores event and data unchanged", alone, async () => {
        const channel = channelOf();
        const all = [
          "null",
          '"狼煙 🔥 \\n \\u0000 \\" \u2028"',
          "[1, 2]",
          ` { "spaced" : true }`,
          JSON.stringify("x".repeat(200_000)),
        ];
        await a.engine.subscribe(channel, ANY);
        for (const data of all) {
          await b.engine.publish(channel, { event: 'a:b "c"', data }, ANY);
        }
        await a.host.until(() => a.host.publications(channel).length >= all.length);
        assert.deepEqual(
          a.host.publications(channel).map(({ event, data }) => [event, data]),
          all.map((data) => ['a:b "c"', data]),
        );
        if (!ANY) return;
        const { publications } = await a.engine.read(channel, ANY, null, 10);
        assert.deepEqual(publications.map(plain), a.host.publications(channel).map(plain));
      });
    });

    describe("a publication with an id", () => {
      const say = (
        engine: Engine,
        channel: string,
        data: number,
        history: HistoryOptions | null,
        once: PublishOnce,
      ) =>
        engine.publish(
          channel,
          { event: "say", data: `${data}` },
          history,
          once,
        );

      /** Without a shared store, a node may deliver a repeat in place of the first publication. */
      const other = histories ? 9 : 0;

      for (const history of histories ? [LONG, null] : [null]) {
        const of = history ? "with a history" : "without a history";

        it(
          `is published once and has one position, in a channel ${of}`,
          alone,
          async () => {
            const channel = channelOf();
            const once = { id: "one", window: 300_000 };
            for (const { engine } of new Set([a, b])) {
              await engine.subscribe(channel, history);
            }
            const first = await say(a.engine, channel, 0, history, once);
            assert.equal(first === null, history === null);
            await publish(a.engine, channel, history, 3, 1);
            for (const { engine } of [a, b, a]) {
              assert.deepEqual(
                await say(engine, channel, other, history, once),
                first,
              );
            }
            await publish(a.engine, channel, history, 1, 4);
            for (const { host } of [a, b]) {
              await host.until(() => host.data(channel).includes(4));
              assert.deepEqual(host.data(channel).sort(), range(5));
            }
            if (!history) return;
            const page = await b.engine.read(channel, history, null, 100);
            assert.deepEqual(page.publications.map(dataOf), range(5));
            assert.deepEqual(
              (await b.engine.read(channel, history, first, 100)).publications
                .map(dataOf),
              range(5).slice(1),
            );
          },
        );

        it(
          `is published once when it is published many times at once, in a channel ${of}`,
          alone,
          async () => {
            const channel = channelOf();
            const once = { id: "same", window: 300_000 };
            for (const { engine } of new Set([a, b])) {
              await engine.subscribe(channel, history);
            }
            const positions = await Promise.all(
              range(20).map((number) => say((number % 2 ? a : b).engine, channel, 0, history, once)),
            );
            assert.equal(
              new Set(positions.map((position) => JSON.stringify(position)))
                .size,
              1,
            );
            await publish(a.engine, channel, history, 1, 1);
            for (const { host } of [a, b]) {
              await host.until(() => host.data(channel).includes(1) && host.data(channel).includes(0));
              assert.deepEqual(host.data(channel).sort(), [0, 1]);
            }
          },
        );

        it(
          `does not block another id, or the same id in another channel, ${of}`,
          alone,
          async () => {
            const [channel, other] = [channelOf(), channelOf()];
            await a.engine.subscribe(channel, history);
            await a.engine.subscribe(other, history);
            const ids = [
              "one",
              "two",
              "One",
              "one ",
              "o.ne",
              "",
              "狼煙",
              "x".repeat(400),
            ];
            for (const [number, id] of ids.entries()) {
              await say(b.engine, channel, number, history, {
                id,
                window: 300_000,
              });
            }
            await say(b.engine, other, 1, history, {
              id: "one",
              window: 300_000,
            });
            await a.host.until(() =>
              a.host.data(channel).length >= ids.length &&
              a.host.data(other).length >= 1
            );
            assert.deepEqual(
              [a.host.data(channel).sort(), a.host.data(other)],
              [range(ids.length), [1]],
            );
          },
        );
      }

      it(
        "keeps its position after the history has dropped it",
        keeping,
        async () => {
          const channel = channelOf();
          const history = { size: 2, ttl: LONG.ttl };
          const once = { id: "dropped", window: 300_000 };
          const first = await say(a.engine, channel, 0, history, once);
          await publish(a.engine, channel, history, 5, 1);
          assert.deepEqual(
            await say(b.engine, channel, 0, history, once),
            first,
          );
          assert.deepEqual(
            (await b.engine.read(channel, history, null, 100)).publications.map(
              dataOf,
            ),
            [4, 5],
          );
        },
      );
    });

    describe("answers", () => {
      it(
        "are claimed once, settled, and the same on every node",
        alone,
        async (t) => {
          if (!a.engine.answers) return t.skip("it stores no answers");
          const key = JSON.stringify([
            "mika",
            "say",
            `狼煙 ${"x".repeat(300)} ${channelOf()}`,
          ]);
          const claims = await Promise.all(
            range(10).map((n) => (n % 2 ? a : b).engine.answers!.claim(key, `claim ${n}`, 300_000)),
          );
          const [first, ...others] = claims.map((claim, n) => [claim, n] as const).filter(([claim]) => claim === null);
          assert.deepEqual(others, []);
          for (const { engine } of [a, b]) {
            assert.equal(
              await engine.answers!.claim(key, "late", 300_000),
              `claim ${first![1]}`,
            );
          }
          await b.engine.answers!.settle(key, '{"data":1}\n', 300_000);
          for (const { engine } of [a, b]) {
            assert.equal(
              await engine.answers!.claim(key, "late", 300_000),
              '{"data":1}\n',
            );
          }
          assert.equal(
            await a.engine.answers!.claim(`${key}.`, "other", 300_000),
            null,
          );
        },
      );
    });

    describe("the history", { skip: keeping.skip }, () => {
      it("contains a publication by the time it is delivered", alone, async () => {
        const channel = channelOf();
        await a.engine.subscribe(channel, LONG);
        const read: Promise<HistoryPage>[] = [];
        const looked = a.host.until(() => {
          const publications = a.host.publications(channel);
          for (const { position } of publications.slice(read.length)) {
            read.push(Promise.resolve(a.engine.read(channel, LONG, position, 100)));
          }
          return read.length >= 10;
        });
        await publish(b.engine, channel, LONG, 10);
        await looked;
        for (const [number, page] of (await Promise.all(read)).entries()) {
          assert.equal(page.isComplete, true);
          // The page has the publications so far, without those that the listener has received.
          assert.deepEqual(page.publications.map(dataOf), range(10).slice(number + 1, number + 1 + page.publications.length));
        }
      });

      it("contains a publication at its position when publish has resolved", alone, async () => {
        const channel = channelOf();
        for (const number of range(5)) {
          const position = await a.engine.publish(channel, { event: "say", data: `${number}` }, LONG);
          const page = await b.engine.read(channel, LONG, null, 1);
          assert.deepEqual([page.position, page.isComplete], [position, true]);
          assert.deepEqual(page.publications.map(plain), [{ event: "say", data: `${number}`, position }]);
        }
      });

      it("returns the newest publications, up to the limit, when no position is given", alone, async () => {
        const channel = channelOf();
        await publish(a.engine, channel, LONG, 5);
        for (const [limit, expected] of [[0, []], [2, [3, 4]], [5, range(5)], [100, range(5)]] as const) {
          const page = await b.engine.read(channel, LONG, null, limit);
          assert.deepEqual(page.publications.map(dataOf), expected);
          assert.equal(page.isComplete, true);
        }
      });

      it("keeps no more publications than its size", alone, async () => {
        const channel = channelOf();
        const history = { size: 3, ttl: LONG.ttl };
        await publish(a.engine, channel, history, 10);
        assert.deepEqual((await b.engine.read(channel, history, null, 100)).publications.map(dataOf), [7, 8, 9]);
      });

      it("has the same position on all nodes, even before the first publication", alone, async () => {
        const channel = channelOf();
        const position = await a.engine.subscribe(channel, LONG);
        assert.ok(position && typeof position.epoch === "string" && position.epoch !== "" && position.offset >= 0);
        assert.deepEqual((await b.engine.read(channel, LONG, null, 1)).position, position);
        assert.deepEqual(await a.engine.read(channel, LONG, position, 1), { position, publications: [], isComplete: true });
      });
    });

    describe("recovery", { skip: keeping.skip }, () => {
      for (const { title, size, limit, place, publications, isComplete } of positionCases()) {
        it(title, alone, async () => {
          const channel = channelOf();
          const history = { size, ttl: LONG.ttl };
          const fresh = await a.engine.subscribe(channel, history);
          const positions = [fresh!, ...await publish(b.engine, channel, history, 6)];
          const page = await b.engine.read(channel, history, place(positions), limit);
          assert.deepEqual(page.position, positions.at(-1));
          assert.equal(page.isComplete, isComplete);
          assert.deepEqual(page.publications.map(dataOf), publications);
        });
      }

      // As in a rolling deploy, where the new version declares a history that the old one does not.
      it("is incomplete across a publication of a node that declares no history", nodes > 1 ? keeping : joined, async () => {
        for (const isSubscribed of [true, false]) {
          const channel = channelOf();
          const start = isSubscribed
            ? await a.engine.subscribe(channel, LONG)
            : (await a.engine.read(channel, LONG, null, 0)).position;
          const positions = [start!];
          for (const number of range(10)) {
            // Twice by the same node, too.
            const isOld = [0, 2, 3, 7].includes(number);
            const [position] = await publish(
              (isOld ? b : a).engine,
              channel,
              isOld ? null : LONG,
              1,
              number,
            ) as (Position | null)[];
            positions.push(position ?? positions.at(-1)!);
            for (const node of [a, b]) {
              const { isComplete, publications } = await node.engine.read(channel, LONG, positions[number]!, 100);
              const data = publications.map(({ data }) => JSON.parse(data));
              assert.deepEqual(data, isComplete ? [number] : [], `${number} was published last`);
              assert.equal(isComplete && isOld, false, `${number} is in no history`);
            }
            // It ends what the node has received by then.
            if (isOld && isSubscribed) await a.host.until(() => a.host.data(channel).includes(number));
          }
          for (const [seen, position] of positions.entries()) {
            const { isComplete, publications, position: { epoch } } = await b.engine.read(channel, LONG, position, 100);
            // If the node reads the next history before it receives the publication that is in none, it ends that history, too.
            const isEndedLate = isSubscribed && epoch !== position.epoch;
            assert.equal(isComplete, seen >= 9 && !isEndedLate, `${seen} seen`);
            assert.deepEqual(publications.map(({ data }) => JSON.parse(data)), isComplete ? range(10).slice(seen) : []);
          }
          if (!isSubscribed) continue;
          await a.host.until(() => a.host.gapsOf(channel).length > 0);
          a.engine.unsubscribe(channel);
        }
      });

      it(
        "is incomplete across such a publication in a new history without subscribers",
        nodes > 1 ? keeping : joined,
        async () => {
          const channel = channelOf();
          await publish(b.engine, channel, null, 5);
          await a.engine.subscribe(channel, LONG);
          const [position] = await publish(a.engine, channel, LONG, 1, 6);
          a.engine.unsubscribe(channel);
          await publish(b.engine, channel, null, 1, 7);
          await publish(a.engine, channel, LONG, 1, 8);
          for (const { engine } of [a, b]) {
            const { isComplete, publications } = await engine.read(channel, LONG, position!, 100);
            assert.deepEqual([isComplete, publications], [false, []]);
          }
        },
      );

      it("refuses a position of another channel, with an unknown epoch or with an invalid offset", alone, async () => {
        const [channel, other] = [channelOf(), channelOf()];
        const [, elsewhere] = await publish(a.engine, other, LONG, 2);
        const [, , top] = await publish(a.engine, channel, LONG, 3);
        const { epoch } = top!;
        const odd: Position[] = [elsewhere!, { epoch: "", offset: 1 }, { epoch: `${epoch}x`, offset: top!.offset }];
        for (const offset of [-1, 0.5, top!.offset + 0.5, NaN, Infinity, 2 ** 53, 1e300]) odd.push({ epoch, offset });
        for (const position of odd) {
          const page = await b.engine.read(channel, LONG, position, 100);
          // An engine may count offsets across all channels: then another channel's position is valid, between two of this one.
          if (position === elsewhere && page.isComplete) continue;
          assert.deepEqual([page.isComplete, page.publications], [false, []], JSON.stringify(position));
          assert.deepEqual(page.position, top);
        }
      });

      describe("in pages limited by bytes", () => {
        /** Publishes data of these sizes, in bytes, each with its number. */
        const append = (channel: string, sizes: readonly number[], history: HistoryOptions) =>
          Promise.all(sizes.map((size, number) => {
            const data = JSON.stringify(`${number} ${"x".repeat(size)}`);
            return a.engine.publish(channel, { event: "say", data }, history) as Promise<Position>; // As of one with a history.
          }));

        /** All pages from a position on. */
        const pagesFrom = async (channel: string, history: HistoryOptions, start: Position, limit: number, maxBytes: number) => {
          const pages: HistoryPage[] = [];
          let position = start;
          for (let most = limit;; most = Infinity) {
            const page = await b.engine.read(channel, history, position, most, maxBytes);
            pages.push(page);
            if (!page.hasMore) return pages;
            position = page.publications.at(-1)!.position!;
            assert.ok(pages.length < 200, "each page gets on");
          }
        };

        const numbersOf = ({ publications }: HistoryPage) => publications.map(({ data }) => parseInt(JSON.parse(data), 10));

        const TABLE: Record<string, readonly number[]> = {
          "many small publications": Array.from({ length: 90 }, () => 100),
          "large publications": Array.from({ length: 12 }, () => 60_000),
          "publications larger than a page": Array.from({ length: 4 }, () => 300_000),
          "a large publication among small ones": [10, 10, 300_000, 10, 10, 10],
          "a large publication first, and a large one last": [300_000, 10, 10, 300_000],
        };
        for (const [title, sizes] of Object.entries(TABLE)) {
          it(`returns ${title}, once and in order, in pages of a limited size`, alone, async () => {
            const channel = channelOf();
            const start = await a.engine.subscribe(channel, LONG);
            const positions = await append(channel, sizes, LONG);
            for (const maxBytes of [1, 5_000, 131_072]) {
              for (const first of [0, 1, sizes.length - 1]) {
                const after = first === 0 ? start! : positions[first - 1]!;
                const pages = await pagesFrom(channel, LONG, after, sizes.length, maxBytes);
                assert.deepEqual(pages.flatMap(numbersOf), range(sizes.length).slice(first));
                for (const { isComplete, position, publications } of pages) {
                  assert.deepEqual([isComplete, position], [true, positions.at(-1)]);
                  // A page may be half empty when the next one has no room.
                  const bytes = publications.slice(0, -1).reduce((sum, { data }) => sum + data.length, 0);
                  assert.ok(bytes <= maxBytes, `${bytes} bytes before the last one of a page of ${maxBytes}`);
                }
              }
            }
          });
        }

        it("refuses more publications than the limit, even if the first page would hold fewer", alone, async () => {
          const channel = channelOf();
          const start = await a.engine.subscribe(channel, LONG);
          const positions = await append(channel, Array.from({ length: 10 }, () => 1_000), LONG);
          const page = await b.engine.read(channel, LONG, start, 9, 2_000);
          assert.deepEqual(page, { position: positions.at(-1)!, publications: [], isComplete: false });
          assert.equal((await b.engine.read(channel, LONG, positions[0]!, 9, 2_000)).isComplete, true);
        });

        it("includes later publications in the next pages, and refuses a page that has lost one", alone, async () => {
          const channel = channelOf();
          const history = { size: 4, ttl: LONG.ttl };
          const start = await a.engine.subscribe(channel, history);
          await append(channel, [9_000, 9_000, 9_000, 9_000], history);
          const page = await b.engine.read(channel, history, start, 4, 10_000);
          assert.deepEqual([page.isComplete, numbersOf(page), page.hasMore], [true, [0], true]);
          const next = page.publications.at(-1)!.position!;
          const [top] = await publish(a.engine, channel, history, 1, 4);
          const pages = await pagesFrom(channel, history, next, Infinity, 10_000);
          assert.deepEqual([pages.flatMap(({ publications }) => publications).length, pages.at(-1)!.position], [4, top]);
          await publish(a.engine, channel, history, 1, 5);
          const gone = await b.engine.read(channel, history, next, Infinity, 10_000);
          assert.deepEqual([gone.isComplete, gone.publications, gone.hasMore ?? false], [false, [], false]);
        });
      });
    });

    describe("members", () => {
      /** Runs the test again if the machine stood still: the members of a node whose lease is over are missing until it runs. */
      const whileLeased = (name: string, options: object, run: () => Promise<void>) =>
        void it(name, options, () => within(LEASE, run));

      it("reports to subscribed nodes when members join, change and leave", alone, async () => {
        const channel = channelOf();
        await b.engine.subscribe(channel, null);
        assert.deepEqual(await b.engine.members(channel), []);
        await a.engine.join(channel, { user: "mika" });
        await a.engine.join(channel, { user: "yuki", data: '{"color":"red"}' });
        await b.host.until(() => "yuki" in b.host.membersOf(channel));
        assert.deepEqual(byUser(await b.engine.members(channel)), [{ user: "mika" }, { user: "yuki", data: '{"color":"red"}' }]);
        await a.engine.join(channel, { user: "yuki", data: '{"color":"blue"}' });
        await b.host.until(() => b.host.membersOf(channel)["yuki"] === '{"color":"blue"}');
        await a.engine.leave(channel, "mika");
        await b.host.until(() => !("mika" in b.host.membersOf(channel)));
        assert.deepEqual(b.host.membersOf(channel), { yuki: '{"color":"blue"}' });
        assert.deepEqual(await b.engine.members(channel), [{ user: "yuki", data: '{"color":"blue"}' }]);
        await a.engine.leave(channel, "yuki");
        await b.host.until(() => !("yuki" in b.host.membersOf(channel)));
        assert.deepEqual(await a.engine.members(channel), []);
      });

      whileLeased("keeps members separate by channel and user, whatever their names", alone, async () => {
        const [channel, other] = [channelOf(), channelOf()];
        const users = ["a", "A", "uid:1", "a b", "*", ">", "a.b", "狼煙", '"', "{}", "x".repeat(200)];
        for (const user of users) await a.engine.join(channel, { user });
        await a.engine.join(other, { user: "else" });
        await fixture.settle?.();
        assert.deepEqual(byUser(await b.engine.members(channel)), byUser(users.map((user) => ({ user }))));
        for (const user of users) await a.engine.leave(channel, user);
        await a.engine.leave(channel, "never here");
        await fixture.settle?.();
        assert.deepEqual(await b.engine.members(channel), []);
        await a.engine.leave(other, "else");
      });

      whileLeased(
        "lists a member once any node has reported its join, until any node has reported its leave",
        joined,
        async () => {
          const channel = channelOf();
          await a.engine.subscribe(channel, null);
          for (const user of range(50).map(String)) {
            const joining = b.engine.join(channel, { user });
            await a.host.until(() => user in a.host.membersOf(channel));
            assert.deepEqual(await b.engine.members(channel), [{ user }]);
            await joining;
            const leaving = b.engine.leave(channel, user);
            await a.host.until(() => !(user in a.host.membersOf(channel)));
            assert.deepEqual(await b.engine.members(channel), []);
            await leaving;
          }
        },
      );

      it("keeps a member until it has left on every node", joined, async () => {
        const channel = channelOf();
        await a.engine.subscribe(channel, null);
        for (const { engine } of [a, b]) {
          await engine.join(channel, { user: "mika" });
        }
        await a.engine.leave(channel, "mika");
        // When the next join is reported, the leave would have been, too.
        await b.engine.join(channel, { user: "yuki" });
        await a.host.until(() => "yuki" in a.host.membersOf(channel));
        assert.deepEqual(Object.keys(a.host.membersOf(channel)).sort(), ["mika", "yuki"]);
        assert.deepEqual(byUser(await a.engine.members(channel)), [{ user: "mika" }, { user: "yuki" }]);
        await b.engine.leave(channel, "mika");
        await a.host.until(() => !("mika" in a.host.membersOf(channel)));
        await b.engine.leave(channel, "yuki");
      });

      it(
        "uses the newest data of a member on any node, and the older data of another node once the newest has left",
        joined,
        async () => {
          const channel = channelOf();
          const data = (value: unknown) => JSON.stringify({ typing: value });
          const told = async (value: unknown) => {
            for (const { host } of [a, b]) {
              await host.until(() => host.membersOf(channel)["mika"] === data(value));
            }
            for (const { engine } of [a, b]) {
              assert.deepEqual(await engine.members(channel), [{
                user: "mika",
                data: data(value),
              }]);
            }
          };
          for (const { engine } of [a, b]) {
            await engine.subscribe(
              channel,
              null,
            );
          }
          const older = { user: "mika", data: data("older") };
          await a.engine.join(channel, older);
          // The other node has received this join before the next one.
          await b.host.until(() => "mika" in b.host.membersOf(channel));
          await b.engine.join(channel, { user: "mika", data: data("newer") });
          await told("newer");
          // A repeated join, as after a reconnect to the broker, makes its data no newer.
          await a.engine.join(channel, older);
          await b.engine.join(channel, { user: "yuki" });
          await a.host.until(() => "yuki" in a.host.membersOf(channel));
          await b.engine.leave(channel, "yuki");
          for (const { host } of [a, b]) await host.until(() => !("yuki" in host.membersOf(channel)));
          await told("newer");
          await a.engine.join(channel, { user: "mika", data: data("newest") });
          await told("newest");
          // As when the newest tab there has closed.
          await a.engine.join(channel, older);
          await told("newer");
          await b.engine.leave(channel, "mika");
          await told("older");
          await a.engine.leave(channel, "mika");
          for (const { host } of [a, b]) {
            await host.until(() => !("mika" in host.membersOf(channel)));
          }
        },
      );

      it(
        "lists the same data of a member on every node, including one that starts later",
        joined,
        async () => {
          const channel = channelOf();
          const values = range(4).map(String);
          for (const value of values) {
            await [a, b][Number(value) % 2]!.engine.join(channel, {
              user: "mika",
              data: value,
            });
            await fixture.settle?.();
          }
          const late = await fixture.node();
          try {
            await late.engine.subscribe(channel, null);
            for (const { engine } of [a, b, late]) {
              await untilMember(
                engine,
                channel,
                { user: "mika", data: "3" },
              );
            }
            await b.engine.leave(channel, "mika");
            await late.host.until(() => late.host.membersOf(channel)["mika"] === "2");
            for (const { engine } of [a, b, late]) {
              await untilMember(
                engine,
                channel,
                { user: "mika", data: "2" },
              );
            }
            await a.engine.leave(channel, "mika");
          } finally {
            await late.engine.close();
          }
        },
      );
    });

    describe("nodes", () => {
      it("lists the node itself", alone, async () => {
        assert.ok((await a.engine.nodes()).includes(a.host.node));
      });

      it("delivers the messages of other nodes in order, and none of its own", joined, async () => {
        const sent = [...range(50).map((number) => `a ${number}`), "狼煙 \n ", "x".repeat(100_000)];
        const before = [a, b].map(({ host }) => host.messages.length);
        await Promise.all(sent.map((message) => a.engine.send(message)));
        await b.engine.send("from b");
        await b.host.until(() => b.host.messages.length >= before[1]! + sent.length);
        await a.host.until(() => a.host.messages.includes("from b"));
        assert.deepEqual(b.host.messages.slice(before[1]), sent);
        assert.deepEqual(a.host.messages.slice(before[0]), ["from b"]);
      });
    });

    // Each waits most of the time.
    describe("time", { concurrency: isVirtual ? 1 : true }, () => {
      it("refuses recovery across an expired publication, not before", keeping, () =>
        within(4_000, async (ttl) => {
          const channel = channelOf();
          const history = { size: 100, ttl };
          const fresh = await a.engine.subscribe(channel, history);
          const [first] = await publish(a.engine, channel, history, 1);
          await fixture.advance(ttl * 3 / 4);
          const [second] = await publish(a.engine, channel, history, 1, 1);
          const read = (position: Position) => b.engine.read(channel, history, position, 100);
          // The second publication expires three quarters of the ttl after the first.
          while ((await read(fresh!)).isComplete) await fixture.advance(100);
          assert.deepEqual((await read(fresh!)).publications, []);
          const page = await read(first!);
          assert.deepEqual([page.isComplete, page.publications.map(dataOf)], [true, [1]]);
          assert.deepEqual(await read(second!), { position: second, publications: [], isComplete: true });
          assert.deepEqual((await b.engine.read(channel, history, null, 100)).publications.map(dataOf), [1]);
        }));

      it(
        "continues the epoch of a history with a subscriber after all publications have expired",
        keeping,
        () =>
          within(2_000, async (ttl) => {
            const channel = channelOf();
            const history = { size: 100, ttl };
            await a.engine.subscribe(channel, history);
            const [old, top] = await publish(a.engine, channel, history, 2);
            await fixture.advance(ttl);
            while ((await b.engine.read(channel, history, old!, 100)).isComplete) await fixture.advance(100);
            assert.deepEqual(await b.engine.read(channel, history, top!, 100), {
              position: top,
              publications: [],
              isComplete: true,
            });
            const [next] = await publish(b.engine, channel, history, 1, 2);
            assert.equal(next!.epoch, top!.epoch);
            const page = await b.engine.read(channel, history, top!, 100);
            assert.deepEqual([page.isComplete, page.publications.map(dataOf)], [true, [2]]);
          }),
      );

      it("recovers all or nothing when nodes declare a history with different bounds", nodes > 1 ? keeping : joined, async () => {
        const bounds: [HistoryOptions, HistoryOptions][] = [
          [LONG, { size: 3, ttl: 300_000 }],
          [{ size: 3, ttl: 300_000 }, LONG],
          [LONG, { size: 100, ttl: 400 }],
          [{ size: 100, ttl: 400 }, LONG],
          [LONG, { size: 2, ttl: 400 }],
        ];
        /** Whether the node received everything without a gap, and the history continues. */
        const declare = async (old: HistoryOptions, later: HistoryOptions) => {
          const channel = channelOf();
          const positions = [(await a.engine.subscribe(channel, old))!];
          for (const number of range(8)) {
            positions.push(
              ...await publish((number % 3 === 0 ? b : a).engine, channel, number % 3 === 0 ? later : old, 1, number),
            );
          }
          const check = async () => {
            for (const [node, history] of [[a, old], [b, later]] as const) {
              for (const [seen, position] of positions.entries()) {
                const { isComplete, publications } = await node.engine.read(channel, history, position, 100);
                assert.deepEqual(
                  publications.map(({ data }) => JSON.parse(data)),
                  isComplete ? range(8).slice(seen) : [],
                  `${seen} seen, of ${JSON.stringify([old, later])}`,
                );
              }
            }
          };
          await check();
          await fixture.advance(500);
          await check();
          await a.host.until(() => a.host.data(channel).length >= 8 || a.host.gapsOf(channel).length > 0);
          const { isComplete } = await a.engine.read(channel, LONG, positions.at(-1)!, 1);
          a.engine.unsubscribe(channel);
          // The longer ttl holds.
          if (!isComplete || a.host.gapsOf(channel).length > 0) return false;
          assert.deepEqual(a.host.data(channel), range(8));
          return true;
        };
        await Promise.all(bounds.map(async ([old, later]) => {
          // A machine that stalls between two checks lets the shorter ttl end. So does a check before its results are delivered.
          for (let tries = 1; !await declare(old, later); tries++) {
            assert.ok(tries < 10, `it ends each time, of ${JSON.stringify([old, later])}`);
          }
        }));
      });

      it("reports the members of a node that closes or is killed as left", joined, async () => {
        const channel = channelOf();
        await a.engine.subscribe(channel, null);
        assert.deepEqual(await a.engine.members(channel), []);
        const [closing, killed] = [await fixture.node(), await fixture.node()];
        await closing.engine.join(channel, { user: "closing" });
        await killed.engine.join(channel, { user: "killed" });
        await b.engine.join(channel, { user: "stays" });
        await a.host.until(() => Object.keys(a.host.membersOf(channel)).length === 3);
        await untilNodes(a.engine, [a, b, closing, killed]);
        await closing.engine.close();
        await a.host.until(() => !("closing" in a.host.membersOf(channel)));
        killed.kill();
        await a.host.until(() => !("killed" in a.host.membersOf(channel)));
        // One that a busy machine has held up for its whole lease is missing until its node runs again.
        await untilMember(b.engine, channel, { user: "stays" });
        await untilNodes(a.engine, [a, b]);
        await b.engine.leave(channel, "stays");
      });
    });

    it(`holds nothing of ${channels.toLocaleString("en")} channels that are no longer used`, { timeout: TIMEOUT }, async () => {
      const node = nodes > 1 ? await fixture.node() : a;
      const held = await fixture.held(node);
      const history = ANY && { size: 10, ttl: 1_000 };
      for (let first = 0; first < channels; first += 500) {
        await Promise.all(
          range(Math.min(500, channels - first)).map(async (number) => {
            const channel = `passing:${first + number}`;
            await node.engine.subscribe(channel, history);
            await node.engine.publish(channel, { event: "say", data: "1" }, history);
            await node.engine.join(channel, { user: "mika" });
            await node.engine.leave(channel, "mika");
            node.engine.unsubscribe(channel);
          }),
        );
      }
      assert.ok(await fixture.held(node) >= held);
      for (let waited = 0; await fixture.held(node) > held && waited < 600_000; waited += 250) await fixture.advance(250);
      assert.equal(await fixture.held(node), held);
      if (node !== a) await node.engine.close();
    });

    it("begins a new epoch when its store has lost everything, and refuses recovery from the old one", keeping, async () => {
      const channel = channelOf();
      await a.engine.subscribe(channel, LONG);
      const [, old] = await publish(a.engine, channel, LONG, 2);
      const node = await fixture.forget();
      const [next] = await publish(node.engine, channel, LONG, 1);
      assert.notEqual(next!.epoch, old!.epoch);
      const page = await node.engine.read(channel, LONG, old!, 100);
      assert.deepEqual([page.isComplete, page.publications, page.position], [false, [], next]);
    });

    it("starts once only, and rejects calls after it is closed", alone, async () => {
      const { engine, host } = await fixture.node();
      assert.equal(engine.status, "ready");
      assert.throws(() => engine.start(host), TypeError);
      await engine.close();
      await engine.close();
      assert.equal(engine.status, "closed");
      // A machine that stood still may have failed to connect before.
      const reported = [host, a.host].map(({ errors }) => errors.length);
      for (const call of calls(engine)) {
        await assert.rejects(
          async () => await call(),
          (error) => error instanceof WebSocketError && error.code === "ENGINE_UNAVAILABLE",
        );
      }
      // Calls that only end something are ignored.
      engine.unsubscribe("gone");
      await engine.leave("gone", "mika");
      assert.deepEqual([host, a.host].map(({ errors }) => errors.length), reported);
    });
  });
}

/** Waits until the node lists this member and no other: changes reach other nodes with a delay. */
async function untilMember(
  engine: Engine,
  channel: string,
  expected: Member,
): Promise<void> {
  let members: unknown;
  await until(async () => isDeepStrictEqual(members = await engine.members(channel), [expected]), () => ({ members, expected }));
}

/** Resolves when the nodes are exactly these. One that a busy machine has held up for its whole lease is missing until it runs again. */
async function untilNodes(engine: Engine, nodes: readonly TestNode[]): Promise<void> {
  const expected = nodes.map(({ host }) => host.node).sort().join();
  let listed = "";
  await until(async () => (listed = [...await engine.nodes()].sort().join()) === expected, () => ({ listed, expected }));
}

/** The lease of nodes over a broker in these tests, in ms. */
const LEASE = 8_000;

/** Interval at which {@link within} looks whether the machine goes on, in ms. */
const TICK = 100;

/**
 * Runs a test of a time to live, in ms, and again with a longer one if it has failed on a busy machine: when it took much longer, or when the
 * machine stood still for a part of that time, in which no node renewed its histories.
 */
async function within(ttl: number, run: (ttl: number) => Promise<void>): Promise<void> {
  const start = performance.now();
  let [last, pause] = [start, 0];
  const tick = () => {
    const now = performance.now();
    pause = Math.max(pause, now - last);
    last = now;
  };
  const ticking = setInterval(tick, TICK);
  try {
    return await run(ttl);
  } catch (error) {
    tick();
    if (last - start < 1.5 * ttl && pause < ttl / 4 || ttl > 60_000) throw error;
  } finally {
    clearInterval(ticking);
  }
  await within(ttl * 4, run);
}

/** The calls that an engine rejects while it is unavailable. */
export function calls(engine: Engine, channel = "gone"): (() => unknown)[] {
  return [
    () => engine.publish(channel, { event: "say", data: "1" }, LONG),
    () => engine.publish(`${channel}.`, { event: "say", data: "1" }, null),
    () => engine.subscribe(channel, LONG),
    () => engine.subscribe(`${channel}.`, null),
    () => engine.read(channel, LONG, null, 1),
    () => engine.join(channel, { user: "mika" }),
    () => engine.members(channel),
    () => engine.nodes(),
    () => engine.send("hello"),
  ];
}

/** Publishes numbers at once; resolves with their positions. */
export async function publish(
  engine: Engine,
  channel: string,
  history: HistoryOptions | null,
  count: number,
  first = 0,
): Promise<Position[]> {
  const positions = range(count).map((number) => engine.publish(channel, { event: "say", data: `${first + number}` }, history));
  return await Promise.all(positions) as Position[]; // None is null with a history.
}

export function range(count: number): number[] {
  return Array.from({ length: count }, (_, number) => number);
}

/** A publication without the fields that an engine adds for itself. */
const plain = ({ event, data, position }: Publication): Publication => ({ event, data, position });

const dataOf = ({ data }: Publication): unknown => JSON.parse(data);

function byUser<T extends { user: string }>(members: readonly T[]): T[] {
  return [...members].sort((one, other) => (one.user < other.user ? -1 : 1));
}

function assertGrowing(positions: readonly Position[]): void {
  for (const [number, { epoch, offset }] of positions.entries()) {
    assert.equal(epoch, positions[0]!.epoch);
    if (number > 0) {
      assert.ok(
        offset > positions[number - 1]!.offset,
        `${offset} after ${positions[number - 1]!.offset}`,
      );
    }
  }
}
