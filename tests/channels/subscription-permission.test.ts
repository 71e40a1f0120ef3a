/** The permission of a subscription, while something else happens to it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { Authorization } from "../../src/channels/channels.ts";
import { createChannels } from "../support/channels-fixture.ts";
import { Stall } from "../support/waiting.ts";

const subscribe = { type: "subscribe", channel: "a", uid: 1 };
const ended = { type: "subscription", event: "unsubscribe", channel: "a", uid: 1, reason: "FORBIDDEN" };

/** A channel whose `authorize` allows the first call, and waits for an answer of the test from then on. */
function createAsked(first: Authorization = true, isAlwaysAsked = false) {
  let role = "member";
  const waiting: ((answer: Authorization) => void)[] = [];
  const asked: string[] = [];
  const state = (): AuthenticationState => ({ accountability: { user: "ann", role } });
  const created = createChannels({
    a: {
      authorize: ({ client }) => {
        asked.push(client.accountability.role!);
        return asked.length === 1 && !isAlwaysAsked ? first : new Promise<Authorization>((resolve) => waiting.push(resolve));
      },
      history: { size: 100, ttl: 60_000 },
    },
  }, { mode: "public", authenticate: state, revalidate: state, slowConsumer: "drop", maxBufferedBytes: 10_000 });
  return {
    ...created,
    /** The roles that `authorize` was asked about. */
    asked,
    /** Answers the oldest call. */
    answer: (answer: Authorization) => waiting.shift()!(answer),
    change: async (to: string) => {
      role = to;
      await created.controller.refresh({ user: "ann" });
    },
    /** A client with a subscription. */
    admit: async () => {
      const peer = created.join("ann");
      await peer.ask({ type: "auth", access_token: "x" }, subscribe);
      return peer;
    },
    gap: () => [...created.channels.open()].forEach((channel) => channel.gap()),
  };
}

type Asked = ReturnType<typeof createAsked>;
type Peer = Awaited<ReturnType<Asked["admit"]>>;

/** What makes a subscription continue, though its client has no new permission yet. */
const restarts: Record<string, (asked: Asked, peer: Peer) => void> = {
  "the channel has a gap": ({ gap }) => gap(),
  "the client reads again": ({ clock }, { transport }) => {
    transport.bufferedAmount = 0;
    clock.advance(250);
  },
};

const changes: Record<string, { first: Authorization; change(asked: Asked): Promise<void> | void }> = {
  "a refresh": { first: true, change: ({ change }) => change("banned") },
  "the end of a ttl": { first: { ttl: 1_000 }, change: ({ clock }) => clock.advance(1_000) },
};

describe("SubscriptionPermission", () => {
  for (const [change, { first, change: apply }] of Object.entries(changes)) {
    for (const [restart, make] of Object.entries(restarts)) {
      for (const isAllowed of [false, true]) {
        it(`sends nothing before authorize has ${isAllowed ? "allowed" : "refused"}, after ${change}, when ${restart}`, async () => {
          const asked = createAsked(first);
          const peer = await asked.admit();
          await peer.take();
          // Cannot be sent: from here on the subscription is behind.
          peer.transport.bufferedAmount = 20_000;
          await asked.channels.publish("a", "e", 1);
          await apply(asked);
          if (restart !== "the client reads again") peer.transport.bufferedAmount = 0;
          make(asked, peer);
          await asked.channels.publish("a", "e", 2);
          assert.deepEqual((await peer.take()).filter(({ type }) => type === "subscription"), []);
          asked.answer(isAllowed);
          const sent = (await peer.take()).filter(({ type }) => type === "subscription");
          if (isAllowed) assert.deepEqual(sent.map(({ data }) => data), [1, 2]);
          else assert.deepEqual(sent, [ended]);
          await asked.channels.publish("a", "e", 3);
          assert.deepEqual((await peer.take()).map(({ data }) => data), isAllowed ? [3] : []);
          assert.equal(asked.channels.stats().subscriptions, isAllowed ? 1 : 0);
        });
      }
    }
  }

  it("sends a client that stays allowed what was published meanwhile, through further changes and gaps, and no position before", async () => {
    let isStalled = false;
    const waiting: ((answer: boolean) => void)[] = [];
    const authorize = () => !isStalled || new Promise<boolean>((resolve) => waiting.push(resolve));
    const state = (): AuthenticationState => ({ accountability: { user: "ann", role: null } });
    const { join, channels, controller } = createChannels({
      a: { authorize },
      b: { authorize, history: { size: 10, ttl: 60_000 } },
    }, {
      mode: "public",
      authenticate: state,
      revalidate: state,
    });
    const peer = join("ann");
    await peer.ask({ type: "auth", access_token: "x" }, subscribe, { type: "subscribe", channel: "b", uid: 2 });
    isStalled = true;
    await controller.refresh({ user: "ann" });
    for (const n of [1, 2]) {
      await channels.publish("a", "e", n);
      await channels.publish("b", "e", n);
      for (const channel of channels.open()) if (channel.name === "a") channel.gap();
      await controller.refresh({ user: "ann" });
    }
    assert.deepEqual(await peer.ask({ type: "ping" }), [{ type: "pong" }]);
    isStalled = false;
    for (const answer of waiting) answer(true);
    const sent = (await peer.take()).map(({ channel, data }) => `${channel} ${data}`);
    assert.deepEqual(sent.sort(), ["a 1", "a 2", "b 1", "b 2"]);
    assert.equal((await peer.ask({ type: "ping" }))[0].channels.b.offset, 2);
  });

  it("ends a subscription for which more was published meanwhile than is kept, if there is no history to read", async () => {
    const stall = new Stall<boolean>();
    let asked = 0;
    const { join, channels, clock } = createChannels({ a: { authorize: () => ++asked > 1 ? stall.promise : { ttl: 1_000 } } });
    const peer = join("ann");
    await peer.ask(subscribe);
    clock.advance(1_000);
    for (let n = 0; n <= 1_000; n++) await channels.publish("a", "e", n);
    stall.resolve(true);
    const sent = await peer.take();
    assert.deepEqual(sent.slice(-1).map(({ event, reason }) => [event, reason]), [["unsubscribe", "SERVICE_UNAVAILABLE"]]);
    assert.deepEqual(sent.slice(0, -1).map(({ data }) => data), Array.from({ length: 1_000 }, (_, n) => n));
  });

  it("does not ask again after a gap, nor when the client reads again, also while a subscription starts", async () => {
    let asked = 0;
    const stall = new Stall<unknown>();
    const authorize = () => ++asked > 0;
    const { join, channels, clock } = createChannels({
      live: { authorize, history: { size: 10, ttl: 60_000 } },
      starting: { authorize, snapshot: () => stall.promise },
    }, { slowConsumer: "drop" });
    const peer = join("ann");
    await peer.ask({ type: "subscribe", channel: "live", uid: 1 }, { type: "subscribe", channel: "starting" });
    peer.transport.sends = false;
    await channels.publish("live", "e", 1);
    peer.transport.sends = true;
    clock.advance(250);
    for (const channel of channels.open()) channel.gap();
    stall.resolve("all");
    assert.deepEqual((await peer.take()).filter(({ type }) => type === "subscription").map(({ data }) => data), [1, "all"]);
    assert.equal(asked, 2);
  });

  it("sends nothing to one that was unsubscribed while authorize was asked again", async () => {
    let answer: Promise<boolean> | boolean | { ttl: number } = { ttl: 1_000 };
    const stall = new Stall<boolean>();
    const { join, channels, clock } = createChannels({ a: { authorize: () => answer } });
    const [peer, other] = [join("ann"), join("bob")];
    await peer.ask({ type: "subscribe", channel: "a" });
    answer = stall.promise;
    clock.advance(1_000);
    answer = true;
    await other.ask({ type: "subscribe", channel: "a" });
    await peer.ask({ type: "unsubscribe" });
    stall.resolve(true);
    await peer.take();
    // By topic, and one by one.
    for (const n of [1, 2]) await channels.publish("a", "e", n);
    assert.deepEqual([(await peer.take()).length, (await other.take()).length], [0, 2]);
  });

  it("asks again at the end of the ttl of an answer that came after a gap", async () => {
    const asked = createAsked({ ttl: 1_000 });
    const peer = await asked.admit();
    asked.clock.advance(1_000);
    asked.gap();
    asked.answer({ ttl: 5_000 });
    await peer.take();
    asked.clock.advance(4_999);
    assert.equal(asked.asked.length, 2);
    asked.clock.advance(1);
    assert.equal(asked.asked.length, 3);
  });

  for (const isStarted of [true, false]) {
    const which = isStarted ? "that has started" : "under way";
    it(`calls authorize once at a time for a subscription ${which}, and discards answers about earlier rights`, async () => {
      const asked = createAsked(true, !isStarted);
      const peer = await asked.admit();
      if (isStarted) await asked.change("second");
      for (const role of ["third", "fourth", "fifth"]) await asked.change(role);
      for (let times = 0; times < 100; times++) await peer.ask({ type: "auth", access_token: "x" });
      assert.equal(asked.asked.length, isStarted ? 2 : 1);
      asked.answer(false);
      assert.deepEqual(await peer.take(), []);
      assert.deepEqual(asked.asked.slice(-1), ["fifth"]);
      assert.equal(asked.asked.length, isStarted ? 3 : 2);
      asked.answer(true);
      await peer.take();
      await asked.channels.publish("a", "e", 1);
      assert.deepEqual((await peer.take()).map(({ data }) => data), [1]);
      assert.equal(asked.asked.length, isStarted ? 3 : 2);
    });
  }

  it("ends a subscription that is refused by the last rights, whatever the ones before were allowed", async () => {
    const asked = createAsked();
    const peer = await asked.admit();
    await asked.change("member");
    await asked.change("banned");
    asked.answer(true);
    await asked.channels.publish("a", "e", 1);
    await peer.take();
    asked.answer(false);
    assert.deepEqual(await peer.take(), [ended]);
  });
});
