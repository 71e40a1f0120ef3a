/** A client whose rate is used up by others of its user. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController } from "../../src/controller/controller.ts";
import { testkit } from "../../src/testing/testkit.ts";

/** An app whose users may send ten messages and one a second, and whose tokens last for 30 s. */
function create() {
  let verified = 0;
  const t = testkit(() => {
    const controller = new WebSocketController({
      mode: "handshake",
      rateLimit: { messages: 1, burst: 10 },
      logger: false,
      authenticate: () => {
        verified++;
        return { accountability: { user: "ann", role: null }, expires_at: Math.floor(t.now / 1_000) + 30 };
      },
    });
    controller.handle("count", v.object({}), async function* () {
      for (let n = 0; n < 200; n++) yield n;
    });
    return new Hono().get("/websocket", controller.upgrade);
  }, { now: 1_700_000_000_000 });
  /** Uses up the rate of the user. */
  const flood = async () => {
    const other = await t.socket({ headers: { authorization: "Bearer valid" } });
    for (let n = 0; n < 60; n++) other.send({ type: "ping" });
    await t.advance(0);
  };
  return { t, flood, verified: () => verified };
}

describe("A client whose rate is used up by others of its user", () => {
  it("renews its token in time", async () => {
    const { t, flood, verified } = create();
    const tokens = ["first", "second"];
    const client = await t.connect({ token: () => tokens.shift() ?? "more" });
    const statuses: string[] = [];
    client.on("status", ({ status }) => statuses.push(status));
    await t.advance(29_900);
    await flood();
    const before = verified();
    await t.advance(500);
    assert.deepEqual([verified() - before, statuses, client.status], [1, [], "open"]);
    await t.close();
  });

  it("reads a stream to its end", async () => {
    const { t, flood } = create();
    const client = await t.connect({ token: "first" });
    const stream = client.stream("count");
    const iterator = stream[Symbol.asyncIterator]();
    const items = [(await iterator.next()).value];
    await flood();
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) items.push(next.value);
    assert.equal(items.length, 200);
    await t.close();
  });
});
