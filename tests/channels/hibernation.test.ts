/** What of channels outlives hibernation: the subscriptions that an engine keeps, and what they are about. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthorizeContext, ChannelDeclarations } from "../../src/channels/channels.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { createChannels, TestPeer } from "../support/channels-fixture.ts";
import { HANDSHAKE, HibernatingTransport } from "../support/fake-transport.ts";
import { createObject, subscribe } from "../support/hibernating-channels.ts";
import { observe } from "../support/observed.ts";
import { Stall } from "../support/waiting.ts";

describe("Channels: hibernation", () => {
  it("goes on with the subscriptions there were, without an init", async () => {
    const object = createObject({ "*": { authorize: () => true } });
    const peer = object.connect("ann");
    await peer.ask(subscribe("a", { uid: 1 }), subscribe("b"), subscribe("c"), { type: "unsubscribe", channel: "b" });
    const { peers: [again], channels, controller } = object.evict();
    assert.deepEqual(await again!.take(), []);
    for (const channel of ["a", "b", "c"]) await channels.publish(channel, "e", channel);
    assert.deepEqual((await again!.take()).map(({ data, uid }) => [data, uid]), [["a", 1], ["c", undefined]]);
    assert.equal(controller.stats().deadlines, 0);
    again!.leave(true);
    assert.equal(object.kept.size, 0);
  });

  it("goes on without those whose channel is not declared any more", async () => {
    const declarations: ChannelDeclarations = { a: { authorize: () => true }, b: { authorize: () => true } };
    const object = createObject(declarations);
    await object.connect("ann").ask(subscribe("b", { uid: 1 }), subscribe("a", { uid: 2 }));
    delete (declarations as Record<string, unknown>)["b"];
    const { peers: [again], channels } = object.evict();
    await channels.publish("a", "e", 1);
    assert.deepEqual((await again!.take()).map(({ data, uid }) => [data, uid]), [[1, 2]]);
    assert.equal(channels.stats().subscriptions, 1);
  });

  it("goes on with the query and the time to live of a permission, however often it is evicted", async () => {
    const asked: unknown[] = [];
    const object = createObject({
      a: { authorize: ({ query }) => asked.push(query) > 0 && { ttl: 10_000 }, history: { size: 10, ttl: 60_000 } },
    }, { slowConsumer: "drop" });
    await object.connect("ann").ask(subscribe("a", { query: { from: 3 } }));
    const second = object.evict(2_000);
    // Saved once more, because it falls behind.
    second.peers[0]!.transport.sends = false;
    await second.channels.publish("a", "e", 1);
    second.peers[0]!.transport.sends = true;
    const last = second.evict(4_000).evict(6_000);
    last.clock.advance(3_999);
    await last.peers[0]!.take();
    assert.equal(asked.length, 1);
    last.clock.advance(1);
    await last.peers[0]!.take();
    assert.deepEqual(asked, [{ from: 3 }, { from: 3 }]);
  });

  it("catches up from where the client was when it came back", async () => {
    const object = createObject({ a: { authorize: () => true, history: { size: 10, ttl: 60_000 } } }, { slowConsumer: "drop" });
    await object.connect("ann").ask(subscribe("a", { uid: 1 }));
    const { peers: [again], channels, clock } = object.evict();
    again!.transport.sends = false;
    await channels.publish("a", "e", 1);
    again!.transport.sends = true;
    clock.advance(250);
    assert.deepEqual((await again!.take()).filter(({ type }) => type === "subscription").map(({ data }) => data), [1]);
  });

  it("goes on from where a client was whose channel has a gap while its credentials are expired", async () => {
    const declarations = { a: { authorize: () => true, history: { size: 10, ttl: 60_000 } } };
    const object = createObject(declarations, { timeout: 30_000 });
    const ann = object.connect("ann", object.clock.now() / 1_000 + 5);
    await ann.ask(subscribe("a", { uid: 1 }));
    object.clock.advance(5_000);
    for (const channel of object.channels.open()) channel.gap();
    await ann.take();
    const [texts] = [...object.kept.values()];
    assert.deepEqual([...texts!.values()].map((text) => JSON.parse(text).at?.offset), [0]);
  });

  it("keeps what is published while the engine subscribes again, and lists the members that may have changed", async () => {
    const opening = new Stall();
    class LateEngine extends MemoryEngine {
      readonly keeper = { save() {}, load: () => saved, delete() {} };
      host!: Parameters<MemoryEngine["start"]>[0];

      override start(host: Parameters<MemoryEngine["start"]>[0]): void {
        super.start(this.host = host);
      }

      // @ts-expect-error -- its answer is a promise, as the interface lets it be
      override async subscribe(...args: Parameters<MemoryEngine["subscribe"]>) {
        await opening.promise;
        return super.subscribe(...args);
      }
    }
    const declarations = { a: { authorize: () => true, presence: true }, b: { authorize: () => true } };
    const object = createObject(declarations);
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { presence: true }), subscribe("b", { uid: 1 }));
    const saved = [...object.kept.get(ann.client.uid)!.values()];
    const engine = new LateEngine();
    const { controller } = createChannels(declarations, { engine });
    const { transport } = ann;
    const connection = controller.restore(transport, (transport as HibernatingTransport).saved.at(-1)!); // It was let in.
    const again = new TestPeer(connection, connection.client, transport);
    await again.take();
    engine.host.published("b", { event: "e", data: "1", position: null });
    assert.deepEqual(await again.take(), []);
    opening.resolve();
    const sent = (await again.take()).map(({ channel, event }) => `${channel} ${event}`);
    assert.deepEqual(sent.sort(), ["a init", "b e"]);
  });

  it("makes the data of a member once, and lists the members once for the same changes", async () => {
    let made = 0;
    const state = () => ({ accountability: { user: "ann", role: null } });
    const object = createObject({ a: { authorize: () => true, presence: { data: () => ++made } } }, {
      mode: "public",
      authenticate: state,
      revalidate: state,
    });
    await object.connect("ann").ask(subscribe("a", { presence: true }));
    const { peers: [again], controller, channels } = object.evict();
    await again!.take();
    for (const _ of [1, 2]) await controller.refresh({ user: "ann" });
    assert.deepEqual(await again!.take(), []);
    assert.deepEqual([await channels.presence("a"), made], [[{ user: "ann", data: 1 }], 1]);
  });

  it("sends frames one at a time again to a client that used collection", async () => {
    const object = createObject({ a: { authorize: () => true }, b: { authorize: () => true } }, { stopAndWait: "collection" });
    const [old, young] = [object.connect("ann"), object.connect("bob")];
    for (const { transport } of [old, young]) Object.assign(transport, { ping: () => {} }); // Which it does not answer.
    old.send({ type: "subscribe", collection: "a" });
    young.send(subscribe("a"), subscribe("b"));
    assert.deepEqual([(await old.take()).length, (await young.take()).length], [0, 2]);
    const { peers: [again, other], channels } = object.evict();
    for (const n of [1, 2]) await channels.publish("a", "e", n);
    assert.deepEqual([await again!.take(), await other!.take()].map((all) => all.map(({ data }) => data)), [[], [1, 2]]);
  });

  it("does not go on with one whose replacement was refused", async () => {
    const object = createObject({ a: { authorize: () => true }, b: { authorize: () => false } });
    const peer = object.connect("ann");
    for (const channel of ["nowhere", "b"]) {
      await peer.ask(subscribe("a", { uid: 1 }));
      assert.equal(object.kept.size, 1);
      assert.equal((await peer.ask(subscribe(channel, { uid: 1 })))[0].error.code, "FORBIDDEN");
      assert.equal(object.kept.size, 0);
    }
  });

  it("goes on with what one under way is to take the place of", async () => {
    const object = createObject({
      a: { authorize: () => true, history: { size: 10, ttl: 60_000 } },
      b: { authorize: () => new Promise(() => {}) },
    }, { slowConsumer: "drop" });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { uid: 1 }));
    await ann.ask(subscribe("b", { uid: 1 }));
    // What is to be kept of it changes meanwhile: it falls behind.
    ann.transport.sends = false;
    await object.channels.publish("a", "e", 1);
    ann.transport.sends = true;
    const [texts] = [...object.kept.values()];
    assert.deepEqual([...texts!.values()].map((text) => [JSON.parse(text).channel, JSON.parse(text).at.offset]), [["a", 0]]);
  });

  it("asks again about a grant with a time to live when that is over", async () => {
    const asked: AuthorizeContext[] = [];
    const object = createObject({
      a: {
        authorize: (context) => {
          asked.push(context);
          return asked.length < 3 && { ttl: 10_000 };
        },
      },
    });
    const peer = object.connect("ann");
    await peer.ask(subscribe("a", { uid: 1 }));
    const second = object.evict(4_000);
    second.clock.advance(5_999);
    await second.peers[0]!.take();
    assert.equal(asked.length, 1);
    second.clock.advance(1);
    assert.deepEqual(await second.peers[0]!.take(), []);
    assert.equal(asked.length, 2);
    const third = second.evict(12_000);
    third.clock.advance(7_999);
    await third.peers[0]!.take();
    assert.equal(asked.length, 2);
    // It is due while nobody is there.
    const fourth = third.evict(60_000);
    fourth.clock.advance(0);
    assert.deepEqual(await fourth.peers[0]!.take(), [
      { type: "subscription", event: "unsubscribe", channel: "a", uid: 1, reason: "FORBIDDEN" },
    ]);
    assert.equal(asked.length, 3);
  });

  it("asks again about a permission whose answer an eviction has lost, and sends nothing before", async () => {
    let answer: Promise<boolean> | boolean = true;
    let asked = 0;
    const state = () => ({ accountability: { user: "ann", role: null } });
    const object = createObject({ a: { authorize: () => (asked++, answer), presence: true } }, {
      mode: "public",
      authenticate: state,
      revalidate: state,
    });
    const peer = object.connect("ann");
    await peer.ask(subscribe("a", { uid: 1, presence: true }));
    answer = new Promise(() => {});
    await object.controller.refresh({ user: "ann" });
    await peer.take();
    const refused = object.evict(1_000);
    const [again] = refused.peers;
    await refused.channels.publish("a", "e", 1);
    await refused.connect("bob").ask(subscribe("a"));
    assert.deepEqual(await again!.take(), []);
    assert.equal(asked, 4);
    answer = true;
    const allowed = refused.evict(2_000);
    await allowed.peers[0]!.take();
    // Bob's subscription starts.
    assert.equal(asked, 6);
    await allowed.channels.publish("a", "e", 2);
    assert.deepEqual((await allowed.peers[0]!.take()).map(({ data }) => data), [2]);
    assert.deepEqual((await allowed.peers[1]!.take()).map(({ event }) => event), ["init", "e"]);
    // It is not asked about any more.
    const last = allowed.evict(3_000);
    for (const peer of last.peers) await peer.take();
    assert.equal(asked, 6);
  });

  it("asks again in time though the clock was set back meanwhile", async () => {
    let asked = 0;
    const object = createObject({ a: { authorize: () => ++asked < 2 && { ttl: 10_000 } } });
    await object.connect("ann").ask(subscribe("a"));
    const { clock, peers: [peer] } = object.evict(-3_600_000);
    clock.advance(10_000);
    assert.equal((await peer!.take())[0].reason, "FORBIDDEN");
  });

  it("goes on from where a client was that had missed something", async () => {
    const object = createObject({ a: { authorize: () => true, history: { size: 10, ttl: 60_000 } } }, { slowConsumer: "drop" });
    const [ann, bob] = [object.connect("ann"), object.connect("bob")];
    for (const peer of [ann, bob]) await peer.ask(subscribe("a"));
    ann.transport.sends = false;
    await object.channels.publish("a", "e", 1);
    await ann.take();
    ann.transport.sends = true;
    // This engine has lost the history, which one that keeps subscriptions would have: who has missed nothing is told nothing.
    const { peers } = object.evict();
    const [dropped, ...others] = await peers[0]!.take();
    assert.equal(dropped.error.code, "MESSAGES_DROPPED");
    assert.deepEqual(others.map(({ event, recovered }) => [event, recovered]), [["init", false]]);
    assert.deepEqual((await peers[1]!.take()).map(({ event }) => event), ["e"]);
  });

  it("continues at the position of a client that has not read, with the publications kept for it", async () => {
    const declarations = { a: { authorize: () => ({ ttl: 10_000 }), history: { size: 10, ttl: 60_000 } } };
    const object = createObject(declarations, { maxBufferedBytes: 1_024 });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { uid: 1 }));
    const savedAt = () => JSON.parse([...object.kept.values()][0]!.values().next().value!).at?.offset;
    assert.equal(savedAt(), undefined);
    // Authorized again, it is sent nothing until it has read half of what may wait.
    ann.transport.bufferedAmount = 800;
    object.clock.advance(10_000);
    await ann.take();
    await object.channels.publish("a", "e", 1);
    assert.deepEqual(await ann.take(), []);
    assert.equal(savedAt(), 0);
    ann.transport.bufferedAmount = 0;
    object.clock.advance(500);
    assert.deepEqual((await ann.take()).map(({ data }) => data), [1]);
    // It has been sent everything: after hibernation it is not sent that again.
    assert.equal(savedAt(), undefined);
    ann.transport.bufferedAmount = 800;
    object.clock.advance(10_000);
    await ann.take();
    await object.channels.publish("a", "e", 2);
    ann.transport.bufferedAmount = 0;
    const { peers: [again] } = object.evict(20_000);
    // As above, this engine has lost the history.
    assert.deepEqual((await again!.take()).map(({ event, recovered }) => [event, recovered]), [["init", false]]);
  });

  it("goes on from where an expired client was whose permission ends meanwhile", async () => {
    const declarations = { a: { authorize: () => ({ ttl: 10_000 }), history: { size: 10, ttl: 60_000 } } };
    const object = createObject(declarations, { timeout: 30_000 });
    const expires_at = object.clock.now() / 1_000 + 5;
    const ann = object.connect("ann", expires_at);
    await ann.ask(subscribe("a", { uid: 1 }));
    object.clock.advance(5_000);
    object.clock.advance(5_000);
    await object.channels.publish("a", "e", 1);
    assert.deepEqual((await ann.take()).map(({ error }) => error.code), ["TOKEN_EXPIRED"]);
    const [texts] = [...object.kept.values()];
    assert.deepEqual([...texts!.values()].map((text) => JSON.parse(text).at.offset), [0]);
  });

  it("sends no list of members again", async () => {
    const object = createObject({ "*": { authorize: () => true, presence: { data: "client" } } });
    await object.connect("ann").ask(subscribe("a", { presence: true, data: 1 }));
    await object.connect("bob").ask(subscribe("a", { presence: true, uid: 2 }));
    const { peers: [ann, bob], controller } = object.evict();
    for (const peer of [ann, bob]) peer!.transport.take();
    // This engine knows nobody any more, so that they have joined anew: an engine that keeps members is silent.
    assert.deepEqual((await ann!.take()).map(({ event }) => event), ["join"]);
    bob!.leave(true);
    assert.deepEqual(await ann!.take(), [{ type: "presence", event: "leave", channel: "a", members: [{ user: "bob" }] }]);
    assert.equal(controller.stats().clients, 1);
  });

  it("keeps the data of members, and sends members only to subscriptions with presence", async () => {
    const object = createObject({ "*": { authorize: () => true, presence: { data: "client" } } });
    await object.connect("ann").ask(subscribe("a", { presence: true, data: { at: 1 } }));
    await object.connect("bob").ask(subscribe("a", { data: { at: 2 } }));
    const { peers: [ann, bob], channels } = object.evict();
    for (const peer of [ann, bob]) await peer!.take();
    assert.deepEqual(await channels.presence("a"), [{ user: "ann", data: { at: 1 } }, { user: "bob", data: { at: 2 } }]);
    ann!.leave(true);
    assert.deepEqual(await bob!.take(), []);
    assert.deepEqual(await channels.presence("a"), [{ user: "bob", data: { at: 2 } }]);
  });

  it("sends the list of members to a client that missed a change", async () => {
    const object = createObject({ "*": { authorize: () => true, presence: true } }, { slowConsumer: "drop" });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { presence: true }));
    ann.transport.sends = false;
    await object.connect("bob").ask(subscribe("a"));
    ann.transport.sends = true;
    const { peers: [again] } = object.evict();
    assert.deepEqual((await again!.take()).filter(({ event }) => event === "init").length, 1);
    // Once is enough.
    const { peers: [third] } = object.evict();
    assert.deepEqual((await third!.take()).filter(({ event }) => event === "init").length, 0);
  });

  it("closes a client whose subscriptions no engine has kept", () => {
    const { controller } = createChannels({ a: { authorize: () => true } });
    const transport = new HibernatingTransport();
    controller.open(transport, HANDSHAKE, null);
    const again = createChannels({ a: { authorize: () => true } }).controller;
    const { client } = again.restore(transport, transport.saved.at(-1)!); // It was let in.
    assert.deepEqual([client.readyState, transport.closes], [2, [{ code: 1012, reason: "Subscriptions are lost" }]]);
  });

  it("closes only the client whose subscriptions cannot be stored or read", async () => {
    const object = createObject({ "*": { authorize: () => true } });
    const [ann, bob] = [object.connect("ann"), object.connect("bob")];
    await bob.ask(subscribe("a"));
    const { kept } = object;
    const [set, get] = [kept.set, kept.get];
    const fail = () => {
      throw new Error("disk full");
    };
    kept.set = fail;
    ann.send(subscribe("a"));
    await ann.take();
    assert.deepEqual(ann.transport.closes, [{ code: 1011, reason: "Cannot keep the subscriptions" }]);
    const errors = object.events.flatMap((each) => each[0] === "error" ? [String(each[1].error)] : []);
    assert.deepEqual(errors, ["Error: disk full"]);
    kept.set = set;
    void object.channels.publish("a", "e", 1);
    assert.equal((await bob.take()).at(-1).data, 1);
    kept.get = fail;
    const { peers } = object.evict();
    kept.get = get;
    // The streams that it had are read first.
    assert.deepEqual(peers[1]!.transport.closes, [{ code: 1011, reason: "Cannot keep the streams" }]);
  });

  it("starts the engine of the runtime at once if there are channels, because no client may return", () => {
    const started: string[] = [];
    class Engine extends MemoryEngine {
      override start(host: Parameters<MemoryEngine["start"]>[0]): void {
        super.start(host);
        started.push(host.node);
      }
    }
    observe().controller.useEngine(new Engine());
    assert.equal(started.length, 0);
    const { controller } = createChannels({ a: { authorize: () => true } });
    controller.useEngine(new Engine());
    assert.equal(started.length, 1);
    // There is one.
    controller.useEngine(new Engine());
    assert.equal(started.length, 1);
  });
});
