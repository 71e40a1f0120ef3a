import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "./connect.ts";
import { start } from "./start.ts";

test("what one says in a room reaches those who are in it, under the name of the session", async () => {
  const { url, stop } = await start();
  const [ann, ben] = await Promise.all([
    connect(url, "ann"),
    connect(url, "ben"),
  ]);
  try {
    // A subscription is an async iterator: "init" comes first.
    const kitchen = ben.subscribe("room:kitchen")[Symbol.asyncIterator]();
    assert.equal((await kitchen.next()).value?.event, "init");
    await ann.request("say", { room: "garden", text: "It is raining" });
    await ann.request("say", { room: "kitchen", text: " Tea? " });
    const { value } = await kitchen.next();
    assert.equal(value?.event, "said");
    assert.deepEqual([value.data.from, value.data.text], ["ann", "Tea?"]);
  } finally {
    await Promise.all([ann.close(), ben.close()]);
    await stop();
  }
});

test("a message that is sent again, because its answer did not come, is said once", async () => {
  const { url, stop } = await start();
  const ann = await connect(url, "ann");
  try {
    const kitchen = ann.subscribe("room:kitchen")[Symbol.asyncIterator]();
    assert.equal((await kitchen.next()).value?.event, "init");
    const message = { id: crypto.randomUUID(), room: "kitchen", text: "Tea?" } as const;
    await ann.request("say", message);
    await ann.request("say", message);
    await ann.request("say", { room: "kitchen", text: "Coffee?" });
    for (const text of ["Tea?", "Coffee?"]) {
      const { value } = await kitchen.next();
      assert.equal(value?.event, "said");
      assert.equal(value.data.text, text);
    }
  } finally {
    await ann.close();
    await stop();
  }
});

test("a room that does not exist, an empty message and a foreign name are refused", async () => {
  const { url, stop } = await start();
  const ann = await connect(url, "ann");
  try {
    await assert.rejects(
      ann.subscribe("room:attic")[Symbol.asyncIterator]().next(),
      { code: "FORBIDDEN" },
    );
    await assert.rejects(ann.request("say", { room: "kitchen", text: " " }), {
      code: "INVALID_PAYLOAD",
    });
    const forged = {
      id: "1",
      from: "ben",
      text: "I owe Ann a cake",
      at: Date.now(),
    };
    await assert.rejects(ann.publish("room:kitchen", "said", forged), {
      code: "FORBIDDEN",
    });
  } finally {
    await ann.close();
    await stop();
  }
});
