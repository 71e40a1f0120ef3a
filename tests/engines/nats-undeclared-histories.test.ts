import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { UndeclaredHistories } from "../../src/engines/nats/undeclared-histories.ts";
import { turn } from "../support/waiting.ts";

/** Histories that begin when the test says so. */
function create() {
  const histories = new Set<string>();
  const watchers = new Map<string, Set<() => void>>();
  const answers: (() => void)[] = [];
  const ended: string[] = [];
  const undeclared = new UndeclaredHistories({
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
    undeclared,
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
  it("end an existing history, each time", async () => {
    const { undeclared, ended, add, answer, watched } = create();
    for (let count = 1; count <= 3; count++) {
      add("room");
      void undeclared.afterPublish("room");
      await answer();
      assert.deepEqual([ended.length, watched("room")], [count, 0]);
    }
  });

  it("look for a history once, and end one that begins later", async () => {
    const { undeclared, ended, add, answer, watched } = create();
    void undeclared.afterPublish("room");
    await answer();
    assert.equal(undeclared.afterPublish("room"), undefined);
    assert.equal(watched("room"), 1);
    add("room");
    await answer();
    assert.deepEqual([ended, watched("room")], [["room"], 0]);
  });

  it("keep a history that lacks nothing", async () => {
    const { undeclared, ended, add, answer } = create();
    void undeclared.afterPublish("room");
    await answer();
    add("room");
    assert.deepEqual(ended, []);
    void undeclared.afterPublish("room");
    assert.deepEqual(ended, ["room"]);
  });

  it("look again when a history begins during the first look", async () => {
    const { undeclared, ended, add, answer, watched } = create();
    void undeclared.afterPublish("room");
    add("room");
    await answer();
    assert.equal(watched("room"), 0);
    void undeclared.afterPublish("room");
    assert.deepEqual(ended, ["room"]);
  });

  it("stop watching a channel without publications", async () => {
    const { undeclared, answer, watched } = create();
    void undeclared.afterPublish("room");
    await answer();
    undeclared.stopUnused();
    assert.equal(watched("room"), 1);
    undeclared.stopUnused();
    assert.equal(watched("room"), 0);
    void undeclared.afterPublish("room");
    await answer();
    undeclared.close();
    assert.equal(watched("room"), 0);
  });

  it("watch no channel when the session is closed meanwhile", async () => {
    const { undeclared, answer, watched } = create();
    void undeclared.afterPublish("room");
    undeclared.close();
    await answer();
    assert.equal(watched("room"), 0);
  });
});
