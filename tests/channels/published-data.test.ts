/** What clients send to channels, validated by the option `contract`. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import * as z from "zod";
import { defineContract, type WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { createChannels } from "../support/channels-fixture.ts";
import { observe } from "../support/observed.ts";

const Name = v.object({ name: v.string() });
const contract = defineContract({
  channels: {
    "room:{id}": {
      events: {
        said: v.object({ text: v.pipe(v.string(), v.trim()) }),
        moved: z.object({ to: z.string().refine((to) => Promise.resolve(to !== "nowhere")) }),
      },
      query: v.object({ since: v.number() }),
      member: v.objectAsync({ name: v.pipeAsync(v.string(), v.checkAsync((name) => Promise.resolve(name !== "root"))) }),
    },
    free: { snapshot: v.string() },
  },
});

const create = () =>
  createChannels({
    "room:{id}": { authorize: () => true, presence: { data: "client" } },
    "other": { authorize: () => true },
    free: { authorize: () => true },
  }, { contract, validate: false });

const say = (event: string, data: unknown, channel = "room:1") => ({ type: "publish", uid: 1, channel, event, data });
const faults = (answers: { error?: { code: string; path: string } }[]) =>
  answers.map(({ error }) => error && [error.code, error.path]);

describe("Channels.publish", () => {
  it("throws for a name that no client can subscribe to", async () => {
    const { channels } = createChannels({
      "room:*": { authorize: () => true, history: { size: 1, ttl: 1_000 }, presence: true },
    });
    for (const id of ["hello world", "é", "\n", "{id}", "*", "x".repeat(1_000)]) {
      assert.throws(() => void channels.publish(`room:${id}`, "e", 1), { name: "TypeError", message: /a name is 1 to 255 of/ });
      await assert.rejects(channels.presence(`room:${id}`), TypeError);
      await assert.rejects(channels.history(`room:${id}`), TypeError);
    }
    for (const name of ["room:", "room:a.b/c@d=e+f~g"]) await channels.publish(name, "e", 1);
  });
});

describe("The option contract", () => {
  it("validates what clients publish", async () => {
    const { join } = create();
    const [peer, reader] = [join("mika"), join("yuki")];
    await reader.ask({ type: "subscribe", channel: "room:1" });
    assert.deepEqual(
      faults(await peer.ask(say("said", { text: 5 }), say("said", "<script>"), say("evil", {}), say("moved", { to: "nowhere" }))),
      [["INVALID_PAYLOAD", "data.text"], ["INVALID_PAYLOAD", "data"], ["INVALID_PAYLOAD", "event"], [
        "INVALID_PAYLOAD",
        "data.to",
      ]],
    );
    assert.deepEqual(await reader.take(), []);
    assert.equal((await peer.ask(say("said", { text: " hi ", extra: 1 })))[0].status, "ok");
    assert.equal((await peer.ask(say("moved", { to: "here" })))[0].status, "ok");
    assert.deepEqual((await reader.take()).map(({ event, data }) => [event, data]), [
      ["said", { text: "hi" }],
      ["moved", { to: "here" }],
    ]);
    for (const channel of ["free", "other"]) assert.equal((await peer.ask(say("any", 1, channel)))[0].status, "ok");
  });

  it("refuses a publication whose schema takes longer than timeout, and answers the next one", async () => {
    const stalls = v.pipeAsync(
      v.string(),
      v.checkAsync((text) => text === "stall" ? new Promise(() => {}) : Promise.resolve(true)),
    );
    const { join, clock } = createChannels({ a: { authorize: () => true, schema: { said: stalls } } }, { timeout: 1_000 });
    const [peer, reader] = [join("mika"), join("yuki")];
    await reader.ask({ type: "subscribe", channel: "a" });
    assert.deepEqual(await peer.ask(say("said", "stall", "a"), { ...say("said", "hi", "a"), uid: 2 }), []);
    clock.advance(999);
    assert.deepEqual(await peer.take(), []);
    clock.advance(1);
    assert.deepEqual((await peer.take()).map(({ uid, status, error }) => [uid, status, error?.code]), [
      [1, "error", "SERVICE_UNAVAILABLE"],
      [2, "ok", undefined],
    ]);
    assert.deepEqual((await reader.take()).map(({ data }) => data), ["hi"]);
  });

  it("leaves events to the schema of the declaration", async () => {
    const { join } = createChannels({ "room:{id}": { authorize: () => true, schema: { said: Name } } }, { contract });
    const answers = await join().ask(say("said", { name: "mika" }), say("moved", { to: "here" }));
    assert.deepEqual(faults(answers), [undefined, ["INVALID_PAYLOAD", "event"]]);
  });

  it("validates the query and the data of a member, and keeps the subscription that an invalid one was to replace", async () => {
    const { join } = create();
    const peer = join("mika");
    const subscribe = { type: "subscribe", channel: "room:1", uid: 7 };
    const [{ event }] = await peer.ask({ ...subscribe, query: { since: 1 }, data: { name: "mika" } });
    assert.equal(event, "init");
    for (
      const [wrong, path] of [[{ query: { since: "DROP" } }, "query.since"], [{ data: { evil: 1 } }, "data.name"], [{
        data: { name: "root" },
      }, "data.name"]] as const
    ) {
      assert.deepEqual(faults(await peer.ask({ ...subscribe, ...wrong })), [["INVALID_PAYLOAD", path]]);
      assert.deepEqual(faults(await peer.ask({ ...subscribe, ...wrong, uid: 8 })), [["INVALID_PAYLOAD", path]]);
    }
    await join().ask(say("said", { text: "still here" }));
    assert.deepEqual((await peer.take()).map(({ event, uid }) => [event, uid]), [["said", 7]]);
  });

  it("validates a query without a schema of members, and members without one of queries, if it is the client that sends them", async () => {
    const even = v.objectAsync({ n: v.pipeAsync(v.number(), v.checkAsync((n) => Promise.resolve(n % 2 === 0))) });
    const { join, channels } = createChannels({
      asked: { authorize: () => true, presence: { data: "client" } },
      joined: { authorize: () => true, presence: { data: "client" } },
      made: { authorize: () => true, presence: { data: () => ({ n: 2 }) } },
    }, { contract: defineContract({ channels: { asked: { query: even }, joined: { member: even }, made: { member: even } } }) });
    const peer = join("mika");
    const ask = (channel: string, uid: number, rest: object) => peer.ask({ type: "subscribe", channel, uid, ...rest });
    const odd = { n: 1 };
    assert.deepEqual(faults(await ask("asked", 1, { query: odd, data: odd })), [["INVALID_PAYLOAD", "query.n"]]);
    assert.deepEqual(faults(await ask("joined", 2, { query: odd, data: odd })), [["INVALID_PAYLOAD", "data.n"]]);
    for (const [uid, name] of ["asked", "joined"].entries()) {
      const [init] = await ask(name, uid, name === "asked" ? { query: { n: 2 }, data: odd } : { query: odd, data: { n: 2 } });
      assert.equal(init.event, "init", name);
    }
    assert.equal((await ask("made", 3, { data: odd }))[0].event, "init");
    assert.deepEqual(await channels.presence("made"), [{ user: "mika", data: { n: 2 } }]);
  });

  it("refuses a schema of an event that the contract does not have", () => {
    const { controller } = observe({ contract });
    const schema = { said: Name, evil: Name };
    const declarations = { "room:{id}": { authorize: () => true, schema } };
    assert.throws(
      () => new Channels(controller as WebSocketController, declarations),
      /Cannot declare the channel "room:\{id\}": the contract has no event "evil", add it, or remove schema\.evil$/,
    );
    const events = defineContract({ channels: { free: {} } }); // Has no events, and so restricts none.
    new Channels(observe({ contract: events }).controller as WebSocketController, { free: { authorize: () => true, schema } });
  });

  it("refuses schemas that it cannot run", () => {
    const wrong = v.object({ a: v.pipe(v.string(), v.check((async () => {}) as never)) });
    for (const declared of [{ events: { said: wrong } }, { query: wrong }, { member: wrong }]) {
      const { controller } = observe({ contract: defineContract({ channels: { a: declared } }) as never });
      assert.throws(() => new Channels(controller, { a: { authorize: () => true } }), /Cannot declare the channel "a"/);
      new Channels(controller, { b: { authorize: () => true } });
    }
  });
});
