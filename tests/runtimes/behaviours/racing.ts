import assert from "node:assert/strict";
import {
  begin,
  channelOf,
  codeOf,
  connect,
  ended,
  init,
  nothing,
  publish,
  range,
  said,
  subscribe,
  take,
} from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { frames, Wire } from "../wire.ts";

const stalled = (server: TestServer, name: string, count = 1) =>
  server.control("channels", "wait", { event: "stalled", name, count });
const release = (server: TestServer, name: string) => server.control("channels", "release", { name });
const subscriptions = async (server: TestServer, channel: string) =>
  (await server.control("channels", "counters", { channel })).subscriptions;

/** What happens to a subscription while something else is under way: each loses its race on purpose. */
export const racing: Behaviour[] = [
  {
    title: "what is published while a subscribe is being authorised is before its init, and what follows comes once",
    async run(server) {
      const channel = channelOf("asked");
      const wire = await connect(server);
      wire.send(subscribe(channel, { uid: 1 }));
      await stalled(server, channel);
      const { epoch } = await publish(server, channel, 1);
      await release(server, channel);
      assert.deepEqual(await wire.next(), init(channel, { uid: 1, epoch, offset: 1 }));
      await publish(server, channel, 2);
      assert.deepEqual(await wire.next(), said(channel, 2, { uid: 1, offset: 2 }));
      await nothing(wire);
    },
  },
  ...["drawn", "sketch"].map((kind): Behaviour => ({
    title: `what is published while the snapshot is made comes after init, in order and once (${
      kind === "drawn" ? "with" : "without"
    } a history)`,
    async run(server) {
      const channel = channelOf(kind);
      const wires = [await connect(server), await connect(server, "bob")];
      await publish(server, channel, 0);
      for (const wire of wires) wire.send(subscribe(channel, { uid: 1 }));
      await stalled(server, channel, 2);
      for (const n of [1, 2, 3]) await publish(server, channel, n);
      await release(server, channel);
      for (const wire of wires) {
        const { event, offset } = await wire.next();
        assert.deepEqual([event, offset], ["init", kind === "drawn" ? 1 : undefined]);
        assert.deepEqual((await take(wire, 3)).map(({ data, uid }) => [data, uid]), [[1, 1], [2, 1], [3, 1]]);
      }
      await publish(server, channel, 4);
      for (const wire of wires) assert.equal((await wire.next()).data, 4);
      await nothing(...wires);
    },
  })),
  {
    title: "publications beyond the buffer while the snapshot is made are neither lost nor duplicated with a history",
    async run(server) {
      const channel = channelOf("drawn");
      const wire = await connect(server);
      wire.send(subscribe(channel));
      await stalled(server, channel);
      await server.control("channels", "publish", { channel, count: 1_500 });
      await release(server, channel);
      // It is asked for anew, for the first does not go with what can be sent.
      await stalled(server, channel, 2);
      await server.control("channels", "publish", { channel, count: 500, from: 1_500 });
      await release(server, channel);
      const { event, offset } = await wire.next();
      assert.deepEqual([event, offset], ["init", 1_500]);
      assert.deepEqual((await take(wire, 500)).map(({ data }) => data), range(500, 1_500));
      await nothing(wire);
    },
  },
  {
    title: "a subscribe fails if each time more is published during the snapshot than the buffer holds",
    async run(server) {
      const channel = channelOf("sketch");
      const wire = await connect(server);
      wire.send(subscribe(channel, { uid: 1 }));
      for (const count of [1, 2, 3]) {
        await stalled(server, channel, count);
        await server.control("channels", "publish", { channel, count: 1_500 });
        await release(server, channel);
      }
      assert.deepEqual(codeOf(await wire.next()), ["subscribe", "error", "SERVICE_UNAVAILABLE", 1]);
      assert.equal(await subscriptions(server, channel), 0);
      await nothing(wire);
    },
  },
  ...["uid", "channel", "all"].map((form): Behaviour => ({
    title: `an unsubscribe (${form}) while the subscribe is being authorised ends it unanswered`,
    async run(server) {
      const channel = channelOf("asked");
      const wire = await connect(server);
      wire.send(subscribe(channel, { uid: 1, presence: true }));
      await stalled(server, channel);
      const which = form === "uid" ? { uid: 1 } : form === "channel" ? { channel } : {};
      assert.deepEqual(await wire.ask({ type: "unsubscribe", ...which }), ended(which));
      await release(server, channel);
      await publish(server, channel, 1);
      await nothing(wire);
      assert.deepEqual([await subscriptions(server, channel), await server.control("channels", "presence", { channel })], [
        0,
        [],
      ]);
    },
  })),
  {
    title: "an unsubscribe while the snapshot is made ends it unanswered",
    async run(server) {
      const channel = channelOf("drawn");
      const wire = await connect(server);
      wire.send(subscribe(channel, { uid: 1 }));
      await stalled(server, channel);
      assert.deepEqual(await wire.ask({ type: "unsubscribe", uid: 1 }), ended({ uid: 1 }));
      await release(server, channel);
      await publish(server, channel, 1);
      await nothing(wire);
      assert.equal(await subscriptions(server, channel), 0);
    },
  },
  ...["asked", "drawn"].flatMap((kind) => [true, false].map((isClean) => ({ kind, isClean }))).map((
    { kind, isClean },
  ): Behaviour => ({
    title: `a client that ${isClean ? "closes" : "is lost"} while it subscribes (${kind}) leaves no ghost`,
    async run(server) {
      const channel = channelOf(kind);
      const wire = await connect(server);
      wire.send(subscribe(channel, { presence: true }));
      await stalled(server, channel);
      if (isClean) await wire.close(1000);
      else wire.reset();
      await server.control("channels", "wait", { event: "close" });
      await release(server, channel);
      await publish(server, channel, 1);
      assert.deepEqual(await server.control("channels", "counters", { channel }), {
        channels: 0,
        subscriptions: 0,
        subscribers: 0,
      });
      if (kind === "asked") assert.deepEqual(await server.control("channels", "presence", { channel }), []);
    },
  })),
  {
    title: "of two subscribes of one uid in one write the last is answered, and each publication comes once",
    hibernates: true,
    async run(server) {
      const [channel, other] = [channelOf("log"), channelOf("asked")];
      const wire = await connect(server);
      // As the Directus SDK does after a reconnect.
      wire.write(frames(subscribe(channel, { uid: 1 }), subscribe(channel, { uid: 1 })));
      assert.equal((await wire.next()).event, "init");
      const second = await wire.ask({ type: "ping", uid: "end" });
      // Where the first is done in its turn, both were answered.
      if (second.event === "init") assert.equal((await wire.next()).uid, "end");
      wire.write(frames(subscribe(other, { uid: 2 }), subscribe(other, { uid: 2 })));
      await stalled(server, other, 2);
      await release(server, other);
      assert.deepEqual([(await wire.next()).event, await subscriptions(server, other)], ["init", 1]);
      await nothing(wire);
      await server.pause();
      for (const [name, uid] of [[channel, 1], [other, 2]] as const) {
        await publish(server, name, 1);
        assert.deepEqual(await wire.next(), said(name, 1, { uid, offset: 1 }));
      }
      await nothing(wire);
    },
  },
  {
    title: "subscribe, unsubscribe and subscribe in one write end in one subscription",
    async run(server) {
      const channel = channelOf("asked");
      const wire = await connect(server);
      const each = subscribe(channel, { uid: 1 });
      wire.write(frames(each, { type: "unsubscribe", uid: 1 }, each, { type: "unsubscribe", uid: 1 }, each));
      await stalled(server, channel, 3);
      await release(server, channel);
      assert.deepEqual((await take(wire, 3)).map(({ event }) => event), ["unsubscribe", "unsubscribe", "init"]);
      await publish(server, channel, 1);
      assert.deepEqual(await wire.next(), said(channel, 1, { uid: 1, offset: 1 }));
      await nothing(wire);
    },
  },
  {
    title: "what a handler, a hook and a listener publish comes in the order of the calls",
    hibernates: true,
    async run(server) {
      const [twice, echo, greeted] = [channelOf("log"), channelOf("echo"), channelOf("log")];
      const [wire, other] = [await connect(server), await connect(server, "bob")];
      for (const channel of [twice, echo, greeted]) for (const each of [wire, other]) await begin(each, channel);
      await server.pause();
      wire.send({ type: "publish-twice", channel: twice, uid: 1 });
      assert.deepEqual((await take(wire, 3)).map(({ event, type }) => event ?? type), ["one", "two", "publish-twice"]);
      assert.deepEqual((await take(other, 2)).map(({ event, data }) => [event, data]), [["one", 1], ["two", 2]]);
      await server.pause();
      // Asked whether it may, the application publishes: that one is first.
      wire.send({ type: "publish", channel: echo, event: "outer", data: { again: true }, uid: 2 });
      assert.deepEqual((await take(wire, 3)).map(({ event, type }) => event ?? type), ["inner", "outer", "publish"]);
      assert.deepEqual((await take(other, 2)).map(({ event, offset }) => [event, offset]), [["inner", 1], ["outer", 2]]);
      await Wire.open(server.port, `/channels?access_token=cid&publish=${greeted}`);
      for (const each of [wire, other]) {
        const { event, data } = await each.next();
        assert.deepEqual([event, data], ["came", "cid"]);
      }
    },
  },
  {
    title: "the publications of one client keep their order however long each authorization takes",
    async run(server) {
      const channel = channelOf("slow");
      const [wire, other] = [await connect(server), await connect(server, "bob")];
      await begin(other, channel);
      const all = range(600);
      // Early ones take longest, and every third no time.
      wire.write(frames(
        ...all.map((n) => ({
          type: "publish",
          channel,
          event: "say",
          data: { n, delay: n % 3 === 0 ? 0 : (600 - n) % 17 },
          uid: n,
        })),
      ));
      const [acknowledged, told] = await Promise.all([take(wire, all.length), take(other, all.length)]);
      assert.deepEqual(told.map(({ data, offset }) => [data.n, offset]), all.map((n) => [n, n + 1]));
      assert.deepEqual(acknowledged.map(({ uid, status, offset }) => [uid, status, offset]), all.map((n) => [n, "ok", n + 1]));
    },
  },
  {
    title: "a publication that waits for authorization is dropped when its client disconnects",
    async run(server) {
      const channel = channelOf("asked");
      const [wire, other] = [await connect(server), await connect(server, "bob")];
      other.send(subscribe(channel));
      await stalled(server, channel);
      await release(server, channel);
      await other.next();
      wire.send({ type: "publish", channel, event: "say", data: 1 });
      await stalled(server, channel, 2);
      wire.reset();
      await server.control("channels", "wait", { event: "close" });
      await release(server, channel);
      await publish(server, channel, 2);
      assert.deepEqual(await other.next(), said(channel, 2, { offset: 1 }));
    },
  },
  ...(["disconnect()", "expiry"] as const).map((end): Behaviour => ({
    title: `after ${end} no pending request of the client takes effect, although its socket is open`,
    async run(server) {
      const [said, joined] = [channelOf("asked"), channelOf("asked")];
      const [wire, other] = [await connect(server, "ann:editor:5"), await connect(server, "bob")];
      wire.answersClose = false;
      other.send(subscribe(said, { uid: 1 }));
      await stalled(server, said);
      await release(server, said);
      await other.next();
      wire.send({ type: "publish", channel: said, event: "say", data: 1, uid: 1 });
      wire.send(subscribe(joined, { uid: 2 }));
      await stalled(server, said, 2);
      await stalled(server, joined);
      if (end === "expiry") await server.control("channels", "advance", { ms: 5_000 });
      else await server.control("channels", "disconnect", { filter: { user: "ann" } });
      for (const channel of [said, joined]) await release(server, channel);
      await publish(server, said, 2);
      const { data } = await other.next();
      assert.equal(data, 2);
      assert.deepEqual(await server.control("channels", "presence", { channel: joined }), []);
      assert.equal((await server.control("channels", "counters", { channel: joined })).channels, 0);
      if (end === "disconnect()") {
        await server.control("channels", "advance", { ms: 5_000 });
        const [{ code }] = await server.control("channels", "wait", { event: "close" });
        return assert.equal(code, 4403);
      }
      assert.deepEqual([codeOf(await wire.next()), codeOf(await wire.next())], [
        ["auth", "error", "TOKEN_EXPIRED"],
        ["auth", "error", "TOKEN_EXPIRED", 1],
      ]);
      // What it had subscribed to goes on when it is let in again.
      wire.send({ type: "auth", access_token: "ann:editor" });
      await stalled(server, joined, 2);
      await release(server, joined);
      const [first, second] = await take(wire, 2);
      assert.deepEqual([first.type, second.event, second.uid], ["auth", "init", 2]);
    },
  })),
  {
    title: "a client that becomes another user while it subscribes is not subscribed as the earlier user",
    async run(server) {
      const channel = channelOf("asked");
      const wire = await connect(server, "ann");
      wire.send(subscribe(channel, { uid: 1 }));
      await stalled(server, channel);
      wire.send({ type: "auth", access_token: "bob", uid: "auth" });
      assert.deepEqual((await take(wire, 2)).map(({ type, error, status }) => [type, error?.code ?? status]).sort(), [
        ["auth", "ok"],
        ["subscribe", "FORBIDDEN"],
      ]);
      await release(server, channel);
      await publish(server, channel, 1);
      await nothing(wire);
      assert.equal(await subscriptions(server, channel), 0);
    },
  },
];
