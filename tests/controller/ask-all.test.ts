/** `controller.askAll`: one question to many clients, on one node and on several. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { AskAllResult } from "../../src/controller/ask-all.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";
import { createNodes } from "./wired-nodes.ts";

type Peer = ReturnType<typeof open>;

/** Answers the last question to each client. */
function answerAll(peers: readonly Peer[], data: (peer: Peer, question: Record<string, unknown>) => unknown): void {
  for (const peer of peers) {
    const { type, uid, ...payload } = peer.transport.take().at(-1)!;
    peer.connection.message(JSON.stringify({ type, uid, status: "ok", data: data(peer, payload) }));
  }
}

const byUser = ({ replies, missing }: AskAllResult) => ({
  replies: replies.map(({ user, data }) => [user, data]).sort(),
  missing: missing.map(({ uid, code }) => [uid, code]),
});

describe("controller.askAll", () => {
  it("asks every client that the filter matches, on all nodes", async () => {
    const { nodes: [a, b] } = createNodes(2);
    const [mika, yuki, noor] = [a!.join("mika"), b!.join("yuki"), b!.join("noor", "editor")];
    const asked = a!.controller.askAll("ready?", { round: 1 }, { role: "reader" });
    await turn();
    answerAll([mika, yuki], ({ client }, { round }) => [client.accountability.user, round]);
    const { replies, missing } = await asked;
    assert.deepEqual(missing, []);
    const nodeOf = ({ engine }: { engine: { host: { node: string } } }) => engine.host.node;
    assert.deepEqual(replies, [
      { node: nodeOf(a!), uid: mika.client.uid, user: "mika", data: ["mika", 1] },
      { node: nodeOf(b!), uid: yuki.client.uid, user: "yuki", data: ["yuki", 1] },
    ]);
    assert.deepEqual(noor.transport.take(), []);
  });

  it("lists who did not answer, refused, left, or answered what does not fit", async () => {
    const { nodes: [a, b] } = createNodes(2);
    const [silent, refusing, leaving, wrong, good] = ["silent", "refusing", "leaving", "wrong", "good"].map((user, number) =>
      (number % 2 ? a : b)!.join(user)
    ) as [Peer, Peer, Peer, Peer, Peer];
    const asked = a!.controller.askAll("ready?", {}, {}, { timeout: 5_000, reply: v.object({ yes: v.boolean() }) });
    await turn();
    const [{ uid }] = refusing.transport.take();
    refusing.connection.message(JSON.stringify({ type: "ready?", uid, status: "error", error: { code: "BUSY" } }));
    leaving.connection.closed(1006, "", false);
    answerAll([wrong, good], (peer) => ({ yes: peer === good ? true : "maybe" }));
    await turn();
    for (const { clock } of [a!, b!]) clock.advance(5_000);
    const result = await asked;
    assert.deepEqual(result.replies.map(({ user, data }) => [user, data]), [["good", { yes: true }]]);
    assert.deepEqual(Object.fromEntries(result.missing.map(({ uid, code }) => [uid, code])), {
      [silent.client.uid]: "TIMEOUT",
      [refusing.client.uid]: "BUSY",
      [leaving.client.uid]: "DISCONNECTED",
      [wrong.client.uid]: "INVALID_PAYLOAD",
    });
  });

  it("validates answers side by side, and lists those whose schema throws or never ends", async () => {
    const { nodes: [a, b] } = createNodes(2);
    const peers = ["throwing", "hanging", "first", "second"].map((user, number) => (number % 2 ? a : b)!.join(user));
    const stall = new Stall();
    let running = 0;
    const check = v.checkAsync(async (user: string) => {
      if (user === "throwing") throw new Error("no database");
      if (++running === 3) stall.resolve(); // All of them run.
      await (user === "hanging" ? new Promise(() => {}) : stall.promise);
      return true;
    });
    const asked = a!.controller.askAll("ready?", {}, {}, { timeout: 5_000, reply: v.pipeAsync(v.string(), check) });
    await turn();
    answerAll(peers, ({ client }) => client.accountability.user);
    for (let turns = 0; turns < 6; turns++) await turn();
    a!.clock.advance(5_000);
    const { replies, missing } = byUser(await asked);
    assert.deepEqual(replies, [["first", "first"], ["second", "second"]]);
    assert.deepEqual(
      new Map(missing as [string, string][]),
      new Map([
        [peers[0]!.client.uid, "INTERNAL_ERROR"],
        [peers[1]!.client.uid, "TIMEOUT"],
      ]),
    );
  });

  it("lists a node that does not answer a second later", async () => {
    const { nodes: [a, b] } = createNodes(2);
    const mika = a!.join("mika");
    b!.join("yuki");
    b!.engine.isCut = true;
    const asked = a!.controller.askAll("ready?", {}, {}, { timeout: 5_000 });
    await turn();
    answerAll([mika], () => 1);
    await turn();
    a!.clock.advance(6_000);
    const { replies, missing } = await asked;
    assert.equal(replies.length, 1);
    assert.deepEqual(missing, [{ node: b!.engine.host.node, code: "TIMEOUT" }]);
  });

  it("lists a client whose answer is not JSON by the time that it comes from its node", async () => {
    const { nodes: [a, b] } = createNodes(2);
    const yuki = b!.join("yuki");
    const errors: unknown[] = [];
    a!.controller.on("error", ({ error }) => void errors.push(error));
    const asked = a!.controller.askAll("ready?", {}, {}, { timeout: 5_000 });
    await turn();
    const { host } = a!.engine;
    a!.engine.host = { ...host, received: (message) => host.received(message.replace('"data":"1"', '"data":"{"')) };
    answerAll([yuki], () => 1);
    assert.deepEqual(byUser(await asked), { replies: [], missing: [[yuki.client.uid, "INTERNAL_ERROR"]] });
    assert.match(String(errors), /SyntaxError/);
  });

  it("asks at most 1,000 clients of a node, and accepts no reply over 16 KiB", async () => {
    const { controller } = observe();
    const peers = Array.from({ length: 1_000 }, () => open(controller));
    const asked = controller.askAll("ready?");
    answerAll(peers, (peer) => "x".repeat(peer === peers[0] ? 16_383 : 10));
    const { replies, missing } = await asked;
    assert.equal(replies.length, 999);
    assert.deepEqual(missing.map(({ uid, code }) => [uid, code]), [[peers[0]!.client.uid, "LIMIT_EXCEEDED"]]);
    open(controller);
    assert.deepEqual(byUser(await controller.askAll("ready?")), { replies: [], missing: [[undefined, "LIMIT_EXCEEDED"]] });
  });

  it("divides the replies of a node into messages that a broker takes", async () => {
    const { wire, nodes: [a, b] } = createNodes(2);
    const peers = Array.from({ length: 100 }, (_, number) => b!.join(`user${number}`));
    const asked = a!.controller.askAll("ready?");
    await turn();
    answerAll(peers, () => "x".repeat(10_000));
    assert.equal((await asked).replies.length, 100);
    assert.ok(wire.messages.length > 4);
    assert.deepEqual(wire.messages.filter(({ length }) => length > 300_000), []);
  });

  it("rejects invalid arguments", async () => {
    const { controller } = observe();
    const wrong = [["", {}], ["x".repeat(65), {}], ["a", { type: 1 }], ["a", { uid: 1 }], ["a", { n: 1n }], ["a", null]] as const;
    for (const [type, payload] of wrong) await assert.rejects(controller.askAll(type, payload as object), TypeError);
    await assert.rejects(controller.askAll("a", {}, { user: "" }), TypeError);
    await assert.rejects(controller.askAll("a", {}, {}, { timeout: 0 }), TypeError);
  });
});
