import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connectFake } from "../support/fake-server.ts";
import { Stall, turn } from "../support/waiting.ts";

const refusal = (code: string, uid?: unknown, details: object = {}) => ({
  type: "auth",
  status: "error",
  error: { code, message: "No", ...details },
  uid,
});

describe("A client with a token", () => {
  it("shows it in an auth message, and is open when that is accepted", async () => {
    const { client, socket, take } = connectFake({ token: "of ann" });
    const opened = await socket();
    assert.deepEqual([opened.url, opened.protocols], ["wss://example.com/websocket", ["noroshi.v1"]]);
    void client.send({ type: "kept" });
    const reply = client.request("say", { text: "kept too" });
    opened.open();
    const [auth, ...others] = opened.take();
    assert.deepEqual([auth.type, auth.access_token, others], ["auth", "of ann", []]);
    // Neither is the answer to another one.
    opened.receive({ type: "auth", status: "ok" });
    opened.receive({ type: "auth", status: "ok", uid: "other" });
    assert.equal(client.status, "connecting");
    opened.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.equal(client.status, "open");
    const [first, second] = opened.take();
    assert.deepEqual([first, second.type], [{ type: "kept" }, "say"]);
    opened.receive({ type: "say", status: "ok", uid: second.uid, data: 1 });
    assert.equal(await reply, 1);
    assert.deepEqual(take("error"), []);
  });

  it("shows it in the subprotocol or the URL only when asked to", async () => {
    const inProtocol = connectFake({ token: () => "a.b.c", tokenIn: "protocol" });
    const first = await inProtocol.socket();
    assert.deepEqual([first.url, first.protocols], ["wss://example.com/websocket", ["noroshi.v1", "bearer.a.b.c"]]);
    first.open();
    const [{ type }, ...others] = first.sent.map((text) => JSON.parse(text));
    assert.deepEqual([type, others], ["ping", []]);
    first.letIn();
    assert.deepEqual([inProtocol.client.status, first.take()], ["open", []]);

    const inQuery = connectFake({ token: "a&b", tokenIn: "query" });
    const second = await inQuery.socket();
    assert.deepEqual([second.url, second.protocols], ["wss://example.com/websocket?access_token=a%26b", ["noroshi.v1"]]);
  });

  it("asks for it for each connection, and is anonymous without one", async () => {
    const tokens = ["first", "second", undefined, null];
    const { retry, admit, socket } = connectFake({ token: () => Promise.resolve(tokens.shift()) });
    for (const token of ["first", "second", undefined, undefined]) {
      const opened = await socket();
      opened.open();
      assert.equal(opened.sent.map((text) => JSON.parse(text))[0]?.access_token, token);
      opened.end();
      retry();
    }
    await admit();
  });

  it("reconnects later when no token can be obtained", async () => {
    let isFailing = true;
    const { client, clock, take, sockets, admit } = connectFake({
      token: () => isFailing ? Promise.reject(new Error("the login is down")) : "of ann",
    });
    await turn();
    const [{ error }] = take("error");
    assert.deepEqual([error.code, error.cause.message], ["TOKEN_FAILED", "the login is down"]);
    assert.deepEqual([client.status, sockets.length], ["waiting", 0]);
    isFailing = false;
    clock.advance(500);
    await admit();
    assert.equal(client.status, "open");
  });

  it("does not open what was given up while the token was asked for", async () => {
    const stall = new Stall<string>();
    const { client, sockets, clock } = connectFake({ token: () => stall.promise });
    void client.close();
    stall.resolve("late");
    await turn();
    assert.deepEqual([client.status, sockets.length, clock.timers], ["closed", 0, 0]);
  });

  it("is closed when one that cannot be renewed is refused, whether or not the server closes", async () => {
    for (const closes of [true, false]) {
      const { client, socket, take } = connectFake({ token: "wrong" });
      const opened = await socket();
      opened.open();
      const [{ uid }] = opened.take();
      const ready = client.ready;
      opened.receive(refusal("AUTH_FAILED", uid));
      if (closes) opened.end(4401);
      assert.equal(client.status, "closed");
      await assert.rejects(ready, { code: "AUTH_FAILED", message: "No" });
      assert.deepEqual(take("error").map(({ error }) => error.code), ["AUTH_FAILED"]);
      assert.deepEqual(take("close").map(({ code, isFinal }) => [code, isFinal]), [[4401, true]]);
    }
  });

  it("asks once for another one when one is refused", async () => {
    const tokens = ["stale", "fresh", "stale", "stale too"];
    const { client, retry, socket } = connectFake({ token: () => tokens.shift() });
    const answers = [["error", "waiting"], ["ok", "open"], ["lost", "waiting"], ["error", "waiting"], [
      "error",
      "closed",
    ]] as const;
    for (const [answer, status] of answers) {
      const opened = await socket();
      if (answer === "lost") opened.end();
      else {
        opened.open();
        const [{ uid }] = opened.take();
        opened.receive(answer === "ok" ? { type: "auth", status: "ok", uid } : refusal("AUTH_FAILED", uid));
      }
      assert.equal(client.status, status, answer);
      if (status === "waiting") retry();
    }
  });

  it("reconnects with backoff when the server could not verify the token, or after the time that the server asks for", async () => {
    for (
      const [code, closeCode, details] of [["SERVICE_UNAVAILABLE", 1013, {}], ["REQUESTS_EXCEEDED", 1013, {
        retry_after: 9_000,
      }]] as const
    ) {
      const { client, socket, take } = connectFake({ token: "of ann", random: () => 0.5 });
      const opened = await socket();
      opened.open();
      opened.receive(refusal(code, opened.take()[0].uid, details));
      assert.equal(client.status, "waiting");
      const [{ close, delay }] = take("reconnecting");
      assert.deepEqual([close.code, delay], [closeCode, "retry_after" in details ? 9_250 : 250]);
    }
  });
});

describe("A client whose token has expired", () => {
  it("renews it in place, and sends again what was refused meanwhile, in order", async () => {
    const stall = new Stall<string>();
    const tokens = [Promise.resolve("first"), stall.promise];
    const { client, admit, sockets, take } = connectFake({ token: () => tokens.shift() });
    const socket = await admit();
    client.subscribe("news", { onEvent: () => {} });
    const [{ uid: news }] = socket.take();
    // Sent before the server's message has arrived: it answers that the token has expired.
    const crossing = client.request("say", { text: "crossing" });
    const [{ uid }] = socket.take();
    socket.receive(refusal("TOKEN_EXPIRED"));
    socket.receive(refusal("TOKEN_EXPIRED", uid));
    void client.send({ type: "later" });
    await turn();
    assert.deepEqual(socket.take(), []);
    stall.resolve("second");
    await turn();
    const [auth] = socket.take();
    assert.deepEqual([auth.type, auth.access_token], ["auth", "second"]);
    socket.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.deepEqual(socket.take().map(({ type, uid }) => [type, uid]), [
      ["subscribe", news],
      ["say", uid],
      ["later", undefined],
    ]);
    socket.receive({ type: "say", status: "ok", uid, data: "said" });
    assert.equal(await crossing, "said");
    assert.deepEqual([client.status, sockets.length, take("close")], ["open", 1, []]);
  });

  it("sends an answer again that was refused meanwhile", async () => {
    const { client, admit } = connectFake({ token: () => "again" });
    const socket = await admit();
    client.handle("confirm", ({ n }) => n);
    for (const n of [1, 2]) socket.receive({ type: "confirm", uid: `ask:${n}`, n });
    for (let turns = 0; turns < 4; turns++) await turn();
    const answer = { type: "confirm", uid: "ask:2", status: "ok", data: 2 };
    assert.deepEqual(socket.take().at(-1), answer);
    socket.receive(refusal("TOKEN_EXPIRED"));
    socket.receive(refusal("TOKEN_EXPIRED", "ask:2"));
    await turn();
    const [auth, ...others] = socket.take();
    assert.deepEqual(others, []);
    socket.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.deepEqual(socket.take(), [answer]);
  });

  it("sends several requests again in the order of the calls", async () => {
    const { client, admit } = connectFake({ token: () => "again" });
    const socket = await admit();
    socket.take();
    for (const text of ["a", "b", "c"]) client.request("say", { text }).catch(() => {});
    const uids = socket.take().filter(({ type }) => type === "say").map(({ uid }) => uid);
    socket.receive(refusal("TOKEN_EXPIRED"));
    // Answers may come in another order than the requests.
    for (const uid of [uids[1], uids[0], uids[2]]) socket.receive(refusal("TOKEN_EXPIRED", uid));
    await turn();
    const [auth] = socket.take();
    socket.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.deepEqual(socket.take().filter(({ type }) => type === "say").map(({ text }) => text), ["a", "b", "c"]);
  });

  it("subscribes again only to what the server had not answered", async () => {
    const { client, admit } = connectFake({ token: () => "again" });
    const socket = await admit();
    client.subscribe("known", { onEvent: () => {} });
    client.subscribe("unknown", { onEvent: () => {} });
    const [known, unknown] = socket.take();
    socket.receive({ type: "subscription", event: "init", channel: "known", uid: known.uid });
    socket.receive(refusal("TOKEN_EXPIRED", unknown.uid));
    await turn();
    const [auth] = socket.take();
    socket.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.deepEqual(socket.take().map(({ uid }) => uid), [unknown.uid]);
  });

  it("unsubscribes after the next auth from what it could not unsubscribe from, or asked for again in vain", async () => {
    const { client, admit } = connectFake({ token: () => "again" });
    const socket = await admit();
    const asked = client.subscribe("asked", { onEvent: () => {} });
    const left = client.subscribe("left", { onEvent: () => {} });
    const gone = client.subscribe("gone", { onEvent: () => {} });
    const uids = socket.take().map(({ uid }) => uid);
    for (const [i, channel] of ["asked", "left", "gone"].entries()) {
      socket.receive({ type: "subscription", event: "init", channel, uid: uids[i], epoch: "e", offset: 1 });
    }
    gone.unsubscribe();
    socket.receive({ type: "subscription", event: "unsubscribe", uid: uids[2] });
    // The pong shows that something was lost: the client asks for it, and the server goes on with the subscription until it answers.
    socket.receive({ type: "pong", channels: { asked: { epoch: "e", offset: 2 } } });
    left.unsubscribe();
    assert.deepEqual(socket.take().map(({ type, uid }) => [type, uid]), [
      ["unsubscribe", uids[2]],
      ["subscribe", uids[0]],
      ["unsubscribe", uids[1]],
    ]);
    socket.receive(refusal("TOKEN_EXPIRED"));
    for (const uid of [uids[0], uids[1]]) socket.receive(refusal("TOKEN_EXPIRED", uid));
    asked.unsubscribe();
    await turn();
    const [auth, ...others] = socket.take();
    assert.deepEqual(others, []);
    socket.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.deepEqual(
      new Set(socket.take().map(({ type, uid }) => `${type} ${uid}`)),
      new Set([`unsubscribe ${uids[0]}`, `unsubscribe ${uids[1]}`]),
    );
    for (const uid of [uids[0], uids[1]]) socket.receive({ type: "subscription", event: "unsubscribe", uid });
    socket.receive({ type: "auth", status: "ok", uid: auth.uid });
    assert.deepEqual(socket.take(), []);
  });

  it("connects anew when it cannot be renewed in time", async () => {
    let count = 0;
    const { clock, retry, admit, take } = connectFake({
      token: () => ++count === 2 ? new Promise<never>(() => {}) : `token ${count}`,
    });
    const socket = await admit();
    socket.receive(refusal("TOKEN_EXPIRED"));
    clock.advance(10_000);
    assert.equal(take("close")[0].isFinal, false);
    retry();
    await admit();
    assert.equal(count, 3);
  });

  it("is closed when the token is a value: there is no other", async () => {
    const { client, admit, take } = connectFake({ token: "only" });
    (await admit()).receive(refusal("TOKEN_EXPIRED"));
    assert.equal(client.status, "closed");
    assert.equal(take("error")[0].error.code, "TOKEN_EXPIRED");
    assert.equal(take("close")[0].code, 4401);
  });

  it("stays one client when it is told twice", async () => {
    let count = 0;
    const { admit } = connectFake({ token: () => `token ${++count}` });
    const socket = await admit();
    socket.receive(refusal("TOKEN_EXPIRED"));
    socket.receive(refusal("TOKEN_EXPIRED"));
    await turn();
    assert.equal(count, 2);
    assert.equal(socket.take().length, 1);
  });
});
