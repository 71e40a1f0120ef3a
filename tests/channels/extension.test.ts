/** Channels as an extension of the controller: drains, observers, and checks against the contract. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { defineContract } from "../../mod.ts";
import type { Extension } from "../../src/application/extension.ts";
import type { Delivering, Observer, Publishing } from "../../src/application/observer.ts";
import { type ChannelDeclarations, Channels } from "../../src/channels/channels.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { anybody, createChannels, kept, TestPeer } from "../support/channels-fixture.ts";
import { FakeTransport, openOn } from "../support/fake-transport.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall } from "../support/waiting.ts";

const subscribe = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel, ...rest });
const publish = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "publish", channel, event: "e", ...rest });

/** Channels with what they have given their controller. */
function createExtended(declarations: ChannelDeclarations, options: WebSocketControllerOptions = {}) {
  const clock = new TestClock();
  let extension!: Extension;
  class Extended extends WebSocketController {
    override extend(given: Extension) {
      return super.extend(extension = given);
    }
  }
  const controller = new Extended({ clock, logger: false, rateLimit: false, ...options });
  const channels = new Channels(controller as WebSocketController, declarations);
  const join = (user: string) => {
    const identity = { accountability: { user, role: null } };
    const { connection, client, transport } = openOn(new FakeTransport(), controller, { identity });
    return new TestPeer(connection, client, transport);
  };
  return { clock, channels, controller, extension, join };
}

/** An engine in memory, as one of several nodes. */
const createShared = () => Object.assign(new MemoryEngine(), { isAlone: false });

describe("Channels: drain", () => {
  it("is over when the last channel is closed and no member can return, and at once if there are no other nodes", async () => {
    const declarations = { a: { ...anybody, presence: { grace: 2_000 } }, b: anybody };
    for (const engine of [new MemoryEngine(), createShared()]) {
      const { isAlone } = engine;
      const { extension, join, clock } = createExtended(declarations, { engine });
      const settled: string[] = [];
      const wait = (name: string) => void extension.settled().then(() => settled.push(name));
      const [ann, bob] = [join("ann"), join("bob")];
      wait("empty");
      await bob.take();
      assert.deepEqual([settled.splice(0), extension.grace()], [["empty"], 0]);
      await ann.ask(subscribe("a"));
      await bob.ask(subscribe("b"));
      wait("one");
      wait("two");
      await bob.take();
      assert.deepEqual([settled.splice(0), extension.grace()], isAlone ? [["one", "two"], 0] : [[], 2_000]);
      if (isAlone) continue;
      ann.leave();
      await bob.ask({ type: "unsubscribe" });
      assert.deepEqual(settled, []);
      clock.advance(2_000);
      await bob.take();
      assert.deepEqual([settled, extension.grace()], [["one", "two"], 0]);
    }
  });

  it("reports whether the broker is there, and whether a client waits for the answer to a publication", async () => {
    const stall = new Stall<boolean>();
    const engine = new MemoryEngine();
    const { extension, join, channels } = createExtended({
      a: { authorize: ({ action }) => action === "subscribe" || stall.promise },
    }, { engine });
    const [ann, bob] = [join("ann"), join("bob")];
    const state = () => [ann, bob].map(({ client }) => [extension.isBusy(client), extension.subscriptionsOf(client)]);
    assert.deepEqual(state(), [[false, 0], [false, 0]]);
    await ann.ask(subscribe("a"), subscribe("a", { uid: 1 }));
    await bob.ask(publish("a"));
    assert.deepEqual(state(), [[false, 2], [true, 0]]);
    assert.deepEqual([channels.ofClient(ann.client), channels.ofClient(join("dan").client)], [["a"], []]);
    stall.resolve(true);
    await bob.take();
    assert.deepEqual(state(), [[false, 2], [false, 0]]);
    assert.equal(extension.isBrokerUnavailable(), false);
    engine.status = "closed";
    assert.equal(extension.isBrokerUnavailable(), true);
  });
});

describe("Channels: observers", () => {
  const SPAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

  it("see each publication with what it continues, and its delivery on each node that has subscribers", async () => {
    const { join, channels, controller } = createChannels({ "room:*": anybody });
    const peer = join();
    await peer.ask(subscribe("room:1"), subscribe("room:1", { uid: 1 }));
    const published: Publishing[] = [];
    const delivered: Delivering[] = [];
    let traceparent: string | undefined;
    const observer: Observer = {
      publish: (publishing, call) => {
        published.push({ ...publishing });
        if (traceparent !== undefined) publishing.traceparent = traceparent;
        return call();
      },
      deliver: (delivering, call) => {
        delivered.push(delivering);
        call();
      },
    };
    const end = controller.observe("Test", () => observer);
    for (traceparent of [undefined, SPAN]) {
      await channels.publish("room:1", "said", 1);
      await channels.publish("room:2", "said", 2);
      await peer.ask(publish("room:1", { traceparent: "theirs" }), publish("room:2"));
    }
    const about = { declared: "room:*" };
    const each = [
      { ...about, channel: "room:1", event: "said", parent: undefined },
      { ...about, channel: "room:2", event: "said", parent: undefined },
      { ...about, channel: "room:1", event: "e", parent: "theirs" },
      { ...about, channel: "room:2", event: "e", parent: null },
    ];
    assert.deepEqual(published, [...each, ...each]);
    assert.deepEqual(
      delivered,
      ["said", "e"].map((event) => ({
        ...about,
        channel: "room:1",
        event,
        traceparent: SPAN,
        subscriptions: 2,
      })),
    );
    end();
    await peer.take();
    await channels.publish("room:1", "said", 3);
    assert.deepEqual((await peer.take()).map(({ data }) => data), [3, 3]);
    assert.equal(published.length, 8);
  });

  it("need not see deliveries: a publication with a span is delivered all the same", async () => {
    const { join, channels, controller } = createChannels({ a: anybody });
    const peer = join();
    await peer.ask(subscribe("a"));
    controller.observe("Test", () => ({
      publish: (publishing, call) => {
        publishing.traceparent = SPAN;
        return call();
      },
    }));
    await channels.publish("a", "e", 1);
    assert.deepEqual((await peer.take()).map(({ data }) => data), [1]);
  });

  it("see whether each recovery is complete, and no other subscribe", async () => {
    const { join, channels, controller } = createChannels({ a: kept });
    const recovered: boolean[] = [];
    controller.observe("Test", () => ({ recovered: (isComplete) => void recovered.push(isComplete) }));
    const first = await channels.publish("a", "e", 1);
    const peer = join();
    await peer.ask(subscribe("a"));
    assert.deepEqual(recovered, []);
    await peer.ask(subscribe("a", { recover: first }));
    await peer.ask(subscribe("a", { recover: { epoch: "other", offset: 1 } }));
    assert.deepEqual(recovered, [true, false]);
  });
});

describe("Channels: checks of the application's data against the contract", () => {
  it("is reported where it does not fit, and sent all the same", async () => {
    const contract = defineContract({
      channels: {
        a: { events: { said: v.string() }, snapshot: v.array(v.number()), member: v.object({ name: v.string() }) },
        b: { member: v.string() },
      },
    });
    let isRight = true;
    const { join, channels, events } = createChannels({
      a: {
        ...anybody,
        snapshot: () => isRight ? [1] : "wrong",
        presence: { data: () => isRight ? { name: "ann" } : { name: 5 } },
      },
      b: { ...anybody, presence: true },
    } as never, { contract, validate: "outbound" });
    const reported = () =>
      events.splice(0).flatMap(([name, payload]) => name === "error" && "error" in payload ? [String(payload.error)] : []);
    for (isRight of [true, false]) {
      const peer = join("ann");
      const [{ data }] = await peer.ask(subscribe("a"));
      await peer.ask(subscribe("b"));
      await channels.publish("a" as never, "said" as never, (isRight ? "hi" : 5) as never);
      assert.deepEqual([data, (await peer.take()).map(({ data }) => data)], isRight ? [[1], ["hi"]] : ["wrong", [5]]);
      assert.deepEqual(
        reported(),
        isRight ? [] : [
          'TypeError: The snapshot of "a" does not fit the contract, and was sent all the same',
          'TypeError: The member in "a" does not fit the contract at "name", and was sent all the same',
          'TypeError: The publication "said" to "a" does not fit the contract, and was sent all the same',
        ],
      );
      peer.leave(true);
    }
  });
});
