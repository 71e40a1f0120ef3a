import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ClientError } from "../../src/client/client.ts";
import { connectFake } from "../support/fake-server.ts";
import { turn } from "../support/waiting.ts";
import { unhandledIn } from "../support/unhandled.ts";

describe("client.request", () => {
  it("resolves with the data of the answer, whatever the order, and rejects with the server's code", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const [a, b, c] = [client.request("a", { n: 1 }), client.request("b", {}), client.request("c")];
    const sent = socket.take();
    assert.deepEqual(sent.map(({ type, n }) => [type, n]), [["a", 1], ["b", undefined], ["c", undefined]]);
    assert.equal(new Set(sent.map(({ uid }) => uid)).size, 3);
    socket.receive([
      { type: "c", status: "ok", uid: sent[2].uid },
      { type: "b", status: "error", uid: sent[1].uid, error: { code: "NOT_FOUND", message: "No such thing", id: 7 } },
    ]);
    socket.receive({ type: "a", status: "ok", uid: sent[0].uid, data: [1] });
    assert.deepEqual(await a, [1]);
    await assert.rejects(b, { name: "ClientError", code: "NOT_FOUND", message: "No such thing", details: { id: 7 } });
    assert.equal(await c, undefined);
  });

  it("rejects when no answer comes in time, and leaves a late one alone", async () => {
    const { client, clock, admit, take } = connectFake();
    const socket = await admit();
    take();
    const long = client.request("long", {}, { timeout: 0 });
    const short = client.request("short", {}, { timeout: 500 });
    const usual = client.request("usual");
    const [first, second] = socket.take();
    clock.advance(500);
    await assert.rejects(short, { code: "TIMEOUT" });
    socket.receive({ type: "short", status: "ok", uid: second.uid });
    clock.advance(9_499);
    assert.deepEqual(take(), []);
    clock.advance(1);
    await assert.rejects(usual, { code: "TIMEOUT" });
    clock.advance(4_000);
    socket.receive({ type: "long", status: "ok", uid: first.uid, data: "at last" });
    assert.equal(await long, "at last");
  });

  it("rejects with the reason of its signal, before and after it was sent", async () => {
    const { client, admit, clock } = connectFake();
    const early = new AbortController();
    const late = new AbortController();
    const unsent = client.request("unsent", {}, { signal: early.signal });
    early.abort(new Error("changed my mind"));
    await assert.rejects(unsent, /changed my mind/);
    await assert.rejects(client.request("never", {}, { signal: early.signal }), /changed my mind/);
    const socket = await admit();
    assert.deepEqual(socket.take(), []);
    const sent = client.request("sent", {}, { signal: late.signal });
    late.abort();
    await assert.rejects(sent, { name: "AbortError" });
    void client.close();
    socket.end(1000);
    await turn();
    assert.equal(clock.timers, 0);
  });

  it("rejects with ABORTED where signals have no reasons, as in React Native", async () => {
    const { client, admit } = connectFake();
    await admit();
    const signal = Object.assign(new EventTarget(), { aborted: false }) as unknown as AbortSignal; // All that is used of it.
    const asked = client.request("say", {}, { signal });
    signal.dispatchEvent(new Event("abort"));
    await assert.rejects(asked, { name: "ClientError", code: "ABORTED" });
  });

  it("rejects at once when the connection is lost after it was sent, and waits where it was not", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    const sent = client.request("sent");
    socket.end(1012, "Restart");
    await assert.rejects(sent, { code: "DISCONNECTED", message: /1012 Restart.*may have been handled/ });
    const waiting = client.request("waiting");
    clock.advance(500);
    const next = await admit();
    const [{ type, uid }] = next.take();
    assert.equal(type, "waiting");
    next.receive({ type, status: "ok", uid, data: "done" });
    assert.equal(await waiting, "done");
  });

  it("sends what a drained server has not answered again, in order, and before what was waiting", async () => {
    const { client, clock, admit, retry } = connectFake();
    const socket = await admit();
    const [answered, first, second] = ["answered", "first", "second"].map((type) => client.request(type));
    const sent = socket.take();
    socket.receive({ type: "answered", status: "ok", uid: sent[0].uid, data: 1 });
    socket.end(1012, "drained");
    const queued = client.request("queued");
    assert.equal(await answered, 1);
    retry();
    const next = await admit();
    const again = next.take();
    assert.deepEqual(again.map(({ type }) => type), ["first", "second", "queued"]);
    assert.deepEqual(again.slice(0, 2), sent.slice(1));
    for (const { type, uid } of again) next.receive({ type, status: "ok", uid, data: type });
    assert.deepEqual(await Promise.all([first, second, queued]), ["first", "second", "queued"]);
    // The word of the protocol only, and not once more for what was in doubt before.
    clock.advance(10_000);
    const doubtful = client.request("doubtful", {}, { idempotent: true });
    next.end(1012, "Service restart");
    retry();
    const third = await admit();
    third.end(1012, "drained");
    void client.close();
    await assert.rejects(doubtful, { code: "DISCONNECTED" });
  });

  it("is sent again with the same uid, before what came later, where it is idempotent", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    const twice = client.request("twice", { n: 1 }, { idempotent: true });
    const once = client.request("once");
    const twiceToo = client.request("twice", { n: 2 }, { idempotent: true });
    const [first, , third] = socket.take();
    socket.end();
    await assert.rejects(once, { code: "DISCONNECTED" });
    void client.send({ type: "later" });
    clock.advance(500);
    const next = await admit();
    const sent = next.take();
    assert.deepEqual(sent, [first, third, { type: "later" }]);
    next.end();
    clock.advance(1_000);
    const last = await admit();
    assert.deepEqual(last.take(), [first, third]);
    for (const { uid, n } of [first, third]) last.receive({ type: "twice", status: "ok", uid, data: n });
    assert.deepEqual([await twice, await twiceToo], [1, 2]);
  });

  it("is sent again where it publishes with an id", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    const once = client.publish("a", "e", 1, { id: "x" });
    const refused = [client.publish("a", "e", 2), client.publish("a", "e", 3, { id: "y", idempotent: false })];
    const [first] = socket.take();
    assert.deepEqual(first, { type: "publish", channel: "a", event: "e", data: 1, id: "x", uid: first!["uid"] });
    socket.end();
    for (const each of refused) await assert.rejects(each, { code: "DISCONNECTED" });
    clock.advance(500);
    const next = await admit();
    assert.deepEqual(next.take(), [first]);
    next.receive({ type: "publish", status: "ok", uid: first!.uid!, epoch: "k", offset: 7 });
    assert.deepEqual(await once, { epoch: "k", offset: 7 });
  });

  it("is not sent again when a message was too big, nor when the client is closed", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const big = client.request("big", { text: "…" }, { idempotent: true });
    socket.end(1009);
    await assert.rejects(big, { code: "DISCONNECTED" });
    const waiting = client.request("waiting", {}, { idempotent: true });
    void client.close();
    await assert.rejects(waiting, { code: "CLOSED" });
    await assert.rejects(client.request("late"), { code: "CLOSED" });
  });
});

describe("client.handle", () => {
  it("answers the questions of its type with what the handler returns, until it is removed", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const stop = client.handle("double", ({ n }) => Promise.resolve(2 * (n as number)));
    client.handle("nothing", () => {});
    socket.receive({ type: "double", uid: "ask:1", n: 4 });
    socket.receive({ type: "nothing", uid: "ask:2" });
    // Not a question: no uid, or that of something else.
    socket.receive([{ type: "double", n: 4 }, { type: "double", uid: 1, n: 4 }, { type: "other", uid: "ask:3" }]);
    await turn();
    const sent = socket.take().sort((one, other) => one.uid < other.uid ? -1 : 1);
    assert.deepEqual(sent, [{ type: "double", uid: "ask:1", status: "ok", data: 8 }, {
      type: "nothing",
      uid: "ask:2",
      status: "ok",
    }]);
    stop();
    socket.receive({ type: "double", uid: "ask:4", n: 4 });
    await turn();
    assert.deepEqual(socket.take(), []);
  });

  it("answers with the code of a ClientError, and with INTERNAL_ERROR for any other, which it reports", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const errors: Error[] = [];
    client.on("error", ({ error }) => errors.push(error));
    const bug = new Error("a bug");
    client.handle("confirm", ({ isBug }) => {
      throw isBug ? bug : new ClientError("DECLINED", "No");
    });
    for (const isBug of [false, true]) {
      socket.receive({ type: "confirm", uid: "ask:1", isBug });
      await turn();
      const error = { code: isBug ? "INTERNAL_ERROR" : "DECLINED" };
      assert.deepEqual(socket.take(), [{ type: "confirm", uid: "ask:1", status: "error", error }]);
    }
    assert.deepEqual(errors, [bug]);
  });

  it("receives questions and messages with a status of the application", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const [statuses, errors]: [unknown[], Error[]] = [[], []];
    client.on("message", ({ message }) => statuses.push(message["status"]));
    client.on("error", ({ error }) => errors.push(error));
    client.handle("check", ({ status }) => status);
    for (const status of ["shipped", "ok", "error"]) {
      socket.receive({ type: "order", status });
      socket.receive({ type: "check", uid: "ask:1", status });
      await turn();
      assert.deepEqual(socket.take(), [{ type: "check", uid: "ask:1", status: "ok", data: status }]);
    }
    assert.deepEqual([statuses, errors], [["shipped", "shipped", "ok", "ok", "error", "error"], []]);
  });

  it("answers with an error what it cannot send, and reports it once", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const errors: Error[] = [];
    client.on("error", ({ error }) => errors.push(error));
    for (
      const [code, data] of [["INTERNAL_ERROR", { n: 5n }], ["INTERNAL_ERROR", () => {}], ["MESSAGE_TOO_BIG", "x".repeat(65_536)]]
    ) {
      const stop = client.handle("big", () => data);
      socket.receive({ type: "big", uid: "ask:1" });
      for (let turns = 0; turns < 4; turns++) await turn();
      let sent = socket.take();
      if (sent[0].type === "ping") {
        // What may be too big waits until the server has told its limit.
        socket.receive({ type: "pong", uid: sent[0].uid, limits: { payload: 65_536, waiting: 64 } });
        for (let turns = 0; turns < 4; turns++) await turn();
        sent = socket.take();
      }
      assert.deepEqual(sent, [{ type: "big", uid: "ask:1", status: "error", error: { code } }]);
      stop();
    }
    assert.deepEqual(errors.map((error) => error instanceof ClientError ? error.code : error.name), [
      "TypeError",
      "TypeError",
      "MESSAGE_TOO_BIG",
    ]);
  });

  it("reports an answer that came too late", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    const codes: string[] = [];
    client.on("error", ({ error }) => codes.push((error as ClientError).code));
    socket.receive({ type: "confirm", uid: "ask:1", status: "error", error: { code: "NOT_ASKED", message: "" } });
    assert.deepEqual(codes, ["NOT_ASKED"]);
  });
});

describe("client.send", () => {
  it("keeps what it cannot send yet, in order, up to a count and an age, and says what it could not keep", async () => {
    const { client, clock, admit, take } = connectFake({ outbox: { maxMessages: 3, maxAge: 60_000 }, timeout: 1e9 });
    const outcomes: string[] = [];
    const send = (n: number) =>
      client.send({ type: "n", n }).then(() => outcomes.push(`sent ${n}`), (error) => outcomes.push(`${error.code} ${n}`));
    void send(1);
    clock.advance(30_000);
    for (const n of [2, 3, 4]) void send(n);
    await turn();
    assert.deepEqual(outcomes.splice(0), ["OUTBOX_FULL 4"]);
    clock.advance(30_000);
    await turn();
    assert.deepEqual(outcomes.splice(0), ["NOT_CONNECTED 1"]);
    void send(5);
    const socket = await admit();
    await turn();
    assert.deepEqual(socket.take().map(({ n }) => n), [2, 3, 5]);
    assert.deepEqual(outcomes.splice(0), ["sent 2", "sent 3", "sent 5"]);
    assert.deepEqual(take("error").map(({ error }) => error.code), ["OUTBOX_FULL", "NOT_CONNECTED"]);
    void send(6);
    assert.deepEqual(socket.take().map(({ n }) => n), [6]);
    clock.advance(10_000);
  });

  it("may be left alone when it is rejected", async () => {
    const { client, take } = connectFake({ outbox: { maxMessages: 0 } });
    const seen = await unhandledIn(() => void client.send({ type: "lost" }));
    assert.deepEqual(seen, []);
    assert.equal(take("error")[0].error.code, "OUTBOX_FULL");
  });

  it("keeps the order when a listener sends while the outbox is handed on", async () => {
    const { client, admit } = connectFake();
    client.on("status", ({ status }) => void (status === "open" && client.send({ type: "n", n: 3 })));
    client.on("open", () => void client.send({ type: "n", n: 4 }));
    void client.send({ type: "n", n: 1 });
    void client.send({ type: "n", n: 2 });
    const socket = await admit();
    assert.deepEqual(socket.take().map(({ n }) => n), [1, 2, 3, 4]);
  });

  it("waits for the time that the server asks for when it was too fast", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    client.subscribe("news", { onEvent: () => {} });
    const [subscribe] = socket.take();
    socket.receive({ type: "server", status: "error", error: { code: "REQUESTS_EXCEEDED", message: "", retry_after: 3_000 } });
    void client.send({ type: "n", n: 1 });
    clock.advance(2_999);
    void client.send({ type: "n", n: 2 });
    assert.deepEqual(socket.take(), []);
    clock.advance(1);
    // What was not answered may not have been read.
    assert.deepEqual(socket.take(), [subscribe, { type: "n", n: 1 }, { type: "n", n: 2 }]);
  });

  it("sends again what the rate limit discarded, in order and after the wait, and nothing else", async () => {
    const { client, clock, admit, take } = connectFake();
    const socket = await admit();
    const outcomes: unknown[] = [];
    const requests = ["a", "b", "c"].map((text) => client.request("say", { text }).then((data) => outcomes.push(data)));
    const stream = client.stream("ask", { prompt: "Hi" });
    const sent = socket.take().filter(({ type }) => type !== "ping");
    const [a, b, c, ask] = sent;
    assert.deepEqual(sent.map((message) => Object.keys(message).at(-1)), ["uid", "uid", "uid", "uid"]);
    const discard = (uid: unknown, retry_after = 3_000) =>
      socket.receive({ type: "server", status: "error", uid, error: { code: "REQUESTS_EXCEEDED", message: "", retry_after } });
    for (const { uid } of [c, a, ask]) discard(uid);
    socket.receive({ type: "say", status: "ok", uid: b.uid, data: "b" });
    clock.advance(2_999);
    assert.deepEqual(socket.take(), []);
    clock.advance(1);
    assert.deepEqual(socket.take().filter(({ type }) => type !== "ping"), [a, c, ask]);
    for (const { uid, text } of [a, c]) socket.receive({ type: "say", status: "ok", uid, data: text });
    socket.receive({ type: "ask", status: "ok", uid: ask.uid, data: "done" });
    await Promise.all(requests);
    assert.deepEqual([outcomes, await stream.result, take("error")], [["b", "a", "c"], "done", []]);
    // Of a request that is not waited for any more.
    discard(a.uid);
    assert.deepEqual(take("error").map(({ error }) => error.code), ["REQUESTS_EXCEEDED"]);
    // Any other error of the server is the answer.
    const broken = client.request("say", {});
    clock.advance(3_000);
    const { uid } = socket.take().find(({ type }) => type === "say");
    socket.receive({ type: "server", status: "error", uid, error: { code: "INVALID_PAYLOAD", message: "" } });
    await assert.rejects(broken, { code: "INVALID_PAYLOAD" });
  });

  it("rejects what the rate limit discards for too long, as never sent", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    const request = client.request("say", {}, { timeout: 2_000 });
    const { uid } = socket.take().find(({ type }) => type === "say");
    socket.receive({
      type: "server",
      status: "error",
      uid,
      error: { code: "REQUESTS_EXCEEDED", message: "", retry_after: 3_000 },
    });
    clock.advance(2_000);
    await assert.rejects(request, { code: "TIMEOUT", message: "Not sent in time: told to wait" });
    clock.advance(60_000);
    assert.deepEqual(socket.take().filter(({ type }) => type === "say"), []);
  });

  it("sends a discarded answer to a question again", async () => {
    const { client, clock, admit } = connectFake();
    const socket = await admit();
    client.handle("confirm", ({ n }) => n);
    socket.receive({ type: "confirm", uid: "ask:1", n: 1 });
    for (let turns = 0; turns < 4; turns++) await turn();
    const [answer] = socket.take().filter(({ type }) => type === "confirm");
    assert.equal(Object.keys(answer).at(-1), "uid");
    const error = { code: "REQUESTS_EXCEEDED", message: "", retry_after: 1_000 };
    socket.receive({ type: "server", status: "error", uid: "ask:1", error });
    assert.deepEqual(socket.take(), []);
    clock.advance(1_000);
    assert.deepEqual(socket.take(), [answer]);
  });

  it("throws for what JSON cannot hold", async () => {
    const { client } = connectFake();
    await assert.rejects(client.send({ type: "n", n: 1n }), TypeError);
    await assert.rejects(client.request("n", { n: 1n }), TypeError);
  });
});
