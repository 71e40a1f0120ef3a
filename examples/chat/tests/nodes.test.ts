import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { redisEngine } from "noroshi/redis";
import { createClient } from "redis";
import { connect } from "./connect.ts";
import { Seen } from "./seen.ts";
import { start } from "./start.ts";

const { REDIS_URL = "" } = process.env;

test("a client that moves to another node goes on where it was", {
  skip: !REDIS_URL && "REDIS_URL is not set",
}, async () => {
  const namespace = crypto.randomUUID().slice(0, 8); // Not the histories of an earlier run.
  const engine = () =>
    redisEngine({
      client: createClient({ url: REDIS_URL }),
      secret: "a secret of the nodes",
      namespace,
    });
  const [one, other] = await Promise.all([
    start({ engine: engine() }),
    start({ engine: engine() }),
  ]);
  const [ann, ben] = await Promise.all([
    connect(one.url, "ann"),
    connect(other.url, "ben"),
  ]);
  const seen = new Seen();
  const listener = seen.listen();
  const say = (text: string) => ann.request("say", { room: "garden", text });
  try {
    const garden = ben.subscribe("room:garden", listener);
    await seen.until("init");
    await say("one");
    await seen.until("one");

    await ben.close();
    await say("two");
    const moved = await connect(one.url, "ben");
    moved.subscribe("room:garden", { ...listener, recover: garden.position! }); // It has a position since "init".
    await seen.until("two");
    assert.deepEqual(seen.all, ["init", "one", "two"]);
    await moved.close();
  } finally {
    await Promise.all([ann.close(), ben.close()]);
    await Promise.all([one.stop(), other.stop()]);
  }
});
