import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type BroadcastFilter, type BroadcastResult, checkFilter } from "../../src/delivery/broadcast.ts";
import { checkDisconnectFilter, type DisconnectFilter } from "../../src/connection/revocations.ts";
import { Delivery, type IndexedRecipient, type IndexKeys } from "../../src/delivery/delivery.ts";
import { SLICE_MS } from "../../src/base/turn.ts";
import { Frame } from "../../src/protocol/frame.ts";
import type { Accountability } from "../../src/application/websocket-client.ts";
import { withGlobals } from "../support/globals.ts";
import { Random } from "../support/random.ts";

class Reader implements IndexedRecipient {
  accountability: Accountability;
  indexedBy: IndexKeys | undefined = undefined;
  readonly received: string[] = [];
  readonly then: (text: string) => void;
  readonly heldBytes = 0;
  /** Whether it takes what it is sent. */
  takes = true;

  constructor(user: string | null, role: string | null, then: (text: string) => void = () => {}) {
    this.accountability = { user, role };
    this.then = then;
  }

  send({ text }: Frame): boolean {
    if (!this.takes) return false;
    this.received.push(text);
    this.then(text);
    return true;
  }
}

const frame = (text: string): Frame => new Frame(text, false);

const received = (...readers: Reader[]) => readers.map((reader) => reader.received.splice(0));

describe("Delivery", () => {
  it("broadcast reaches every client once with an empty filter, and no client if there is none", () => {
    const delivery = new Delivery(Infinity);
    delivery.sendToMatching(frame("x"), {});
    const readers = [new Reader("ann", "editor"), new Reader(null, null)];
    for (const reader of readers) delivery.add(reader);
    delivery.sendToMatching(frame("x"), {});
    assert.deepEqual(received(...readers), [["x"], ["x"]]);
  });

  it("broadcast sends nothing to the anonymous when the filter names a user or a role", () => {
    const delivery = new Delivery(Infinity);
    const anonymous = new Reader(null, null);
    delivery.add(anonymous);
    for (const filter of [{ user: "null" }, { role: "null" }, { user: "undefined" }]) delivery.sendToMatching(frame("x"), filter);
    assert.deepEqual(received(anonymous), [[]]);
  });

  it("broadcast asks for user and role when the filter names both", () => {
    const delivery = new Delivery(Infinity);
    const both = new Reader("ann", "editor");
    const [user, role] = [new Reader("ann", "reader"), new Reader("bob", "editor")];
    for (const reader of [both, user, role]) delivery.add(reader);
    delivery.sendToMatching(frame("x"), { user: "ann", role: "editor" });
    assert.deepEqual(received(both, user, role), [["x"], [], []]);
  });

  it("broadcast keeps users and roles of one name apart, and names that objects have", () => {
    const delivery = new Delivery(Infinity);
    const [user, role, odd] = [new Reader("x", null), new Reader(null, "x"), new Reader("__proto__", "constructor")];
    for (const reader of [user, role, odd]) delivery.add(reader);
    delivery.sendToMatching(frame("to user"), { user: "x" });
    delivery.sendToMatching(frame("to role"), { role: "x" });
    delivery.sendToMatching(frame("to nobody"), { user: "constructor" });
    delivery.sendToMatching(frame("to odd"), { user: "__proto__" });
    assert.deepEqual(received(user, role, odd), [["to user"], ["to role"], ["to odd"]]);
  });

  it("add leaves a recipient that is indexed already in its place", () => {
    const delivery = new Delivery(Infinity);
    const order: string[] = [];
    const readers = ["ann", "bob"].map((user) => new Reader(user, null, () => order.push(user)));
    for (const reader of [...readers, ...readers.slice(0, 1)]) delivery.add(reader);
    delivery.sendToMatching(frame("x"), {});
    assert.deepEqual([order, delivery.size], [["ann", "bob"], 2]);
  });

  it("add indexes a recipient anew when its accountability was replaced", () => {
    const delivery = new Delivery(Infinity);
    const reader = new Reader("ann", "editor");
    delivery.add(reader);
    reader.accountability = { user: "bob", role: "reader" };
    delivery.add(reader);
    assert.equal(delivery.size, 1);
    for (const filter of [{ user: "ann" }, { role: "editor" }, { user: "bob", role: "editor" }]) {
      delivery.sendToMatching(frame("old"), filter);
    }
    for (const filter of [{ user: "bob" }, { role: "reader" }, {}]) delivery.sendToMatching(frame("new"), filter);
    assert.deepEqual(received(reader), [["new", "new", "new"]]);
  });

  it("remove deletes a recipient from its old index after its accountability was replaced", () => {
    const delivery = new Delivery(Infinity);
    const reader = new Reader("ann", "editor");
    delivery.add(reader);
    // A filter makes its index.
    for (const filter of [{ user: "ann" }, { role: "editor" }]) delivery.sendToMatching(frame("before"), filter);
    assert.deepEqual(received(reader), [["before", "before"]]);
    reader.accountability = { user: "bob", role: "reader" };
    delivery.remove(reader);
    delivery.remove(reader);
    for (const filter of [{}, { user: "ann" }, { role: "editor" }, { user: "bob" }]) delivery.sendToMatching(frame("x"), filter);
    assert.deepEqual(received(reader), [[]]);
    assert.equal(delivery.size, 0);
  });

  it("remove leaves others of the same user and role when one goes", () => {
    const delivery = new Delivery(Infinity);
    const [gone, stays] = [new Reader("ann", "editor"), new Reader("ann", "editor")];
    delivery.add(gone);
    delivery.add(stays);
    delivery.remove(gone);
    delivery.sendToMatching(frame("a"), { user: "ann" });
    delivery.sendToMatching(frame("b"), { role: "editor" });
    assert.deepEqual(received(gone, stays), [[], ["a", "b"]]);
  });

  it("broadcast is for those who were there when it was called, when a recipient admits others", () => {
    const delivery = new Delivery(Infinity);
    const late = new Reader("ann", "editor");
    delivery.add(new Reader("ann", "editor", () => delivery.add(late)));
    for (const filter of [{}, { user: "ann" }, { user: "ann", role: "editor" }]) {
      delivery.remove(late);
      delivery.sendToMatching(frame("x"), filter);
      assert.deepEqual(received(late), [[]]);
    }
  });

  it("broadcast reaches each of the others once when recipients remove themselves and are added again", () => {
    const delivery = new Delivery(Infinity);
    const readers = Array.from({ length: 5 }, () => {
      const reader: Reader = new Reader("ann", "editor", () => {
        delivery.remove(reader);
        delivery.add(reader);
      });
      return reader;
    });
    for (const reader of readers) delivery.add(reader);
    for (const filter of [{}, { user: "ann" }, { role: "editor" }, { user: "ann", role: "editor" }]) {
      delivery.sendToMatching(frame("x"), filter);
      assert.deepEqual(received(...readers), readers.map(() => ["x"]));
    }
  });

  it("broadcast reaches the same clients as a filter over all of them, for any clients, changes and filters", () => {
    const random = new Random();
    const ids = [null, "1", "2", "3"];
    const delivery = new Delivery(Infinity);
    const members = new Set<Reader>();
    const readers = Array.from({ length: 25 }, () => new Reader(random.pick(ids), random.pick(ids)));
    for (let step = 0; step < 4000; step++) {
      const reader = random.pick(readers);
      const kind = random.below(4);
      if (kind === 0) {
        reader.accountability = { user: random.pick(ids), role: random.pick(ids) };
        delivery.add(reader);
        members.add(reader);
      } else if (kind === 1) {
        delivery.remove(reader);
        members.delete(reader);
      } else {
        const [user, role] = [random.pick(ids), random.pick(ids)];
        const filter: BroadcastFilter = { ...(user === null ? {} : { user }), ...(role === null ? {} : { role }) };
        delivery.sendToMatching(frame("x"), filter);
        for (const each of readers) {
          const { accountability } = each;
          const matches = members.has(each) && (user === null || accountability.user === user) &&
            (role === null || accountability.role === role);
          assert.deepEqual(each.received.splice(0), matches ? ["x"] : [], `seed ${random.seed}`);
        }
      }
      assert.equal(delivery.size, members.size, `seed ${random.seed}`);
    }
  });
});

describe("Delivery, to a large audience", () => {
  function create(size: number) {
    const turns: (() => void)[] = [];
    const delivery = new Delivery(Infinity, (callback) => turns.push(callback));
    const readers = Array.from({ length: size }, () => new Reader("ann", null));
    for (const reader of readers) delivery.add(reader);
    const reached = (text: string) => readers.filter(({ received }) => received.includes(text)).length;
    return { delivery, readers, turns, reached };
  }

  it("sends to 2,000 clients a turn, and to those who were there when it was called", async () => {
    const { delivery, readers, turns, reached } = create(5_000);
    const result = delivery.sendToMatching(frame("x"), {});
    const late = new Reader("ann", null);
    delivery.add(late);
    delivery.remove(readers[4_999]!);
    const counts = [reached("x")];
    while (turns.length > 0) {
      turns.shift()!();
      counts.push(reached("x"));
    }
    assert.deepEqual(counts.at(-1), 5_000);
    assert.ok(counts.every((count, i) => i === 0 ? count === 2_000 : count > counts[i - 1]!));
    assert.deepEqual([late.received, await result], [[], { matched: 5_000, sent: 5_000, dropped: 0 }]);
  });

  it("keeps the order of broadcasts for each client, whatever the audience", async () => {
    const { delivery, readers, turns } = create(3_000);
    const results = [
      delivery.sendToMatching(frame("1"), {}),
      delivery.sendToMatching(frame("2"), { user: "ann" }),
      delivery.sendToMatching(frame("3"), { user: "bob" }),
    ];
    turns.shift()!();
    results.push(delivery.sendToMatching(frame("4"), {}));
    while (turns.length > 0) turns.shift()!();
    for (const { received } of readers) assert.deepEqual(received, ["1", "2", "4"]);
    assert.deepEqual((await Promise.all(results)).map(({ matched }) => matched), [3_000, 3_000, 0, 3_000]);
  });

  for (const audience of ["clients", "list of targets"]) {
    it(`sends a client all that waits for the same ${audience} one after the other, so that it is one write`, () => {
      const { delivery, readers, turns } = create(3_000);
      const order: Reader[] = [];
      for (const reader of readers) reader.send = () => order.push(reader) > 0;
      for (const text of ["0", "1", "2", "3"]) {
        if (audience === "clients") delivery.sendToMatching(frame(text), {});
        else delivery.deliver(frame(text), readers, () => {});
      }
      while (turns.length > 0) turns.shift()!();
      // The first has begun by the time that the others are called.
      assert.deepEqual(order.slice(0, 3_000), readers);
      assert.deepEqual(order.slice(3_000), readers.flatMap((reader) => [reader, reader, reader]));
    });
  }

  it("sends as many frames a turn, of however many broadcasts they are", () => {
    const { delivery, readers, turns } = create(3_000);
    for (let number = 0; number < 30; number++) delivery.sendToMatching(frame(`${number}`), {});
    let before = 0;
    const counts = [];
    do {
      const all = readers.reduce((sum, { received }) => sum + received.length, 0);
      counts.push(all - before);
      before = all;
      turns.shift()?.();
    } while (before < 90_000);
    // No client is left in the middle of what it is sent.
    assert.ok(counts.every((count, i) => count < 2_000 + 30 && (count >= 2_000 || i === counts.length - 1)), `${counts}`);
    for (const { received } of readers) assert.deepEqual(received, Array.from({ length: 30 }, (_, number) => `${number}`));
  });

  it("sends to several audiences in one turn, and lets inbound messages have theirs once that takes longer than a slice", () => {
    const { delivery, turns } = create(0);
    let now = 0;
    let sent = 0;
    const list = (size: number, ms: number) =>
      Array.from({ length: size }, () => ({ send: () => (now += ms) >= 0 && ++sent > 0 }));
    withGlobals({ performance: { now: () => now } }, () => {
      // The rest of the first waits for the next turn, and the others for it.
      delivery.deliver(frame("x"), list(2_001, 0), () => {});
      for (let number = 0; number < 4; number++) delivery.deliver(frame("x"), list(1, SLICE_MS * 0.6), () => {});
      const counts = [sent];
      while (turns.length > 0) {
        turns.shift()!();
        counts.push(sent);
      }
      assert.deepEqual([counts, delivery.isBusy], [[2_000, 2_003, 2_005], false]);
    });
  });

  it("keeps broadcasts apart if clients joined or left between them, and counts each by itself", async () => {
    const { delivery, readers, turns } = create(3_000);
    const late = new Reader("ann", null);
    const results = [delivery.sendToMatching(frame("begins"), {}), delivery.sendToMatching(frame("1"), {})];
    readers[2_999]!.takes = false;
    delivery.remove(readers[2_998]!);
    delivery.add(late);
    results.push(delivery.sendToMatching(frame("2"), {}));
    delivery.remove(late);
    results.push(delivery.sendToMatching(frame("3"), {}), delivery.sendToMatching(frame("4"), {}));
    while (turns.length > 0) turns.shift()!();
    assert.deepEqual(received(readers[0]!, readers[2_998]!, late), [["begins", "1", "2", "3", "4"], ["begins", "1"], ["2"]]);
    assert.deepEqual(
      (await Promise.all(results)).map(({ matched, sent, dropped }) => [matched, sent, dropped]),
      [[3_000, 2_999, 1], [3_000, 2_999, 1], [3_000, 2_999, 1], [2_999, 2_998, 1], [2_999, 2_998, 1]],
    );
  });

  it("keeps lists of targets apart, also of one length, and sends a list once more while it is sent", async () => {
    const { delivery, readers, turns } = create(6_000);
    const [first, second] = [readers.slice(0, 3_000), readers.slice(3_000)];
    const sent = (text: string, list: readonly Reader[]) =>
      new Promise<BroadcastResult>((resolve) => delivery.deliver(frame(text), list, resolve));
    const results = [sent("1", first), sent("2", second), sent("3", second), sent("4", first)];
    assert.equal(delivery.isBusy, true);
    while (turns.length > 0) turns.shift()!();
    assert.equal(delivery.isBusy, false);
    for (const { received } of first) assert.deepEqual(received, ["1", "4"]);
    for (const { received } of second) assert.deepEqual(received, ["2", "3"]);
    for (const result of await Promise.all(results)) assert.deepEqual(result, { matched: 3_000, sent: 3_000, dropped: 0 });
  });

  for (const cause of ["0", "1"]) {
    it(`sends what a recipient broadcasts while it is sent "${cause}" to all after what was called before`, () => {
      const { delivery, readers, turns } = create(3_000);
      let isFirst = true;
      readers[0]!.send = ({ text }) => {
        if (text === cause && isFirst) delivery.sendToMatching(frame("from within"), {});
        isFirst &&= text !== cause;
        return readers[0]!.received.push(text) > 0;
      };
      for (const text of ["0", "1", "2"]) delivery.sendToMatching(frame(text), {});
      while (turns.length > 0) turns.shift()!();
      const expected = cause === "0" ? ["0", "from within", "1", "2"] : ["0", "1", "2", "from within"];
      for (const { received } of readers) assert.deepEqual(received, expected);
    });
  }

  it("counts the clients that were sent the message and those that were not", async () => {
    const { delivery, readers, turns } = create(10);
    for (const reader of readers.slice(0, 3)) reader.takes = false;
    assert.deepEqual(await delivery.sendToMatching(frame("x"), {}), { matched: 10, sent: 7, dropped: 3 });
    assert.deepEqual(await delivery.sendToMatching(frame("x"), { user: "bob" }), { matched: 0, sent: 0, dropped: 0 });
    assert.equal(turns.length, 0, "a few are sent to at once");
  });
});

describe("checkFilter", () => {
  it("is everybody when there is no filter, and the filter when it is good", () => {
    assert.deepEqual(checkFilter(undefined), {});
    for (const filter of [{}, { user: "a" }, { role: "b" }, { user: "a", role: "b" }]) {
      assert.deepEqual(checkFilter(filter), filter);
    }
  });

  it("throws TypeError when the filter is no plain object: without keys of its own it would mean everybody", () => {
    const user = "ann";
    class Ann {
      user = user;
    }
    const objects = [Promise.resolve({ user }), new Map([["user", user]]), new Set([user]), new Ann(), Object.create({ user })];
    for (const filter of [null, "editor", 1, true, [], ["editor"], () => true, ...objects]) {
      assert.throws(() => checkFilter(filter as never), {
        name: "TypeError",
        message: 'Cannot broadcast: the filter must be an object such as { role: "editor" }',
      });
    }
  });

  it("throws TypeError naming the key when a value is not a non-empty string", () => {
    for (const value of [undefined, null, "", 1, 0, true, [], ["a"], {}]) {
      for (const key of ["user", "role"]) {
        assert.throws(() => checkFilter({ user: "a", role: "b", [key]: value }), {
          name: "TypeError",
          message: `Cannot broadcast: filter.${key} must be a non-empty string; leave the key out to reach everybody`,
        });
      }
    }
  });

  it("names the action and its keys when a client is to be disconnected", () => {
    const wrong: [filter: unknown, message: string][] = [
      [{ usr: "ann" }, 'Cannot disconnect: unknown filter key "usr", use user, role or uid'],
      [{ user: "" }, "Cannot disconnect: filter.user must be a non-empty string, or absent"],
      [{ uid: "" }, "Cannot disconnect: pass a user, a role or a uid; close() disconnects everybody"],
      ...[null, undefined, {}].map((filter): [unknown, string] => [
        filter,
        "Cannot disconnect: pass a user, a role or a uid; close() disconnects everybody",
      ]),
    ];
    for (const [filter, message] of wrong) {
      assert.throws(() => checkDisconnectFilter(filter as DisconnectFilter), { name: "TypeError", message });
    }
    for (const filter of [{ uid: "one" }, { user: "ann" }, { user: "ann", role: "editor", uid: "one" }]) {
      checkDisconnectFilter(filter);
    }
  });

  it("throws TypeError naming the key when it is unknown", () => {
    for (const key of ["users", "User", "__proto__", "constructor"]) {
      assert.throws(() => checkFilter(JSON.parse(`{"user":"a","${key}":"x"}`)), {
        name: "TypeError",
        message: `Cannot broadcast: unknown filter key "${key}", use user or role`,
      });
    }
  });
});
