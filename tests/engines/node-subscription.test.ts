import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { NodeMember } from "../../src/engines/broker/presence.ts";
import { NodeSubscription } from "../../src/engines/broker/node-subscription.ts";
import { turn } from "../support/waiting.ts";
import { TestHost } from "./test-host.ts";

/** A subscription without a history, whose broker says who is there when the test lets it. */
function create(checksUntilRemoval = 0) {
  const host = new TestHost();
  const asked: ((users: string[] | Error) => void)[] = [];
  const subscription = new NodeSubscription("room", null, host, {
    follows: () => false,
    checksUntilRemoval,
    read: () => Promise.reject(new Error("It has no history")),
    members: () =>
      new Promise<NodeMember[]>((resolve, reject) =>
        asked.push((users) => users instanceof Error ? reject(users) : resolve(users.map((user) => ({ node: "there", user }))))
      ),
    unknown() {},
    failed() {},
  });
  /** Lets the broker answer the oldest question. */
  const answer = async (...users: string[]) => {
    asked.shift()!(users); // Asked before.
    await turn();
  };
  return {
    subscription,
    asked,
    answer,
    /** Fails the oldest question. */
    async fail() {
      asked.shift()!(new Error("The broker is busy")); // Asked before.
      await turn();
    },
    join: (user: string) => subscription.changed("there", { user }, false),
    leave: (user: string) => subscription.changed("there", { user }, true),
    /** What was told, as `+ann -bob`. */
    told: () =>
      host.presence.splice(0).flatMap(({ joined, left }) => [
        ...joined.map(({ user }) => `+${user}`),
        ...left.map((user) => `-${user}`),
      ]).join(" "),
  };
}

describe("The members of a subscription", () => {
  it("are read at the first change, and only changed ones are reported", async () => {
    const { join, leave, answer, told } = create();
    join("ann");
    await answer("ann", "was there");
    assert.equal(told(), "+ann");
    join("bob");
    leave("was there");
    assert.equal(told(), "+bob -was there");
  });

  it("are read again at the next check when the read failed, and no change is lost", async () => {
    const { subscription, join, leave, fail, answer, told } = create();
    assert.equal(subscription.countCheck(), false);
    join("ann");
    leave("was there");
    await fail();
    assert.equal(told(), "");
    assert.equal(subscription.countCheck(), true);
    const renewed = subscription.renew();
    await answer("ann");
    await renewed;
    assert.equal(told(), "+ann -was there");
    assert.equal(subscription.countCheck(), false);
  });

  it("are reported once when the broker lists them before their join arrives", async () => {
    const { join, answer, told } = create();
    join("ann");
    await answer("ann", "bob");
    join("bob");
    join("bob");
    assert.equal(told(), "+ann +bob");
  });

  it("are reported once when their join arrives during a second read", async () => {
    const { subscription, join, answer, told } = create();
    join("ann");
    await answer("ann", "bob");
    const renewed = subscription.renew();
    join("bob");
    await answer("ann", "bob");
    await renewed;
    assert.equal(told(), "+ann +bob");
  });

  it("are not reported again when a caller has received them in a list", async () => {
    const { subscription, join, answer, told } = create();
    join("ann");
    const members = subscription.members();
    await answer("ann", "bob");
    assert.deepEqual(await members, [{ user: "ann" }, { user: "bob" }]);
    join("bob");
    assert.equal(told(), "+ann");
  });

  it("leave when their node is missing from a list of nodes, unless it has announced one since the last list", async () => {
    const { subscription, join, answer, told } = create();
    join("ann");
    await answer("ann");
    subscription.retainNodes(new Set(["there"]));
    join("bob");
    assert.equal(told(), "+ann +bob");
    // Read before the first heartbeat of the node.
    subscription.retainNodes(new Set());
    assert.equal(told(), "");
    subscription.retainNodes(new Set());
    assert.equal(told(), "-ann -bob");
  });

  it("are reported in their last state when they join and leave during a read", async () => {
    const { join, leave, answer, told } = create();
    join("ann");
    join("bob");
    leave("ann");
    await answer("ann");
    assert.equal(told(), "+bob -ann");
    leave("bob");
    assert.equal(told(), "-bob");
  });

  it("stay until two reads in a row miss them, because a broker may have evicted their keys", async () => {
    const { subscription, join, leave, answer, told } = create();
    const renew = async (...users: string[]) => {
      const renewed = subscription.renew();
      await answer(...users);
      await renewed;
      return [told(), subscription.countCheck()];
    };
    join("ann");
    await answer("ann", "bob", "cid");
    assert.equal(told(), "+ann");
    assert.deepEqual(await renew("ann"), ["", true]);
    assert.deepEqual(await renew("ann", "bob"), ["-cid", false]);
    assert.deepEqual(await renew("ann"), ["", true]);
    // Joined again, and given up again.
    join("bob");
    assert.deepEqual(await renew("ann"), ["+bob", true]);
    // That it has left is known.
    leave("bob");
    assert.equal(told(), "-bob");
    assert.deepEqual(await renew("ann"), ["", false]);
  });

  it("stay for a number of checks, however often they are read meanwhile", async () => {
    const { subscription, join, answer, told } = create(3);
    join("ann");
    await answer("ann", "bob");
    assert.equal(told(), "+ann");
    const results = [];
    for (let check = 1; check <= 5; check++) {
      results.push(subscription.countCheck());
      const renewed = subscription.renew();
      await answer("ann");
      await renewed;
      results.push(told());
    }
    assert.deepEqual(results, [false, "", false, "", false, "", true, "-bob", false, ""]);
  });

  it("are read once for all calls during the read", async () => {
    const { subscription, asked, join, answer } = create();
    const questions = [subscription.members(), subscription.members()];
    join("ann");
    assert.equal(asked.length, 1);
    await answer("ann");
    assert.deepEqual(await Promise.all(questions), [[{ user: "ann" }], [{ user: "ann" }]]);
    await subscription.members();
    assert.equal(asked.length, 0);
  });

  it("are read again when an announcement could not be read during a read", async () => {
    const { subscription, answer, told } = create();
    const members = subscription.members();
    subscription.markStale();
    const renewed = subscription.renew();
    await answer();
    assert.deepEqual(await members, []);
    await renewed;
    assert.equal(subscription.isStale, true);
    const again = subscription.renew();
    await answer("ann");
    await again;
    assert.deepEqual([told(), subscription.isStale], ["+ann", false]);
  });

  it("are read again when the read after such an announcement failed", async () => {
    const { subscription, answer, fail } = create();
    const members = subscription.members();
    await answer("ann");
    await members;
    subscription.markStale();
    const renewed = assert.rejects(subscription.renew());
    await fail();
    await renewed;
    assert.equal(subscription.isStale, true);
  });

  it("are not read for such an announcement before they are requested", async () => {
    const { subscription, asked } = create();
    subscription.markStale();
    await subscription.renew();
    assert.deepEqual([asked.length, subscription.isStale], [0, false]);
  });
});
