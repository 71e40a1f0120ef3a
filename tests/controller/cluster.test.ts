import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Cluster } from "../../src/controller/cluster.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { createNodes } from "./wired-nodes.ts";
import { Stall, turn } from "../support/waiting.ts";

const order = (type: string, rest: Record<string, unknown>) => JSON.stringify({ type, ...rest });

describe("A cluster", () => {
  it("broadcasts once to the matching clients of every node, encoded once", async () => {
    const { nodes, a, b, wire } = createNodes(3);
    const [ann, bob, cat] = [a.join("ann"), b.join("bob", "editor"), nodes[2]!.join("cat", "editor")];
    const result = a.controller.broadcast({ type: "news", n: 1 });
    assert.deepEqual(ann.transport.sent, ['{"type":"news","n":1}']);
    assert.deepEqual(await result, { matched: 1, sent: 1, dropped: 0 });
    a.controller.broadcast("plain text", { role: "editor" });
    b.controller.broadcast({ type: "hi" }, { user: "ann" });
    await turn();
    assert.deepEqual(ann.transport.sent, ['{"type":"news","n":1}', '{"type":"hi"}']);
    for (const { transport } of [bob, cat]) assert.deepEqual(transport.sent, ['{"type":"news","n":1}', "plain text"]);
    assert.equal(wire.messages.length, 3);
  });

  it("ends a listener once, and not a later one of the same name", async () => {
    const { a, b } = createNodes(2);
    for (const { controller } of [a, b]) controller.start();
    const [sender, receiver] = [a, b].map(({ controller }) => controller.cluster as Cluster) as [Cluster, Cluster]; // As the inspector has it.
    const received: string[] = [];
    const listener = (text: string) => void received.push(text);
    const end = receiver.listen("inspector", listener);
    end();
    const endNext = receiver.listen("inspector", listener);
    end();
    sender.send("inspector", "first");
    await turn();
    endNext();
    sender.send("inspector", "second");
    await turn();
    assert.deepEqual(received, ["first"]);
  });

  it("continues on its own node when nothing can be sent, and reports it", async () => {
    const { a, b } = createNodes(2);
    const [ann, bob] = [a.join("ann"), b.join("bob")];
    a.engine.isCut = true;
    a.controller.broadcast("hello");
    await turn();
    assert.deepEqual([ann.transport.sent, bob.transport.sent], [["hello"], []]);
    assert.deepEqual(a.events.filter(([name]) => name === "error").length, 1);
  });

  it("disconnects on every node, one whose authentication is under way included", async () => {
    const verified = new Stall<{ accountability: { user: string; role: null } }>();
    const { a, b } = createNodes(2, { mode: "handshake", authenticate: () => verified.promise });
    const [ann, bob] = [b.join("ann"), b.join("bob")];
    const pending = open(b.controller, { mode: "handshake" });
    pending.connection.message('{"type":"auth","access_token":"x"}');
    a.controller.disconnect({ user: "ann" }, 4403, "Banned");
    await turn();
    verified.resolve({ accountability: { user: "ann", role: null } });
    await turn();
    assert.deepEqual(ann.transport.closes, [{ code: 4403, reason: "Banned" }]);
    assert.deepEqual(bob.transport.closes, []);
    assert.equal(pending.transport.closes[0]?.code, 4403);
    // A reason that a close frame has no room for is cut on every node.
    a.controller.disconnect({ uid: bob.client.uid }, 4403, "x".repeat(200));
    await turn();
    assert.deepEqual(bob.transport.closes, [{ code: 4403, reason: "x".repeat(123) }]);
  });

  it("asks about rights anew on every node", async () => {
    const asked: string[] = [];
    const { a, b } = createNodes(2, {
      authenticate: () => null,
      revalidate: ({ accountability }) => {
        asked.push(accountability.user!);
        return { accountability };
      },
    });
    a.join("ann");
    b.join("ann");
    b.join("bob");
    await a.controller.refresh({ user: "ann" });
    await turn();
    assert.deepEqual(asked, ["ann", "ann"]);
  });

  it("accepts only signed orders, and reports unsigned ones where they are sent", async () => {
    const { a, b, wire } = createNodes(2, { isSigned: false });
    const [ann, here] = [b.join("ann"), a.join("ann")];
    a.controller.disconnect({ user: "ann" });
    a.controller.disconnect({ user: "ann" });
    assert.equal(here.transport.closes.length, 1);
    b.engine.host.received(order("disconnect", { filter: { user: "ann" }, code: 4403, reason: "" }));
    await turn();
    assert.deepEqual(ann.transport.closes, []);
    assert.deepEqual(wire.messages, []);
    const errors = a.events.flatMap(([name, payload]) => name === "error" ? [String(payload.error)] : []);
    assert.equal(errors.length, 1);
    assert.match(errors[0]!, /pass the engine a secret/);
  });

  it("ignores invalid messages, and filters with unknown keys", async () => {
    const { b } = createNodes(2);
    const bob = b.join("bob");
    const bad = [
      "",
      "{",
      "null",
      "[]",
      order("other", {}),
      order("broadcast", { text: 1, isJson: true, filter: {} }),
      order("broadcast", { text: "x", isJson: true }),
      order("broadcast", { text: "x", isJson: true, filter: { tenant: "x" } }),
      order("broadcast", { text: "x", isJson: true, filter: { user: "" } }),
      order("disconnect", { filter: {}, code: 4403, reason: "" }),
      order("disconnect", { filter: { user: "bob" }, code: 1006, reason: "" }),
      order("disconnect", { filter: { user: "bob" }, code: 4403, reason: "x".repeat(124) }),
      order("answer", { question: "x", node: "y", isLast: true }),
      order("ask", { question: "x", about: "secrets", filter: {} }),
    ];
    for (const message of bad) b.engine.host.received(message);
    await turn();
    assert.deepEqual([bob.transport.sent, bob.transport.closes], [[], []]);
    assert.deepEqual(b.takeNames(), ["connect"]);
    // Fields of a later version are nothing to this one.
    b.engine.host.received(order("broadcast", { text: '{"type":"x"}', isJson: true, filter: {}, later: 1 }));
    assert.deepEqual(bob.transport.sent, ['{"type":"x"}']);
  });

  it("names its clients and its counters, and the nodes that do not answer", async () => {
    const { nodes, a, b } = createNodes(3);
    a.join("ann");
    for (let n = 0; n < 2_500; n++) b.join(`b${n}`, n % 2 ? "editor" : "reader");
    nodes[2]!.join("cat");
    nodes[2]!.engine.isCut = true;
    const asked = a.controller.cluster.clients({}, { timeout: 500 });
    await turn();
    a.clock.advance(500);
    const { clients, missing } = await asked;
    assert.equal(clients.length, 2_501);
    assert.equal(new Set(clients.map(({ uid }) => uid)).size, 2_501);
    assert.deepEqual(missing, [nodes[2]!.engine.host.node]);
    nodes[2]!.engine.isCut = false;
    const editors = await a.controller.cluster.clients({ role: "editor" });
    assert.deepEqual([editors.clients.length, editors.missing], [1_250, []]);
    const [client] = (await a.controller.cluster.clients({ user: "cat" })).clients;
    assert.deepEqual({ ...client, uid: "" }, { node: nodes[2]!.engine.host.node, uid: "", user: "cat", role: "reader" });
    const stats = await a.controller.cluster.stats();
    assert.deepEqual(Object.values(stats.nodes).map(({ clients }) => clients).sort(), [1, 1, 2_500]);
    assert.equal(a.controller.stats().deadlines, 0);
  });

  it("reads the counters of a node that counts other things, and sends numbers alone where an earlier version reads them", async () => {
    const { a, b, wire } = createNodes(2);
    const { connection } = b.join("bob");
    connection.closed(1000, "", true);
    const { nodes } = await a.controller.cluster.stats();
    assert.deepEqual(nodes[b.engine.host.node], b.controller.stats());
    const answer = JSON.parse(wire.messages.find((text) => text.includes('"answer"'))!);
    assert.deepEqual(new Set(Object.values(answer.stats).map((value) => typeof value)), new Set(["number"]));
  });

  it("calls a node by its name, and each start of it something else", async () => {
    const { nodes } = createNodes(2, { node: "berlin-1" });
    const [one, other] = await Promise.all(
      nodes.map(async ({ controller }) => Object.keys((await controller.cluster.stats()).nodes)[0]),
    );
    assert.match(one!, /^berlin-1-[0-9a-f]{12}$/);
    assert.notEqual(one, other);
  });

  it("is this node alone without an engine", async () => {
    const { controller } = observe();
    const { client, connection } = open(controller, { identity: { accountability: { user: "ann", role: null } } });
    const { clients, missing } = await controller.cluster.clients();
    assert.deepEqual(clients.map(({ uid, user }) => [uid, user]), [[client.uid, "ann"]]);
    assert.deepEqual(missing, []);
    assert.equal(Object.keys((await controller.cluster.stats()).nodes).length, 1);
    assert.equal(controller.engine.status, "ready");
    connection.closed(1000, "", true);
    await controller.close();
    assert.equal(controller.engine.status, "closed");
  });
});
