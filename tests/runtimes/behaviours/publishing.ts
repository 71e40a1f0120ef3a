import assert from "node:assert/strict";
import { begin, channelOf, codeOf, connect, init, nothing, publish, range, said, subscribe, take } from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import { frames, type Wire } from "../wire.ts";

/** PROTOCOL.md 4.9: what is published, by clients and by the server. */
export const publishing: Behaviour[] = [
  {
    title: "a client's publication reaches all subscribers, itself included, and is answered with its position",
    hibernates: true,
    async run(server) {
      const [channel, bare] = [channelOf("log"), channelOf("open")];
      const [wire, other] = [await connect(server), await connect(server, "bob")];
      const { epoch } = await begin(wire, channel, { uid: "mine" });
      await begin(other, channel);
      await begin(other, bare);
      await server.pause();
      wire.send({ type: "publish", channel, event: "say", data: { a: 1 }, uid: 7 });
      assert.deepEqual(await take(wire, 2), [
        said(channel, { a: 1 }, { offset: 1, uid: "mine" }),
        { type: "publish", status: "ok", uid: 7, epoch, offset: 1 },
      ]);
      assert.deepEqual(await other.next(), said(channel, { a: 1 }, { offset: 1 }));
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "publish", channel: bare, event: "say" }), { type: "publish", status: "ok" });
      assert.deepEqual(await other.next(), said(bare, null));
      const { publications } = await server.control("channels", "history", { channel });
      assert.deepEqual(publications, [{ event: "say", data: { a: 1 }, offset: 1 }]);
    },
  },
  {
    title: "publish is FORBIDDEN unless authorize allows it, whether or not the channel exists",
    async run(server) {
      const wire = await connect(server);
      const mute = channelOf("mute");
      await begin(wire, mute);
      const answers = [];
      for (const channel of [mute, "nowhere:1", channelOf("odd:null")]) {
        answers.push(await wire.ask({ type: "publish", channel, event: "say", data: 1, uid: 1 }));
      }
      for (const answer of answers) {
        assert.deepEqual(codeOf(answer), ["publish", "error", "FORBIDDEN", 1]);
        assert.deepEqual(answer, answers[0]);
      }
      await nothing(wire);
    },
  },
  {
    title: "an authorize that fails publishes nothing",
    async run(server) {
      const wire = await connect(server);
      for (
        const [kind, code] of [["throw", "INTERNAL_ERROR"], ["reject", "INTERNAL_ERROR"], ["thenable", "INTERNAL_ERROR"], [
          "known",
          "NOT_FOUND",
        ]]
      ) {
        const answer = await wire.ask({ type: "publish", channel: channelOf(`odd:${kind}`), event: "say", uid: 1 });
        assert.deepEqual(codeOf(answer), ["publish", "error", code, 1]);
        assert.doesNotMatch(JSON.stringify(answer), /secret/);
      }
      const channel = channelOf("odd:never");
      wire.send({ type: "publish", channel, event: "say", uid: 2 });
      await nothing(wire);
      await server.control("channels", "advance", { ms: 10_000 });
      assert.deepEqual(codeOf(await wire.next()), ["publish", "error", "SERVICE_UNAVAILABLE", 2]);
    },
  },
  {
    title: "a channel's schema decides which events there are, and reads their data",
    hibernates: true,
    async run(server) {
      const channel = channelOf("typed");
      const wire = await connect(server);
      await begin(wire, channel);
      await server.pause();
      const wrong: [event: string, data: unknown, path: string][] = [
        ["say", { text: "x".repeat(11) }, "data.text"],
        ["say", { text: 1 }, "data.text"],
        ["say", { text: "a", more: 1 }, "data.more"],
        ["say", {}, "data.text"],
        ["say", undefined, "data"],
        ["say", "secret", "data"],
        ["clear", 0, "data"],
        ["shout", { text: "a" }, "event"],
        ["toString", { text: "a" }, "event"],
        ["__proto__", { text: "a" }, "event"],
      ];
      for (const [event, data, path] of wrong) {
        const answer = await wire.ask({ type: "publish", channel, event, data, uid: 1 });
        assert.deepEqual([...codeOf(answer), answer.error.path], ["publish", "error", "INVALID_PAYLOAD", 1, path]);
        assert.doesNotMatch(JSON.stringify(answer), /secret/);
      }
      wire.send({ type: "publish", channel, event: "say", data: { text: " a " } });
      assert.deepEqual(await wire.next(), said(channel, { text: "a" }, { offset: 1 }));
      assert.equal((await wire.next()).offset, 1);
      wire.send({ type: "publish", channel, event: "clear" });
      assert.equal((await wire.next()).data, null);
    },
  },
  {
    title: "an invalid publish is answered INVALID_PAYLOAD with its uid",
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      await begin(wire, channel);
      const wrong: Record<string, unknown>[] = [
        {},
        { channel: "a b" },
        { channel: 1 },
        { event: "" },
        { event: 1 },
        { event: null },
        { event: "x".repeat(65) },
        ...["init", "unsubscribe", "join", "leave"].map((event) => ({ event })),
      ];
      for (const [uid, more] of wrong.entries()) {
        const message = { type: "publish", channel, data: 1, uid, ...more };
        assert.deepEqual(codeOf(await wire.ask(message)), ["publish", "error", "INVALID_PAYLOAD", uid], JSON.stringify(message));
      }
      await nothing(wire);
    },
  },
  {
    title: "the server's publish throws for an invalid publication, and sends it to nobody",
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      await begin(wire, channel);
      for (
        const [name, event] of [["nowhere:1", "say"], ["", "say"], [channel, "init"], [channel, ""], [channel, "x".repeat(65)]]
      ) {
        assert.match(await publish(server, name!, 1, event), /^TypeError: Cannot publish to/);
      }
      await nothing(wire);
    },
  },
  {
    title: "a publication arrives whole for each uid, of any length",
    async run(server) {
      const channel = channelOf("open");
      const uids = ["ü", 7, "x".repeat(64), undefined];
      const wires: Wire[] = [];
      for (const uid of uids) {
        const wire = await connect(server);
        await begin(wire, channel, uid === undefined ? {} : { uid });
        wires.push(wire);
      }
      // Those at which a header grows among them.
      const lengths = [...range(18, 45), ...range(6, 65_393), ...range(14, 65_456), 16_000, 70_000];
      for (const length of lengths) {
        const data = "y".repeat(length);
        await publish(server, channel, data);
        for (const [n, wire] of wires.entries()) {
          const { data: received, uid } = await wire.next();
          assert.deepEqual([received === data, uid], [true, uids[n]], `${length}`);
        }
      }
    },
  },
  {
    title: "a client of noroshi.v1 receives the publications of one turn in arrays, in order and after init",
    hibernates: true,
    async run(server) {
      const channel = channelOf("long");
      const headers = { "Sec-WebSocket-Protocol": "noroshi.v1" };
      const [wire, plain] = [await connect(server, "ann", headers), await connect(server, "bob")];
      wire.write(frames(...["a", "b"].map((uid) => subscribe(channel, { uid }))));
      await begin(plain, channel);
      const flat: Record<string, unknown>[] = [];
      /** The next messages, those of arrays one by one. */
      const read = async (count: number) => {
        while (flat.length < count) flat.push(...[await wire.next()].flat());
        return flat.splice(0, count);
      };
      const [first, second] = await read(2);
      const { epoch, offset } = first!;
      assert.deepEqual([first, second], ["a", "b"].map((uid) => init(channel, { uid, epoch, offset })));
      await server.pause();
      await server.control("channels", "publish", { channel, count: 1_000 });
      assert.deepEqual(
        (await read(2_000)).map(({ data, uid }) => [data, uid]),
        range(1_000).flatMap((n) => [[n, "a"], [n, "b"]]),
      );
      assert.deepEqual((await take(plain, 1_000)).map(({ data }) => data), range(1_000));
    },
  },
];
