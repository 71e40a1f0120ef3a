import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Unkept } from "../../src/engines/nats/unkept.ts";
import { turn } from "../support/waiting.ts";

/** Histories that begin when the test says so. */
function create() {
  const histories = new Set<string>();
  const watchers = new Map<string, Set<() => void>>();
  const answers: (() => void)[] = [];
  const ended: string[] = [];
  const unkept = new Unkept({
    watch(channel, added) {
      const own = () => added();
      watchers.set(channel, (watchers.get(channel) ?? new Set()).add(own));
      return () => void watchers.get(channel)!.delete(own); // As just set.
    },
    // Looked at once, and answered when the test lets it.
    end(channel) {
      const had = histories.delete(channel);
      if (had) ended.push(channel);
      return new Promise((resolve) => answers.push(() => resolve(had)));
    },
    failed: (error) => assert.fail(String(error)),
  });
  return {
    unkept,
    ended,
    add(channel: string) {
      histories.add(channel);
      for (const added of [...watchers.get(channel) ?? []]) added();
    },
    async answer() {
      for (const answer of answers.splice(0)) answer();
      await turn();
    },
    watched: (channel: string) => watchers.get(channel)?.size ?? 0,
  };
}

describe("Publications without a history", () => {
  it("end one that is there, each time", async () => {
    const { unkept, ended, add, answer, watched } = create();
    for (let count = 1; count <= 3; count++) {
      add("room");
      void unkept.afterPublish("room");
      await answer();
      assert.deepEqual([ended.length, watched("room")], [count, 0]);
    }
  });

  it("ask once where there is none, and end one that has begun since", async () => {
    const { unkept, ended, add, answer, watched } = create();
    void unkept.afterPublish("room");
    await answer();
    assert.equal(unkept.afterPublish("room"), undefined);
    assert.equal(watched("room"), 1);
    add("room");
    await answer();
    assert.deepEqual([ended, watched("room")], [["room"], 0]);
  });

  it("leave one alone that lacks nothing", async () => {
    const { unkept, ended, add, answer } = create();
    void unkept.afterPublish("room");
    await answer();
    add("room");
    assert.deepEqual(ended, []);
    void unkept.afterPublish("room");
    assert.deepEqual(ended, ["room"]);
  });

  it("ask again where one has begun while they asked", async () => {
    const { unkept, ended, add, answer, watched } = create();
    void unkept.afterPublish("room");
    add("room");
    await answer();
    assert.equal(watched("room"), 0);
    void unkept.afterPublish("room");
    assert.deepEqual(ended, ["room"]);
  });

  it("watch no channel that nothing is published to any more", async () => {
    const { unkept, answer, watched } = create();
    void unkept.afterPublish("room");
    await answer();
    unkept.round();
    assert.equal(watched("room"), 1);
    unkept.round();
    assert.equal(watched("room"), 0);
    void unkept.afterPublish("room");
    await answer();
    unkept.close();
    assert.equal(watched("room"), 0);
  });
});
