import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connectFake } from "../support/fake-server.ts";
import { Random } from "../support/random.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { turn } from "../support/waiting.ts";

describe("A client whose server is broken or hostile", () => {
  it("ignores frames that are no messages, and reports them", async () => {
    const { client, admit, take } = connectFake();
    const socket = await admit();
    take();
    const nonsense = [
      "",
      "x",
      "{",
      "null",
      "1",
      '"x"',
      "{}",
      '{"type":1}',
      '{"type":null}',
      "[1,null,{}]",
      "\u0000",
      '{"type":"x"',
    ];
    for (const frame of nonsense) socket.receive(frame);
    socket.onmessage?.({ data: new ArrayBuffer(8) } as never);
    socket.onmessage?.({ data: undefined } as never);
    const errors = take("error");
    assert.equal(errors.length, nonsense.length + 4);
    assert.ok(errors.every(({ error }) => error.code === "INVALID_MESSAGE"));
    assert.deepEqual([take(), client.status], [[], "open"]);
    socket.receive([]);
    socket.receive([{ type: "a" }, null, { type: "b" }]);
    assert.deepEqual(take("message").map(({ message }) => message.type), ["a", "b"]);
  });

  it("reads no frame that is too large, and ends the connection", async () => {
    const { client, admit, take } = connectFake({ heartbeat: 0 });
    const socket = await admit();
    socket.receive(`{"type":"x","text":"${"x".repeat(2 ** 24)}"}`);
    assert.deepEqual(take("message"), []);
    assert.deepEqual([take("close")[0].code, client.status], [1009, "waiting"]);
    assert.deepEqual(socket.closedWith, { code: 4000, reason: "Message too big" });
  });

  it("reads nothing that is nested too deep, brackets in strings apart", async () => {
    const { admit, take } = connectFake();
    const socket = await admit();
    const deep = (levels: number) => `{"type":"x","data":${"[".repeat(levels)}${"]".repeat(levels)}}`;
    for (const levels of [100, 10_000, 1_000_000]) socket.receive(deep(levels));
    socket.receive(`{"type":"x","data":${"[".repeat(1_000_000)}`);
    assert.deepEqual([take("message"), take("error").length], [[], 4]);
    socket.receive(deep(99));
    socket.receive({ type: "x", text: '\\"[{"'.repeat(1_000) });
    assert.equal(take("message").length, 2);
  });

  it("drops __proto__ at any depth, however it is written", async () => {
    const { admit, take } = connectFake();
    const socket = await admit();
    socket.receive('{"type":"x","__proto__":{"admin":true},"a":{"__pro\\u0074o__":{"admin":true}}}');
    const [{ message }] = take("message");
    const merged = Object.assign({}, message, message.a);
    assert.deepEqual([merged.admin, Object.keys(message)], [undefined, ["type", "a"]]);
  });

  it("survives any field of any type in any message", async () => {
    const random = new Random();
    const { client, admit, clock } = connectFake({ token: () => "of ann", heartbeat: 5_000 });
    const uids: unknown[] = [];
    const values = (): unknown =>
      random.pick([
        null,
        true,
        0,
        -1,
        1e308,
        "",
        "x",
        "init",
        "unsubscribe",
        "ok",
        "error",
        [],
        [null],
        {},
        { toString: 1 },
        {
          valueOf: 1,
          toString: 1,
          startsWith: 1,
          length: -1,
          then: 1,
        },
        { code: { toString: 1 }, message: 7, retry_after: { valueOf: 1, toString: 1 } },
        { code: "TOKEN_EXPIRED" },
        {
          code: "SERVICE_UNAVAILABLE",
          retry_after: 1e300,
        },
        ["length"],
        [{ user: {} }],
        { news: { epoch: {}, offset: "x" } },
        ...uids,
      ]);
    const fields = [
      "uid",
      "status",
      "event",
      "channel",
      "data",
      "offset",
      "epoch",
      "recovered",
      "members",
      "channels",
      "error",
      "reason",
    ];
    const types = ["auth", "ping", "pong", "subscription", "subscribe", "unsubscribe", "presence", "publish", "server", "say"];
    const seen = await unhandledIn(async () => {
      let socket = await admit();
      for (let step = 0; step < 3_000; step++) {
        if (step % 50 === 0) {
          const asked = client.request("say", {}, { idempotent: step % 100 === 0 });
          asked.catch(() => {});
          client.subscribe("news", { onEvent: () => {}, onPresence: () => {} });
          const iterator = client.subscribe("news", { buffer: 2 })[Symbol.asyncIterator]();
          void (async () => {
            while (!(await iterator.next()).done);
          })().catch(() => {});
          uids.splice(0, uids.length, ...socket.take().map(({ uid }) => uid));
        }
        const message: Record<string, unknown> = { type: random.pick(types) };
        for (let n = random.below(6); n > 0; n--) message[random.pick(fields)] = values();
        assert.doesNotThrow(() => socket.receive(message), `SEED=${random.seed} ${JSON.stringify(message)}`);
        if (client.status === "closed") client.connect();
        if (client.status !== "open") {
          clock.advance(400_000);
          await turn();
          socket = await admit();
        }
      }
    });
    assert.deepEqual(seen, [], `SEED=${random.seed}`);
    void client.close();
  });

  it("asks no more often than its heartbeat, whatever a pong claims", async () => {
    const { client, clock, admit } = connectFake({ heartbeat: 5_000 });
    const socket = await admit();
    client.subscribe("news", { onEvent: () => {} });
    const [{ uid }] = socket.take();
    const pong = () => {
      clock.advance(5_000);
      const [{ uid: asked }, ...others] = socket.take();
      assert.equal(others.length, 0);
      socket.receive({ type: "pong", uid: asked, channels: { news: { epoch: "e", offset: 1e15 } } });
    };
    for (let n = 0; n < 10; n++) {
      socket.receive({ type: "subscription", event: "init", channel: "news", uid, epoch: "e", offset: 1 });
      pong();
      assert.equal(socket.take().length, 1);
      // It waits for the answer.
      pong();
      assert.equal(socket.take().length, 0);
    }
  });

  it("leaves nothing behind when it is closed: no timer and no listener", async () => {
    const { client, clock, admit } = connectFake({ heartbeat: 5_000 });
    const socket = await admit();
    client.subscribe("news", { onEvent: () => {} });
    const [{ uid }] = socket.take();
    const unavailable = { code: "SERVICE_UNAVAILABLE", message: "", retry_after: 200_000 };
    socket.receive({ type: "subscribe", status: "error", uid, error: unavailable });
    socket.receive({ type: "server", status: "error", error: { ...unavailable, code: "REQUESTS_EXCEEDED" } });
    client.request("say").catch(() => {});
    void client.send({ type: "say" });
    void client.close();
    socket.end(1000);
    await turn();
    assert.equal(clock.timers, 0);
  });
});
