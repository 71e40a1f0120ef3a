/** The quotas of a user hold a bounded number of entries, and delete each when it expires. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ChannelQuota } from "../../src/channels/channel-quota.ts";
import { IdQuota } from "../../src/channels/id-quota.ts";
import { heapUsed } from "../support/heap.ts";

const WINDOW = 60_000;
const range = (count: number) => Array.from({ length: count }, (_, number) => number);

describe("IdQuota", () => {
  function create(max: number) {
    const time = { now: 5_000 };
    return { time, quota: new IdQuota(max, WINDOW, () => time.now) };
  }

  it("counts an id once for the window, and anew when the window is over", () => {
    const { quota, time } = create(1);
    assert.deepEqual(["x", "x", "y", "y", "x"].map((id) => quota.takeId("ann", id)), [0, 0, WINDOW, WINDOW, 0]);
    time.now += WINDOW - 1;
    assert.deepEqual(["x", "y"].map((id) => quota.takeId("ann", id)), [0, 1]);
    time.now += 1;
    assert.deepEqual(["x", "y"].map((id) => quota.takeId("ann", id)), [0, WINDOW]);
  });

  it("keeps users apart, whose ids are the same or end where another's begins", () => {
    const { quota } = create(1);
    assert.deepEqual([["ann", "x"], ["bob", "x"], ["an", "n x"]].map(([key, id]) => quota.takeId(key!, id!)), [0, 0, 0]);
  });

  it("still refuses each user after many others have come", () => {
    const { quota, time } = create(1);
    const users = range(1_500).map((number) => `user ${number}`);
    for (const user of users) assert.equal(quota.take(user), 0);
    time.now += WINDOW - 1;
    for (const user of users) assert.equal(quota.take(user), 1);
    time.now += 1;
    for (const user of users) assert.equal(quota.take(user), 0);
  });
});

describe("ChannelQuota", () => {
  const limits = { maxSubscriptionsPerUser: 1, maxNewChannelsPerMinute: 1 };

  it("still refuses each user after many others have come", () => {
    const time = { now: 5_000 };
    const quota = new ChannelQuota(limits, () => time.now);
    const users = range(1_500).map((number) => `user ${number}`);
    for (const user of users) assert.equal(quota.recordName(user, "a"), 0);
    time.now += 59_999;
    for (const user of users) assert.deepEqual(["a", "b"].map((name) => quota.recordName(user, name)), [0, 1]);
    time.now += 1;
    for (const user of users) assert.equal(quota.recordName(user, "b"), 0);
  });
});

describe("The quotas of users that have left", () => {
  it("take no memory", async () => {
    const time = { now: 5_000 };
    const now = () => time.now;
    const ids = new IdQuota(10, WINDOW, now);
    const channels = new ChannelQuota({ maxSubscriptionsPerUser: 10, maxNewChannelsPerMinute: 10 }, now);
    let users = 0;
    const pass = (count: number) => {
      for (const last = users + count; users < last; users++) {
        const user = `user ${users}`;
        ids.takeId(user, "x");
        channels.recordName(user, "a");
        channels.count(user, 1);
        channels.count(user, -1);
        time.now += 100;
      }
    };
    pass(5_000);
    const before = await heapUsed();
    pass(30_000);
    const growth = await heapUsed() - before;
    // Some 80 bytes of each user would be left with the least of them.
    assert.ok(growth < 1_000_000, `the heap has grown by ${growth} bytes`);
  });
});
