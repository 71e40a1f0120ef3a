import assert from "node:assert/strict";
import { begin, channelOf, connect, ended, init, nothing, publish, range, recorded, said, take } from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import type { Wire } from "../wire.ts";

/** Has the client's credentials, which last a minute, run out. */
async function expire(server: TestServer, wire: Wire): Promise<void> {
  await server.control("channels", "advance", { ms: 60_000 });
  assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
}

const renew = async (wire: Wire, access_token: string) =>
  assert.deepEqual(await wire.ask({ type: "auth", access_token, uid: "auth" }), { type: "auth", status: "ok", uid: "auth" });

/** PROTOCOL.md 4.8: what becomes of subscriptions when who the client is, or what it may, is another. */
export const renewing: Behaviour[] = [
  {
    title:
      "a client that authenticates as the same user keeps the subscriptions that are still allowed, and is notified of the others",
    hibernates: true,
    async run(server) {
      const [editors, log] = [channelOf("editors"), channelOf("log")];
      const wire = await connect(server, "ann:editor");
      await begin(wire, editors, { uid: 1 });
      await begin(wire, log, { uid: 2 });
      await server.pause();
      await renew(wire, "ann:editor");
      for (const [channel, uid] of [[editors, 1], [log, 2]] as const) {
        await publish(server, channel, "a");
        assert.deepEqual(await wire.next(), said(channel, "a", { offset: 1, uid }));
      }
      await server.pause();
      await renew(wire, "ann:reader");
      assert.deepEqual(await wire.next(), ended({ channel: editors, uid: 1, reason: "FORBIDDEN" }));
      await server.pause();
      for (const channel of [editors, log]) await publish(server, channel, "b");
      assert.deepEqual(await wire.next(), said(log, "b", { offset: 2, uid: 2 }));
      await nothing(wire);
    },
  },
  {
    title: "when a client becomes another user all its subscriptions end, and the earlier user is no longer a member",
    hibernates: true,
    async run(server) {
      const [room, open] = [channelOf("room"), channelOf("open")];
      const wire = await connect(server, "ann");
      await begin(wire, room, { uid: 1 });
      await begin(wire, open);
      await server.pause();
      await renew(wire, "bob");
      const all = await take(wire, 2);
      for (
        const expected of [ended({ channel: room, uid: 1, reason: "FORBIDDEN" }), ended({ channel: open, reason: "FORBIDDEN" })]
      ) {
        assert.deepEqual(all.find(({ channel }) => channel === expected["channel"]), expected);
      }
      await server.pause();
      for (const channel of [room, open]) await publish(server, channel, "secret");
      await nothing(wire);
      assert.deepEqual(await server.control("channels", "presence", { channel: room }), []);
      await begin(wire, room, { uid: 1 });
      assert.deepEqual(await server.control("channels", "presence", { channel: room }), [{ user: "bob" }]);
    },
  },
  {
    title: "an expired client receives nothing, and once it is renewed all that it missed of a history",
    hibernates: true,
    async run(server) {
      const [log, open, filtered] = [channelOf("log"), channelOf("open"), channelOf("log")];
      const wire = await connect(server, "ann:editor:60");
      await begin(wire, log, { uid: 1 });
      await begin(wire, open);
      await begin(wire, filtered, { event: "other" });
      await publish(server, log, 1);
      await wire.next();
      await expire(server, wire);
      await server.pause();
      for (const n of [2, 3]) await publish(server, log, n);
      await publish(server, open, "missed");
      await publish(server, filtered, 1, "other");
      await publish(server, filtered, 2);
      assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), { type: "pong", uid: 1 });
      await server.pause();
      await renew(wire, "ann:editor:60");
      const caughtUp = await take(wire, 3);
      assert.deepEqual(caughtUp.filter(({ channel }) => channel === log), [2, 3].map((n) => said(log, n, { offset: n, uid: 1 })));
      assert.deepEqual(caughtUp.filter(({ channel }) => channel === filtered).map(({ data }) => data), [1]);
      await server.pause();
      await publish(server, open, 4);
      assert.deepEqual(await wire.next(), said(open, 4));
      await publish(server, log, 5);
      assert.deepEqual(await wire.next(), said(log, 5, { offset: 4, uid: 1 }));
      await nothing(wire);
    },
  },
  {
    title: "an expired client that missed more than the history keeps receives another init",
    hibernates: true,
    async run(server) {
      const log = channelOf("log");
      const wire = await connect(server, "ann:editor:60");
      const { epoch } = await begin(wire, log, { uid: 1 });
      await expire(server, wire);
      await server.pause();
      for (const n of range(6, 1)) await publish(server, log, n);
      await server.pause();
      await renew(wire, "ann:editor:60");
      assert.deepEqual(await wire.next(), init(log, { uid: 1, data: [], epoch, offset: 6, recovered: false }));
      await server.pause();
      await publish(server, log, 7);
      assert.deepEqual(await wire.next(), said(log, 7, { offset: 7, uid: 1 }));
      await nothing(wire);
    },
  },
  {
    title: "an expired client that is renewed with fewer rights receives nothing that it is no longer allowed",
    hibernates: true,
    async run(server) {
      const editors = channelOf("editors");
      const wire = await connect(server, "ann:editor:60");
      await begin(wire, editors, { uid: 1 });
      await expire(server, wire);
      await publish(server, editors, "secret");
      await server.pause();
      await renew(wire, "ann:reader:60");
      assert.deepEqual(await wire.next(), ended({ channel: editors, uid: 1, reason: "FORBIDDEN" }));
      await publish(server, editors, "secret");
      await nothing(wire);
    },
  },
  {
    title: "an authorization with a time to live is asked for again, and its refusal ends the subscription",
    hibernates: true,
    async run(server) {
      const channel = channelOf("timed");
      const wire = await connect(server);
      await begin(wire, channel, { uid: 1 });
      await server.pause();
      const before = await recorded(server, "authorize", channel);
      await server.control("channels", "advance", { ms: 10_000 });
      await server.control("channels", "wait", { event: "authorize", name: channel, count: before + 1 });
      await publish(server, channel, 1);
      assert.equal((await wire.next()).data, 1);
      await server.pause();
      await server.control("channels", "deny", { channel });
      await server.control("channels", "advance", { ms: 10_000 });
      assert.deepEqual(await wire.next(), ended({ channel, uid: 1, reason: "FORBIDDEN" }));
      await publish(server, channel, 2);
      await nothing(wire);
    },
  },
];
