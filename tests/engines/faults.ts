/** What has to hold when the broker is away, comes back, forgets, hangs, or says what no node has said: for every engine over a broker. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, afterEach, before, describe, it } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import type { HistoryOptions, Position } from "../../src/engines/engine.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { BrokerEngineOptions } from "../../src/engines/broker/options.ts";
import type { EnvelopeKind } from "../../src/engines/broker/envelope-kind.ts";
import { Envelopes } from "../../src/engines/broker/envelope.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { Proxy } from "../support/proxy.ts";
import type { BrokerProcess } from "../support/brokers.ts";
import { type BrokerNode, startNode, untilAnswered } from "./broker-fixture.ts";
import { calls, publish, range } from "./conformance.ts";
import { until } from "../support/waiting.ts";
import { TestHost } from "./test-host.ts";

/** Brokers of one kind. */
export interface FaultFixtureOptions {
  skip?: string | false;
  /** @param keeps whether histories outlive its restart. */
  start(keeps: boolean): Promise<BrokerProcess>;
  engine(port: number, keeps: boolean, options: BrokerEngineOptions): BrokerEngine;
  /** Publishes what is no node's. */
  inject(port: number, texts: readonly Injection[]): Promise<void>;
}

/** What is sent to all nodes, or as something of a channel: a publication at a place. */
export interface Injection {
  to: "all" | "event" | "member" | "publication";
  channel: string;
  text: string;
  /** @default far ahead in another epoch */
  position?: Position;
}

/** Where nothing ever was. */
export const NOWHERE: Position = { epoch: "an-epoch", offset: 1_000_000 };

const LONG: HistoryOptions = { size: 1_000, ttl: 300_000 };
/** Quick to notice all but silence: a busy machine keeps a broker or a node silent for seconds. */
const FAST = { lease: 6_000, checkInterval: 300, linger: 300, timeout: 10_000 };
/** Where silence is to be noticed. */
const IMPATIENT = { timeout: 1_000 };
const SECRET = "a secret of the application";
const TIMEOUT = { timeout: 300_000 };

export function faults(name: string, { skip = false, start, engine: make, inject }: FaultFixtureOptions): void {
  describe(`The engine "${name}"`, { skip }, () => {
    let nodes: BrokerNode[] = [];
    let proxies: Proxy[] = [];
    let broker: BrokerProcess;
    let lasting: BrokerProcess;

    before(async () => {
      [broker, lasting] = await Promise.all([start(false), start(true)]);
    }, TIMEOUT);
    after(async () => void await Promise.all([broker?.close(), lasting?.close()]), TIMEOUT);
    afterEach(async () => {
      await Promise.all(nodes.map(({ engine }) => engine.close()));
      await Promise.all(proxies.map((proxy) => proxy.close()));
      nodes = [];
      proxies = [];
      // As a test that has failed has left it: the next ones are to say what they find.
      for (const each of [broker, lasting]) {
        if (each.isRunning) each.signal("SIGCONT");
        else await each.start();
      }
    }, TIMEOUT);

    const node = async (port: number, options: BrokerEngineOptions = {}, keeps = false) => {
      const started = await startNode(make(port, keeps, { ...FAST, ...options }));
      nodes.push(started);
      return started;
    };
    const proxyOf = async (port: number) => {
      const proxy = await Proxy.open(port);
      proxies.push(proxy);
      return proxy;
    };

    describe("when the broker is away", () => {
      it(
        "reports it once, by its status, an error event and the rejection of each call",
        TIMEOUT,
        async () => {
          const { engine, host } = await node(broker.port);
          await engine.subscribe("room", LONG);
          await broker.stop();
          await host.until(() => host.statuses.at(-1) === "unavailable");
          assert.equal(engine.status, "unavailable");
          for (const call of calls(engine)) {
            await assert.rejects(async () => await call(), isUnavailable);
          }
          assert.equal(host.errors.filter(isUnavailable).length, 1);
          await broker.start();
          // It has lost the histories.
          await host.until(() => host.gaps.includes("room"));
          await publish(engine, "room", LONG, 1);
          await host.until(() => host.publications("room").length === 1);
        },
      );

      it(
        "rejects calls made just before or during the outage without a long wait",
        TIMEOUT,
        async () => {
          const { engine, host } = await node(broker.port, IMPATIENT);
          broker.signal("SIGSTOP");
          // It takes what is sent, and does not answer.
          const asked = calls(engine).map(async (call) => await call());
          for (const answer of await Promise.allSettled(asked)) {
            // What has no answer to wait for may have been taken by the connection.
            if (answer.status === "rejected") {
              assert.ok(isUnavailable(answer.reason), String(answer.reason));
            }
          }
          await host.until(() => host.statuses.includes("unavailable"));
          broker.signal("SIGCONT");
          await host.until(() => host.statuses.at(-1) === "ready");
        },
      );

      it("starts, and is ready when the broker is there", TIMEOUT, async () => {
        await broker.stop();
        const engine = make(broker.port, false, FAST);
        const host = new TestHost();
        engine.start(host);
        nodes.push({ engine, host, kill: () => host.stop() });
        assert.equal(engine.status, "connecting");
        await host.until(() => host.errors.length > 0);
        assert.ok(isUnavailable(host.errors[0]));
        await broker.start();
        await host.until(() => engine.status === "ready");
      });

      it("lets calls at its start wait for the broker, for three timeouts at most", TIMEOUT, async () => {
        const begin = (options: BrokerEngineOptions = {}) => {
          const engine = make(broker.port, false, { ...FAST, namespace: "begin", ...options });
          const host = new TestHost();
          engine.start(host);
          nodes.push({ engine, host, kill: () => host.stop() });
          assert.equal(engine.status, "connecting");
          return { engine, host };
        };
        const { engine, host } = begin();
        const [position] = await Promise.all([engine.subscribe("begin", LONG), publish(engine, "begin", LONG, 20)]);
        await Promise.all(calls(engine, "first").map(async (call) => await call()));
        await publish(engine, "begin", LONG, 1, 20);
        await host.until(() => host.data("begin").at(-1) === 20);
        // Those that were published before it was subscribed are in the history.
        const page = await engine.read("begin", LONG, position, 100);
        assert.deepEqual([page.isComplete, page.publications.map(({ data }) => Number(data))], [true, host.data("begin")]);
        assert.deepEqual([host.errors, host.gaps], [[], []]);

        const other = begin();
        const gone = assert.rejects(async () => await other.engine.subscribe("gone", LONG), isUnavailable);
        other.engine.unsubscribe("gone");
        const again = other.engine.subscribe("again", LONG);
        other.engine.unsubscribe("again");
        assert.ok(await Promise.allSettled([again]));
        await gone;
        await other.engine.subscribe("again", LONG);
        await publish(engine, "again", LONG, 1);
        await other.host.until(() => other.host.publications("again").length === 1);

        await broker.stop();
        const away = begin(IMPATIENT);
        for (const answer of await Promise.allSettled(calls(away.engine).map(async (call) => await call()))) {
          assert.ok(answer.status === "rejected" && isUnavailable(answer.reason));
        }
        // One that comes up meanwhile is waited for, after attempts that have failed.
        const early = begin();
        const asked = [
          early.engine.subscribe("early", LONG),
          publish(early.engine, "early", LONG, 3),
          early.engine.send("early"),
        ];
        await early.host.until(() => early.host.statuses.includes("unavailable"));
        await broker.start();
        await Promise.all(asked);
        assert.equal((await early.engine.read("early", LONG, null, 10)).publications.length, 3);
      });

      it("closes", TIMEOUT, async () => {
        const { engine, host } = await node(broker.port);
        await engine.join("room", { user: "mika" });
        await broker.stop();
        await engine.close();
        assert.equal(engine.status, "closed");
        assert.equal(host.statuses.at(-1), "closed");
        await broker.start();
      });
    });

    describe("when the broker comes back", () => {
      it(
        "loses, repeats and reorders no acknowledged publication when the broker keeps histories",
        TIMEOUT,
        async () => {
          const [a, b] = [
            await node(lasting.port, {}, true),
            await node(lasting.port, {}, true),
          ];
          await b.engine.subscribe("kept", LONG);
          const acknowledged: { number: number; position: Position }[] = [];
          let number = 0;
          let isOver = false;
          const publishing = (async () => {
            while (!isOver) {
              const batch = range(10).map(() => ++number);
              const answers = await Promise.allSettled(
                batch.map(async (number) =>
                  await a.engine.publish("kept", {
                    event: "say",
                    data: `${number}`,
                  }, LONG)
                ),
              );
              for (const [place, answer] of answers.entries()) {
                if (answer.status === "fulfilled") {
                  acknowledged.push({
                    number: batch[place]!,
                    position: answer.value!,
                  }); // It has a history.
                } else {assert.ok(
                    isUnavailable(answer.reason),
                    String(answer.reason),
                  );}
              }
              // Away, it rejects at once: something else has to have its turn.
              await new Promise((resolve) => setTimeout(resolve, 1));
              // The other node may come back much later. What it has missed by then must still be in the history.
              await b.host.until(() => acknowledged.length - b.host.publications("kept").length < LONG.size / 2);
            }
          })();
          for (const _ of range(3)) {
            const before = acknowledged.length;
            await b.host.until(() => acknowledged.length > before + 50);
            await lasting.restart("SIGKILL");
            const after = acknowledged.length;
            // Ready again, and not still: a publication was acknowledged since.
            await b.host.until(() => acknowledged.length > after && [a, b].every(({ engine }) => engine.status === "ready"));
          }
          isOver = true;
          await publishing;
          const last = await publish(a.engine, "kept", LONG, 1, ++number);
          await b.host.until(() => b.host.publications("kept").some(({ position }) => position!.offset === last[0]!.offset));
          const told = b.host.publications("kept");
          const byOffset = new Map(
            told.map(({ position, data }) => [position!.offset, Number(data)]),
          );
          assert.equal(byOffset.size, told.length, "some were doubled");
          assert.deepEqual(
            told.map(({ position }) => position!.offset),
            [...byOffset.keys()].sort((one, other) => one - other),
          );
          const lost = acknowledged.filter(({ number, position }) => byOffset.get(position.offset) !== number);
          assert.deepEqual([lost, b.host.gaps], [[], []]);
        },
      );

      it("reports a gap and continues in a new epoch when the broker has lost the histories", TIMEOUT, async () => {
        const [a, b] = [await node(broker.port), await node(broker.port)];
        await b.engine.subscribe("lost", LONG);
        await publish(a.engine, "lost", LONG, 3);
        await b.host.until(() => b.host.publications("lost").length === 3);
        await broker.restart();
        await b.host.until(() => b.host.gaps.length > 0);
        await a.host.until(() => a.engine.status === "ready");
        const last = await publishUntilTold(a, b, "lost", 3);
        // A second gap may cover publications, all before the last.
        const { told } = b.host.gapsOf("lost").at(-1)!; // As awaited.
        const data = b.host.data("lost");
        assert.deepEqual([data.slice(0, 3), data.slice(told)], [
          range(3),
          range(last + 1).slice(last + 1 - (data.length - told)),
        ]);
        assert.deepEqual(new Set(b.host.gaps), new Set(["lost"]));
        const epochs = new Set(b.host.publications("lost").map(({ position }) => position!.epoch));
        assert.equal(epochs.size, 2);
      });

      it("reports a gap in a channel without a history", TIMEOUT, async () => {
        const { engine, host } = await node(broker.port);
        await engine.subscribe("fleeting", null);
        await broker.restart();
        await host.until(() => host.gaps.includes("fleeting"));
        await engine.publish("fleeting", { event: "say", data: "1" }, null);
        await host.until(() => host.publications("fleeting").length > 0);
      });

      it(
        "reports which members are present and which left meanwhile",
        TIMEOUT,
        async () => {
          const [a, b] = [await node(broker.port), await node(broker.port)];
          await b.engine.subscribe("crowd", null);
          for (const user of ["stays", "leaves"]) {
            await a.engine.join("crowd", { user, data: `"${user}"` });
          }
          await b.host.until(() => Object.keys(b.host.membersOf("crowd")).length === 2);
          await broker.stop();
          await a.host.until(() => a.engine.status === "unavailable");
          await a.engine.leave("crowd", "leaves");
          await assert.rejects(
            async () => await a.engine.join("crowd", { user: "comes" }),
            isUnavailable,
          );
          await broker.start();
          await b.host.until(() => {
            const members = b.host.membersOf("crowd");
            return "comes" in members && !("leaves" in members) &&
              members["stays"] === '"stays"';
          });
          const c = await node(broker.port);
          const members = [...await c.engine.members("crowd")].map(({ user }) => user);
          assert.deepEqual(members.sort(), ["comes", "stays"]);
          // Who was there all along has not been told of as gone.
          assert.ok(
            !b.host.presence.some(({ left }) => left.includes("stays")),
          );
        },
      );
    });

    it("closes the gap of a node whose connection swallows everything", TIMEOUT, async () => {
      const proxy = await proxyOf(broker.port);
      const [a, b] = [await node(broker.port), await node(proxy.port, IMPATIENT)];
      // On a busy machine this impatient node may lose its broker at any moment.
      await untilAnswered(() => b.engine.subscribe("through", LONG));
      await publish(a.engine, "through", LONG, 5);
      await b.host.until(() => b.host.publications("through").length === 5);
      proxy.freeze();
      await publish(a.engine, "through", LONG, 5, 5);
      await assert.rejects(async () => await b.engine.publish("through", { event: "say", data: "-1" }, LONG), isUnavailable);
      await b.host.until(() => b.engine.status === "unavailable");
      proxy.thaw();
      await publish(a.engine, "through", LONG, 5, 10);
      await b.host.until(() => b.host.publications("through").length >= 15);
      assert.deepEqual([b.host.data("through"), b.host.gaps], [range(15), []]);
    });

    it(
      "reports a gap when an earlier version publishes without a history to a channel that has one here",
      TIMEOUT,
      async () => {
        const [a, b] = [await node(broker.port), await node(broker.port)];
        const positions = [(await a.engine.subscribe("declared", LONG))!];
        await b.engine.subscribe("declared", LONG);
        for (const number of [0, 2]) {
          positions.push(...await publish(b.engine, "declared", LONG, 1, number));
          const header = JSON.stringify({
            v: 2,
            in: "",
            kind: "event",
            node: "old",
            number: number + 1,
            time: Date.now(),
            event: "say",
          });
          await inject(broker.port, [{
            to: "event",
            channel: "declared",
            text: `\n${header}\n${number + 1}`,
          }]);
          for (const { host } of [a, b]) {
            await host.until(() => host.data("declared").at(-1) === number + 1);
          }
          for (const { engine } of [a, b]) {
            for (const position of positions) {
              const page = await engine.read("declared", LONG, position, 100);
              assert.deepEqual([page.isComplete, page.publications], [false, []]);
            }
          }
          for (const { host } of [a, b]) {
            await host.until(() => host.gaps.length > number / 2);
          }
        }
        const last = await publish(a.engine, "declared", LONG, 2, 4);
        for (const { engine, host } of [a, b]) {
          await host.until(() => host.data("declared").at(-1) === 5 || host.gaps.length > 2);
          const page = await engine.read("declared", LONG, last[0]!, 100);
          assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, ["5"]]);
        }
      },
    );

    describe("with a secret", () => {
      it("joins nodes that have it, or had it before, in every way", TIMEOUT, async () => {
        const [a, b] = [
          await node(broker.port, { secret: SECRET }),
          await node(broker.port, { secret: [SECRET, "the one of before"] }),
        ];
        await b.engine.subscribe("signed", LONG);
        await b.engine.subscribe("fleeting", null);
        await untilKnown(a, b);
        const dropped = { ...b.engine.dropped };
        await publish(a.engine, "signed", LONG, 50);
        await publish(a.engine, "fleeting", null, 50);
        await a.engine.join("signed", { user: "mika" });
        await a.engine.send("hello");
        await b.host.until(() => b.host.publications("signed").length >= 50 && b.host.publications("fleeting").length >= 50);
        await b.host.until(() => "mika" in b.host.membersOf("signed") && b.host.messages.includes("hello"));
        assert.deepEqual([b.host.data("signed"), b.host.data("fleeting")], [range(50), range(50)]);
        assert.deepEqual(b.host.messages.filter((message) => message !== KNOWN), ["hello"]);
        assert.deepEqual((await b.engine.read("signed", LONG, null, 100)).publications.length, 50);
        assert.deepEqual(b.engine.dropped, dropped);
      });

      it(
        "drops and counts envelopes of nodes with another secret or none",
        TIMEOUT,
        async () => {
          const inside = await node(broker.port, {
            secret: SECRET,
            namespace: "forged",
          });
          const fence = await node(broker.port, {
            secret: SECRET,
            namespace: "forged",
          });
          await untilKnown(fence, inside);
          const outside = [
            await node(broker.port, {
              secret: "another secret of 16",
              namespace: "forged",
            }),
          ];
          outside.push(await node(broker.port, { namespace: "forged" }));
          for (const history of [LONG, null]) {
            await inside.engine.subscribe(
              `room:${history}`,
              history,
            );
          }
          for (const { engine } of outside) {
            for (const history of [LONG, null]) {
              await engine.publish(`room:${history}`, {
                event: "say",
                data: "666",
              }, history);
            }
            await engine.join("room:null", { user: "mallory" });
            await engine.send("disconnect everybody");
          }
          for (const history of [LONG, null]) {
            await publish(
              fence.engine,
              `room:${history}`,
              history,
              1,
            );
          }
          await fence.engine.send("fence");
          await inside.host.until(() => inside.host.messages.includes("fence"));
          await inside.host.until(() => inside.host.publications("room:null").length > 0);
          assert.deepEqual(inside.host.data("room:null"), [0]);
          // What is forged is in the history: there is a hole, and what follows is told of.
          await inside.host.until(() => inside.host.gaps.includes(`room:${LONG}`));
          const last = await publishUntilTold(fence, inside, `room:${LONG}`, 1);
          assert.ok(!inside.host.data(`room:${LONG}`).includes(666));
          assert.deepEqual(inside.host.messages.filter((message) => message !== KNOWN), ["fence"]);
          assert.deepEqual(await inside.engine.members("room:null"), []);
          assert.deepEqual(
            (await inside.engine.read(`room:${LONG}`, LONG, null, 10))
              .publications.map(({ data }) => Number(data)),
            range(last + 1),
          );
          assert.ok(
            inside.engine.dropped["forged"]! >= 8,
            JSON.stringify(inside.engine.dropped),
          );
          // Told once, however many there were.
          assert.equal(inside.host.errors.length, 1);
        },
      );
    });

    it(
      "drops and counts copies, envelopes of strangers or newer versions, and invalid positions",
      TIMEOUT,
      async () => {
        const { engine, host } = await node(broker.port, { secret: SECRET });
        await engine.subscribe("signed", LONG);
        await engine.subscribe("fleeting", null);
        const [{ epoch, offset }] = await publish(engine, "signed", LONG, 1) as [Position];
        const sealer = (node: string) => {
          const [place, now, dropped] = [() => "noroshi", () => 0, () => {}];
          const envelopes = new Envelopes({ node, secrets: [SECRET], maxLength: 1e9, fullNamespace: place, now, dropped });
          return async (kind: EnvelopeKind, channel: string, body: string) => ({
            to: kind === "publication" || kind === "event" || kind === "member" ? kind : "all" as const,
            channel,
            text: await envelopes.seal(kind, channel, body, "say"),
          });
        };
        const [seal, sealStrange] = [sealer("foreign"), sealer("stranger")];
        const none = { publication: 0, event: 0, member: 0, message: 0, order: 0, control: 0 };
        const introduction = { type: "numbers", to: host.node, numbers: none, asks: false };
        await inject(broker.port, [await seal("control", "", JSON.stringify(introduction))]);
        const once = [
          await seal("event", "fleeting", '"once"'),
          await seal("message", "", "once"),
          await seal("member", "signed", '{"user":"once"}'),
        ];
        const ahead = await seal("publication", "signed", '"of a future"');
        const elsewhere = await seal("publication", "signed", '"of another epoch"');
        const strange = [await sealStrange("event", "fleeting", '"strange"'), await sealStrange("message", "", "strange")];
        const header = JSON.stringify({ v: 3, kind: "event", node: "foreign", number: 9, time: Date.now(), event: "say" });
        const newer = `${createHmac("sha256", SECRET).update(`fleeting\n${header}\n1`).digest("hex")}\n${header}\n1`;
        await inject(broker.port, [
          ...once,
          ...once,
          ...strange,
          { to: "event", channel: "fleeting", text: newer },
          { ...ahead, position: { epoch, offset: offset + 1_000_000 } },
          { ...elsewhere, position: NOWHERE },
          { to: "event", channel: "fleeting", text: once[0]!.text.replace("once", "twice") },
        ]);
        await publish(engine, "signed", LONG, 1, 1);
        await publish(engine, "fleeting", null, 1);
        await host.until(() => host.publications("signed").length >= 2 && host.data("fleeting").includes(0));
        await host.until(() => engine.dropped["unknown position"] === 2 && host.presence.length > 0);
        // Told once, however many there were.
        assert.deepEqual(
          host.errors.map((error) => (error as WebSocketError).code),
          ["ENGINE_FAILED"],
          host.errors.map(String).join(),
        );
        assert.deepEqual(engine.dropped, { replayed: 3, "unknown node": 2, unsupported: 1, forged: 1, "unknown position": 2 });
        assert.deepEqual([host.data("signed"), host.data("fleeting"), host.messages], [range(2), ["once", 0], ["once"]]);
        assert.deepEqual([host.gaps, host.presence.flatMap(({ joined }) => joined)], [[], [{ user: "once" }]]);
      },
    );

    it("accepts signed envelopes of nodes whose clocks differ by hours", TIMEOUT, async () => {
      const { host, engine } = await node(broker.port, { secret: SECRET });
      for (const seconds of [61, -61, 7_200, -7_200]) {
        const clock = { ...systemClock, now: () => Date.now() + seconds * 1_000 };
        const other = await startNode(make(broker.port, false, { ...FAST, secret: SECRET }), clock);
        nodes.push(other);
        // The node drops what the other one sends until that has answered its greeting.
        await until(async () => {
          await other.engine.send(`${seconds}`);
          return host.messages.includes(`${seconds}`);
        });
        await other.engine.order(`order ${seconds}`);
        await host.until(() => host.messages.includes(`order ${seconds}`));
      }
      const { "unknown node": _, ...dropped } = engine.dropped;
      const errors = host.errors.filter((error) => !/unknown node/.test(String(error)));
      assert.deepEqual([dropped, errors, host.ages], [{}, [], []]);
    });

    it(
      "keeps histories, members and nodes, whatever the clocks of the nodes say",
      TIMEOUT,
      async () => {
        const history = { size: 100, ttl: 60_000 };
        const start = async (hours: number) => {
          const clock = {
            ...systemClock,
            now: () => Date.now() + hours * 3_600_000,
          };
          const started = await startNode(
            make(broker.port, false, { ...FAST, namespace: "clocks" }),
            clock,
          );
          nodes.push(started);
          return started;
        };
        const [ahead, behind, right] = [
          await start(2),
          await start(-2),
          await start(0),
        ];
        for (const { engine } of [ahead, behind, right]) {
          await engine
            .subscribe("clocks", history);
        }
        const positions: Position[] = [];
        for (const { engine } of [ahead, behind, right]) {
          positions.push(...await publish(engine, "clocks", history, 2));
        }
        for (const { engine, host } of [ahead, behind, right]) {
          await engine.join("clocks", { user: host.node });
          await host.until(() => host.publications("clocks").length === 6);
          const page = await engine.read("clocks", history, positions[0]!, 100);
          assert.deepEqual([page.isComplete, page.publications.length], [
            true,
            5,
          ]);
          assert.equal(
            (await engine.read("clocks", history, null, 100)).publications
              .length,
            6,
          );
        }
        for (const { engine } of [ahead, behind, right]) {
          // The last announcement may be on its way.
          await until(async () => (await engine.members("clocks")).length === 3);
          assert.equal((await engine.nodes()).length, 3);
        }
      },
    );

    it("drops and counts malformed envelopes", TIMEOUT, async () => {
      const { engine, host } = await node(broker.port, { maxLength: 50_000 });
      await engine.subscribe("odd", LONG);
      await engine.subscribe("fleeting", null);
      const foreign = new Envelopes({ node: "foreign", secrets: [], maxLength: 1e9, now: () => Date.now(), dropped() {} });
      const seal = (kind: "event" | "member" | "message" | "publication", body: string) =>
        foreign.seal(kind, "", body, "say") as string;
      const nonsense = [
        "",
        "\n",
        "\n\n",
        "{}",
        "\n{}\n1",
        `\n{"v":1}\n1`,
        "x".repeat(40_000),
        "\u0000\ufffd",
        "event\n",
        "member\n\n{}\n",
      ];
      await inject(broker.port, [
        ...nonsense.flatMap((text) =>
          (["all", "event", "member", "publication"] as const).map((to) => ({
            to,
            channel: to === "event" ? "fleeting" : "odd",
            text,
          }))
        ),
        { to: "event", channel: "fleeting", text: seal("event", '1},"injected":{') },
        { to: "event", channel: "fleeting", text: seal("event", JSON.stringify("x".repeat(60_000))) },
        { to: "event", channel: "fleeting", text: seal("message", "1") },
        { to: "member", channel: "odd", text: seal("member", '{"user":7}') },
        { to: "member", channel: "odd", text: seal("member", '{"user":"mika","data":"{"}') },
        { to: "publication", channel: "odd", text: seal("publication", '"of a future that never was"') },
        { to: "all", channel: "", text: seal("message", "from a stranger who speaks the language") },
        { to: "event", channel: "fleeting", text: seal("event", '"and so is this"') },
      ]);
      await host.until(() => host.publications("fleeting").length > 0 && host.messages.length > 0);
      await publish(engine, "odd", LONG, 3);
      await host.until(() => host.publications("odd").length >= 3);
      assert.deepEqual([host.data("odd"), host.data("fleeting"), host.gaps], [range(3), ["and so is this"], []]);
      assert.equal(host.messages.length, 1);
      assert.deepEqual(Object.keys(host.membersOf("odd")), []);
      for (const reason of ["malformed", "oversized", "unsupported", "unknown position"]) {
        assert.ok(engine.dropped[reason]! > 0, `${reason}: ${JSON.stringify(engine.dropped)}`);
      }
      await assert.rejects(
        async () => await engine.publish("odd", { event: "say", data: JSON.stringify("x".repeat(60_000)) }, LONG),
        (error) => error instanceof WebSocketError && error.code === "LIMIT_EXCEEDED",
      );
    });

    it("is not kept waiting by what goes while it is read", TIMEOUT, async () => {
      const [a, b] = [await node(broker.port), await node(broker.port)];
      await a.engine.subscribe("crowd", null);
      assert.deepEqual(await a.engine.members("crowd"), []);
      for (const user of ["first", "second", "third"]) {
        await b.engine.join("crowd", { user });
        // Begun before the other node's is there, and ended after.
        await Promise.all([b.engine.members("crowd"), b.engine.leave("crowd", user)]);
      }
      await a.host.until(() => a.host.presence.length >= 6);
      assert.deepEqual([await a.engine.members("crowd"), await b.engine.members("crowd")], [[], []]);
      assert.deepEqual([a, b].map(({ host }) => [host.statuses.at(-1), host.errors]), [["ready", []], ["ready", []]]);
    });

    it("keeps namespaces apart", TIMEOUT, async () => {
      const [a, b] = [await node(broker.port, { namespace: "a" }), await node(broker.port, { namespace: "b" })];
      for (const { engine } of [a, b]) await engine.subscribe("room", LONG);
      await a.engine.join("room", { user: "mika" });
      await a.engine.send("hello");
      await publish(a.engine, "room", LONG, 1);
      await publish(b.engine, "room", LONG, 1, 1);
      for (const { host } of [a, b]) {
        await host.until(() => host.publications("room").length > 0);
      }
      assert.deepEqual([
        a.host.data("room"),
        b.host.data("room"),
        b.host.messages,
      ], [[0], [1], []]);
      assert.deepEqual(
        [await b.engine.members("room"), await b.engine.nodes()],
        [[], [b.host.node]],
      );
    });
  });
}

/**
 * Publishes one number after the other until the node is told of one. A gap covers what is published until it is told, and there may be two.
 * Resolves with the last number.
 */
async function publishUntilTold(from: BrokerNode, to: BrokerNode, channel: string, first: number): Promise<number> {
  for (let number = first;; number++) {
    const gaps = to.host.gaps.length;
    await publish(from.engine, channel, LONG, 1, number);
    const isTold = () => to.host.data(channel).at(-1) === number;
    await to.host.until(() => isTold() || to.host.gaps.length > gaps);
    if (isTold()) return number;
  }
}

const KNOWN = "known";

/**
 * Waits until a node receives another one's messages; some may arrive later. A node that is ready drops the messages of others that have
 * not answered its greeting within a second.
 */
async function untilKnown(from: BrokerNode, to: BrokerNode): Promise<void> {
  await until(async () => {
    await from.engine.send(KNOWN);
    return to.host.messages.includes(KNOWN);
  });
}

function isUnavailable(error: unknown): boolean {
  return error instanceof WebSocketError && error.code === "ENGINE_UNAVAILABLE";
}
