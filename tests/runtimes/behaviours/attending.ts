import assert from "node:assert/strict";
import { begin, channelOf, codeOf, connect, ended, nothing, recorded, subscribe, take } from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import type { Wire } from "../wire.ts";

const told = (event: string, channel: string, members: unknown[], more = {}) => ({
  type: "presence",
  event,
  channel,
  members,
  ...more,
});

/** Subscribes as one who wants to be told of the members; resolves with those that the list names. */
async function attend(wire: Wire, channel: string, more: Record<string, unknown> = {}): Promise<unknown[]> {
  await begin(wire, channel, { presence: true, ...more });
  const { type, event, members, uid } = await wire.next();
  assert.deepEqual([type, event, uid], ["presence", "init", more["uid"]]);
  return members;
}

/** The members as the server reads them, in the order of their names. */
// deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
async function members(server: TestServer, channel: string): Promise<any> {
  const list = await server.control("channels", "presence", { channel });
  return Array.isArray(list) ? list.sort((a, b) => a.user < b.user ? -1 : 1) : list;
}

const advance = (server: TestServer, ms: number) => server.control("channels", "advance", { ms });

/** Ends a connection. Resolves when the server has noticed one more to end. */
async function closed(server: TestServer, end: () => unknown): Promise<void> {
  const before = await recorded(server, "close");
  await end();
  await server.control("channels", "wait", { event: "close", count: before + 1 });
}

/** PROTOCOL.md 4.10: who is in a channel. */
export const attending: Behaviour[] = [
  {
    title: "a subscriber receives init, the members, its own join, and then the joins and leaves of others",
    hibernates: true,
    async run(server) {
      const channel = channelOf("room");
      const [ann, bob] = [await connect(server, "ann"), await connect(server, "bob")];
      assert.deepEqual(await attend(ann, channel, { uid: 1 }), []);
      assert.deepEqual(await ann.next(), told("join", channel, [{ user: "ann" }], { uid: 1 }));
      await server.pause();
      assert.deepEqual(await attend(bob, channel, { data: { color: "red" } }), [{ user: "ann" }]);
      const joined = [{ user: "bob", data: { color: "red" } }];
      assert.deepEqual(await bob.next(), told("join", channel, joined));
      assert.deepEqual(await ann.next(), told("join", channel, joined, { uid: 1 }));
      assert.deepEqual(await members(server, channel), [{ user: "ann" }, ...joined]);
      await server.pause();
      assert.deepEqual(await bob.ask({ type: "unsubscribe", channel }), ended({ channel }));
      assert.deepEqual(await ann.next(), told("leave", channel, [{ user: "bob" }], { uid: 1 }));
      assert.deepEqual(await members(server, channel), [{ user: "ann" }]);
      await nothing(ann, bob);
    },
  },
  {
    title: "a user with several connections joins once and leaves once, and is in the list that it receives",
    hibernates: true,
    async run(server) {
      const channel = channelOf("plain");
      const watcher = await connect(server, "eve");
      assert.deepEqual([await attend(watcher, channel), (await watcher.next()).members], [[], [{ user: "eve" }]]);
      const tabs: Wire[] = [];
      for (let n = 0; n < 3; n++) {
        const tab = await connect(server, "ann");
        tabs.push(tab);
        const list = await attend(tab, channel);
        assert.equal(list.length, n === 0 ? 1 : 2);
        if (n === 0) {
          for (const wire of [tab, watcher]) assert.deepEqual(await wire.next(), told("join", channel, [{ user: "ann" }]));
        }
        await server.pause();
      }
      await tabs[0]!.ask({ type: "unsubscribe" });
      await server.pause();
      await tabs[1]!.ask({ type: "unsubscribe", channel });
      await nothing(watcher, ...tabs);
      await server.pause();
      assert.deepEqual(await tabs[2]!.ask({ type: "unsubscribe" }), ended());
      assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "ann" }]));
      await nothing(watcher);
    },
  },
  {
    title: "a user that reconnects within the grace does not leave, and one that does not reconnect leaves",
    hibernates: true,
    async run(server) {
      const channel = channelOf("plain");
      const watcher = await connect(server, "eve");
      await attend(watcher, channel);
      await watcher.next();
      const ann = await connect(server, "ann");
      await attend(ann, channel);
      assert.equal((await watcher.next()).event, "join");
      await closed(server, () => ann.reset());
      await server.pause();
      await advance(server, 4_000);
      assert.deepEqual(
        await members(server, channel),
        [{ user: "ann" }, { user: "eve" }],
      );
      const again = await connect(server, "ann");
      assert.equal((await attend(again, channel)).length, 2);
      await server.pause();
      await advance(server, 20_000);
      await nothing(watcher, again);
      await closed(server, () => again.reset());
      await server.pause();
      await nothing(watcher);
      // Five seconds; after an eviction it is not known any more when they began.
      await advance(server, 10_000);
      assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "ann" }]));
      assert.deepEqual(await members(server, channel), [{ user: "eve" }]);
    },
  },
  {
    title: "a final close ends membership at once, and after any other close the user has the grace",
    hibernates: true,
    async run(server) {
      const channel = channelOf("plain");
      const watcher = await connect(server, "eve");
      await attend(watcher, channel);
      await watcher.next();
      const join = async (user: string) => {
        const wire = await connect(server, user);
        await begin(wire, channel);
        assert.deepEqual(await watcher.next(), told("join", channel, [{ user }]));
        await server.pause();
        return wire;
      };
      for (const code of [1000, undefined]) {
        const wire = await join("ann");
        await closed(server, () => wire.close(code));
        assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "ann" }]));
      }
      await join("bob");
      await closed(server, () => server.control("channels", "disconnect", { filter: { user: "bob" } }));
      assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "bob" }]));
      // As a browser does when it leaves the page, and a server that restarts.
      const close: ((wire: Wire) => void)[] = [
        (wire) => void wire.close(1001),
        (wire) => wire.send({ type: "close", code: 1012 }),
      ];
      for (const each of close) {
        const wire = await join("cid");
        await closed(server, () => each(wire));
        await nothing(watcher);
        assert.equal((await members(server, channel)).length, 2);
        await server.pause();
        await advance(server, 10_000);
        assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "cid" }]));
      }
    },
  },
  {
    title: "without a grace a user that loses the connection leaves at once",
    hibernates: true,
    async run(server) {
      const channel = channelOf("brief");
      const [watcher, ann] = [await connect(server, "eve"), await connect(server, "ann")];
      await attend(watcher, channel);
      await watcher.next();
      await attend(ann, channel);
      await watcher.next();
      await server.pause();
      ann.reset();
      assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "ann" }]));
    },
  },
  {
    title: "an anonymous client is the member uid:<id>, one for each connection",
    hibernates: true,
    async run(server) {
      const channel = channelOf("plain");
      const wires = [await connect(server, ":"), await connect(server, ":")];
      const uids: string[] = await Promise.all(wires.map(async (wire) => (await wire.ask({ type: "who" })).data.uid));
      for (const wire of wires) await begin(wire, channel);
      await server.pause();
      const list = await members(server, channel);
      assert.deepEqual(list.map(({ user }: { user: string }) => user).sort(), uids.map((uid) => `uid:${uid}`).sort());
      await wires[0]!.ask({ type: "unsubscribe" });
      assert.deepEqual(await members(server, channel), [{ user: `uid:${uids[1]}` }]);
    },
  },
  {
    title: "a subscriber without presence is a member, and receives no presence messages; with an event too",
    hibernates: true,
    async run(server) {
      const channel = channelOf("plain");
      const [ann, bob] = [await connect(server, "ann"), await connect(server, "bob")];
      await begin(ann, channel);
      await begin(bob, channel, { event: "say", presence: false });
      await server.pause();
      assert.equal((await members(server, channel)).length, 2);
      await bob.ask({ type: "unsubscribe" });
      await nothing(ann);
    },
  },
  {
    title: "the data of a member is the server's, or the client's if the channel accepts it, or absent",
    hibernates: true,
    async run(server) {
      const [lobby, room, plain] = [channelOf("lobby"), channelOf("room"), channelOf("plain")];
      const wire = await connect(server, "ann:editor");
      for (const channel of [lobby, room, plain]) await begin(wire, channel, { data: { at: [1, 2] } });
      await server.pause();
      assert.deepEqual(await members(server, lobby), [{ user: "ann", data: { role: "editor", said: { at: [1, 2] } } }]);
      assert.deepEqual(await members(server, room), [{ user: "ann", data: { at: [1, 2] } }]);
      assert.deepEqual(await members(server, plain), [{ user: "ann" }]);
    },
  },
  {
    title: "changed data of a member is sent as a join, and unchanged data is not",
    hibernates: true,
    async run(server) {
      const channel = channelOf("room");
      const [watcher, ann] = [await connect(server, "eve"), await connect(server, "ann")];
      await attend(watcher, channel);
      await watcher.next();
      for (const [data, isTold] of [["a", true], ["a", false], [{ b: 1 }, true], [{ b: 1 }, false]] as const) {
        await begin(ann, channel, { data, uid: 1 });
        if (isTold) assert.deepEqual(await watcher.next(), told("join", channel, [{ user: "ann", data }]));
        await nothing(watcher);
        await server.pause();
      }
      assert.deepEqual(
        await members(server, channel),
        [{ user: "ann", data: { b: 1 } }, { user: "eve" }],
      );
    },
  },
  {
    title: "a client's data has at most 1,024 bytes of JSON",
    async run(server) {
      const channel = channelOf("room");
      const wire = await connect(server, "ann");
      for (const data of ["x".repeat(1_022), "語".repeat(340), ["x".repeat(1_020)]]) await begin(wire, channel, { data });
      assert.deepEqual(await members(server, channel), [{ user: "ann", data: ["x".repeat(1_020)] }]);
      for (const data of ["x".repeat(1_023), "語".repeat(341), ["x".repeat(1_021)]]) {
        assert.deepEqual(codeOf(await wire.ask(subscribe(channel, { data, uid: 1 }))), [
          "subscribe",
          "error",
          "INVALID_PAYLOAD",
          1,
        ]);
      }
    },
  },
  {
    title: "a channel without presence has no members, and sends no presence messages",
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      await begin(wire, channel, { presence: true, data: 1 });
      await nothing(wire);
      assert.match(await members(server, channel), /^TypeError: Cannot list the members/);
    },
  },
  {
    title: "a subscription that replaces another causes neither a leave nor a join",
    hibernates: true,
    async run(server) {
      const channel = channelOf("plain");
      const [watcher, ann] = [await connect(server, "eve"), await connect(server, "ann")];
      await attend(watcher, channel);
      await watcher.next();
      await attend(ann, channel, { uid: 1 });
      await ann.next();
      await watcher.next();
      await server.pause();
      assert.equal((await attend(ann, channel, { uid: 1 })).length, 2);
      await begin(ann, channel, { uid: 1 });
      await nothing(watcher, ann);
      await server.pause();
      await ann.ask({ type: "unsubscribe", uid: 1 });
      assert.deepEqual(await take(watcher, 1), [told("leave", channel, [{ user: "ann" }])]);
      await nothing(watcher, ann);
    },
  },
  {
    title: "a user's data is that of the newest open connection, and falls back when that one closes",
    hibernates: true,
    async run(server) {
      const channel = channelOf("room");
      const watcher = await connect(server, "eve");
      await attend(watcher, channel);
      await watcher.next();
      const tabs: Wire[] = [];
      const data = (typing: unknown) => [{ user: "ann", data: { typing } }];
      for (const typing of [0, 1, 2, 3]) {
        const tab = await connect(server, "ann");
        tabs.push(tab);
        await begin(tab, channel, { data: { typing } });
        assert.deepEqual(await watcher.next(), told("join", channel, data(typing)));
        await server.pause();
      }
      // Those before it stay as they are: nobody is told, and whoever asks is told the newest.
      await closed(server, () => tabs[1]!.close(1000));
      await nothing(watcher);
      await server.pause();
      assert.deepEqual(await members(server, channel), [...data(3), { user: "eve" }]);
      tabs[3]!.reset();
      assert.deepEqual(await watcher.next(), told("join", channel, data(2)));
      await server.pause();
      await tabs[2]!.ask({ type: "unsubscribe" });
      assert.deepEqual(await watcher.next(), told("join", channel, data(0)));
      await server.pause();
      assert.deepEqual(await members(server, channel), [...data(0), { user: "eve" }]);
      await tabs[0]!.close(1000);
      assert.deepEqual(await watcher.next(), told("leave", channel, [{ user: "ann" }]));
      await nothing(watcher, tabs[2]!);
    },
  },
];
