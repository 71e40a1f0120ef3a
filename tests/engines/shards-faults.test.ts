/** A home object and its relays when calls fail, arrive late or overlap. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { LastChanges } from "../../src/engines/shards/last-changes.ts";
import { FanOut } from "../../src/engines/shards/fan-out.ts";
import type { HomeEngine } from "../../src/engines/shards/home-engine.ts";
import { RelayChannel } from "../../src/engines/shards/relay-channel.ts";
import type { RelayEngine } from "../../src/engines/shards/relay-engine.ts";
import type { RelayAnswer } from "../../src/engines/shards/shards.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { Stall, turn, until } from "../support/waiting.ts";
import { range } from "./conformance.ts";
import { HOME, ShardedObjects } from "./sharded-objects.ts";
import { noSqlite } from "./sqlite.ts";
import { TestHost } from "./test-host.ts";

const LONG = { size: 100, ttl: 300_000 };

/** Runs a test with a home object. */
async function withObjects(
  test: (objects: ShardedObjects, home: { engine: HomeEngine; host: TestHost }) => Promise<void>,
): Promise<void> {
  const objects = new ShardedObjects();
  const { engine, host } = objects.start(HOME);
  try {
    await test(objects, { engine: engine as HomeEngine, host });
  } finally {
    objects.stop();
  }
}

/** A new relay, or the one of this name. */
function relayOf(objects: ShardedObjects, name?: string): { engine: RelayEngine; host: TestHost; name: string } {
  const { engine, ...relay } = objects.start(name);
  return { ...relay, engine: engine as RelayEngine };
}

/** A row without the prototype that SQLite gives it on some runtimes. */
const own = (row: unknown) => ({ ...row as object });

/** The codes of what the engine has reported. */
const codesOf = ({ errors }: TestHost) => errors.map((error) => WebSocketError.from(error)?.code);

/** Makes calls to an object fail before they arrive, while `isAway` returns true. */
function away(objects: ShardedObjects, name: string, isAway: () => boolean = () => true): void {
  objects.onCall = (called, phase) => {
    if (called === name && phase === "before" && isAway()) throw new Error("Away");
  };
}

describe("Shards", { skip: noSqlite, timeout: 600_000 }, () => {
  it("deliver an order to a relay that has just registered", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.register();
      await home.engine.order("revoke");
      await relay.host.until(() => relay.host.messages.includes("revoke"));
    }));

  it("report lost orders to a relay that was unreachable when they were dropped", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.register();
      for (const [kind, lost] of [["send", []], ["order", ["ORDERS_LOST"]]] as const) {
        let [isAway, failures] = [true, 0];
        away(objects, relay.name, () => (failures++, isAway));
        await home.engine[kind]("first");
        await until(() => failures > 1);
        for (const number of range(1_100)) await home.engine[kind](`${kind} ${number}`);
        isAway = false;
        await relay.host.until(() => relay.host.messages.includes(`${kind} 1099`));
        assert.deepEqual(codesOf(relay.host), lost);
      }
      // Later orders all arrive.
      await home.engine.order("then");
      await relay.host.until(() => relay.host.messages.includes("then"));
      assert.deepEqual(codesOf(relay.host), ["ORDERS_LOST"]);
    }));

  it("report orders as lost when the home object restarts with more undelivered ones than it stores", () =>
    withObjects(async (objects) => {
      const [relay, giver] = [relayOf(objects), relayOf(objects)];
      await Promise.all([relay.engine.register(), giver.engine.register()]);
      for (const [count, lost] of [[1_000, []], [1_001, ["ORDERS_LOST"]]] as const) {
        let isAway = true;
        away(objects, relay.name, () => isAway);
        await Promise.all(range(count).map((number) => giver.engine.order(`${count} ${number}`)));
        objects.evict(HOME);
        isAway = false;
        const { engine, host } = objects.start(HOME);
        await relay.host.until(() => relay.host.messages.includes(`${count} ${count - 1}`));
        await until(() => {
          (engine as HomeEngine).due(); // As every ten seconds.
          return [...objects.sqlOf(HOME).exec('SELECT place FROM "noroshi_orders"')].length === 0;
        });
        for (const each of [relay.host, giver.host, host]) assert.deepEqual(codesOf(each), lost);
      }
    }));

  it("reject the registration of a relay when the home object is unreachable", () =>
    withObjects(async (objects) => {
      const relay = relayOf(objects);
      away(objects, HOME);
      await assert.rejects(relay.engine.register(), { code: "ENGINE_UNAVAILABLE" });
    }));

  it("list a relay again that the home object has removed during a call", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.subscribe("room", LONG);
      // The last client leaves. The relay reports that it is idle before it has the answer to its call.
      objects.connect(relay.name, false);
      let asked: Promise<string[]> | undefined;
      objects.onCall = (name, phase) => {
        if (name !== HOME || phase !== "before") return;
        objects.onCall = () => {};
        asked = home.engine.nodes();
      };
      relay.engine.unsubscribe("room");
      await until(() => asked !== undefined);
      await asked;
      objects.connect(relay.name, true);
      await relay.engine.register();
      assert.ok((await home.engine.nodes()).includes(relay.host.node));
    }));

  it("do not retry a claim, which would find its own value", () =>
    withObjects(async (objects) => {
      const relay = relayOf(objects);
      objects.onCall = (name, phase) => {
        if (name !== HOME || phase !== "after") return;
        objects.onCall = () => {};
        objects.evict(HOME);
      };
      const claim = () => relay.engine.answers.claim("key", "mine", 300_000);
      await assert.rejects(async () => await claim(), { code: "ENGINE_UNAVAILABLE" });
      assert.equal(await claim(), "mine");
    }));

  it("list the node of a relay that does not answer", () =>
    withObjects(async (objects, home) => {
      const [relay, silent] = [relayOf(objects), relayOf(objects)];
      await Promise.all([relay.engine.register(), silent.engine.register()]);
      away(objects, silent.name);
      const nodes = [home.host.node, relay.host.node, silent.host.node].sort();
      assert.deepEqual([...await home.engine.nodes()].sort(), nodes);
      assert.deepEqual([...await relay.engine.nodes()].sort(), nodes);
      // A restarted home object does not know the node of the silent relay, and lists the relay by its name.
      objects.evict(HOME);
      const again = objects.start(HOME);
      assert.deepEqual([...await again.engine.nodes()].sort(), [again.host.node, relay.host.node, silent.name].sort());
    }));

  it("read missing publications after the subscription of a channel, even when the loss is reported before it", async () => {
    const reads: unknown[] = [];
    const told: string[] = [];
    const page = {
      position: { epoch: "e", offset: 2 },
      publications: [{ event: "say", data: "2", position: null }],
      isComplete: true,
    };
    const channel = new RelayChannel(LONG, {
      read: (after) => Promise.resolve(page).finally(() => reads.push(after)),
      published: ({ data }) => void told.push(data),
      ...{ gap() {}, reached() {}, report() {} },
    });
    channel.recover();
    channel.start({ epoch: "e", offset: 1 }, true);
    assert.equal(await channel.settle(), true);
    assert.deepEqual([reads, told], [[{ epoch: "e", offset: 1 }], ["2"]]);
  });

  it("remove the subscriptions of a relay that restarts while it reports their end", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      for (const channel of ["room", "other"]) await relay.engine.subscribe(channel, LONG);
      await relay.engine.join("room", { user: "ann" });
      objects.onStart = (name, engine) => void (name === relay.name && engine.subscribe("other", LONG));
      away(objects, HOME, () => {
        // The home object may have started it again.
        if (objects.isRunning(relay.name, relay.engine)) objects.evict(relay.name);
        return true;
      });
      const leaving = relay.engine.leave("room", "ann");
      relay.engine.unsubscribe("room");
      await assert.rejects(leaving);
      objects.onCall = () => {};
      relayOf(objects, relay.name);
      const read = (name: string, query: string) => [...objects.sqlOf(name).exec(query)];
      await until(async () => (await home.engine.members("room")).length === 0);
      await until(() => isDeepStrictEqual(read(relay.name, 'SELECT behind FROM "noroshi_relay"').map(own), [{ behind: 0 }]));
      assert.deepEqual(read(HOME, 'SELECT channel FROM "noroshi_interests"').map(own), [{ channel: "other" }]);
    }));

  it("refuse a call that arrives after later ones, and handle the next one", () =>
    withObjects(async (objects) => {
      const { engine, host } = relayOf(objects);
      const call = (run: string, number: number) =>
        engine.receive({ run, number, items: [{ type: "message", text: `${run} ${number}` }], isLate: false, others: [] });
      const numbers = range(150).map((number) => number + 1);
      for (const number of numbers) await call("first", number);
      await call("first", 150);
      await assert.rejects(call("first", 1), /a later one has arrived before it/);
      await call("second", 1);
      await assert.rejects(call("first", 149), /a later one/);
      assert.deepEqual(host.messages, [...numbers.map((number) => `first ${number}`), "second 1"]);
    }));

  it("send a message once to a relay that cannot read its histories", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.subscribe("room", LONG);
      let failures = 0;
      const { read } = relay.engine;
      relay.engine.read = async (...query) => {
        if (++failures > 2) return await read.apply(relay.engine, query);
        throw new Error("Cannot read");
      };
      const { receive } = relay.engine;
      let isLate = true;
      relay.engine.receive = async (call) => {
        const answer = await receive.call(relay.engine, { ...call, isLate: call.isLate || isLate });
        isLate = false;
        return answer;
      };
      await home.engine.send("once");
      await until(() => failures > 2);
      await home.engine.send("then");
      await relay.host.until(() => relay.host.messages.includes("then"));
      assert.deepEqual(relay.host.messages, ["once", "then"]);
    }));

  it("limit the size of an answer, however much a relay has missed", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      const channels = range(60).map((number) => `room-${number}`);
      await Promise.all(channels.map((channel) => relay.engine.subscribe(channel, LONG)));
      const lengths: number[] = [];
      const { receive } = home.engine;
      home.engine.receive = async (call) => {
        const answer = await receive.call(home.engine, call);
        lengths.push(JSON.stringify(answer).length);
        return answer;
      };
      let failures = 0;
      away(objects, relay.name, () => ++failures === 1);
      for (const channel of channels) home.engine.publish(channel, { event: "say", data: "x".repeat(90_000) }, LONG);
      await relay.host.until(() => channels.every((channel) => relay.host.publications(channel).length === 1));
      assert.ok(Math.max(...lengths) < 1_200_000, `${lengths}`);
      assert.deepEqual(relay.host.errors, []);
    }));

  it("read the members of a channel once for all calls during the read", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.join("room", { user: "ann" });
      let asked = 0;
      const { membersAfter } = home.engine;
      home.engine.membersAfter = (...query) => {
        asked++;
        return membersAfter.apply(home.engine, query);
      };
      const lists = await Promise.all(range(20).map(() => relay.engine.members("room")));
      for (const list of lists) assert.deepEqual(list, [{ user: "ann" }]);
      assert.equal(asked, 2);
      await relay.engine.members("room");
      assert.equal(asked, 3);
    }));

  it("end a read of the members when the relay is closed, and do not list the relay again", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.register();
      const { membersAfter } = home.engine;
      let asked = 0;
      home.engine.membersAfter = async (...query) => {
        asked++;
        if (asked === 1) await relay.engine.close();
        return { ...await membersAfter.apply(home.engine, query), hasMore: asked < 3 };
      };
      // The second call waits for the first one.
      const lists = await Promise.allSettled(range(2).map(() => relay.engine.members("room")));
      for (const list of lists) assert.equal(list.status === "rejected" && list.reason.code, "ENGINE_UNAVAILABLE");
      assert.equal(asked, 1);
      assert.deepEqual(home.engine.relays, []);
    }));

  it("do not repeat a failed call once the relay is closed", () =>
    withObjects(async (objects, home) => {
      const relay = relayOf(objects);
      await relay.engine.register();
      let [calls, closing]: [number, Promise<void> | undefined] = [0, undefined];
      away(objects, HOME, () => {
        closing ??= relay.engine.close();
        return ++calls === 1;
      });
      await assert.rejects(relay.engine.nodes(), { code: "ENGINE_UNAVAILABLE" });
      await closing;
      assert.equal(calls, 2); // The second is the farewell.
      assert.deepEqual(home.engine.relays, []);
    }));

  it("send the newest items to a relay that was unreachable, in calls of a limited size", async () => {
    const host = new TestHost();
    const [received, lengths]: [string[], number[]] = [[], []];
    let isAway = true;
    const fanOut = new FanOut({
      run: "run",
      deadlines: host.deadlines,
      answered() {},
      itemsOf: (changes) =>
        Array.from(changes, (change) => ({ type: "presence", channel: "room", joined: [{ user: change.slice(5) }], left: [] })),
      report() {},
      callRelay(_relay, call) {
        if (isAway) return Promise.reject(new Error("Away"));
        lengths.push(JSON.stringify(call).length);
        for (const item of call.items) received.push(item.type === "message" ? item.text.slice(0, 4) : "joined");
        return Promise.resolve({ failed: [], behind: [], nodes: [] });
      },
    });
    fanOut.add("relay");
    for (const number of range(400)) fanOut.push({ type: "message", text: `${number}`.padStart(4).padEnd(40_000) }, ["relay"]);
    for (const number of range(12_000)) {
      fanOut.push({ type: "presence", channel: "room", joined: [{ user: `${number}` }], left: [] }, ["relay"]);
    }
    await turn();
    isAway = false;
    await until(() => fanOut.isIdle);
    fanOut.stop();
    assert.ok(Math.max(...lengths) < 1_200_000, `${lengths}`);
    const messages = received.filter((each) => each !== "joined").map(Number);
    assert.deepEqual(messages, range(messages.length).map((number) => 400 - messages.length + number));
    assert.ok(messages.length > 150 && messages.length < 220, `${messages.length}`);
    assert.equal(received.length - messages.length, 10_000);
  });

  it("send no further call to a relay that is removed during a call", async () => {
    const host = new TestHost();
    const calls: { text: string; end: Stall<RelayAnswer> }[] = [];
    const fanOut = new FanOut({
      run: "run",
      deadlines: host.deadlines,
      answered() {},
      itemsOf: () => [],
      report() {},
      callRelay(_relay, { items: [item] }) {
        const end = new Stall<RelayAnswer>();
        calls.push({ text: item?.type === "message" ? item.text : "", end });
        return end.promise;
      },
    });
    fanOut.add("relay");
    fanOut.push({ type: "message", text: "first" }, ["relay"]);
    await until(() => calls.length > 0);
    fanOut.push({ type: "message", text: "second" }, ["relay"]);
    fanOut.delete("relay");
    calls[0]!.end.reject(new Error("It has stopped"));
    await until(() => fanOut.isIdle || calls.length > 1);
    await turn();
    assert.deepEqual(calls.map(({ text }) => text), ["first"]);
    fanOut.stop();
  });

  it("recover many channels a few at a time, and report a failure once", () =>
    withObjects(async (objects) => {
      const { engine, host, name } = relayOf(objects);
      await Promise.all(range(1_200).map((number) => engine.subscribe(`room-${number}`, LONG)));
      let [reading, most, reads] = [0, 0, 0];
      let isBroken = true;
      const { read } = engine;
      engine.read = async (...query) => {
        reads++;
        most = Math.max(most, ++reading);
        await turn();
        reading--;
        if (isBroken) throw new Error("Cannot read");
        return await read.apply(engine, query);
      };
      const call = { run: "run", items: [], isLate: true, others: [] };
      assert.deepEqual((await engine.receive({ ...call, number: 1 })).behind, [name]);
      assert.deepEqual([reads, most, host.errors.length], [1_200, 500, 1]);
      isBroken = false;
      assert.deepEqual((await engine.receive({ ...call, number: 2 })).behind, []);
      assert.deepEqual([reads, most, host.errors.length], [2_400, 500, 1]);
    }));

  it("send all subscriptions to a home object whose storage is an older copy", () =>
    withObjects(async (objects) => {
      const relay = relayOf(objects);
      for (const channel of ["old", "new"]) await relay.engine.subscribe(channel, LONG);
      objects.evict(HOME);
      const home = objects.sqlOf(HOME);
      home.exec('UPDATE "noroshi_relays" SET revision = revision - 1');
      home.exec(`DELETE FROM "noroshi_interests" WHERE channel = 'new'`);
      await relay.engine.publish("old", { event: "say", data: "1" }, LONG);
      assert.deepEqual(codesOf(relay.host), ["ORDERS_LOST"]); // The older copy did not send this relay the orders given since.
      const interests = () => [...home.exec('SELECT channel FROM "noroshi_interests" ORDER BY channel')].map(own);
      await until(() => isDeepStrictEqual(interests(), [{ channel: "new" }, { channel: "old" }]));
      await objects.start(HOME).engine.publish("new", { event: "say", data: "2" }, LONG);
      await relay.host.until(() => relay.host.publications("new").length === 1);
    }));

  it("report a member once when the home object restarts before all relays have confirmed the change", () =>
    withObjects(async (objects, home) => {
      const [one, other] = [relayOf(objects), relayOf(objects)];
      for (const { engine } of [one, other]) await engine.subscribe("room", LONG);
      await one.engine.join("room", { user: "ann", data: '"red"' });
      await one.engine.join("room", { user: "ben" });
      await one.engine.leave("room", "ben");
      for (const { host } of [one, other]) await host.until(() => host.presence.some(({ left }) => left.includes("ben")));
      assert.equal(home.host.isStopped, false);
      const all = [one, other].map(({ host }) => [...host.presence]);
      objects.evict(HOME);
      const again = objects.start(HOME).engine as HomeEngine;
      await again.send("marker");
      for (const { host } of [one, other]) await host.until(() => host.messages.includes("marker"));
      assert.deepEqual([one, other].map(({ host }) => host.presence), all);
      // A change that the home object makes now is announced, as it was before.
      await one.engine.join("room", { user: "ben" });
      for (const { host } of [one, other]) await host.until(() => "ben" in host.membersOf("room"));
    }));

  it("report a repeated change after a new read of the members", () => {
    const announced = new LastChanges();
    const change = { type: "presence", channel: "room", joined: [{ user: "ann" }], left: ["ben"] } as const;
    const all = { joined: [{ user: "ann" }], left: ["ben"] };
    assert.deepEqual(announced.filterNew(change), all);
    assert.deepEqual(announced.filterNew(change), all);
    assert.deepEqual(announced.filterNew({ ...change, isRepeated: true }), { joined: [], left: [] });
    assert.deepEqual(announced.filterNew({ ...change, left: [], joined: [{ user: "ben" }], isRepeated: true }).joined, [{
      user: "ben",
    }]);
    announced.forget("room");
    assert.deepEqual(announced.filterNew({ ...change, isRepeated: true }), all);
    // The number of remembered changes is bounded.
    for (const number of range(10_001)) announced.filterNew({ ...change, joined: [{ user: `${number}` }], left: [] });
    assert.deepEqual(announced.filterNew({ ...change, isRepeated: true }), all);
  });

  it("query the other relays while one hangs", () =>
    withObjects(async (objects, home) => {
      const [relay, hung] = [relayOf(objects), relayOf(objects)];
      await Promise.all([relay.engine.register(), hung.engine.register()]);
      hung.engine.receive = () => new Promise(() => {});
      assert.deepEqual(
        [...await home.engine.nodes()].sort(),
        [home.host.node, relay.host.node, hung.host.node].sort(),
      );
    }));
});
