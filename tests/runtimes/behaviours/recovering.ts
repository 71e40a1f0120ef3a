import assert from "node:assert/strict";
import { begin, channelOf, codeOf, connect, init, nothing, publish, range, said, subscribe, take } from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { Wire } from "../wire.ts";

/** PROTOCOL.md 4.5 to 4.8: positions, and what was missed. */
export const recovering: Behaviour[] = [
  {
    title: "a client that reconnects receives what it missed, in order, and then new publications",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      await server.control("channels", "rows", { channel, rows: ["a snapshot"] });
      const wire = await connect(server);
      const { epoch, offset } = await begin(wire, channel, { uid: 1 });
      assert.equal(offset, 0);
      await server.pause();
      for (const n of [1, 2]) await publish(server, channel, n);
      assert.deepEqual((await take(wire, 2)).map(({ offset }) => offset), [1, 2]);
      wire.reset();
      await server.pause();
      for (const n of [3, 4]) await publish(server, channel, n);
      await server.pause();
      const again = await connect(server);
      const recover = { epoch, offset: 2 };
      assert.deepEqual(
        await again.ask(subscribe(channel, { uid: 1, recover })),
        init(channel, { uid: 1, ...recover, recovered: true }),
      );
      await server.pause();
      await publish(server, channel, 5);
      const missed = await take(again, 3);
      const offsets = missed.map(({ offset }) => offset);
      assert.deepEqual(missed, [3, 4, 5].map((n, place) => said(channel, n, { offset: offsets[place], uid: 1 })));
      // By any amount: PROTOCOL 4.5.
      assert.deepEqual(offsets, [...new Set([2, ...offsets])].sort((one, other) => one - other).slice(1));
      await nothing(again);
    },
  },
  {
    title: "recovery may be asked for again and again, from any position that is kept, with no gap and nothing twice",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel, { uid: "live" });
      for (const n of range(5, 1)) await publish(server, channel, n);
      await take(wire, 5);
      for (const offset of [5, 0, 3, 3, 0]) {
        await server.pause();
        const answer = await begin(wire, channel, { uid: "again", recover: { epoch, offset } });
        assert.deepEqual([answer.recovered, answer.offset, "data" in answer], [true, offset, false]);
        assert.deepEqual(
          (await take(wire, 5 - offset)).map(({ data, uid }) => [data, uid]),
          range(5 - offset, offset + 1).map((n) => [n, "again"]),
        );
        await nothing(wire);
      }
    },
  },
  {
    title: "a client recovers from its init, before anything was published",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const { epoch, offset } = await begin(wire, channel);
      await server.pause();
      const recover = { epoch, offset };
      assert.deepEqual(await wire.ask(subscribe(channel, { recover })), init(channel, { ...recover, recovered: true }));
      await server.pause();
      await publish(server, channel, 1);
      assert.deepEqual(await wire.next(), said(channel, 1, { offset: 1 }));
      const other = await connect(server, "bob");
      assert.equal((await begin(other, channel, { recover })).recovered, true);
      assert.deepEqual(await other.next(), said(channel, 1, { offset: 1 }));
      await nothing(wire, other);
    },
  },
  {
    title: "if the history does not go back far enough, init has the snapshot and the current position, never a partial recovery",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel, { uid: "live" });
      for (const n of range(6, 1)) await publish(server, channel, n);
      await take(wire, 6);
      await server.pause();
      assert.deepEqual(
        await wire.ask(subscribe(channel, { uid: 1, recover: { epoch, offset: 0 } })),
        init(channel, { uid: 1, data: [], epoch, offset: 6, recovered: false }),
      );
      await nothing(wire);
      await begin(wire, channel, { uid: 2, recover: { epoch, offset: 1 } });
      assert.deepEqual((await take(wire, 5)).map(({ data }) => data), range(5, 2));
    },
  },
  {
    title: "what is older than the history keeps is not recovered",
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel, { uid: "live" });
      await publish(server, channel, 1);
      await wire.next();
      await server.control("channels", "advance", { ms: 30_000 });
      await publish(server, channel, 2);
      await wire.next();
      await server.control("channels", "advance", { ms: 30_000 });
      assert.equal((await begin(wire, channel, { uid: 1, recover: { epoch, offset: 0 } })).recovered, false);
      assert.equal((await begin(wire, channel, { uid: 2, recover: { epoch, offset: 1 } })).recovered, true);
      assert.equal((await wire.next()).data, 2);
      await server.control("channels", "advance", { ms: 60_000 });
      assert.equal((await begin(wire, channel, { uid: 3, recover: { epoch, offset: 1 } })).recovered, false);
      // Whoever is at the end has missed nothing.
      assert.equal((await begin(wire, channel, { uid: 4, recover: { epoch, offset: 2 } })).recovered, true);
      await nothing(wire);
    },
  },
  {
    title: "a position of another history or of the future is not recovered from",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel, { uid: "live" });
      await publish(server, channel, 1);
      await wire.next();
      for (
        const recover of [{ epoch: "another", offset: 1 }, { epoch: "", offset: 0 }, { epoch, offset: 2 }, {
          epoch,
          offset: 2 ** 53 - 1,
        }]
      ) {
        await server.pause();
        assert.deepEqual(
          await wire.ask(subscribe(channel, { uid: 1, recover })),
          init(channel, { uid: 1, data: [], epoch, offset: 1, recovered: false }),
        );
      }
      await nothing(wire);
    },
  },
  {
    title: "no more than maxRecover publications are recovered",
    hibernates: true,
    async run(server) {
      const channel = channelOf("few");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel, { uid: "live" });
      for (const n of [1, 2, 3]) await publish(server, channel, n);
      await take(wire, 3);
      await server.pause();
      const refused = await begin(wire, channel, { uid: 1, recover: { epoch, offset: 0 } });
      assert.deepEqual([refused.recovered, refused.offset], [false, 3]);
      assert.equal((await begin(wire, channel, { uid: 2, recover: { epoch, offset: 1 } })).recovered, true);
      assert.deepEqual((await take(wire, 2)).map(({ data }) => data), [2, 3]);
    },
  },
  {
    title: "with an event only missed publications of that event are sent",
    hibernates: true,
    async run(server) {
      const channel = channelOf("log");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel, { event: "none" });
      for (const event of ["a", "b", "a", "b"]) await publish(server, channel, event, event);
      await server.pause();
      const recover = { epoch, offset: 1 };
      assert.deepEqual(
        await wire.ask(subscribe(channel, { event: "a", uid: 1, recover })),
        init(channel, { uid: 1, ...recover, recovered: true }),
      );
      const missed = { type: "subscription", event: "a", channel, data: "a", offset: 3, uid: 1 };
      assert.deepEqual(await wire.next(), missed);
      await nothing(wire);
      await server.pause();
      for (const event of ["b", "a"]) await publish(server, channel, event, event);
      assert.deepEqual(await wire.next(), { ...missed, offset: 6 });
    },
  },
  {
    title: "without a history recovery is answered recovered: false, and without a position",
    async run(server) {
      const channel = channelOf("open");
      const wire = await connect(server);
      assert.deepEqual(
        await wire.ask(subscribe(channel, { recover: { epoch: "x", offset: 1 } })),
        init(channel, { recovered: false }),
      );
    },
  },
  {
    title: "recovery is authorized like every subscribe",
    hibernates: true,
    async run(server) {
      const [channel, asked] = [channelOf("log"), channelOf("asked")];
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel);
      await publish(server, channel, "secret");
      await wire.next();
      await server.pause();
      await server.control("channels", "deny", { channel });
      const recover = { epoch, offset: 0 };
      assert.deepEqual(codeOf(await wire.ask(subscribe(channel, { recover }))), ["subscribe", "error", "FORBIDDEN"]);
      await publish(server, channel, "secret");
      await nothing(wire);
      wire.send(subscribe(asked, { recover, event: "e", query: { a: "1" } }));
      const [told] = await server.control("channels", "wait", { event: "asked", name: asked });
      assert.deepEqual(told, { event: "asked", filter: "e", name: asked, action: "subscribe", query: { a: "1" }, recover });
    },
  },
  {
    title: "clients that recover while much is published miss nothing and get nothing twice",
    async run(server) {
      const channel = channelOf("long");
      const wire = await connect(server);
      const { epoch } = await begin(wire, channel);
      const total = 600;
      const publishing = (async () => {
        for (let from = 0; from < total; from += 100) await server.control("channels", "publish", { channel, count: 100, from });
      })();
      const recovering = Array.from({ length: 8 }, async (_, n) => {
        const seen: number[] = [];
        let recover = { epoch, offset: 0 };
        // It loses its connection again and again, at another place each time.
        for (let round = 1; recover.offset < total; round++) {
          const each = await connect(server, `user${n}`);
          assert.equal((await begin(each, channel, { recover, uid: n })).recovered, true);
          const until = Math.min(total, recover.offset + 37 * (n + round));
          while (recover.offset < until) {
            const { data, offset } = await each.next();
            seen.push(data);
            recover = { epoch, offset };
          }
          each.reset();
        }
        assert.deepEqual(seen, range(total));
      });
      await Promise.all([publishing, ...recovering]);
      assert.deepEqual((await take(wire, total)).map(({ data }) => data), range(total));
      await nothing(wire);
    },
  },
  {
    title: "a pong has the positions of the channels in which a client can detect a loss, and of no others",
    hibernates: true,
    async run(server) {
      const [log, filtered, bare] = [channelOf("log"), channelOf("log"), channelOf("open")];
      const wire = await connect(server);
      assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), { type: "pong", uid: 1 });
      const { epoch } = await begin(wire, log, { uid: 1 });
      await begin(wire, filtered, { event: "say" });
      await begin(wire, bare);
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "ping", uid: 2 }), {
        type: "pong",
        uid: 2,
        channels: { [log]: { epoch, offset: 0 } },
      });
      for (const channel of [log, filtered, log]) await publish(server, channel, 1);
      await take(wire, 3);
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "ping", uid: "3" }), {
        type: "pong",
        uid: "3",
        channels: { [log]: { epoch, offset: 2 } },
      });
      // One with everything beside one with an event.
      const { epoch: other } = await begin(wire, filtered);
      assert.deepEqual((await wire.ask({ type: "ping", uid: 4 })).channels, {
        [log]: { epoch, offset: 2 },
        [filtered]: { epoch: other, offset: 1 },
      });
      await wire.ask({ type: "unsubscribe" });
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "ping", uid: 5 }), { type: "pong", uid: 5 });
    },
  },
  {
    title: "a slow client that missed messages receives the whole history in the end, in order",
    async run(server) {
      assert.ok(await readLate(server) > 0, "nothing was missed");
    },
  },
];

/** Has a client read late; resolves with how many messages it was told that it has missed, of which it got those of a history. */
export async function readLate(server: TestServer): Promise<number> {
  const channel = channelOf("long");
  const [slow, reader] = [await Wire.open(server.port, "/behind"), await Wire.open(server.port, "/behind")];
  for (const wire of [slow, reader]) await begin(wire, channel);
  slow.socket.pause();
  const text = "x".repeat(300_000);
  // More than the kernel's buffers on both sides take. Once a message was dropped, half as many follow.
  let count = 60;
  const { dropped } = await server.control("behind", "stats");
  for (let n = 0, isDropped = false; n < count; n++) {
    await server.control("behind", "publish", { channel, data: { n, text } });
    assert.equal((await reader.next()).data.n, n);
    if (isDropped) continue;
    isDropped = (await server.control("behind", "stats")).dropped > dropped;
    if (isDropped) count = Math.min(count, Math.ceil(1.5 * (n + 1)));
  }
  slow.socket.resume();
  const seen: number[] = [];
  let missed = 0;
  // Room is looked for in time, and the test's stands still. What is published last may have to wait for room, too.
  const ticking = (async () => {
    while (seen.length <= count) await server.control("behind", "advance", { ms: 250 });
  })();
  while (seen.length < count) {
    const { type, data, error } = await slow.next();
    if (type === "subscription") seen.push(data.n);
    else missed += error.count;
  }
  assert.deepEqual(seen, range(count));
  await server.control("behind", "publish", { channel, data: { n: count } });
  seen.push((await slow.next()).data.n);
  assert.deepEqual([seen[count], (await reader.next()).data.n], [count, count]);
  await ticking;
  return missed;
}
