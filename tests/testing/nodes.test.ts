import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { testkit } from "../../src/testing/testkit.ts";
import { WebSocketController } from "../../mod.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { createChat, received } from "./chat.ts";

/** A chat on several nodes, and the parts of each. */
function createNodes(nodes: number) {
  const chats: ReturnType<typeof createChat>[] = [];
  const t = testkit((node) => (chats[node] = createChat()).app, { nodes });
  return { t, chats };
}

describe("testkit, several nodes", () => {
  it("joins them by a broker: publications, broadcasts, members and orders", async () => {
    const { t, chats } = createNodes(3);
    const clients = [await t.connect({ token: "a" }), await t.connect({ token: "b" }), await t.connect({ token: "c", node: 2 })];
    assert.deepEqual(chats.map(({ controller }) => controller.clients().size), [1, 1, 1]);
    const items = clients.map((client) => received(client.subscribe("room:1")));
    const news: unknown[] = [];
    for (const client of clients) client.on("message", ({ message }) => news.push(message["n"]));
    await t.advance(0);
    await clients[0]!.request("say", { text: "hi" });
    await chats[1]!.controller.broadcast({ type: "news", n: 1 });
    await t.advance(0);
    for (const each of items) assert.deepEqual(each.at(-1)?.data, { by: "a", text: "hi" });
    assert.deepEqual(news, [1, 1, 1]);
    const { clients: listed, missing } = await chats[0]!.controller.cluster.clients();
    assert.deepEqual([listed.map(({ user }) => user).sort(), missing], [["a", "b", "c"], []]);
    assert.deepEqual(await chats[0]!.controller.disconnect({ user: "c" }), { missing: [], isSent: true });
    await t.advance(0);
    assert.equal(clients[2]!.status, "closed");
    await t.close();
  });

  it("kills a node, whose clients go on with another and miss nothing", async () => {
    const { t, chats } = createNodes(2);
    const alice = await t.connect({ token: "alice", node: 0 });
    const bob = await t.connect({ token: "bob" }); // Of the nodes in turn, the first.
    const items = received(bob.subscribe("room:1", { presence: true } as never));
    await t.advance(0);
    t.kill(0);
    await chats[1]!.channels.publish("room:1", "said", "missed");
    await t.advance(2_000);
    assert.deepEqual([alice.status, bob.status], ["waiting", "open"]);
    assert.deepEqual(items.map(({ data }) => data), [undefined, "missed"]);
    const asked = chats[1]!.controller.cluster.stats();
    await t.advance(2_000);
    assert.equal((await asked).missing.length, 1);
    await t.advance(20_000);
    assert.deepEqual((await chats[1]!.controller.cluster.stats()).missing, []);
    t.start(0);
    await t.advance(60_000);
    assert.equal(alice.status, "open");
    await t.close();
  });

  it("stops a node as a deploy does", async () => {
    const { t, chats } = createNodes(2);
    const alice = await t.connect({ token: "alice" });
    const closes: unknown[] = [];
    alice.on("close", ({ code }) => closes.push(code));
    await t.stop(0);
    assert.deepEqual(closes, [1001]);
    assert.equal(chats[0]!.controller.isClosed, true);
    await t.advance(1_000);
    assert.deepEqual([alice.status, chats[1]!.controller.clients().size], ["open", 1]);
    assert.throws(() => t.kill(0), /it is not running/);
    assert.throws(() => t.start(1), /it is running/);
    await t.close();
  });

  it("divides the nodes, which catch up when the partition ends", async () => {
    const { t, chats } = createNodes(3);
    const clients = await Promise.all([0, 1, 2].map((node) => t.connect({ token: `user ${node}`, node })));
    const items = clients.map((client) => received(client.subscribe("room:1")));
    const mallory = await t.connect({ token: "mallory", node: 0 });
    await t.advance(5_000);
    t.partition([0], [1, 2]);
    await chats[1]!.channels.publish("room:1", "said", 1);
    await t.advance(10_000);
    assert.deepEqual(items.map((each) => each.length), [1, 2, 2]);
    assert.equal(chats[0]!.controller.engine.status, "unavailable");
    await assert.rejects(chats[0]!.channels.publish("room:1", "said", 2), { code: "ENGINE_UNAVAILABLE" });
    const order = chats[1]!.controller.disconnect({ user: "mallory" });
    await t.advance(5_000);
    assert.equal((await order).isSent, true);
    assert.equal(mallory.status, "open");
    t.heal();
    await t.advance(10_000);
    assert.deepEqual(items.map((each) => each.at(-1)?.data), [1, 1, 1]);
    assert.equal(mallory.status, "closed");
    await t.close();
  });

  it("divides the nodes anew", async () => {
    const { t, chats } = createNodes(3);
    t.partition([0], [1, 2]);
    t.partition([0, 1], [2]);
    await t.advance(0);
    const bob = await t.connect({ token: "bob", node: 1 });
    const items = received(bob.subscribe("room:1"));
    await t.advance(10_000);
    const publish = async (node: number) => {
      const published = chats[node]!.channels.publish("room:1", "said", node).then(() => "published", ({ code }) => code);
      await t.advance(10_000);
      return await published;
    };
    assert.equal(await publish(0), "published");
    assert.deepEqual(items.at(-1)?.data, 0);
    assert.equal(await publish(2), "ENGINE_UNAVAILABLE");
    assert.throws(() => t.partition([0], [1], [7]), /there is none/);
    assert.equal(await publish(0), "published"); // As before.
    t.heal();
    await t.close();
  });

  it("refuses a controller with an engine of its own", () => {
    const tested = () => new WebSocketController({ engine: new MemoryEngine(), logger: false });
    assert.throws(() => testkit(tested, { nodes: 2 }), /has the option engine, leave it out/);
    assert.throws(() => testkit(() => createChat(), { nodes: 2, hibernates: true }), /have no other nodes/);
  });
});
