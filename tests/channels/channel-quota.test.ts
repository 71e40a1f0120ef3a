/** `src/channels/channel-quota.ts` by the channels: what one user may have over all its connections, and what asking costs. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Channels, type ChannelsOptions } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { anybody, createChannels, kept, TestPeer } from "../support/channels-fixture.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";

const subscribe = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel, ...rest });
const publish = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "publish", channel, event: "e", ...rest });

/** What a test reads of an answer. */
// deno-lint-ignore no-explicit-any -- a test reads whatever was sent
const read = ({ event, status, error, uid }: any) => [error?.code ?? event ?? status, error?.retry_after, uid];
const codes = async (peer: TestPeer) => (await peer.take()).map((answer) => read(answer)[0]);

function create(options: WebSocketControllerOptions & ChannelsOptions = {}) {
  const created = createChannels({ "*": anybody, "log:*": kept, "no:*": { authorize: () => false } }, options);
  return {
    ...created,
    /** An anonymous client from this address. */
    from: (ip: string | null) => {
      const transport = new FakeTransport();
      const connection = created.controller.open(transport, { ...HANDSHAKE, ip }, null);
      return new TestPeer(connection, connection.client, transport);
    },
  };
}

describe("maxSubscriptionsPerUser", () => {
  it("counts those of all connections of a user, and no one else's", async () => {
    const { join } = create({ maxSubscriptionsPerUser: 3 });
    const [first, second, other] = [join("ann"), join("ann"), join("bob")];
    first.send(subscribe("a", { uid: 1 }), subscribe("b", { uid: 2 }));
    second.send(subscribe("a", { uid: 1 }), subscribe("c", { uid: 2 }));
    other.send(subscribe("a", { uid: 1 }));
    assert.deepEqual(await codes(first), ["init", "init"]);
    assert.deepEqual((await second.take()).map(read), [["LIMIT_EXCEEDED", undefined, 2], ["init", undefined, 1]]);
    assert.deepEqual(await codes(other), ["init"]);
  });

  it("has room again after whatever ends one", async () => {
    for (
      const [name, end] of Object.entries({
        unsubscribe: (peer: TestPeer) => peer.send({ type: "unsubscribe" }),
        "a refusal": (peer: TestPeer) => peer.send(subscribe("no:1", { uid: 1 })),
        "a fault": (peer: TestPeer) => peer.send(subscribe("a", { uid: 1, query: { text: "x".repeat(9_000) } })),
        "a close": (peer: TestPeer) => peer.leave(true),
        "a loss": (peer: TestPeer) => peer.leave(),
      })
    ) {
      const { join } = create({ maxSubscriptionsPerUser: 1 });
      const [first, second] = [join("ann"), join("ann")];
      await first.ask(subscribe("a", { uid: 1 }));
      assert.deepEqual((await second.ask(subscribe("a")))[0].error.code, "LIMIT_EXCEEDED", name);
      end(first);
      await first.take();
      assert.equal((await second.ask(subscribe("a")))[0].event, "init", name);
      // It was given back once.
      assert.equal((await join("ann").ask(subscribe("a")))[0].error.code, "LIMIT_EXCEEDED", name);
    }
  });

  it("gives the room of each back when a client ends its subscriptions one by one", async () => {
    const { join } = create({ maxSubscriptionsPerUser: 3 });
    const [first, second] = [join("ann"), join("ann")];
    await first.ask(subscribe("a", { uid: 1 }), subscribe("b", { uid: 2 }), subscribe("c", { uid: 3 }));
    for (const uid of [1, 2, 3]) {
      assert.equal((await second.ask(subscribe("d", { uid })))[0].error.code, "LIMIT_EXCEEDED");
      await first.ask({ type: "unsubscribe", uid });
      assert.equal((await second.ask(subscribe("d", { uid })))[0].event, "init");
    }
  });

  it("counts a replacement once, and a subscription that is still starting", async () => {
    const { join } = create({ maxSubscriptionsPerUser: 1 });
    const peer = join("ann");
    peer.send(subscribe("a", { uid: 1 }), subscribe("b", { uid: 1 }), subscribe("c", { uid: 1 }), subscribe("d", { uid: 2 }));
    assert.deepEqual((await peer.take()).map(read), [["LIMIT_EXCEEDED", undefined, 2], ["init", undefined, 1]]);
  });

  it("counts them of the user that a client becomes", async () => {
    const observed = create({
      mode: "public",
      maxSubscriptionsPerUser: 1,
      authenticate: (credentials) => ({
        accountability: { user: "access_token" in credentials ? credentials.access_token : "", role: null },
      }),
    });
    const peer = observed.join("ann");
    await peer.ask(subscribe("a"));
    await peer.ask({ type: "auth", access_token: "bob" });
    assert.equal((await observed.join("ann").ask(subscribe("a")))[0].event, "init");
    assert.equal((await peer.ask(subscribe("a")))[0].event, "init");
    assert.equal((await observed.join("bob").ask(subscribe("a")))[0].error.code, "LIMIT_EXCEEDED");
  });

  it("counts anonymous clients by address, those without an address alone, and others by `key`", async () => {
    const { from } = create({ maxSubscriptionsPerUser: 1 });
    const [first, second, third] = [from("192.0.2.1"), from("192.0.2.1"), from("192.0.2.2")];
    const [fourth, fifth] = [from(null), from(null)];
    const events = [];
    for (const peer of [first, second, third, fourth, fifth]) events.push(read((await peer.ask(subscribe("a")))[0])[0]);
    assert.deepEqual(events, ["init", "LIMIT_EXCEEDED", "init", "init", "init"]);
    const keyed = create({ maxSubscriptionsPerUser: 1, rateLimit: { key: () => "all" } });
    await keyed.join("ann").ask(subscribe("a"));
    assert.equal((await keyed.join("bob").ask(subscribe("a")))[0].error.code, "LIMIT_EXCEEDED");
  });

  it("is 10,000 by default, and unlimited with Infinity or without rateLimit", async () => {
    const rateLimit = { burst: 100_000, burstBytes: 1e9 };
    const none = [{ rateLimit, maxSubscriptionsPerUser: Infinity }, { rateLimit: false as const }];
    for (const options of [{ rateLimit }, ...none]) {
      const more = none.includes(options as never) ? "init" : "LIMIT_EXCEEDED";
      const { join } = create({ maxSubscriptions: 20_000, ...options });
      const peer = join("ann");
      await join("bob").ask(subscribe("a"));
      for (let uid = 0; uid < 10_000; uid++) peer.send(subscribe("a", { uid }));
      assert.deepEqual(new Set(await codes(peer)), new Set(["init"]));
      assert.deepEqual((await peer.ask(subscribe("a", { uid: -1 }))).map((answer) => read(answer)[0]), [more]);
    }
  });
});

describe("maxNewChannelsPerMinute", () => {
  it("bounds the names that a user brings up, by subscribe and publish, over all its connections", async () => {
    const { join, clock } = create({ maxNewChannelsPerMinute: 3 });
    const [first, second] = [join("ann"), join("ann")];
    await first.ask(subscribe("a", { uid: 1 }), publish("b", { uid: 2 }));
    clock.advance(20_000);
    await second.ask(subscribe("c", { uid: 3 }));
    clock.advance(10_000);
    assert.deepEqual((await second.ask(subscribe("d", { uid: 4 }))).map(read), [["REQUESTS_EXCEEDED", 30_000, 4]]);
    assert.deepEqual((await first.ask(publish("d", { uid: 5 }))).map(read), [["REQUESTS_EXCEEDED", 30_000, 5]]);
    assert.deepEqual((await join("bob").ask(publish("d", { uid: 6 }))).map(read), [["ok", undefined, 6]]);
    clock.advance(29_999);
    assert.deepEqual((await second.ask(subscribe("d", { uid: 4 }))).map(read), [["REQUESTS_EXCEEDED", 1, 4]]);
    clock.advance(1);
    assert.deepEqual((await second.ask(subscribe("d", { uid: 4 }))).map(read), [["init", undefined, 4]]);
    assert.deepEqual((await second.ask(subscribe("e", { uid: 4 }))).map(read), [["init", undefined, 4]]);
    assert.deepEqual((await second.ask(subscribe("f", { uid: 4 }))).map(read), [["REQUESTS_EXCEEDED", 20_000, 4]]);
  });

  it("counts neither a channel with subscribers on this node nor a repeated name", async () => {
    const { join } = create({ maxNewChannelsPerMinute: 2 });
    const [peer, other] = [join("ann"), join("bob")];
    await other.ask(subscribe("b1"), subscribe("b2"));
    assert.deepEqual((await other.ask(subscribe("b3")))[0].error.code, "REQUESTS_EXCEEDED");
    await peer.ask(subscribe("b1"), publish("b2"), publish("b1"));
    for (let n = 0; n < 50; n++) await peer.ask(publish("a1"));
    assert.equal((await peer.ask(publish("a2")))[0].status, "ok");
    assert.equal((await peer.ask(publish("a3")))[0].error.code, "REQUESTS_EXCEEDED");
    for (const name of ["a1", "a2"]) assert.equal((await peer.ask(subscribe(name)))[0].event, "init");
  });

  it("tells the client before the application is asked and the engine told, and what the subscribe was to replace is over", async () => {
    const seen: string[] = [];
    class Engine extends MemoryEngine {
      override subscribe(...args: Parameters<MemoryEngine["subscribe"]>) {
        seen.push(`engine ${args[0]}`);
        return super.subscribe(...args);
      }
    }
    const { join, channels } = createChannels({
      "*": { authorize: ({ channel }) => seen.push(`authorize ${channel}`) > 0 },
    }, { maxNewChannelsPerMinute: 1, engine: new Engine() });
    const peer = join("ann");
    await peer.ask(subscribe("a", { uid: 1 }));
    await peer.ask(subscribe("b", { uid: 1 }));
    assert.deepEqual(seen, ["authorize a", "engine a"]);
    assert.equal(channels.stats().subscriptions, 0);
  });

  it("leaves the server's own publications alone", async () => {
    const { channels } = create({ maxNewChannelsPerMinute: 1 });
    for (const name of ["a", "b", "c"]) await channels.publish(name, "e", 1);
  });

  it("is 1,000 by default, and unlimited with Infinity or without rateLimit", async () => {
    const rateLimit = { burst: 100_000, burstBytes: 1e9 };
    const none = [{ rateLimit, maxNewChannelsPerMinute: Infinity }, { rateLimit: false as const }];
    for (const options of [{ rateLimit }, ...none]) {
      const last = none.includes(options as never) ? "ok" : "REQUESTS_EXCEEDED";
      const peer = create(options).join("ann");
      for (let n = 0; n < 1_000; n++) peer.send(publish(`c${n}`));
      assert.deepEqual(new Set(await codes(peer)), new Set(["ok"]));
      assert.equal(read((await peer.ask(publish("more")))[0])[0], last);
    }
  });
});

describe("The rate limit, for what a subscribe asks for", () => {
  const LIMIT = { messages: 1, burst: 10, bytes: 1e6, burstBytes: 1e7 };
  const declarations = {
    plain: anybody,
    log: kept,
    rows: { ...anybody, snapshot: () => [1, 2, 3] },
    both: { ...kept, snapshot: () => [1, 2, 3], presence: true },
    room: { ...anybody, presence: true },
    large: { ...anybody, snapshot: () => "x".repeat(10 * 16_384) },
    deep: { authorize: () => true, history: { size: 100, ttl: 60_000 } },
  };
  const recover = { epoch: "e", offset: 0 };

  for (
    const [what, channel, asked, cost] of [
      ["nothing", "plain", {}, 1],
      ["a recovery where there is no history", "plain", { recover }, 1],
      ["members where there are none", "plain", { presence: true }, 1],
      ["a recovery", "log", { recover }, 3],
      ["a snapshot", "rows", {}, 3],
      ["no snapshot, with an event", "rows", { event: "e" }, 1],
      ["the members", "room", { presence: true }, 3],
      ["a recovery or a snapshot, and the members", "both", { recover, presence: true }, 5],
      ["a snapshot and the members", "both", { presence: true }, 5],
    ] as const
  ) {
    it(`takes ${cost} of it for ${what}`, async () => {
      const { join, clock } = createChannels(declarations, { rateLimit: LIMIT });
      const [peer, again] = [join("ann"), join("ann")];
      const fit = Math.floor(LIMIT.burst / cost);
      for (let n = 0; n < fit; n++) {
        const [answer] = await (n % 2 ? again : peer).ask(subscribe(channel, { uid: n, ...asked }));
        assert.equal(read(answer)[0], "init");
      }
      const left = LIMIT.burst - fit * cost;
      const [answer] = await peer.ask(subscribe(channel, { ...asked, uid: "more" }));
      if (left === 0) return assert.deepEqual([answer.type, ...read(answer)], ["server", "REQUESTS_EXCEEDED", 1_000, "more"]);
      // It was read: its own message was left.
      const wait = 1_000 * (cost - left);
      assert.deepEqual([answer.type, ...read(answer)], ["subscribe", "REQUESTS_EXCEEDED", wait, "more"]);
      clock.advance(wait);
      // The refused message has cost one, too.
      clock.advance(1_000);
      assert.equal(read((await peer.ask(subscribe(channel, { ...asked, uid: "more" })))[0])[0], "init");
    });
  }

  it("does not close a client that asks too often and sends not too much", async () => {
    const { join, clock } = createChannels(declarations, { rateLimit: { ...LIMIT, messages: 1_000 } });
    const peer = join("ann");
    for (let n = 0; n < 500; n++) {
      await peer.ask(subscribe("rows", { uid: n }));
      clock.advance(1);
    }
    assert.deepEqual(peer.transport.closes, []);
  });

  for (const what of ["snapshot", "recovery", "list of members"]) {
    it(`lets it ask again once what it was sent is paid for, at 16 KiB a message, and all else at once: a ${what}`, async () => {
      const text = "x".repeat(1_000);
      const { join, clock, channels } = createChannels({
        ...declarations,
        members: { ...anybody, presence: { data: () => text } },
      }, { rateLimit: { ...LIMIT, key: ({ accountability: { user } }) => user === "ann" ? "ann" : crypto.randomUUID() } });
      const peer = join("ann");
      let asked = subscribe("large", { uid: 1 });
      if (what === "recovery") {
        const first = await channels.publish("deep", "e", "");
        for (let n = 0; n < 99; n++) void channels.publish("deep", "e", text.repeat(2));
        asked = subscribe("deep", { uid: 1, recover: first });
      } else if (what === "list of members") {
        for (let n = 0; n < 200; n++) await join(`user ${n}`).ask(subscribe("members"));
        asked = subscribe("members", { uid: 1, presence: true });
      }
      assert.ok((await peer.ask(asked)).length >= 1);
      const [refused] = await peer.ask(subscribe("rows", { uid: 2 }));
      const [code, wait, uid] = read(refused);
      assert.deepEqual([code, uid], ["REQUESTS_EXCEEDED", 2]);
      assert.ok(wait > 1_000 && wait < 15_000, `it has to wait for ${wait} ms`);
      assert.deepEqual((await peer.ask({ type: "ping" }, subscribe("plain"))).map(({ type }) => type), ["pong", "subscription"]);
      clock.advance(wait);
      assert.equal(read((await peer.ask(subscribe("rows", { uid: 2 })))[0])[0], "init");
    });
  }
});

describe("new Channels", () => {
  it("throws TypeError for an invalid limit and an unknown option", () => {
    for (const name of ["maxSubscriptions", "maxSubscriptionsPerUser", "maxNewChannelsPerMinute"]) {
      for (const value of [0, -1, 1.5, NaN, "10", null, {}]) {
        assert.throws(() => create({ [name]: value } as never), {
          name: "TypeError",
          message: `Cannot create the channels: option "${name}" must be a whole number from 1, or Infinity`,
        });
      }
      for (const value of [1, Infinity]) create({ [name]: value });
    }
    assert.throws(() => new Channels(new WebSocketController(), {}, { maxSubs: 1 } as never), /unknown option "maxSubs"/);
  });
});
