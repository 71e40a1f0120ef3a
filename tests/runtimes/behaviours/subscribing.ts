import assert from "node:assert/strict";
import { begin, channelOf, codeOf, connect, ended, init, nothing, publish, said, subscribe, take } from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import { frames, Wire } from "../wire.ts";

/** PROTOCOL.md 4.1 to 4.4: what begins and ends a subscription. */
export const subscribing: Behaviour[] = [
  {
    title: "a server without channels answers subscribe, unsubscribe and publish UNSUPPORTED_TYPE",
    async run({ port }) {
      const wire = await Wire.open(port, "/plain");
      for (const type of ["subscribe", "unsubscribe", "publish"]) {
        assert.deepEqual(codeOf(await wire.ask({ type, channel: "open:1", event: "say", uid: 1 })), [
          type,
          "error",
          "UNSUPPORTED_TYPE",
          1,
        ]);
      }
    },
  },
  {
    title: "a subscribe is answered with init, and then come the publications, whatever their data",
    hibernates: true,
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      assert.deepEqual(await wire.ask(subscribe(channel)), init(channel));
      await server.pause();
      for (const data of [1, "grüße 狼煙 \u2028", null, false, [], { deep: { a: [1, { b: null }] } }]) {
        assert.equal(await publish(server, channel, data), null, "without a history there is no position");
        assert.deepEqual(await wire.next(), said(channel, data));
      }
      await server.pause();
      assert.equal(await server.control("channels", "publish", { channel, keys: true }), null);
      assert.deepEqual(await wire.next(), said(channel, null));
    },
  },
  {
    title: "every message of a subscription carries its uid with its JSON type, and several of one client are told apart",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const uids = ["1", 1, 0, "", -1.5, "狼煙"];
      for (const uid of uids) {
        const { epoch, offset } = await begin(wire, channel, { uid });
        assert.deepEqual([typeof epoch, offset], ["string", 0]);
      }
      await server.pause();
      await publish(server, channel, "x");
      assert.deepEqual(await take(wire, uids.length), uids.map((uid) => said(channel, "x", { uid, offset: 1 })));
      for (const uid of uids) assert.deepEqual(await wire.ask({ type: "unsubscribe", uid }), ended({ uid }));
      await publish(server, channel, "y");
      await nothing(wire);
    },
  },
  {
    title: "a subscription without uid is named by its channel and event",
    hibernates: true,
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      for (const more of [{}, {}, { event: "say" }, { event: "say" }, { event: "other" }]) await begin(wire, channel, more);
      await server.pause();
      await publish(server, channel, 1);
      assert.deepEqual(await take(wire, 2), [said(channel, 1), said(channel, 1)]);
      await nothing(wire);
    },
  },
  {
    title: "collection is accepted for channel, and unknown fields are ignored",
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      await server.control("channels", "rows", { channel, rows: [{ id: 1 }] });
      const answer = await wire.ask({ type: "subscribe", collection: channel, uid: "1", status: "?", more: {} });
      assert.deepEqual([answer.channel, answer.data], [channel, [{ id: 1 }]]);
      assert.deepEqual(
        await wire.ask({ type: "unsubscribe", collection: channel, uid: 2, more: 1 }),
        ended({ uid: 2, channel }),
      );
    },
  },
  {
    title: "with an event only its publications come, and init has no data",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      await server.control("channels", "rows", { channel, rows: [1] });
      const answer = await begin(wire, channel, { event: "create", uid: 1 });
      assert.equal("data" in answer, false);
      await server.pause();
      for (const event of ["update", "create", "delete", "Create", "create"]) await publish(server, channel, event, event);
      const offsets = [2, 5];
      for (const offset of offsets) {
        assert.deepEqual(await wire.next(), {
          type: "subscription",
          event: "create",
          channel,
          data: "create",
          offset,
          uid: 1,
        });
      }
      await nothing(wire);
      const log: { event: string; name?: string }[] = await server.control("channels", "log");
      assert.equal(log.some(({ event, name }) => event === "snapshot" && name === channel), false, "it was asked for a snapshot");
    },
  },
  {
    title: "init has the snapshot for the query, which is passed on unchanged",
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      await server.control("channels", "rows", { channel, rows: [{ id: 1 }, { id: 2 }] });
      const query = { limit: "2", sort: ["a", "-b"], filter: { a: { _eq: 1 } }, fields: "*" };
      assert.deepEqual((await begin(wire, channel, { query, uid: 1 })).data, [{ id: 1 }, { id: 2 }]);
      await begin(wire, channel, { uid: 2 });
      const told = await server.control("channels", "wait", { event: "snapshot", count: 2, name: channel });
      assert.deepEqual(told.map(({ query }: { query: unknown }) => query), [query, {}]);
    },
  },
  {
    title: "the name of a channel is 1 to 255 characters of the alphabet",
    async run(server) {
      const wire = await connect(server);
      for (const channel of ["open:AZaz09_-.:/@=+~", `open:${"x".repeat(250)}`]) {
        assert.deepEqual(await wire.ask(subscribe(channel)), init(channel));
        await publish(server, channel, 1);
        assert.deepEqual(await wire.next(), said(channel, 1));
        assert.deepEqual(await wire.ask({ type: "unsubscribe", channel }), ended({ channel }));
      }
      const wrong = [
        "",
        "open:*",
        "open:a b",
        "open:é",
        "open:a\n",
        "open:#",
        `open:${"x".repeat(251)}`,
        null,
        1,
        ["open:1"],
        {},
      ];
      for (const [uid, channel] of [...wrong, undefined].entries()) {
        const answer = await wire.ask({ type: "subscribe", channel, uid });
        assert.deepEqual(codeOf(answer), ["subscribe", "error", "INVALID_PAYLOAD", uid]);
        assert.equal(answer.error.path, "channel");
      }
    },
  },
  {
    title: "an invalid subscribe is answered INVALID_PAYLOAD with its uid, and changes nothing",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      await begin(wire, channel, { uid: 1 });
      const wrong = [
        { event: "" },
        { event: "x".repeat(65) },
        { event: null },
        { event: 1 },
        { query: "limit" },
        { query: [] },
        { query: null },
        { recover: null },
        { recover: {} },
        { recover: { epoch: "x" } },
        { recover: { epoch: "x", offset: -1 } },
        { recover: { epoch: "x", offset: 0.5 } },
        { recover: { epoch: "x", offset: 2 ** 53 } },
        { recover: { epoch: "x", offset: "1" } },
        { recover: { epoch: 1, offset: 1 } },
        { recover: { epoch: "x".repeat(65), offset: 1 } },
        { presence: "true" },
        { presence: 1 },
        { data: "x".repeat(1_023) },
      ];
      for (const more of wrong) {
        const answer = await wire.ask(subscribe(channel, { uid: 1, ...more }));
        assert.deepEqual(codeOf(answer), ["subscribe", "error", "INVALID_PAYLOAD", 1], JSON.stringify(more));
      }
      for (const [uid, more] of [[2, { channel: 1 }], [3, { channel: "a b" }], [4, { channel: null }]] as const) {
        assert.deepEqual(codeOf(await wire.ask({ type: "unsubscribe", uid, ...more })), [
          "unsubscribe",
          "error",
          "INVALID_PAYLOAD",
          uid,
        ]);
      }
      await server.pause();
      await publish(server, channel, "still here");
      assert.deepEqual(await wire.next(), said(channel, "still here", { uid: 1, offset: 1 }));
    },
  },
  {
    title: "an undeclared channel is FORBIDDEN, like one that authorize refuses",
    async run(server) {
      const [wire, denied] = [await connect(server), channelOf("log")];
      await server.control("channels", "deny", { channel: denied });
      const answers = [];
      for (const channel of [denied, "nowhere:1", "log", "toString", "__proto__", "constructor"]) {
        answers.push(await wire.ask(subscribe(channel, { uid: "u" })));
      }
      for (const answer of answers) {
        assert.deepEqual(codeOf(answer), ["subscribe", "error", "FORBIDDEN", "u"]);
        assert.deepEqual(answer, answers[0]);
      }
    },
  },
  ...([
    ["throw", "INTERNAL_ERROR"],
    ["throw-undefined", "INTERNAL_ERROR"],
    ["reject", "INTERNAL_ERROR"],
    ["thenable", "INTERNAL_ERROR"],
    ["known", "NOT_FOUND"],
    ["1", "FORBIDDEN"],
    ["null", "FORBIDDEN"],
    ["cyclic", "FORBIDDEN"],
  ] as const).map(([kind, code]): Behaviour => ({
    title: `an authorize that fails (${kind}) refuses: ${code}`,
    async run(server) {
      const wire = await connect(server);
      const channel = channelOf(`odd:${kind}`);
      const answer = await wire.ask(subscribe(channel, { uid: 1 }));
      assert.deepEqual(codeOf(answer), ["subscribe", "error", code, 1]);
      assert.doesNotMatch(JSON.stringify(answer), /secret/);
      await publish(server, channel, 1);
      await nothing(wire);
      assert.deepEqual(await server.control("channels", "counters", { channel }), {
        channels: 0,
        subscriptions: 0,
        subscribers: 0,
      });
    },
  })),
  ...([
    ["throw", "INTERNAL_ERROR"],
    ["reject", "INTERNAL_ERROR"],
    ["thenable", "INTERNAL_ERROR"],
    ["cyclic", "INTERNAL_ERROR"],
    ["known", "NOT_FOUND"],
  ] as const).map(([kind, code]): Behaviour => ({
    title: `a snapshot that fails (${kind}) is answered ${code}, and there is no subscription`,
    async run(server) {
      const wire = await connect(server);
      const channel = channelOf(`wrong:${kind}`);
      const answer = await wire.ask(subscribe(channel, { uid: 1 }));
      assert.deepEqual(codeOf(answer), ["subscribe", "error", code, 1]);
      assert.doesNotMatch(JSON.stringify(answer), /secret/);
      await publish(server, channel, 1);
      await nothing(wire);
      // With an event nobody asks for it.
      assert.deepEqual(await wire.ask(subscribe(channel, { event: "say" })), init(channel));
    },
  })),
  ...["odd:never", "wrong:never"].map((kind): Behaviour => ({
    title: `a hook that never answers (${kind}) is given up: SERVICE_UNAVAILABLE`,
    async run(server) {
      const wire = await connect(server);
      const channel = channelOf(kind);
      wire.send(subscribe(channel, { uid: 1 }));
      await nothing(wire);
      await server.control("channels", "advance", { ms: 10_000 });
      assert.deepEqual(codeOf(await wire.next()), ["subscribe", "error", "SERVICE_UNAVAILABLE", 1]);
      assert.equal((await server.control("channels", "counters", { channel })).subscriptions, 0);
    },
  })),
  {
    title: "a client has at most 128 subscriptions, and a replacement is none more",
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      wire.write(frames(...Array.from({ length: 130 }, (_, uid) => subscribe(channel, { uid }))));
      const answers = await take(wire, 130);
      assert.deepEqual(answers.filter(({ event }) => event === "init").map(({ uid }) => uid), [...Array(128).keys()]);
      for (const uid of [128, 129]) {
        assert.deepEqual(codeOf(answers.find((answer) => answer.uid === uid)), ["subscribe", "error", "LIMIT_EXCEEDED", uid]);
      }
      await begin(wire, channel, { uid: 5 });
      assert.deepEqual(await wire.ask({ type: "unsubscribe", uid: 7 }), ended({ uid: 7 }));
      await begin(wire, channel, { uid: "in its place" });
      assert.equal((await wire.ask(subscribe(channel, { uid: "too much" }))).error.code, "LIMIT_EXCEEDED");
    },
  },
  {
    title: "a query of more than 8 KiB is LIMIT_EXCEEDED",
    async run(server) {
      const [wire, channel] = [await connect(server), channelOf("log")];
      const queryOf = (bytes: number) => ({ a: "x".repeat(bytes - '{"a":""}'.length) });
      await begin(wire, channel, { query: queryOf(8_192), uid: 1 });
      for (const query of [queryOf(8_193), { a: "語".repeat(2_731) }]) {
        assert.deepEqual(codeOf(await wire.ask(subscribe(channel, { query, uid: 2 }))), [
          "subscribe",
          "error",
          "LIMIT_EXCEEDED",
          2,
        ]);
      }
    },
  },
  {
    title: "a subscribe replaces the one with its uid at its init, without an unsubscribe message",
    hibernates: true,
    async run(server) {
      const [before, after] = [channelOf("open"), channelOf("asked")];
      const wire = await connect(server);
      await begin(wire, before, { uid: 1 });
      await server.pause();
      wire.send(subscribe(after, { uid: 1 }));
      await server.control("channels", "wait", { event: "stalled", name: after });
      await publish(server, before, "goes on");
      assert.deepEqual(await wire.next(), said(before, "goes on", { uid: 1 }));
      await server.control("channels", "release", { name: after });
      assert.equal((await wire.next()).event, "init");
      await server.pause();
      await publish(server, before, "over");
      await publish(server, after, 1);
      assert.deepEqual(await wire.next(), said(after, 1, { uid: 1, offset: 1 }));
      await nothing(wire);
    },
  },
  {
    title: "a refused replacement ends what it was to replace",
    hibernates: true,
    async run(server) {
      for (
        const [kind, code] of [["odd:null", "FORBIDDEN"], ["odd:throw", "INTERNAL_ERROR"], ["nowhere", "FORBIDDEN"]] as const
      ) {
        const channel = channelOf("open");
        const wire = await connect(server);
        await begin(wire, channel, { uid: 1 });
        await server.pause();
        assert.deepEqual(codeOf(await wire.ask(subscribe(channelOf(kind), { uid: 1 }))), ["subscribe", "error", code, 1]);
        await server.pause();
        await publish(server, channel, 1);
        await nothing(wire);
      }
    },
  },
  {
    title: "unsubscribe ends the uid, the channel's, or all, is answered once, and nothing of them follows",
    hibernates: true,
    async run(server) {
      const [a, b] = [channelOf("open"), channelOf("open")];
      const wire = await connect(server);
      const other = await connect(server, "bob");
      for (const [channel, uid] of [[a, 1], [a, "1"], [a, 2], [b, 3], [b, 4]] as const) await begin(wire, channel, { uid });
      for (const channel of [a, b]) await begin(other, channel);
      const told = async () => {
        for (const channel of [a, b]) {
          await publish(server, channel, 1);
          assert.deepEqual(await other.next(), said(channel, 1));
        }
        const uids = [];
        wire.send({ type: "ping", uid: "end" });
        for (let message = await wire.next(); message.type !== "pong"; message = await wire.next()) uids.push(message.uid);
        return uids;
      };
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "unsubscribe", uid: 1 }), ended({ uid: 1 }));
      assert.deepEqual(await told(), ["1", 2, 3, 4]);
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "unsubscribe", channel: a }), ended({ channel: a }));
      assert.deepEqual(await told(), [3, 4]);
      await server.pause();
      for (const more of [{ uid: 99 }, { channel: a }, { channel: "nowhere:1" }]) {
        assert.deepEqual(await wire.ask({ type: "unsubscribe", ...more }), ended(more));
      }
      assert.deepEqual(await told(), [3, 4]);
      await server.pause();
      for (let n = 0; n < 2; n++) {
        assert.deepEqual(await wire.ask({ type: "unsubscribe" }), ended());
        assert.deepEqual(await told(), []);
      }
    },
  },
  {
    title: "no channels and subscriptions are counted after all clients have disconnected",
    async run(server) {
      const zero = { channels: 0, subscriptions: 0, subscribers: 0 };
      assert.deepEqual(await server.control("channels", "counters"), zero);
      const kinds = ["open", "log", "room", "plain", "drawn", "odd:throw", "wrong:reject", "timed"];
      const wires = await Promise.all(["ann", "bob", "ann"].map((user) => connect(server, user)));
      for (const kind of kinds) {
        for (const wire of wires) wire.send(subscribe(channelOf(kind), { uid: kind, presence: true }));
      }
      await Promise.all(wires.map((wire) => wire.ask({ type: "ping", uid: 1 })));
      assert.notDeepEqual(await server.control("channels", "counters"), zero);
      const [first, second, third] = wires;
      for (const wire of wires) while ((await wire.next()).uid !== "wrong:reject");
      first!.send({ type: "unsubscribe" });
      await second!.close(1000);
      third!.reset();
      await server.control("channels", "wait", { event: "close", count: 2 });
      first!.send({ type: "ping", uid: "end" });
      while ((await first!.next()).uid !== "end");
      await server.control("channels", "advance", { ms: 5_000 });
      assert.deepEqual(await server.control("channels", "counters"), zero);
    },
  },
];
