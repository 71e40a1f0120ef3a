/** What of a subscription outlives hibernation while something is under way: its start, a new permission, the list of its members. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthorizeContext, SnapshotContext } from "../../src/channels/channels.ts";
import type { TestPeer } from "../support/channels-fixture.ts";
import { createObject, subscribe } from "../support/hibernating-channels.ts";

const never = () => new Promise<never>(() => {});

/** Lets the client read nothing after the next frame, until the returned function is called. */
function fillAfterNext({ transport }: TestPeer): () => void {
  const { send } = transport;
  transport.send = (frame) => {
    transport.bufferedAmount = 800;
    return send.call(transport, frame);
  };
  return () => {
    transport.send = send;
    transport.bufferedAmount = 0;
  };
}

describe("Channels: hibernation meanwhile", () => {
  const history = { size: 10, ttl: 60_000 };

  it("starts a subscription that waited for its client to read, with all that it had sent", async () => {
    const asked: AuthorizeContext[] = [];
    const snapshots: SnapshotContext[] = [];
    const object = createObject({
      a: {
        authorize: (context) => asked.push(context) > 0,
        snapshot: (context) => snapshots.push(context),
        presence: { data: "client" },
      },
    }, { maxBufferedBytes: 1_024 });
    const ann = object.connect("ann");
    ann.transport.bufferedAmount = 800;
    const request = { uid: 1, query: { from: 3 }, data: { name: "Ann" }, presence: true };
    assert.deepEqual(await ann.ask(subscribe("a", request)), []);
    assert.equal(snapshots.length, 0);
    ann.transport.bufferedAmount = 0;
    const woken = object.evict(20_000);
    const [init, members, join] = await woken.peers[0]!.take();
    assert.deepEqual(init, { type: "subscription", event: "init", channel: "a", data: 1, uid: 1 });
    assert.deepEqual([members.event, members.members], ["init", []]);
    assert.deepEqual([join.event, join.members], ["join", [{ user: "ann", data: { name: "Ann" } }]]);
    // Asked anew: the rights may have changed meanwhile.
    assert.deepEqual([asked.length, snapshots.length], [2, 1]);
    assert.deepEqual([asked[1]!.query, snapshots[0]!.query], [{ from: 3 }, { from: 3 }]);
    await woken.channels.publish("a", "e", 1);
    assert.deepEqual((await woken.peers[0]!.take()).map(({ event, uid }) => [event, uid]), [["e", 1]]);
    // Once it has started, hibernation does not repeat the init.
    const again = woken.evict(40_000);
    assert.deepEqual((await again.peers[0]!.take()).filter(({ event }) => event === "init"), []);
    assert.equal(asked.length, 2);
  });

  it("starts one that waited before it recovers from where its client is", async () => {
    const positions: unknown[] = [];
    const authorize = ({ recover }: AuthorizeContext) => positions.push(recover) > 0;
    const object = createObject({ a: { authorize, history } }, { maxBufferedBytes: 1_024 });
    const ann = object.connect("ann");
    ann.transport.bufferedAmount = 800;
    const recover = { epoch: "e", offset: 3 };
    assert.deepEqual(await ann.ask(subscribe("a", { recover })), []);
    ann.transport.bufferedAmount = 0;
    // This engine has lost the history.
    assert.deepEqual((await object.evict().peers[0]!.take()).map(({ event, recovered }) => [event, recovered]), [[
      "init",
      false,
    ]]);
    assert.deepEqual(positions, [recover, recover]);
  });

  it("starts one that waited for its turn", async () => {
    let snapshot: () => unknown = never;
    const object = createObject({ "*": { authorize: () => true, snapshot: () => snapshot() } });
    const ann = object.connect("ann");
    await ann.ask(...Array.from({ length: 6 }, (_, uid) => subscribe("a", { uid })));
    snapshot = () => "here";
    const started = await object.evict().peers[0]!.take();
    assert.deepEqual(
      started.map(({ event, uid, data }) => [event, uid, data]),
      [0, 1, 2, 3, 4, 5].map((uid) => ["init", uid, "here"]),
    );
  });

  it("refuses one whose authorize has not answered, if it refuses when it is asked again", async () => {
    let authorize: () => Promise<boolean> | boolean = never;
    const object = createObject({ a: { authorize: () => authorize() } });
    const ann = object.connect("ann");
    assert.deepEqual(await ann.ask(subscribe("a", { uid: 1 })), []);
    authorize = () => false;
    const woken = object.evict();
    assert.deepEqual((await woken.peers[0]!.take()).map(({ uid, error }) => [uid, error.code]), [[1, "FORBIDDEN"]]);
    assert.equal(object.kept.size, 0);
    assert.deepEqual(await woken.evict().peers[0]!.take(), []);
  });

  it("goes on with the subscription that one replaces, until it has started", async () => {
    let authorize: () => Promise<boolean> | boolean = never;
    const object = createObject({ a: { authorize: () => true }, b: { authorize: () => authorize() } });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { uid: 1 }));
    assert.deepEqual(await ann.ask(subscribe("b", { uid: 1 })), []);
    // Hibernates twice: the subscription is saved again.
    const woken = object.evict().evict();
    const [peer] = woken.peers;
    await woken.channels.publish("a", "e", 1);
    assert.deepEqual((await peer!.take()).map(({ channel, event }) => [channel, event]), [["a", "e"]]);
    authorize = () => true;
    const started = woken.evict();
    assert.deepEqual((await started.peers[0]!.take()).map(({ channel, event }) => [channel, event]), [["b", "init"]]);
    await started.channels.publish("a", "e", 2);
    await started.channels.publish("b", "e", 3);
    assert.deepEqual((await started.peers[0]!.take()).map(({ data }) => data), [3]);
    const last = started.evict();
    await last.channels.publish("a", "e", 4);
    assert.deepEqual(await last.peers[0]!.take(), []);
  });

  it("starts the last of those that were to replace each other, and none that was unsubscribed", async () => {
    let authorize: () => Promise<boolean> | boolean = never;
    const object = createObject({ "*": { authorize: () => authorize() } });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { uid: 1 }), subscribe("c", { uid: 2 }), subscribe("d"));
    await ann.ask(subscribe("b", { uid: 1 }), { type: "unsubscribe", uid: 2 }, { type: "unsubscribe", channel: "d" });
    authorize = () => true;
    assert.deepEqual((await object.evict().peers[0]!.take()).map(({ channel, uid }) => [channel, uid]), [["b", 1]]);
  });

  it("starts one whose credentials expired meanwhile once the client has renewed them", async () => {
    let authorize: () => Promise<boolean> | boolean = never;
    const authenticate = () => ({ accountability: { user: "ann", role: null } });
    const object = createObject({ a: { authorize: () => authorize() } }, { mode: "public", authenticate, timeout: 30_000 });
    const ann = object.connect("ann", object.clock.now() / 1_000 + 5);
    await ann.ask(subscribe("a", { uid: 1 }));
    object.clock.advance(5_000);
    await ann.take();
    let asked = 0;
    authorize = () => ++asked > 0;
    const [again] = object.evict(6_000).peers;
    assert.deepEqual([await again!.take(), asked], [[], 0]);
    const answers = await again!.ask({ type: "auth", access_token: "ann" });
    assert.deepEqual(answers.map(({ type, event }) => [type, event]), [["auth", undefined], ["subscription", "init"]]);
    assert.equal(asked, 1);
  });

  it("loses nothing that is published while authorize is asked again", async () => {
    let authorize: () => Promise<{ ttl: number }> | { ttl: number } = () => ({ ttl: 10_000 });
    const object = createObject({ a: { authorize: () => authorize(), history } });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a"));
    authorize = never;
    object.clock.advance(10_000);
    await ann.take();
    await object.channels.publish("a", "e", 1);
    assert.deepEqual(await ann.take(), []);
    authorize = () => ({ ttl: 60_000 });
    const woken = object.evict(15_000);
    // This engine has lost the history: from where it is sent, it says so.
    assert.deepEqual((await woken.peers[0]!.take()).map(({ event, recovered }) => [event, recovered]), [["init", false]]);
    // The client has everything again.
    assert.deepEqual(await woken.evict(20_000).peers[0]!.take(), []);
  });

  it("sends the list of members that waited for its client to read, and lets its member join with its data", async () => {
    const object = createObject({ a: { authorize: () => true, presence: { data: "client" } } }, { maxBufferedBytes: 1_024 });
    const ann = object.connect("ann");
    const read = fillAfterNext(ann);
    const answers = await ann.ask(subscribe("a", { uid: 1, presence: true, data: "x" }));
    assert.deepEqual(answers.map(({ type, event }) => [type, event]), [["subscription", "init"]]);
    const waiting = object.evict();
    assert.deepEqual(await waiting.peers[0]!.take(), []);
    read();
    const woken = waiting.evict();
    const sent = await woken.peers[0]!.take();
    assert.deepEqual(sent.map(({ type, event }) => [type, event]), [["presence", "init"], ["presence", "join"]]);
    assert.deepEqual(sent[1].members, [{ user: "ann", data: "x" }]);
    assert.deepEqual(await woken.channels.presence("a"), [{ user: "ann", data: "x" }]);
    // It has joined, and has the list.
    assert.deepEqual((await woken.evict().peers[0]!.take()).filter(({ event }) => event === "init"), []);
  });

  it("lets a member join whose credentials expired meanwhile once the client has renewed them", async () => {
    const authenticate = () => ({ accountability: { user: "ann", role: null } });
    const object = createObject({ a: { authorize: () => true, presence: { data: "client" } } }, {
      mode: "public",
      authenticate,
      timeout: 30_000,
      maxBufferedBytes: 1_024,
    });
    const ann = object.connect("ann", object.clock.now() / 1_000 + 5);
    const read = fillAfterNext(ann);
    await ann.ask(subscribe("a", { uid: 1, presence: true, data: "x" }));
    object.clock.advance(5_000);
    await ann.take();
    read();
    const { peers: [again], channels } = object.evict(6_000);
    assert.deepEqual(await again!.take(), []);
    assert.deepEqual(await channels.presence("a"), []);
    const answers = await again!.ask({ type: "auth", access_token: "ann" });
    assert.deepEqual(answers.map(({ type, event }) => [type, event]), [
      ["auth", undefined],
      ["presence", "init"],
      ["presence", "join"],
    ]);
    assert.deepEqual(await channels.presence("a"), [{ user: "ann", data: "x" }]);
  });

  it("keeps the member of the subscription that one has replaced until the new one joins", async () => {
    const object = createObject({ a: { authorize: () => true, presence: { data: "client" } } }, { maxBufferedBytes: 1_024 });
    const ann = object.connect("ann");
    await ann.ask(subscribe("a", { uid: 1, data: "old" }));
    const read = fillAfterNext(ann);
    await ann.ask(subscribe("a", { uid: 1, presence: true, data: "new" }));
    assert.deepEqual(await object.channels.presence("a"), [{ user: "ann", data: "old" }]);
    const waiting = object.evict();
    await waiting.peers[0]!.take();
    assert.deepEqual(await waiting.channels.presence("a"), [{ user: "ann", data: "old" }]);
    read();
    const woken = waiting.evict();
    await woken.peers[0]!.take();
    assert.deepEqual(await woken.channels.presence("a"), [{ user: "ann", data: "new" }]);
  });

  it("accepts what an earlier version has saved", async () => {
    const object = createObject({ "*": { authorize: () => true, history, presence: { data: "client" } } });
    const ann = object.connect("ann");
    await ann.take();
    const texts = [
      '{"type":"subscribe","channel":"a","uid":1,"member":"\\"x\\"","entry":1}',
      '{"type":"subscribe","channel":"b","presence":true,"at":{"epoch":"e","offset":2},"entry":1,"isStale":true,"isDoubtful":true}',
      '{"type":"subscribe","channel":"c","query":{"from":3},"grant":{"ttl":1000,"until":1}}',
      '{"type":"subscribe","channel":"d"}',
    ];
    object.kept.set(ann.client.uid, new Map(texts.map((text, number) => [`name ${number}`, text])));
    const { peers: [again], channels } = object.evict();
    await again!.take();
    for (const channel of ["a", "b", "c", "d"]) {
      await channels.publish(channel, "e", channel);
      assert.deepEqual((await again!.take()).map(({ data }) => data), [channel]);
    }
    assert.deepEqual(await channels.presence("a"), [{ user: "ann", data: "x" }]);
  });

  it("saves nothing of a subscription that starts at once, or ends in the same turn", async () => {
    const object = createObject({ a: { authorize: () => true }, b: { authorize: never } });
    const ann = object.connect("ann");
    const { kept } = object;
    const saved: string[] = [];
    const { set } = kept;
    kept.set = (uid, texts) => {
      saved.push(...texts.values());
      return set.call(kept, uid, texts);
    };
    await ann.ask(subscribe("a"), subscribe("b"), { type: "unsubscribe", channel: "b" });
    assert.deepEqual(saved.filter((text) => "isStarting" in JSON.parse(text)), []);
    assert.equal(saved.length > 0, true);
  });
});
