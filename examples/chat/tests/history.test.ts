import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "./connect.ts";
import { Seen } from "./seen.ts";
import { start } from "./start.ts";

test("a client that was away receives what was said meanwhile, in order and without a gap", async () => {
  const { url, stop } = await start();
  const [ann, ben] = await Promise.all([
    connect(url, "ann"),
    connect(url, "ben"),
  ]);
  const seen = new Seen();
  const listener = seen.listen();
  const say = (text: string) => ann.request("say", { room: "garden", text });
  try {
    await say("zero");
    const garden = ben.subscribe("room:garden", listener);
    await seen.until("zero");
    await say("one");
    await seen.until("one");

    await ben.close();
    await say("two");
    await say("three");
    const back = await connect(url, "ben");
    back.subscribe("room:garden", { ...listener, recover: garden.position! }); // It has a position since "init".
    await seen.until("three");
    assert.deepEqual(seen.all, ["init", "zero", "one", "two", "three"]);
    await back.close();
  } finally {
    await Promise.all([ann.close(), ben.close()]);
    await stop();
  }
});

test("those in a room see who comes and who leaves", async () => {
  const { url, stop } = await start();
  const [ann, ben] = await Promise.all([
    connect(url, "ann"),
    connect(url, "ben"),
  ]);
  const seen = new Seen();
  try {
    ann.subscribe("room:lobby", {
      onPresence: ({ present }) => seen.add(present.map(({ user }) => user).sort().join(" ")),
    });
    await seen.until("ann");
    ben.subscribe("room:lobby", { presence: true });
    await seen.until("ann ben");
    await ben.close();
    await seen.until("ann");
  } finally {
    await Promise.all([ann.close(), ben.close()]);
    await stop();
  }
});
