import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { type AuthorizeContext, Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { HistoryOptions, Position } from "../../src/engines/engine.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { WebSocketMessage } from "../../src/protocol/protocol.ts";
import { anybody, createChannels, kept, say, type TestPeer } from "../support/channels-fixture.ts";
import { Random } from "../support/random.ts";
import { Stall, turn } from "../support/waiting.ts";

const subscribe = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel, ...rest });
const unsubscribe = (rest: Record<string, unknown> = {}) => ({ type: "unsubscribe", ...rest });
const init = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "subscription", event: "init", channel, ...rest });
const event = (channel: string, name: string, data: unknown, rest: Record<string, unknown> = {}) => ({
  type: "subscription",
  event: name,
  channel,
  data,
  ...rest,
});
const refused = (code: string, uid?: unknown) => ({ code, uid });
const range = (count: number, first = 0): number[] => Array.from({ length: count }, (_, number) => first + number);
// deno-lint-ignore no-explicit-any -- whatever was sent
const faultOf = ({ error, uid }: any) => ({ code: error?.code, uid });

describe("Channels: subscribe", () => {
  it("answers with init, and then with what is published", async () => {
    const { join, channels } = createChannels({ news: anybody });
    const peer = join();
    assert.deepEqual(await peer.ask(subscribe("news")), [init("news")]);
    await channels.publish("news", "flash", { text: "Hello" });
    assert.deepEqual(await peer.take(), [event("news", "flash", { text: "Hello" })]);
  });

  it("echoes the uid with its JSON type on everything of the subscription", async () => {
    const { join, channels } = createChannels({ news: anybody });
    const peer = join();
    for (const uid of ["a", 1, "1", '😀"\\']) {
      assert.deepEqual(await peer.ask(subscribe("news", { uid })), [init("news", { uid })]);
    }
    await channels.publish("news", "flash", 1);
    assert.deepEqual(await peer.take(), ["a", 1, "1", '😀"\\'].map((uid) => event("news", "flash", 1, { uid })));
  });

  it("accepts collection for channel", async () => {
    const { join } = createChannels({ news: anybody });
    assert.deepEqual(await join().ask({ type: "subscribe", collection: "news", uid: "1" }), [init("news", { uid: "1" })]);
  });

  it("is refused with a field that would narrow what is sent, by its name, and has changed nothing", async () => {
    const { join, channels } = createChannels({ news: { ...anybody, snapshot: () => ["all"] } });
    const peer = join();
    await peer.ask(subscribe("news", { uid: "u" }));
    const values = [1, "1", 0, "", null, false, [], [1], {}, { _eq: 1 }];
    for (
      const name of [
        "item",
        "items",
        "ids",
        "keys",
        "events",
        "filter",
        "fields",
        "sort",
        "search",
        "limit",
        "offset",
        "page",
        "deep",
      ]
    ) {
      for (const named of [{ channel: "news" }, { collection: "news" }, { channel: "news", collection: "news" }]) {
        for (const value of values) {
          const [answer, ...rest] = await peer.ask({ type: "subscribe", ...named, uid: "u", [name]: value });
          assert.deepEqual([answer.error, rest], [{
            code: "INVALID_PAYLOAD",
            message: `Invalid payload at "${name}"`,
            path: name,
          }, []]);
        }
      }
    }
    const [two] = await peer.ask({ type: "subscribe", channel: "news", collection: "other", uid: "u" });
    assert.equal(two.error.code, "INVALID_PAYLOAD");
    await channels.publish("news", "create", 1);
    assert.deepEqual(await peer.take(), [event("news", "create", 1, { uid: "u" })]);
    // In the query they are the channel's to read; elsewhere unknown fields say nothing of what is sent.
    const fine = { query: { item: 1, filter: {}, limit: 1 }, status: "ok", more: {} };
    assert.equal((await peer.ask(subscribe("news", fine)))[0].event, "init");
  });

  it("sends only the event that was subscribed to, and no snapshot", async () => {
    const { join, channels } = createChannels({ news: { ...anybody, snapshot: () => ["old"] } });
    const peer = join();
    assert.deepEqual(await peer.ask(subscribe("news", { event: "create" })), [init("news")]);
    await channels.publish("news", "update", 1);
    await channels.publish("news", "create", 2);
    assert.deepEqual(await peer.take(), [event("news", "create", 2)]);
  });

  it("begins with the history of its channel, when the snapshot reads it", async () => {
    const { join, channels } = createChannels({
      "room:*": { ...kept, snapshot: async ({ history }) => (await history({ limit: 2 })).publications.map(({ data }) => data) },
      bare: { ...anybody, snapshot: ({ history }) => history().catch((error) => String(error)) },
    });
    for (const data of [1, 2, 3]) await channels.publish("room:1", "say", data);
    await channels.publish("room:2", "say", 4);
    const [{ data }] = await join().ask(subscribe("room:1"));
    assert.deepEqual(data, [2, 3]);
    const [bare] = await join().ask(subscribe("bare"));
    assert.equal(bare.data, 'TypeError: Cannot read "bare": declare it with history: { size, ttl }');
  });

  it("begins with the snapshot for its query", async () => {
    const queries: unknown[] = [];
    const { join } = createChannels({
      news: {
        ...anybody,
        snapshot: ({ query }) => {
          queries.push(query);
          return Promise.resolve([{ id: 1 }]);
        },
      },
    });
    assert.deepEqual(await join().ask(subscribe("news", { query: { limit: "1" } })), [init("news", { data: [{ id: 1 }] })]);
    assert.deepEqual(await join().ask(subscribe("news")), [init("news", { data: [{ id: 1 }] })]);
    assert.deepEqual(queries, [{ limit: "1" }, {}]);
  });

  it("is refused for an undeclared channel, and by authorize", async () => {
    const { join, events } = createChannels({
      closed: { authorize: () => false },
      odd: { authorize: () => "yes" as never },
      none: { authorize: () => null as never },
      timeless: { authorize: () => ({ ttl: "5000" }) as never },
      own: {
        authorize: () => {
          throw new WebSocketError("subscribe", "NOT_TODAY", "Not today");
        },
      },
      broken: { authorize: () => Promise.reject(new Error("secret")) },
      silly: { ...anybody, snapshot: () => ({ big: 10n }) },
    });
    const peer = join();
    const codes = [];
    for (const channel of ["other", "closed", "odd", "none", "timeless", "own", "broken", "silly"]) {
      const [answer, ...rest] = await peer.ask(subscribe(channel, { uid: channel }));
      assert.deepEqual(rest, []);
      assert.equal(answer.type, "subscribe");
      assert.equal(answer.status, "error");
      assert.doesNotMatch(JSON.stringify(answer), /secret/);
      codes.push(faultOf(answer));
    }
    assert.deepEqual(codes, [
      refused("FORBIDDEN", "other"),
      refused("FORBIDDEN", "closed"),
      refused("FORBIDDEN", "odd"),
      refused("FORBIDDEN", "none"),
      refused("FORBIDDEN", "timeless"),
      refused("NOT_TODAY", "own"),
      refused("INTERNAL_ERROR", "broken"),
      refused("INTERNAL_ERROR", "silly"),
    ]);
    assert.equal(events.filter(([name]) => name === "error").length, 2);
  });

  it("is refused as INVALID_PAYLOAD if the message is not a valid subscribe, and changes nothing", async () => {
    const { join, channels } = createChannels({ "*": anybody });
    const peer = join();
    await peer.ask(subscribe("a", { uid: "u", data: "x".repeat(1_022) }));
    const bad: Record<string, unknown>[] = [
      {},
      { channel: 1 },
      { channel: "" },
      { channel: "a b" },
      { channel: "a*" },
      { channel: "ä" },
      { channel: "x".repeat(256) },
      { channel: "a", event: 1 },
      { channel: "a", event: "" },
      { channel: "a", query: [] },
      { channel: "a", query: "x" },
      { channel: "a", recover: {} },
      { channel: "a", recover: { epoch: "x", offset: -1 } },
      { channel: "a", recover: { epoch: "x", offset: 1.5 } },
      { channel: "a", presence: "yes" },
      { channel: "a", data: "x".repeat(1_023) },
    ];
    for (const message of bad) {
      const answers = await peer.ask({ type: "subscribe", uid: "u", ...message });
      assert.deepEqual(answers.map(faultOf), [refused("INVALID_PAYLOAD", "u")], JSON.stringify(message).slice(0, 80));
    }
    for (const message of [{ channel: 1 }, { uid: {} }]) {
      assert.deepEqual((await peer.ask(unsubscribe(message))).map(({ error }) => error?.code), ["INVALID_PAYLOAD"]);
    }
    await channels.publish("a", "e", 1);
    assert.deepEqual(await peer.take(), [event("a", "e", 1, { uid: "u" })]);
  });

  it("is limited in number and in the size of its query", async () => {
    const { join } = createChannels({ "*": anybody }, { maxSubscriptions: 2 });
    const peer = join();
    await peer.ask(subscribe("a", { uid: 1 }), subscribe("b", { uid: 2 }));
    assert.deepEqual((await peer.ask(subscribe("c", { uid: 3 }))).map(faultOf), [refused("LIMIT_EXCEEDED", 3)]);
    assert.deepEqual(await peer.ask(subscribe("c", { uid: 2 })), [init("c", { uid: 2 })]);
    const query = (bytes: number) => ({ x: "x".repeat(bytes - '{"x":""}'.length) });
    assert.deepEqual(await peer.ask(subscribe("c", { uid: 2, query: query(8_192) })), [init("c", { uid: 2 })]);
    const large = subscribe("c", { uid: 2, query: query(8_193) });
    assert.deepEqual((await peer.ask(large)).map(faultOf), [refused("LIMIT_EXCEEDED", 2)]);
  });

  it("takes the longest declaration that fits", async () => {
    const { join } = createChannels({
      "*": { ...anybody, snapshot: () => "any" },
      "room:*": { ...anybody, snapshot: () => "room" },
      "room:1": { ...anybody, snapshot: () => "one" },
    });
    const peer = join();
    const datas = [];
    for (const channel of ["x", "room", "room:", "room:2", "room:1", "room:11"]) {
      datas.push((await peer.ask(subscribe(channel)))[0].data);
    }
    assert.deepEqual(datas, ["any", "any", "room", "room", "one", "room"]);
  });

  it("a pattern covers its own beginning too, which falls to no shorter one", async () => {
    const { join, channels } = createChannels({
      "*": anybody,
      "room:*": anybody,
      "room:secret*": { authorize: () => false },
      "room:secret:lobby": anybody,
    });
    const peer = join();
    for (const channel of ["room:secret", "room:secret:", "room:secrets", "room:secret:1"]) {
      assert.deepEqual((await peer.ask(subscribe(channel, { uid: 1 }))).map(faultOf), [refused("FORBIDDEN", 1)], channel);
    }
    for (const channel of ["room:secret:lobby", "room:secre", "room:", "room"]) {
      assert.deepEqual(await peer.ask(subscribe(channel)), [init(channel)]);
    }
    // No name begins with nothing at all.
    assert.throws(() => channels.publish("" as string, "e", 1), TypeError);
  });
});

describe("Channels: replacement and unsubscribe", () => {
  it("the same uid takes the place of the one before, which goes on until then", async () => {
    const stall = new Stall<boolean>();
    let asked = 0;
    const { join, channels } = createChannels({
      a: { authorize: () => ++asked === 1 || stall.promise },
      b: anybody,
    });
    const peer = join();
    await peer.ask(subscribe("a", { uid: 1 }));
    peer.send(subscribe("a", { uid: 1 }));
    await turn();
    await channels.publish("a", "e", 1);
    stall.resolve(true);
    assert.deepEqual(await peer.take(), [event("a", "e", 1, { uid: 1 }), init("a", { uid: 1 })]);
    await channels.publish("a", "e", 2);
    assert.deepEqual(await peer.take(), [event("a", "e", 2, { uid: 1 })]);
    assert.deepEqual(await peer.ask(subscribe("b", { uid: 1 })), [init("b", { uid: 1 })]);
    await channels.publish("a", "e", 3);
    assert.deepEqual(await peer.take(), []);
    assert.equal(channels.stats("a").channels, 0);
  });

  it("of two subscribes of one uid in one write only the last is answered", async () => {
    const { join, channels } = createChannels({ a: { ...anybody, snapshot: async () => await 1 } });
    const peer = join();
    assert.deepEqual(await peer.ask(subscribe("a", { uid: 1 }), subscribe("a", { uid: 1 })), [init("a", { uid: 1, data: 1 })]);
    await channels.publish("a", "e", 1);
    assert.deepEqual(await peer.take(), [event("a", "e", 1, { uid: 1 })]);
  });

  it("a refused replacement ends the replaced subscription, and an invalid one changes nothing", async () => {
    let allowed = true;
    const { join, channels } = createChannels({ a: { authorize: () => allowed } });
    const peer = join();
    await peer.ask(subscribe("a", { uid: 1 }), subscribe("a", { uid: 2 }));
    allowed = false;
    assert.deepEqual((await peer.ask(subscribe("a", { uid: 1 }))).map(faultOf), [refused("FORBIDDEN", 1)]);
    assert.deepEqual((await peer.ask(subscribe("*", { uid: 2 }))).map(faultOf), [refused("INVALID_PAYLOAD", 2)]);
    await channels.publish("a", "e", 1);
    assert.deepEqual(await peer.take(), [event("a", "e", 1, { uid: 2 })]);
  });

  it("says nothing of what it was to replace that ends meanwhile, unless its replacement changes nothing", async () => {
    const authorize = async ({ query }: AuthorizeContext) => {
      if (!query) return isAllowed;
      await stall.promise;
      if (!isValid) throw new WebSocketError("subscribe", "INVALID_PAYLOAD", "Not so");
      return true;
    };
    const ann = { accountability: { user: "ann", role: null } };
    const options = { mode: "public", authenticate: () => ann, revalidate: () => ann } as const;
    const { join, channels, controller } = createChannels({ a: { authorize } }, options);
    let stall = new Stall<boolean>();
    let isAllowed = true;
    let isValid = true;
    const peer = join("ann");
    for (isValid of [true, false]) {
      stall = new Stall<boolean>();
      isAllowed = true;
      await peer.ask(subscribe("a", { uid: 1 }));
      // Of two, the second takes the place of the first.
      await peer.ask(subscribe("a", { uid: 1, query: { n: 1 } }));
      isAllowed = false;
      await controller.refresh({ user: "ann" });
      await peer.ask(subscribe("a", { uid: 1, query: { n: 2 } }));
      assert.deepEqual(await peer.take(), []);
      await channels.publish("a", "e", 1);
      assert.deepEqual(await peer.take(), []);
      stall.resolve(true);
      const answers = await peer.take();
      if (isValid) assert.deepEqual(answers, [init("a", { uid: 1 })]);
      else {
        assert.deepEqual(faultOf(answers[0]), refused("INVALID_PAYLOAD", 1));
        assert.deepEqual(answers.slice(1), [
          { type: "subscription", event: "unsubscribe", channel: "a", uid: 1, reason: "FORBIDDEN" },
        ]);
      }
      assert.equal(channels.stats().subscriptions, isValid ? 1 : 0);
      await peer.ask(unsubscribe());
    }
  });

  it("keeps several subscriptions of one client to one channel apart", async () => {
    const { join, channels } = createChannels({ a: anybody });
    const peer = join();
    await peer.ask(
      subscribe("a"),
      subscribe("a", { event: "x" }),
      subscribe("a", { uid: 7 }),
      subscribe("a", { event: "undefined" }),
    );
    await channels.publish("a", "x", 1);
    await channels.publish("a", "y", 2);
    assert.deepEqual(await peer.take(), [
      event("a", "x", 1),
      event("a", "x", 1),
      event("a", "x", 1, { uid: 7 }),
      event("a", "y", 2),
      event("a", "y", 2, { uid: 7 }),
    ]);
  });

  it("distinguishes a uid from a channel and event of the same text", async () => {
    const { join, channels } = createChannels({ "*": anybody });
    const peer = join();
    await peer.ask(
      ...["a", 1].flatMap((uid) => [
        subscribe(typeof uid, { event: String(uid) }),
        subscribe("other", { uid }),
      ]),
    );
    assert.equal(channels.stats().subscriptions, 4);
    for (const channel of ["string", "number"]) for (const name of ["a", "1"]) await channels.publish(channel, name, channel);
    assert.deepEqual((await peer.take()).map(({ event, data }) => [event, data]), [["a", "string"], ["1", "number"]]);
  });

  it("unsubscribe ends the uid, the channel's or all, is answered once, and nothing follows", async () => {
    const { join, channels } = createChannels({ "*": anybody });
    const peer = join();
    const ended = (rest: Record<string, unknown> = {}) => ({ type: "subscription", event: "unsubscribe", ...rest });
    const all = () =>
      peer.ask(subscribe("a", { uid: 1 }), subscribe("a", { uid: "1" }), subscribe("a"), subscribe("b", { uid: 2 }));
    const left = async () => {
      await channels.publish("a", "e", 0);
      await channels.publish("b", "e", 0);
      return (await peer.take()).map(({ channel, uid }) => `${channel}${JSON.stringify(uid)}`).sort();
    };
    await all();
    assert.deepEqual(await peer.ask(unsubscribe({ uid: 1 })), [ended({ uid: 1 })]);
    assert.deepEqual(await left(), ['a"1"', "aundefined", "b2"]);
    assert.deepEqual(await peer.ask(unsubscribe({ channel: "a" })), [ended({ channel: "a" })]);
    assert.deepEqual(await left(), ["b2"]);
    await all();
    assert.deepEqual(await peer.ask(unsubscribe()), [ended()]);
    assert.deepEqual(await left(), []);
    assert.deepEqual(await peer.ask(unsubscribe({ uid: "never" })), [ended({ uid: "never" })]);
    assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
  });
});

describe("Channels: what is under way", () => {
  it("the last of several replacements ends what was live before them", async () => {
    const stalls = [new Stall<boolean>(), new Stall<boolean>()];
    let asked = 0;
    const { join, channels } = createChannels({ a: { authorize: () => asked++ === 0 || stalls[asked - 2]!.promise } });
    const peer = join();
    await peer.ask(subscribe("a", { uid: 1 }));
    peer.send(subscribe("a", { uid: 1 }), subscribe("a", { uid: 1 }));
    await channels.publish("a", "e", 0);
    assert.deepEqual(await peer.take(), [event("a", "e", 0, { uid: 1 })]);
    for (const stall of stalls) stall.resolve(true);
    assert.deepEqual(await peer.take(), [init("a", { uid: 1 })]);
    await channels.publish("a", "e", 1);
    assert.deepEqual(await peer.take(), [event("a", "e", 1, { uid: 1 })]);
    assert.equal(channels.stats("a").subscriptions, 1);
  });

  it("a replacement with an undeclared channel ends the replaced subscription", async () => {
    const { join, channels } = createChannels({ a: anybody });
    const peer = join();
    await peer.ask(subscribe("a", { uid: 1 }), subscribe("other", { uid: 1 }));
    await channels.publish("a", "e", 1);
    assert.deepEqual(await peer.take(), []);
  });

  it("a permission of less than a millisecond is none", async () => {
    const { join } = createChannels({ a: { authorize: ({ query }) => ({ ttl: Number(query?.["ttl"]) }) } });
    const peer = join();
    for (const ttl of [0.001, 0, -1]) {
      assert.deepEqual((await peer.ask(subscribe("a", { query: { ttl }, uid: 1 }))).map(faultOf), [refused("FORBIDDEN", 1)]);
    }
    assert.equal((await peer.ask(subscribe("a", { query: { ttl: 1 } })))[0].event, "init");
  });

  it("leaves no state behind when it ends", async () => {
    const engine = new MemoryEngine();
    const { join, channels, controller } = createChannels({ a: { authorize: () => ({ ttl: 1_000 }) } }, { engine });
    const [peer, other] = [join(), join()];
    await peer.ask(subscribe("a"));
    await other.ask(subscribe("a"));
    await peer.ask(unsubscribe());
    assert.deepEqual(channels.stats("a"), { channels: 1, subscriptions: 1, subscribers: 1 });
    assert.deepEqual(channels.stats("b"), { channels: 0, subscriptions: 0, subscribers: 0 });
    other.leave();
    assert.equal(channels.stats("a").channels, 0);
    assert.equal(engine.channels, 0);
    assert.equal(controller.stats().deadlines, 0);
  });

  it("sends neither publications nor positions after the answer to unsubscribe, while a large audience is served in slices", async () => {
    const { join, channels } = createChannels({ a: kept }, { maxSubscriptions: 2_001 });
    const peer = join();
    const uids = Array.from({ length: 2_001 }, (_, uid) => uid);
    await peer.ask(...uids.map((uid) => subscribe("a", { uid })));
    void channels.publish("a", "e", 1);
    peer.send({ type: "ping" }, unsubscribe({ uid: 2_000 }));
    const received = await peer.take();
    assert.equal(received.filter(({ event }) => event === "e").length, 2_000);
    assert.deepEqual(received.slice(-2), [{ type: "pong" }, { type: "subscription", event: "unsubscribe", uid: 2_000 }]);
    const [pong] = await peer.ask({ type: "ping" });
    assert.equal(pong.channels.a.offset, 1);
  });

  it("goes by topics where there are some, in order with what does not, and not to who has left or is not to be sent anything", async () => {
    const { join, channels, topics } = createChannels({ a: kept }, { maxSubscriptions: 2_001 });
    const [many, one, left, closing] = [join(), join(), join(), join()];
    await many.ask(...Array.from({ length: 2_001 }, (_, uid) => subscribe("a", { uid })));
    for (const peer of [one, left, closing]) await peer.ask(subscribe("a"));
    await left.ask(unsubscribe());
    closing.client.close();
    for (const n of [1, 2, 3]) void channels.publish("a", "e", n);
    const data = async (peer: TestPeer) => (await peer.take()).map(({ data }) => data);
    assert.deepEqual(await data(one), [1, 2, 3]);
    assert.equal((await data(many)).length, 3 * 2_001);
    assert.deepEqual([await data(left), await data(closing)], [[], []]);
    assert.equal(topics.publications, 1);
  });

  it("sends nothing by topic either to a client whose credentials are expired, while its subscription is replaced", async () => {
    let answer: Promise<boolean> | boolean = true;
    const { join, channels, clock, topics } = createChannels({ a: { authorize: () => answer } }, {
      mode: "public",
      authenticate: ({ access_token }: { access_token?: string }) => ({
        accountability: { user: access_token!, role: null },
        expires_at: access_token === "ann" ? clock.now() / 1_000 + 5 : null,
      }),
    } as WebSocketControllerOptions);
    const [peer, other] = [join(), join()];
    await peer.ask({ type: "auth", access_token: "ann" }, subscribe("a"));
    await other.ask({ type: "auth", access_token: "bob" }, subscribe("a"));
    answer = new Promise(() => {});
    await peer.ask(subscribe("a"));
    for (const n of [1, 2]) await channels.publish("a", "e", n);
    assert.deepEqual([(await peer.take()).length, (await other.take()).length], [2, 2]);
    clock.advance(5_000);
    await peer.take();
    for (const n of [3, 4]) await channels.publish("a", "e", n);
    assert.deepEqual([(await peer.take()).length, (await other.take()).length], [0, 2]);
    assert.equal(topics.publications, 2);
  });

  it("a publication is refused when 1,024 wait for authorization, and those are dropped when their client disconnects", async () => {
    let stall = new Stall<boolean>();
    const { join, channels } = createChannels({ a: { ...kept, authorize: () => stall.promise } });
    const peer = join();
    const ask = () => {
      for (let uid = 0; uid <= 1_024; uid++) peer.send({ type: "publish", channel: "a", event: "e", uid });
      return peer.take();
    };
    assert.deepEqual((await ask()).map(faultOf), [refused("LIMIT_EXCEEDED", 1_024)]);
    stall.resolve(true);
    assert.equal((await peer.take()).length, 1_024);
    // Those that are answered wait no more.
    stall = new Stall<boolean>();
    assert.deepEqual((await ask()).map(faultOf), [refused("LIMIT_EXCEEDED", 1_024)]);
    peer.leave();
    const { offset } = await channels.history("a");
    stall.resolve(true);
    await peer.take();
    assert.deepEqual([offset, (await channels.history("a")).offset], [1_024, 1_024]);
  });
});

describe("Channels: races", () => {
  it("what is published during the subscribe comes after init, once", async () => {
    const [authorized, snapshot] = [new Stall<boolean>(), new Stall<unknown>()];
    const { join, channels } = createChannels({
      a: { authorize: () => authorized.promise, snapshot: () => snapshot.promise },
    });
    const peer = join();
    peer.send(subscribe("a"));
    await channels.publish("a", "e", 1);
    authorized.resolve(true);
    await turn();
    await channels.publish("a", "e", 2);
    snapshot.resolve("snapshot");
    await turn();
    await channels.publish("a", "e", 3);
    assert.deepEqual(await peer.take(), [init("a", { data: "snapshot" }), event("a", "e", 2), event("a", "e", 3)]);
  });

  it("an unsubscribe while it is authorised leaves nothing", async () => {
    const stall = new Stall<boolean>();
    const { join, channels } = createChannels({ a: { authorize: () => stall.promise } });
    const peer = join();
    const answers = await peer.ask(subscribe("a", { uid: 1 }), unsubscribe({ uid: 1 }));
    assert.deepEqual(answers, [{ type: "subscription", event: "unsubscribe", uid: 1 }]);
    stall.resolve(true);
    await channels.publish("a", "e", 1);
    assert.deepEqual(await peer.take(), []);
    assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
  });

  it("a close while it subscribes leaves no ghost", async () => {
    const [authorized, snapshot] = [new Stall<boolean>(), new Stall<unknown>()];
    const { join, channels } = createChannels({
      a: { authorize: () => authorized.promise, presence: true },
      b: { ...anybody, presence: true, snapshot: () => snapshot.promise },
    });
    const peer = join("ann");
    await peer.ask(subscribe("a"), subscribe("b"));
    peer.leave();
    authorized.resolve(true);
    snapshot.resolve(1);
    await peer.take();
    assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
    assert.deepEqual(await channels.presence("a"), []);
    assert.deepEqual(await channels.presence("b"), []);
  });

  it("a listener that publishes does not change the order", async () => {
    const { join, channels, controller } = createChannels({ a: anybody });
    controller.on("message", ({ message }) => {
      if (message.type === "go") { for (const n of [1, 2, 3]) void channels.publish("a", "e", n); }
    });
    const peer = join();
    await peer.ask(subscribe("a"));
    assert.deepEqual((await peer.ask({ type: "go" })).map(({ data }) => data), [1, 2, 3]);
  });

  it("one client's publications keep their order however long each is authorised", async () => {
    const stalls = Array.from({ length: 200 }, () => new Stall<boolean>());
    const { join } = createChannels({
      a: { ...kept, authorize: ({ action, data }) => action === "subscribe" || stalls[data as number]!.promise },
    });
    const [reader, writer] = [join(), join()];
    await reader.ask(subscribe("a"));
    stalls.forEach((_, data) => writer.send({ type: "publish", channel: "a", event: "e", data, uid: data }));
    for (const stall of [...stalls].reverse()) {
      stall.resolve(true);
      await turn();
    }
    const received = await reader.take();
    assert.deepEqual(received.map(({ data }) => data), stalls.map((_, index) => index));
    assert.deepEqual((await writer.take()).map(({ uid, offset }) => [uid, offset]), stalls.map((_, index) => [index, index + 1]));
  });

  it("a publication is not overtaken though one before it is done, or was refused meanwhile", async () => {
    const stalls = [new Stall<boolean>(), new Stall<boolean>()];
    const { join, channels } = createChannels({
      a: { ...kept, authorize: ({ data }) => stalls[data as number]?.promise ?? data === 4 },
    });
    const peer = join();
    const publish = (data: number) => ({ type: "publish", channel: "a", event: "e", data, uid: data });
    assert.deepEqual(await peer.ask(publish(0), publish(1), publish(3)), []);
    stalls[0]!.resolve(true);
    assert.deepEqual((await peer.take()).map(({ uid }) => uid), [0]);
    assert.deepEqual(await peer.ask(publish(4)), []);
    stalls[1]!.resolve(true);
    assert.deepEqual((await peer.take()).map(({ uid, status }) => [uid, status]), [[1, "ok"], [3, "error"], [4, "ok"]]);
    assert.deepEqual((await channels.history("a")).publications.map(({ data }) => data), [0, 1, 4]);
  });

  it("2,000 publications keep the order of each client, through an authorize of random delay", async () => {
    const random = new Random();
    const { join } = createChannels({
      a: {
        ...kept,
        authorize: async ({ action }) => {
          if (action === "publish") { for (let turns = random.below(4); turns > 0; turns--) await turn(); }
          return true;
        },
      },
    });
    const reader = join();
    await reader.ask(subscribe("a"));
    const writers = Array.from({ length: 20 }, () => join());
    writers.forEach((writer, who) => {
      for (let n = 0; n < 100; n++) writer.send({ type: "publish", channel: "a", event: "e", data: { who, n } });
    });
    const received: { who: number; n: number }[] = [];
    while (received.length < 2_000) received.push(...(await reader.take()).map(({ data }) => data));
    for (const who of writers.keys()) {
      assert.deepEqual(
        received.filter((each) => each.who === who).map(({ n }) => n),
        Array.from({ length: 100 }, (_, n) => n),
        `SEED=${random.seed}`,
      );
    }
  });

  it("an authorize that never answers is given up in time", async () => {
    const { join, channels, clock } = createChannels({ a: { authorize: () => new Promise(() => {}) } });
    const peer = join();
    await peer.ask(subscribe("a", { uid: 1 }), { type: "publish", channel: "a", event: "e", uid: 2 });
    clock.advance(10_000);
    assert.deepEqual((await peer.take()).map(faultOf), [refused("SERVICE_UNAVAILABLE", 1), refused("SERVICE_UNAVAILABLE", 2)]);
    assert.equal(channels.stats().subscriptions, 0);
  });
});

describe("Channels: publish", () => {
  it("by a client is off unless authorize lets it, checked by the schema, and answered with its place", async () => {
    const { join, channels } = createChannels({
      read: { authorize: ({ action }) => action === "subscribe" },
      write: { ...say, history: kept.history },
      plain: anybody,
    });
    const [peer, reader] = [join(), join()];
    await reader.ask(subscribe("write"), subscribe("plain"));
    const publish = (channel: string, rest: Record<string, unknown>) => ({ type: "publish", channel, ...rest });
    assert.deepEqual((await peer.ask(publish("read", { event: "say", uid: 1 }))).map(faultOf), [refused("FORBIDDEN", 1)]);
    assert.deepEqual((await peer.ask(publish("none", { event: "say", uid: 2 }))).map(faultOf), [refused("FORBIDDEN", 2)]);
    const [bad] = await peer.ask(publish("write", { event: "say", data: { text: 1 }, uid: 3 }));
    assert.deepEqual(bad.error, { code: "INVALID_PAYLOAD", message: 'Invalid payload at "data.text"', path: "data.text" });
    assert.deepEqual((await peer.ask(publish("write", { event: "shout", uid: 4 }))).map(faultOf), [
      refused("INVALID_PAYLOAD", 4),
    ]);
    for (const event of ["init", "unsubscribe", "join", "leave", "", 1, "x".repeat(65)]) {
      assert.deepEqual((await peer.ask(publish("write", { event, uid: 5 }))).map(faultOf), [refused("INVALID_PAYLOAD", 5)]);
    }
    const [ok] = await peer.ask(publish("write", { event: "say", data: { text: "Hi", extra: 1 }, uid: 6 }));
    assert.deepEqual(ok, { type: "publish", status: "ok", uid: 6, epoch: ok.epoch, offset: 1 });
    assert.deepEqual(await peer.ask(publish("plain", { event: "say", uid: 7 })), [{ type: "publish", status: "ok", uid: 7 }]);
    assert.deepEqual(await reader.take(), [event("write", "say", { text: "Hi" }, { offset: 1 }), event("plain", "say", null)]);
    assert.deepEqual((await channels.history("write")).publications, [{ event: "say", data: { text: "Hi" }, offset: 1 }]);
  });

  it("by the server resolves with the position, and throws for invalid arguments", async () => {
    const { channels } = createChannels({ a: kept, "b:*": anybody });
    const { epoch, offset } = (await channels.publish("a", "e", 1))!;
    assert.equal(offset, 1);
    assert.deepEqual(await channels.publish("a", "e", undefined), { epoch, offset: 2 });
    assert.equal(await channels.publish("b:1", "e", 1), null);
    for (const name of ["c", "b", "", 1]) {
      assert.throws(() => channels.publish(name as string, "e", 1), /^TypeError: Cannot publish/);
    }
    for (const name of ["", "init", "x".repeat(65), 1]) assert.throws(() => channels.publish("a", name as string, 1), TypeError);
    for (const data of [10n, () => {}, Symbol("x")]) assert.throws(() => channels.publish("a", "e", data), TypeError);
    assert.equal((await channels.publish("a", "x".repeat(64), 1, { id: "x".repeat(64) }))?.offset, 3);
  });

  it("by a client is answered with an error, and reported, when the output of the schema is not JSON", async () => {
    const said = v.pipe(v.string(), v.transform(() => () => {}));
    const { join, channels, events } = createChannels({ a: { ...kept, schema: { said } } });
    assert.deepEqual((await join().ask({ type: "publish", channel: "a", event: "said", data: "x", uid: 1 })).map(faultOf), [
      refused("INTERNAL_ERROR", 1),
    ]);
    const errors = events.flatMap(([name, payload]) => name === "error" && "error" in payload ? [String(payload.error)] : []);
    assert.deepEqual(errors, ['TypeError: Cannot publish to "a": the output of the schema is not JSON']);
    assert.deepEqual((await channels.history("a")).publications, []);
  });

  it("that the engine refuses and no code awaits becomes an error event, and the process continues", async () => {
    const unavailable = new WebSocketError("engine", "ENGINE_UNAVAILABLE", "Cannot publish: the broker is away");
    const { channels, events, engine } = createBroken(unavailable);
    void channels.publish("a", "e", 1);
    await turn();
    assert.deepEqual(events.map(([name, payload]) => [name, "error" in payload && payload.error]), [["error", unavailable]]);
    await assert.rejects(channels.publish("a", "e", 1), unavailable);
    engine.fails = true;
    await assert.rejects(channels.publish("a", "e", 1), unavailable);
  });

  it("answers a client with ENGINE_UNAVAILABLE while the engine is away", async () => {
    const { join, engine } = createBroken(new WebSocketError("engine", "ENGINE_UNAVAILABLE", "The broker is away"));
    const peer = join();
    assert.deepEqual(
      (await peer.ask(subscribe("a", { uid: 1 }), { type: "publish", channel: "a", event: "e", uid: 2 })).map(faultOf),
      [
        refused("ENGINE_UNAVAILABLE", 2),
        refused("ENGINE_UNAVAILABLE", 1),
      ],
    );
    engine.isAway = false;
    assert.equal((await peer.ask(subscribe("a", { uid: 1 })))[0].event, "init");
  });
});

function createBroken(error: WebSocketError) {
  const engine = {
    isAway: true,
    fails: false,
    status: "ready" as const,
    start() {},
    send() {},
    nodes: () => [],
    subscribe() {
      return engine.isAway ? Promise.reject(error) : Promise.resolve(null);
    },
    unsubscribe() {},
    publish() {
      if (engine.fails) throw error;
      return Promise.reject(error);
    },
    read: () => Promise.reject(error),
    join() {},
    leave() {},
    members: () => [],
    close() {},
  };
  return { ...createChannels({ a: anybody }, { engine }), engine };
}

describe("Channels: construction", () => {
  it("throws for declarations that are not what they should be", () => {
    const controller = () => new WebSocketController({ logger: false });
    type Declared = Record<string, unknown>;
    const bad: [Declared, RegExp][] = [
      [{ a: {} }, /authorize/],
      [{ a: null }, /pass authorize/],
      [{ "a b": anybody }, /1 to 255/],
      [{ "a*b": anybody }, /1 to 255/],
      [{ "": anybody }, /1 to 255/],
      [{ a: { ...anybody, snapshot: [] } }, /snapshot/],
      [{ a: { ...anybody, history: { size: 0, ttl: 1 } } }, /history/],
      [{ a: { ...anybody, history: { size: 1, ttl: 1, maxRecover: 0 } } }, /history/],
      [{ a: { ...anybody, schema: { init: say.schema.say } } }, /event/],
      [{ a: { ...anybody, schema: { say: {} } } }, /schema/],
      [{ a: { ...anybody, presence: { grace: -1 } } }, /grace/],
      [{ a: { ...anybody, presence: { data: "server" } } }, /presence.data/],
      [{ a: { ...anybody, size: 1 } }, /unknown option "size"/],
      ...[0, false, null, "no", 5].map((history) => [{ a: { ...anybody, history } }, /history must be/] as [Declared, RegExp]),
      [{ a: { ...anybody, history: { size: 1, ttl: 1, maxrecover: 1 } } }, /unknown option "history.maxrecover"/],
      ...["yes", 1, null, []].map((presence) => [{ a: { ...anybody, presence } }, /presence must be/] as [Declared, RegExp]),
      [{ a: { ...anybody, presence: { Data: "client" } } }, /unknown option "presence.Data"/],
      ...[[], null, "abc"].map((schema) => [{ a: { ...anybody, schema } }, /schema must be/] as [Declared, RegExp]),
      [{ "x:*": anybody, "x:{id}": anybody, "x:{other}": anybody }, /"x:\{id\}" has the same names/],
      [{ "{a}:*": anybody, "{b}:*": anybody }, /"\{a\}:\*" has the same names/],
      ...[[], null, undefined, "abc"].map((declarations) => [declarations, /pass them by name/] as unknown as [Declared, RegExp]),
    ];
    for (const [declarations, expected] of bad) {
      assert.throws(() => new Channels(controller(), declarations as never), expected, JSON.stringify(declarations));
    }
    assert.throws(() => new Channels(controller(), {}, { maxSubscriptions: 0 }), TypeError);
    const good = { ...anybody, schema: { ["x".repeat(64)]: say.schema.say } };
    assert.equal(new Channels(controller(), { a: good }).declared("a").name, "a");
  });

  it("throws if the argument is not a controller, or is one of another copy of the package", () => {
    for (const controller of [undefined, null, "abc", {}, () => {}]) {
      assert.throws(
        () => new Channels(controller as never, {}),
        /^TypeError: Cannot create the channels: pass a WebSocketController/,
      );
    }
    assert.throws(() => new Channels({ extend: () => {} } as never, {}), /the controller is of another copy of the package/);
  });

  it("adds channels to that controller, and permits a client that reads without a subscription as one with it", async () => {
    const { join, channels, controller } = createChannels({
      "room:*": {
        authorize: ({ action, channel, client }) =>
          client.accountability.user === "ann" && channel === "room:1" && action === "subscribe",
      },
    }, { rateLimit: { burst: 3 } });
    assert.equal(channels.controller, controller);
    const ann = join("ann");
    assert.equal((await channels.permit(ann.client, "room:1")).name, "room:*");
    for (const [peer, name] of [[join("bob"), "room:1"], [join("dan"), "other"]] as const) {
      await assert.rejects(channels.permit(peer.client, name), { code: "FORBIDDEN" });
    }
    // Costs two messages.
    await assert.rejects(channels.permit(ann.client, "room:1"), { code: "REQUESTS_EXCEEDED" });
  });

  it("passes authorize the fields that the client has sent, and no others", async () => {
    const seen: object[] = [];
    const { join } = createChannels({ a: { ...kept, authorize: ({ client: _client, ...context }) => seen.push(context) > 0 } });
    const recover = { epoch: "e", offset: 1 };
    await join().ask(
      subscribe("a"),
      subscribe("a", { event: "e", query: { from: 3 }, recover, presence: true, data: 1, uid: 1 }),
      { type: "publish", channel: "a", event: "e" },
    );
    assert.deepEqual(seen, [
      { channel: "a", params: {}, action: "subscribe" },
      { channel: "a", params: {}, action: "subscribe", event: "e", query: { from: 3 }, recover },
      { channel: "a", params: {}, action: "publish", event: "e", data: null },
    ]);
  });

  it("throws for a history that the engine cannot keep, before the engine is started", () => {
    class SmallEngine extends MemoryEngine {
      check({ size }: HistoryOptions): void {
        if (size > 10) throw new TypeError("Cannot keep such a history: it is for 10 publications");
      }
      override start(): never {
        throw new Error("It was started");
      }
    }
    const controller = () => new WebSocketController({ engine: new SmallEngine(), logger: false });
    for (const name of ["a", "a*"]) {
      const declarations = (size: number) => ({ b: anybody, [name]: { ...anybody, history: { size, ttl: 1_000 } } });
      assert.throws(() => new Channels(controller(), declarations(11)), /Cannot keep such a history/);
      new Channels(controller(), declarations(10));
    }
  });

  it("throws where a controller has channels, or a handler of one of their types", () => {
    const controller = new WebSocketController({ logger: false });
    new Channels(controller, {});
    assert.throws(() => new Channels(controller, {}), /has channels already/);
    assert.throws(() => controller.handle("publish", say.schema.say, () => {}), /has a handler already/);
    const other = new WebSocketController({ logger: false });
    other.handle("subscribe", say.schema.say, () => {});
    assert.throws(() => new Channels(other, {}), /has a handler already/);
  });

  it("emits message events for its messages, which middleware may hold back", async () => {
    const { join, controller, channels } = createChannels({ a: anybody });
    const seen: WebSocketMessage[] = [];
    controller.on("message", ({ message }) => void seen.push(message));
    controller.use(({ message }, next) => message["channel"] === "kept" ? undefined : next());
    const peer = join();
    assert.deepEqual(await peer.ask(subscribe("kept"), subscribe("a")), [init("a")]);
    assert.deepEqual(seen.map(({ channel }) => channel), ["a"]);
    assert.equal(channels.stats().subscriptions, 1);
  });
});

describe("Channels: history", () => {
  const read = async (channels: Channels, options?: Parameters<Channels["history"]>[1]) => {
    const { publications, isComplete, reason } = await channels.history("a", options);
    return [publications.map(({ data }) => data), isComplete, reason];
  };

  it("reads the first publications after a position, and reports that more follow", async () => {
    const { channels } = createChannels({ a: kept });
    const positions = await Promise.all(range(10).map((n) => channels.publish("a", "e", n)));
    const after = positions[2]!;
    assert.deepEqual(await read(channels, { after, limit: 3 }), [[3, 4, 5], false, "limit"]);
    assert.deepEqual(await read(channels, { after, limit: 0 }), [[], false, "limit"]);
    for (const limit of [7, 8, Infinity, undefined]) {
      assert.deepEqual(await read(channels, { after, ...(limit === undefined ? {} : { limit }) }), [
        range(7, 3),
        true,
        undefined,
      ]);
    }
    assert.deepEqual(await read(channels, { after: positions[9]!, limit: 3 }), [[], true, undefined]);
    assert.deepEqual(await read(channels, { limit: 3 }), [[7, 8, 9], true, undefined]);
    const { epoch, offset } = await channels.history("a", { after, limit: 3 });
    assert.deepEqual({ epoch, offset }, positions[9]);
  });

  it("reads the first kept publications if some are missing, and reports why", async () => {
    const { channels } = createChannels({ a: kept });
    const positions = await Promise.all(range(13).map((n) => channels.publish("a", "e", n)));
    const { epoch, offset } = positions[12]!;
    const limit = 3;
    assert.deepEqual(await read(channels, { after: positions[0]!, limit }), [[3, 4, 5], false, "gone"]);
    assert.deepEqual(await read(channels, { after: { epoch: "old", offset: 5 }, limit }), [[3, 4, 5], false, "epoch"]);
    assert.deepEqual(await read(channels, { after: { epoch, offset: offset + 1 }, limit }), [[3, 4, 5], false, "ahead"]);
    assert.deepEqual(await read(channels, { after: { epoch: "old", offset: 5 } }), [range(10, 3), false, "epoch"]);
    assert.deepEqual(await read(channels, { after: positions[2]!, limit: 20 }), [range(10, 3), true, undefined]);
  });

  it("reports publications that the node cannot open, and leaves out those before the position", async () => {
    class LockedEngine extends MemoryEngine {
      override read(...args: Parameters<MemoryEngine["read"]>) {
        return { ...super.read(...args), isComplete: false, hasUnreadable: true };
      }
    }
    const { channels } = createChannels({ a: kept }, { engine: new LockedEngine() });
    const positions = await Promise.all(range(5).map((n) => channels.publish("a", "e", n)));
    assert.deepEqual(await read(channels, { after: positions[1]! }), [[2, 3, 4], false, "unreadable"]);
    assert.deepEqual(await read(channels, { limit: 2 }), [[3, 4], false, "unreadable"]);
  });

  it("throws for a limit and a position that are none", async () => {
    const { channels } = createChannels({ a: kept });
    const { epoch } = (await channels.publish("a", "e", 1))!;
    const wrong = [-1, NaN, 1.5, -Infinity, 2 ** 53, "3", null];
    for (const limit of wrong) await assert.rejects(channels.history("a", { limit: limit as number }), TypeError);
    for (const offset of [...wrong, Infinity, undefined]) {
      await assert.rejects(channels.history("a", { after: { epoch, offset: offset as number } }), TypeError, `${offset}`);
    }
    for (const after of [{ offset: 1 }, { epoch: 7, offset: 1 }, { epoch: "", offset: 1 }, "1", 1]) {
      await assert.rejects(channels.history("a", { after: after as Position }), TypeError);
    }
  });
});
