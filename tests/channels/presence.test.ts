import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Authenticate } from "../../src/application/authentication.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { createChannels, type TestPeer } from "../support/channels-fixture.ts";
import { Stall, turn } from "../support/waiting.ts";

const room = { authorize: () => true, presence: true };
const subscribe = (rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel: "room", ...rest });

/** An engine in memory that says who is there late, as of when it was asked. */
class LateEngine extends MemoryEngine {
  answer = new Stall();

  // @ts-expect-error -- its answer is a promise, as the interface lets it be
  override async members(channel: string) {
    const members = super.members(channel);
    await this.answer.promise;
    return members;
  }
}

/** What a client was told of the members, as `+ann -bob`. */
const told = async (peer: TestPeer) =>
  (await peer.take()).filter(({ type }) => type === "presence").map(({ event, members }) =>
    `${{ init: "=", join: "+", leave: "-" }[event as string]}${members.map(({ user }: { user: string }) => user)}`
  );

describe("Channels: presence", () => {
  it("sends a subscriber the members, then its own join, then joins and leaves", async () => {
    const { join, channels } = createChannels({ room });
    const ann = join("ann");
    assert.deepEqual(await ann.ask(subscribe({ presence: true, uid: 1 })), [
      { type: "subscription", event: "init", channel: "room", uid: 1 },
      { type: "presence", event: "init", channel: "room", members: [], uid: 1 },
      { type: "presence", event: "join", channel: "room", members: [{ user: "ann" }], uid: 1 },
    ]);
    const bob = join("bob");
    await bob.ask(subscribe({ presence: true }));
    assert.deepEqual(await told(ann), ["+bob"]);
    assert.deepEqual(await channels.presence("room"), [{ user: "ann" }, { user: "bob" }]);
    await bob.ask({ type: "unsubscribe" });
    assert.deepEqual(await ann.take(), [{
      type: "presence",
      event: "leave",
      channel: "room",
      members: [{ user: "bob" }],
      uid: 1,
    }]);
    assert.deepEqual(await channels.presence("room"), [{ user: "ann" }]);
  });

  it("sends members only on request, and makes every subscriber a member", async () => {
    const { join, channels } = createChannels({ room, plain: { authorize: () => true } });
    const ann = join("ann");
    assert.deepEqual((await ann.ask(subscribe())).map(({ type }) => type), ["subscription"]);
    await join("bob").ask(subscribe());
    assert.deepEqual(await ann.take(), []);
    assert.equal((await channels.presence("room")).length, 2);
    assert.deepEqual((await ann.ask(subscribe({ channel: "plain", presence: true }))).map(({ type }) => type), ["subscription"]);
    await assert.rejects(channels.presence("plain"), /presence: true/);
    await assert.rejects(channels.presence("other"), /no such channel/);
  });

  it("counts a user once, however many connections and subscriptions it has", async () => {
    const { join } = createChannels({ room });
    const watcher = join("watcher");
    await watcher.ask(subscribe({ presence: true }));
    const [one, two] = [join("ann"), join("ann")];
    await one.ask(subscribe({ uid: 1 }), subscribe({ uid: 2 }));
    await two.ask(subscribe({ presence: true }));
    assert.deepEqual(await told(watcher), ["+ann"]);
    assert.deepEqual(await told(two), []);
    await one.ask({ type: "unsubscribe" });
    assert.deepEqual(await told(watcher), []);
    await two.ask({ type: "unsubscribe" });
    assert.deepEqual(await told(watcher), ["-ann"]);
  });

  it("sends the join of a user who returns after leaving, while others stayed", async () => {
    const { join, channels } = createChannels({ room });
    const ann = join("ann");
    await ann.ask(subscribe({ presence: true }));
    const bob = join("bob");
    for (const _ of [1, 2]) {
      await bob.ask(subscribe());
      await bob.ask({ type: "unsubscribe" });
    }
    await bob.ask(subscribe());
    assert.deepEqual(await told(ann), ["+bob", "-bob", "+bob", "-bob", "+bob"]);
    assert.deepEqual(await channels.presence("room"), [{ user: "ann" }, { user: "bob" }]);
  });

  it("makes each anonymous connection a member of its own", async () => {
    const { join, channels } = createChannels({ room });
    const [one, two] = [join(), join()];
    await one.ask(subscribe());
    await two.ask(subscribe());
    assert.deepEqual(await channels.presence("room"), [{ user: `uid:${one.client.uid}` }, { user: `uid:${two.client.uid}` }]);
  });

  it("sends no leave for a lost connection that returns within the grace period, and one if it returns later", async () => {
    const { join, clock, channels } = createChannels({ room: { ...room, presence: { grace: 2_000 } } });
    const watcher = join("watcher");
    await watcher.ask(subscribe({ presence: true }));
    const ann = join("ann");
    await ann.ask(subscribe());
    assert.deepEqual(await told(watcher), ["+ann"]);
    ann.leave();
    clock.advance(1_999);
    const again = join("ann");
    await again.ask(subscribe());
    clock.advance(10_000);
    assert.deepEqual(await told(watcher), []);
    again.leave();
    clock.advance(1_999);
    assert.deepEqual(await told(watcher), []);
    clock.advance(1);
    assert.deepEqual(await told(watcher), ["-ann"]);
    watcher.leave();
    clock.advance(2_000);
    assert.deepEqual(await channels.presence("room"), []);
    assert.equal(channels.stats().channels, 0);
  });

  it("keeps a member that returned while nobody else was subscribed", async () => {
    const { join, clock, channels } = createChannels({ room });
    const ann = join("ann");
    await ann.ask(subscribe());
    ann.leave();
    const again = join("ann");
    await again.ask(subscribe());
    clock.advance(60_000);
    assert.deepEqual(await channels.presence("room"), [{ user: "ann" }]);
  });

  it("with a slow engine, sends the list first and then the changes since", async () => {
    const engine = new LateEngine();
    const { join, channels } = createChannels({ room }, { engine });
    const [watcher, ann] = [join("watcher"), join("ann")];
    watcher.send(subscribe({ presence: true }));
    await turn();
    await ann.ask(subscribe());
    const gone = join("gone");
    await gone.ask(subscribe({ presence: true }));
    gone.leave(true);
    engine.answer.resolve();
    assert.deepEqual(await told(watcher), ["=", "+ann", "+watcher"]);
    assert.deepEqual(await channels.presence("room"), [{ user: "ann" }, { user: "watcher" }]);
  });

  it("sends a leave at once without a grace period, and after an intended close", async () => {
    for (const [grace, wasClean] of [[0, false], [5_000, true]] as const) {
      const { join } = createChannels({ room: { ...room, presence: { grace } } });
      const watcher = join("watcher");
      await watcher.ask(subscribe({ presence: true }));
      const ann = join("ann");
      await ann.ask(subscribe());
      ann.leave(wasClean);
      assert.deepEqual(await told(watcher), ["+ann", "-ann"]);
    }
  });

  it("a replacement neither leaves nor joins, and a second one with other data joins anew", async () => {
    const { join } = createChannels({ room: { ...room, presence: { data: "client" } } });
    const watcher = join("watcher");
    await watcher.ask(subscribe({ presence: true }));
    const ann = join("ann");
    for (const presence of [false, true]) {
      await ann.ask(subscribe({ uid: 1, presence, data: { colour: "red" } }));
      assert.deepEqual(await told(watcher), presence ? [] : ["+ann"]);
    }
    await ann.ask(subscribe({ uid: 1, data: { colour: "blue" } }));
    assert.deepEqual(await watcher.take(), [
      { type: "presence", event: "join", channel: "room", members: [{ user: "ann", data: { colour: "blue" } }] },
    ]);
    await ann.ask({ type: "unsubscribe", uid: 1 });
    assert.deepEqual(await told(watcher), ["-ann"]);
  });

  it("takes data from the server, from the client where it may, and else not", async () => {
    const { join, channels, events } = createChannels({
      room,
      made: {
        ...room,
        presence: { data: ({ client, channel, data }) => ({ name: client.accountability.user!, channel, data: data ?? null }) },
      },
      sent: { ...room, presence: { data: "client" } },
      broken: {
        ...room,
        presence: {
          data: () => {
            throw new Error("broken");
          },
        },
      },
      none: { ...room, presence: { data: () => undefined } },
    });
    const ann = join("ann");
    for (const channel of ["room", "made", "sent", "broken", "none"]) await ann.ask(subscribe({ channel, data: { x: 1 } }));
    assert.deepEqual(await channels.presence("none"), [{ user: "ann" }]);
    assert.deepEqual(await channels.presence("room"), [{ user: "ann" }]);
    assert.deepEqual(await channels.presence("made"), [{ user: "ann", data: { name: "ann", channel: "made", data: { x: 1 } } }]);
    assert.deepEqual(await channels.presence("sent"), [{ user: "ann", data: { x: 1 } }]);
    assert.deepEqual(await channels.presence("broken"), [{ user: "ann" }]);
    assert.equal(events.filter(([name]) => name === "error").length, 1);
  });

  it("has no data, and reports it, where presence.data is a promise or not JSON", async () => {
    for (const data of [() => Promise.resolve({ x: 1 }), () => () => {}]) {
      const { join, channels, events } = createChannels({ room: { ...room, presence: { data: data as () => never } } });
      await join("ann").ask(subscribe());
      assert.deepEqual(await channels.presence("room"), [{ user: "ann" }]);
      const errors = events.flatMap(([name, payload]) => name === "error" && "error" in payload ? [String(payload.error)] : []);
      assert.deepEqual(errors, ["TypeError: Cannot use what presence.data returned: it is a promise, or not JSON"]);
    }
  });

  it("makes nobody a member whose subscription ends while presence.data runs, or while the members are listed", async () => {
    const engine = new LateEngine();
    const leaving: { peer?: TestPeer } = {};
    const { join, channels } = createChannels({
      room: { ...room, presence: { data: ({ client }) => client === leaving.peer?.client && (leaving.peer.leave(true), 1) } },
    }, { engine });
    leaving.peer = join("ann");
    await leaving.peer.ask(subscribe());
    const bob = join("bob");
    await bob.ask(subscribe({ presence: true }));
    await bob.ask({ type: "unsubscribe" });
    engine.answer.resolve();
    await bob.take();
    assert.deepEqual(await channels.presence("room"), []);
    assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
  });

  it("makes a client whose credentials expire while the members are listed a member once it has renewed them", async () => {
    const engine = new LateEngine();
    const { join, channels, clock } = createChannels({ room: { ...room, presence: { data: () => ++made } } }, {
      engine,
      mode: "public",
      authenticate: () => ({ accountability: { user: "ann", role: null }, expires_at: clock.now() / 1_000 + 5 }),
      timeout: 60_000,
    } as WebSocketControllerOptions);
    let made = 0;
    const ann = join();
    await ann.ask({ type: "auth", access_token: "x" }, subscribe({ presence: true }));
    clock.advance(5_000);
    engine.answer.resolve();
    await ann.take();
    assert.deepEqual(await channels.presence("room"), []);
    await ann.ask({ type: "auth", access_token: "x" });
    assert.deepEqual(await channels.presence("room"), [{ user: "ann", data: 1 }]);
    // It has joined, and has the list.
    assert.deepEqual(
      await ann.ask({ type: "auth", access_token: "x" }).then((all) => all.filter(({ type }) => type === "presence")),
      [],
    );
    assert.equal(made, 1);
  });

  it("puts a user in at its joining and out at its leaving, in the order they happen", async () => {
    const { join } = createChannels({ room });
    const watcher = join("watcher");
    await watcher.ask(subscribe({ presence: true }));
    const [ann, bob] = [join("ann"), join("bob")];
    ann.send(subscribe());
    bob.send(subscribe());
    await turn();
    ann.send({ type: "unsubscribe" }, subscribe(), { type: "unsubscribe" });
    const changes = (await told(watcher)).join(" ");
    assert.equal(changes, "+ann,bob -ann");
  });

  it("of another user after an auth only that one is there", async () => {
    const authenticate: Authenticate = (credentials) =>
      "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null;
    const { join, channels } = createChannels({ room }, { mode: "public", authenticate });
    const peer = join();
    await peer.ask({ type: "auth", access_token: "ann" }, subscribe());
    await peer.ask({ type: "auth", access_token: "bob" });
    assert.deepEqual(await channels.presence("room"), []);
    await peer.ask(subscribe());
    assert.deepEqual(await channels.presence("room"), [{ user: "bob" }]);
  });

  it("who leaves while the members are asked for has never been there", async () => {
    const { join, channels, controller } = createChannels({ room: { ...room, snapshot: () => stall.promise } });
    const stall = new Stall<unknown>();
    const peer = join("ann");
    await peer.ask(subscribe({ presence: true }));
    peer.leave(true);
    stall.resolve(1);
    await peer.take();
    assert.deepEqual(await channels.presence("room"), []);
    assert.equal(controller.stats().deadlines, 0);
  });

  it("lists the members anew after a client has missed a change", async () => {
    const { join, clock } = createChannels({ room }, { slowConsumer: "drop", maxBufferedBytes: 100 });
    const watcher = join("watcher");
    await watcher.ask(subscribe({ presence: true }));
    watcher.transport.bufferedAmount = 101;
    await join("ann").ask(subscribe());
    await join("bob").ask(subscribe());
    watcher.transport.bufferedAmount = 0;
    clock.advance(250);
    assert.deepEqual(await told(watcher), ["=watcher,ann,bob"]);
    await join("cat").ask(subscribe());
    assert.deepEqual(await told(watcher), ["+cat"]);
  });

  for (const isListed of [true, false]) {
    it(`sends no members while rights are checked again${isListed ? "" : ", nor a list asked for before"}, and then a list`, async () => {
      const engine = new LateEngine();
      const state = () => ({ accountability: { user: "ann", role: null } });
      let answer: Stall<boolean> | undefined;
      const authorize = ({ client }: { client: { accountability: { user: string | null } } }) =>
        client.accountability.user === "ann" && answer ? answer.promise : true;
      const { join, controller } = createChannels({ room: { authorize, presence: true } }, {
        engine,
        mode: "public",
        authenticate: state,
        revalidate: state,
      });
      if (isListed) engine.answer.resolve();
      const ann = join("ann");
      await ann.ask(subscribe({ presence: true }));
      assert.deepEqual(await told(ann), []);
      answer = new Stall();
      await controller.refresh({ user: "ann" });
      await join("bob").ask(subscribe());
      engine.answer.resolve();
      assert.deepEqual(await told(ann), []);
      answer.resolve(true);
      assert.deepEqual((await told(ann))[0], isListed ? "=ann,bob" : "=bob,ann");
      await join("cat").ask(subscribe());
      assert.deepEqual(await told(ann), ["+cat"]);
      // Nor is a list sent if there was no change meanwhile.
      await controller.refresh({ user: "ann" });
      assert.deepEqual(await told(ann), []);
      // A refusal sends none.
      answer = new Stall();
      await controller.refresh({ user: "ann" });
      await join("dan").ask(subscribe());
      answer.resolve(false);
      assert.deepEqual((await ann.take()).map(({ event }) => event), ["unsubscribe"]);
    });
  }

  it("lists the members again after the engine failed, and sends the current ones", async () => {
    const engine = new LateEngine();
    const { join, clock, takeNames } = createChannels({ room }, { engine });
    const ann = join("ann");
    ann.send(subscribe({ presence: true }));
    engine.answer.reject(new Error("away"));
    await join("bob").ask(subscribe());
    for (const _ of [1, 2]) {
      clock.advance(1_000);
      assert.deepEqual(await told(ann), []);
    }
    engine.answer = new Stall();
    engine.answer.resolve();
    clock.advance(1_000);
    assert.deepEqual(await told(ann), ["=bob", "+ann"]);
    assert.equal(takeNames().filter((name) => name === "error").length, 1);
  });

  it("lists the members when the client has read, and sends no change again that is in the list", async () => {
    const { join, clock } = createChannels({ room }, { maxBufferedBytes: 10_000 });
    const ann = join("ann");
    const { send } = ann.transport;
    ann.transport.send = (frame) => {
      ann.transport.bufferedAmount = 6_000;
      return send.call(ann.transport, frame);
    };
    await ann.ask(subscribe({ presence: true }));
    ann.transport.send = send;
    await join("bob").ask(subscribe());
    ann.transport.bufferedAmount = 0;
    clock.advance(500);
    assert.deepEqual(await told(ann), ["=bob", "+ann"]);
  });

  it("lists the members again if more change meanwhile than can be kept, and gives the room back", async () => {
    const engine = new LateEngine();
    const { join } = createChannels({ room: { ...room, presence: { data: "client" } } }, { engine, maxBufferedBytes: 10_000 });
    const ann = join("ann");
    const change = (data: string) => join("bob").ask(subscribe({ data }));
    for (let times = 0; times < 10; times++) {
      engine.answer = new Stall();
      ann.send(subscribe({ presence: true, uid: 1 }));
      await ann.take();
      for (let n = 0; n < 15; n++) await change(`${times} ${n} ${"x".repeat(800)}`);
      engine.answer.resolve();
      const lists = (await ann.take()).filter(({ type, event }) => type === "presence" && event === "init");
      // The list that was read first lacks changes.
      assert.deepEqual(
        lists.map(({ members }) => members.find(({ user }: { user: string }) => user === "bob").data.slice(0, 5).trim()),
        [`${times} 14`],
      );
      // Changes that fit are kept, each time.
      engine.answer = new Stall();
      ann.send(subscribe({ presence: true, uid: 2 }));
      await ann.take();
      for (let n = 0; n < 8; n++) await change(`again ${times} ${n} ${"x".repeat(800)}`);
      if (times % 2) ann.send({ type: "unsubscribe", uid: 2 });
      engine.answer.resolve();
      const sent = (await ann.take()).filter(({ type, uid }) => type === "presence" && uid === 2);
      if (times % 2 === 0) assert.deepEqual(sent.map(({ event }) => event), ["init", ...Array(8).fill("join")]);
    }
  });

  it("does not list the members again when no subscription waits for them", async () => {
    const engine = new LateEngine();
    const { join, clock, controller } = createChannels({ room }, { engine });
    const ann = join("ann");
    ann.send(subscribe({ presence: true }));
    engine.answer.reject(new Error("away"));
    await ann.take();
    ann.leave(true);
    clock.advance(1_000);
    await ann.take();
    assert.equal(controller.stats().deadlines, 0);
  });
});

describe("Channels: the data of a user with several connections", () => {
  const typing = { ...room, presence: { data: "client" as const, grace: 2_000 } };
  const say = (typing: unknown, rest = {}) => subscribe(typing === undefined ? rest : { data: { typing }, ...rest });
  /** What others were told the user to have, in turn; `-` when it left. */
  const seen = async (peer: TestPeer) =>
    (await peer.take()).filter(({ type, event }) => type === "presence" && event !== "init").flatMap(({ event, members }) =>
      members.map(({ data }: { data?: { typing: unknown } }) => event === "leave" ? "-" : data?.typing)
    );

  async function watched(options = {}) {
    const made = createChannels({ room: typing }, options);
    const watcher = made.join("watcher");
    await watcher.ask(subscribe({ presence: true }));
    await watcher.take();
    return { ...made, watcher, list: async () => (await made.channels.presence("room")).find(({ user }) => user === "ann") };
  }

  it("is that of the newest that lives: it returns when that one unsubscribes, closes or is lost", async () => {
    for (const end of ["unsubscribe", "close", "lose"]) {
      const { join, watcher, list } = await watched();
      const [one, two] = [join("ann"), join("ann")];
      await one.ask(say(false));
      await two.ask(say(true));
      assert.deepEqual(await seen(watcher), [false, true]);
      if (end === "unsubscribe") await two.ask({ type: "unsubscribe" });
      else two.leave(end === "close");
      assert.deepEqual([await seen(watcher), await list()], [[false], { user: "ann", data: { typing: false } }], end);
    }
  });

  it("stays when an older one ends", async () => {
    const { join, watcher, list } = await watched();
    const [one, two] = [join("ann"), join("ann")];
    await one.ask(say(1));
    await two.ask(say(2));
    await watcher.take();
    await one.ask({ type: "unsubscribe" });
    assert.deepEqual([await seen(watcher), (await list())?.data], [[], { typing: 2 }]);
    two.leave(true);
    assert.deepEqual([await seen(watcher), await list()], [["-"], undefined]);
  });

  it("goes back through all that live, whatever the order they end in", async () => {
    const { join, watcher } = await watched();
    const tabs = [1, 2, 3, 4].map(() => join("ann"));
    for (const [n, tab] of tabs.entries()) await tab.ask(say(n));
    assert.deepEqual(await seen(watcher), [0, 1, 2, 3]);
    for (const n of [1, 3, 2, 0]) await tabs[n]!.ask({ type: "unsubscribe" });
    assert.deepEqual(await seen(watcher), [2, 0, "-"]);
  });

  it("is set by who has any: a tab without data hides none", async () => {
    const { join, watcher, list } = await watched();
    const [one, two, three] = [join("ann"), join("ann"), join("ann")];
    await one.ask(say(undefined));
    await two.ask(say(true));
    await three.ask(say(undefined));
    assert.deepEqual([await seen(watcher), (await list())?.data], [[undefined, true], { typing: true }]);
    two.leave(true);
    assert.deepEqual([await seen(watcher), await list()], [[undefined], { user: "ann" }]);
  });

  it("is that of the newest subscription, also of one connection and of a replacement", async () => {
    const { join, watcher } = await watched();
    const [ann, other] = [join("ann"), join("ann")];
    await ann.ask(say(1, { uid: 1 }), say(2, { uid: 2 }));
    await other.ask(say(3));
    await ann.ask(say(4, { uid: 1 }));
    assert.deepEqual(await seen(watcher), [1, 2, 3, 4]);
    await ann.ask({ type: "unsubscribe", uid: 1 });
    await other.ask({ type: "unsubscribe" });
    assert.deepEqual(await seen(watcher), [3, 2]);
  });

  it("is sent once if both subscriptions have the same data", async () => {
    const { join, watcher } = await watched();
    const [one, two] = [join("ann"), join("ann")];
    await one.ask(say(1));
    await two.ask(say(1));
    two.leave(true);
    assert.deepEqual(await seen(watcher), [1]);
  });

  it("is sent to the engine only when it changes", async () => {
    const sent: string[] = [];
    class RecordingEngine extends MemoryEngine {
      override join(...args: Parameters<MemoryEngine["join"]>) {
        sent.push(`${args[1].user} ${args[1].data}`);
        return super.join(...args);
      }
    }
    const { join } = await watched({ engine: new RecordingEngine() });
    const [one, two, three] = [join("ann"), join("ann"), join("ann")];
    await one.ask(say(undefined));
    await two.ask(say(1));
    await three.ask(say(undefined));
    await one.ask({ type: "unsubscribe" });
    await three.ask({ type: "unsubscribe" });
    assert.deepEqual(sent, ["watcher undefined", "ann undefined", 'ann {"typing":1}']);
    await one.ask(say(undefined));
    await three.ask(say(undefined));
    await two.ask({ type: "unsubscribe" });
    await one.ask({ type: "unsubscribe" });
    assert.deepEqual(sent.slice(3), ["ann undefined"]);
  });

  it("stays during the grace period, and changes when the user returns with other data", async () => {
    const { join, watcher, clock } = await watched();
    const ann = join("ann");
    await ann.ask(say(1));
    ann.leave();
    clock.advance(1_000);
    await join("ann").ask(say(2));
    clock.advance(10_000);
    assert.deepEqual(await seen(watcher), [1, 2]);
  });
});
