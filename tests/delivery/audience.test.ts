import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Audience, type Recipient, TopicGroup } from "../../src/delivery/audience.ts";
import { Delivery, type IndexedRecipient, type IndexKeys } from "../../src/delivery/delivery.ts";
import { Frame } from "../../src/protocol/frame.ts";
import type { Publisher } from "../../src/delivery/transport.ts";
import type { Accountability } from "../../src/application/websocket-client.ts";
import { Random } from "../support/random.ts";

/** A server's topics: what is published is with every socket of the topic at once. */
class Topics implements Publisher {
  bytesSent = 0;
  publications = 0;
  /** Whether something older waits. */
  waits = false;
  readonly #sockets = new Map<string, Set<Socket>>();

  socketsOf(topic: string): Set<Socket> {
    const sockets = this.#sockets.get(topic) ?? new Set();
    this.#sockets.set(topic, sockets);
    return sockets;
  }

  publish(topic: string, frame: Frame): boolean {
    if (this.waits) return false;
    this.publications++;
    this.bytesSent += frame.bytes;
    for (const socket of this.socketsOf(topic)) socket.take(frame);
    return true;
  }
}

/** A socket, and the recipient behind it, which is slow when it holds more than the limit before it is sent something. */
class Socket implements IndexedRecipient {
  accountability: Accountability;
  indexedBy: IndexKeys | undefined = undefined;
  readonly transport = this;
  readonly publisher: Topics | undefined;
  held = 0;
  /** There is something it has to be told first. */
  isBehind = false;
  readonly received: string[] = [];
  readonly #limit: number;

  constructor(publisher: Topics | undefined, limit = Infinity, user: string | null = null, role: string | null = null) {
    this.publisher = publisher;
    this.#limit = limit;
    this.accountability = { user, role };
  }

  get heldBytes(): number {
    return this.isBehind ? Infinity : this.held;
  }

  join(topic: string): void {
    this.publisher!.socketsOf(topic).add(this);
  }

  leave(topic: string): void {
    this.publisher!.socketsOf(topic).delete(this);
  }

  send(frame: Frame): boolean {
    if (this.held > this.#limit) return false;
    if (this.publisher) this.publisher.bytesSent += frame.bytes;
    this.take(frame);
    return true;
  }

  take(frame: Frame): void {
    assert.ok(this.held <= this.#limit, "It is handed more than the limit and one message");
    this.held += frame.bytes;
    this.received.push(frame.text);
  }
}

const frame = (text: string): Frame => new Frame(text, false);

describe("TopicGroup", () => {
  it("publish reaches each member once, and who has left no more", () => {
    const topics = new Topics();
    const group = new TopicGroup<Socket>(topics);
    const [stays, leaves] = [new Socket(topics), new Socket(topics)];
    group.add(stays);
    group.add(leaves);
    assert.ok(group.publish(frame("a"), Infinity));
    group.delete(leaves);
    assert.ok(group.publish(frame("b"), Infinity));
    assert.deepEqual([stays.received, leaves.received, topics.publications], [["a", "b"], ["a"], 2]);
  });

  it("publish does nothing without a publisher, and where the publisher cannot now", () => {
    const topics = new Topics();
    const [alone, together] = [new TopicGroup<Socket>(undefined), new TopicGroup<Socket>(topics)];
    const sockets = [new Socket(undefined), new Socket(topics)] as const;
    alone.add(sockets[0]);
    together.add(sockets[1]);
    topics.waits = true;
    assert.deepEqual([alone.publish(frame("a"), 1), together.publish(frame("a"), 1)], [false, false]);
    assert.deepEqual(sockets.map(({ received }) => received), [[], []]);
  });

  it("publish looks at what its members hold only when one might hold more than may be", () => {
    const topics = new Topics();
    const group = new TopicGroup<Recipient>(topics);
    let looks = 0;
    const socket = new Socket(topics);
    group.add({
      transport: socket,
      get heldBytes() {
        looks++;
        return 0;
      },
    });
    for (let n = 0; n <= 10; n++) assert.ok(group.publish(frame("0123456789"), 100));
    assert.equal(looks, 1, "When it joined");
    assert.ok(group.publish(frame("0123456789"), 100));
    assert.equal(looks, 2);
    // As many again, counted from there.
    for (let n = 0; n < 10; n++) assert.ok(group.publish(frame("0123456789"), 100));
    assert.equal(looks, 2);
    assert.ok(group.publish(frame("0123456789"), 100));
    assert.equal(looks, 3);
  });

  it("publish counts what anybody was handed by another way", () => {
    const topics = new Topics();
    const group = new TopicGroup<Socket>(topics);
    const socket = new Socket(topics, 100);
    group.add(socket);
    assert.ok(group.publish(frame("x"), 100));
    socket.send(frame("y".repeat(100)));
    assert.ok(!group.publish(frame("x"), 100), "It holds 101 bytes");
    socket.held = 0;
    assert.ok(group.publish(frame("x"), 100));
  });

  it("publish reaches a member that holds as much as may be, and no group with one that holds more", () => {
    const topics = new Topics();
    const group = new TopicGroup<Socket>(topics);
    const [full, other, late] = [new Socket(topics, 100), new Socket(topics, 100), new Socket(topics, 100)];
    full.held = 100;
    for (const socket of [other, full]) group.add(socket);
    assert.ok(group.publish(frame("x"), 100));
    assert.ok(!group.publish(frame("x"), 100), "one holds 101");
    full.held = 100;
    assert.ok(group.publish(frame("x"), 100));
    full.held = 0;
    late.held = 101;
    group.add(late);
    assert.ok(!group.publish(frame("x"), 100), "one that has joined since holds 101");
    group.delete(late);
    assert.ok(group.publish(frame("x"), 100));
    assert.deepEqual([full, other, late].map(({ received }) => received.length), [3, 3, 0]);
  });

  it("publish uses a topic of its own, whose name no other copy of the package on the same server can have", () => {
    const names = new Set<string>();
    for (const topics of [new Topics(), new Topics()]) {
      const publish = topics.publish.bind(topics);
      topics.publish = (topic, frame) => names.add(topic) && publish(topic, frame);
      const group = new TopicGroup<Socket>(topics);
      group.add(new Socket(topics));
      for (let n = 0; n < 2; n++) assert.ok(group.publish(frame("x"), Infinity));
    }
    assert.equal(names.size, 2);
    for (const name of names) assert.match(name, /^noroshi:[\da-f]{8}-[\da-f-]{27}:/, "with a random part");
  });

  it("publish does nothing while a member must be sent something first, or held too much when it joined", () => {
    const topics = new Topics();
    const group = new TopicGroup<Socket>(topics);
    const socket = new Socket(topics, 100);
    socket.held = 101;
    group.add(socket);
    assert.ok(!group.publish(frame("x"), 100));
    socket.held = 0;
    socket.isBehind = true;
    assert.ok(!group.publish(frame("x"), 100));
    socket.isBehind = false;
    assert.ok(group.publish(frame("x"), 100));
  });
});

describe("Audience", () => {
  it("has groups of 2,000 for each server, and one for all who are sent to by themselves", () => {
    const [some, others] = [new Topics(), new Topics()];
    const audience = new Audience<Socket>();
    const sockets = [some, others, undefined].flatMap((topics) => Array.from({ length: 2_500 }, () => new Socket(topics)));
    for (const socket of sockets) audience.add(socket);
    assert.deepEqual(audience.groups.map(({ members }) => members.size), [2_000, 500, 2_000, 500, 2_500]);
    assert.deepEqual([audience.size, new Set(audience).size], [7_500, 7_500]);
    for (const socket of sockets) assert.ok(audience.has(socket) && audience.delete(socket) && !audience.has(socket));
    assert.deepEqual([audience.size, audience.groups.length, audience.delete(sockets[0]!)], [0, 0, false]);
  });
});

describe("Delivery, where one publication reaches many", () => {
  it("publishes to everybody and to a role, and sends to the members of a user", () => {
    const topics = new Topics();
    const delivery = new Delivery(Infinity);
    const [ann, bob, cid] = [["ann", "editor"], ["bob", "editor"], ["cid", "reader"]].map(([user, role]) =>
      new Socket(topics, Infinity, user, role)
    ) as [Socket, Socket, Socket];
    for (const socket of [ann, bob, cid]) delivery.add(socket);
    delivery.sendToMatching(frame("all"), {});
    delivery.sendToMatching(frame("editors"), { role: "editor" });
    assert.equal(topics.publications, 2);
    delivery.sendToMatching(frame("ann"), { user: "ann" });
    delivery.sendToMatching(frame("bob, who edits"), { user: "bob", role: "editor" });
    assert.deepEqual([topics.publications, delivery.published], [2, 5]);
    assert.deepEqual(ann.received, ["all", "editors", "ann"]);
    assert.deepEqual(bob.received, ["all", "editors", "bob, who edits"]);
    assert.deepEqual(cid.received, ["all"]);
  });

  it("reaches exactly those who were there when it was called, in later slices too", async () => {
    const turns: (() => void)[] = [];
    const topics = new Topics();
    const delivery = new Delivery(Infinity, (callback) => turns.push(callback));
    const create = () => new Socket(topics);
    const sockets = Array.from({ length: 5_000 }, create);
    for (const socket of sockets) delivery.add(socket);
    const result = delivery.sendToMatching(frame("x"), {});
    // One leaves the last group and one comes, one leaves another group.
    const late = create();
    delivery.remove(sockets[4_999]!);
    delivery.add(late);
    delivery.remove(sockets[2_000]!);
    while (turns.length > 0) turns.shift()!();
    assert.deepEqual(late.received, []);
    assert.deepEqual(sockets[2_000]!.received, []);
    for (const [n, { received }] of sockets.entries()) if (n < 4_999 && n !== 2_000) assert.deepEqual(received, ["x"], `${n}`);
    assert.equal((await result).matched, 5_000);
    assert.ok(topics.publications < 3, "The group that somebody has joined is not published to");
  });

  it("publishes to one group a turn, each time to all that waits, and counts the clients", async () => {
    const turns: (() => void)[] = [];
    const topics = new Topics();
    const delivery = new Delivery(Infinity, (callback) => turns.push(callback));
    for (let n = 0; n < 6_000; n++) delivery.add(new Socket(topics));
    const results = ["a", "b"].map((text) => delivery.sendToMatching(frame(text), {}));
    const counts = [topics.publications];
    while (turns.length > 0) {
      turns.shift()!();
      counts.push(topics.publications);
    }
    // The first is about to be published to the second group when the second is called, which begins at the third.
    assert.deepEqual([counts, delivery.published], [[1, 2, 4, 5, 6], 12_000]);
    for (const result of await Promise.all(results)) assert.deepEqual(result, { matched: 6_000, sent: 6_000, dropped: 0 });
  });

  it("sends to a small audience after the messages under way to a large one, even if it could publish at once", () => {
    const turns: (() => void)[] = [];
    const topics = new Topics();
    const delivery = new Delivery(Infinity, (callback) => turns.push(callback));
    const sockets = Array.from({ length: 3_000 }, (_, n) => new Socket(topics, Infinity, null, n < 2_990 ? null : "few"));
    for (const socket of sockets) delivery.add(socket);
    delivery.sendToMatching(frame("all"), {});
    delivery.sendToMatching(frame("few"), { role: "few" });
    while (turns.length > 0) turns.shift()!();
    assert.deepEqual([sockets[0]!.received, sockets[2_999]!.received], [["all"], ["all", "few"]]);
    assert.deepEqual([topics.publications, delivery.published], [3, 3_010]);
  });

  it("reaches all, once, in order, and hands nobody more than the limit and one message, for any changes and filters", () => {
    const random = new Random();
    const LIMIT = 50;
    const ids = [null, "1", "2"];
    const turns: (() => void)[] = [];
    const delivery = new Delivery(LIMIT, (callback) => turns.push(callback));
    const topics = new Topics();
    const sockets = Array.from({ length: 20 }, () => new Socket(random.below(4) === 0 ? undefined : topics, LIMIT));
    const members = new Set<Socket>();
    for (let step = 0; step < 6000; step++) {
      const socket = random.pick(sockets);
      const kind = random.below(8);
      topics.waits = random.below(10) === 0;
      if (kind === 0) {
        socket.accountability = { user: random.pick(ids), role: random.pick(ids) };
        delivery.add(socket);
        members.add(socket);
      } else if (kind === 1) {
        delivery.remove(socket);
        members.delete(socket);
      } else if (kind < 4) socket.held = 0;
      else if (kind === 4) socket.send(frame("direct"));
      else {
        const [user, role] = [random.pick(ids), random.pick(ids)];
        for (const each of sockets) each.received.length = 0;
        const able = new Set(sockets.filter(({ held }) => held <= LIMIT));
        delivery.sendToMatching(frame("x".repeat(random.below(20))), {
          ...(user === null ? {} : { user }),
          ...(role === null ? {} : { role }),
        });
        for (const each of sockets) {
          const { accountability } = each;
          const matches = members.has(each) && (user === null || accountability.user === user) &&
            (role === null || accountability.role === role) && able.has(each);
          assert.equal(each.received.length, matches ? 1 : 0, `seed ${random.seed}`);
        }
      }
    }
    assert.ok(topics.publications > 100);
  });

  it("keeps the order for each of a large audience, whichever publications are refused in between", () => {
    const random = new Random();
    const turns: (() => void)[] = [];
    const delivery = new Delivery(Infinity, (callback) => turns.push(callback));
    const refusing = new Topics();
    const publish = refusing.publish.bind(refusing);
    refusing.publish = (topic, frame) => random.below(4) > 0 && publish(topic, frame);
    const sockets = Array.from(
      { length: 4_500 },
      (_, n) => new Socket(n % 10 === 0 ? undefined : refusing, Infinity, null, n % 3 === 0 ? "third" : null),
    );
    for (const socket of sockets) delivery.add(socket);
    const calls: { text: string; role?: string }[] = [];
    for (let step = 0; step < 60; step++) {
      for (let number = random.below(8); number > 0; number--) {
        const role = random.below(4) === 0 ? { role: "third" } : {};
        const text = `${calls.length}`;
        calls.push({ text, ...role });
        delivery.sendToMatching(frame(text), role);
      }
      for (let number = random.below(4); number > 0; number--) turns.shift()?.();
    }
    while (turns.length > 0) turns.shift()!();
    const all = calls.map(({ text }) => text);
    const some = calls.filter(({ role }) => role === undefined).map(({ text }) => text);
    for (const { received, accountability } of sockets) {
      assert.deepEqual(received, accountability.role === "third" ? all : some, `seed ${random.seed}`);
    }
    assert.ok(refusing.publications > 100);
  });
});
