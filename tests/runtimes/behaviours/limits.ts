import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { frame, frames, Wire } from "../wire.ts";

/** How much a client may send, and how long it may be silent. */
export const limits: Behaviour[] = [
  {
    title: "messages over the rate are answered REQUESTS_EXCEEDED with retry_after, before they are read",
    async run(server) {
      const wire = await Wire.open(server.port, "/limited");
      for (let uid = 0; uid < 5; uid++) assert.equal((await wire.ask({ type: "ping", uid })).uid, uid);
      const { type, status, error } = await wire.ask("{ not even JSON");
      assert.deepEqual({ type, status, code: error.code, retry: error.retry_after }, {
        type: "server",
        status: "error",
        code: "REQUESTS_EXCEEDED",
        retry: 1000,
      });
      await server.control("limited", "advance", { ms: 1_000 });
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  {
    title: "a message over the rate is answered by the uid that it ends with, however many are",
    async run(server) {
      const wire = await Wire.open(server.port, "/limited");
      for (let uid = 0; uid < 5; uid++) assert.equal((await wire.ask({ type: "ping", uid })).uid, uid);
      wire.write(frames(
        { type: "echo", text: "a", uid: 5 },
        { type: "echo", text: "b", uid: "six" },
        { uid: 7, type: "echo", text: "read to its end only" },
        { type: "echo", data: { uid: 8 } },
        { type: "stream.cancel", uid: 9 },
        { type: "echo", uid: 10 },
      ));
      for (const uid of [5, "six", 10]) {
        const { type, status, error, ...rest } = await wire.next();
        assert.deepEqual([type, status, error.code, error.retry_after], ["server", "error", "REQUESTS_EXCEEDED", 1_000]);
        assert.deepEqual(rest, { uid });
      }
      await server.control("limited", "advance", { ms: 1_000 });
      assert.equal((await wire.ask({ type: "ping", uid: 11 })).uid, 11);
    },
  },
  {
    title: "an auth over the rate is read once in a wait, and other messages wait until it is paid for",
    async run(server) {
      const wire = await Wire.open(server.port, "/limited?access_token=ann");
      for (let uid = 0; uid < 5; uid++) assert.equal((await wire.ask({ type: "ping", uid })).uid, uid);
      assert.equal((await wire.ask({ type: "auth", access_token: "ann", uid: 5 })).status, "ok");
      for (const [ms, type] of [[0, "auth"], [1_000, "ping"]] as const) {
        await server.control("limited", "advance", { ms });
        assert.equal((await wire.ask({ type, access_token: "ann", uid: 6 })).error.code, "REQUESTS_EXCEEDED");
      }
      await server.control("limited", "advance", { ms: 1_100 });
      assert.equal((await wire.ask({ type: "ping", uid: 7 })).type, "pong");
    },
  },
  {
    title: "bytes over the rate are answered REQUESTS_EXCEEDED",
    async run(server) {
      const wire = await Wire.open(server.port, "/limited");
      await wire.ask({ type: "echo", text: "x".repeat(1_500) });
      assert.equal((await wire.ask({ type: "echo", text: "x".repeat(1_500) })).error.code, "REQUESTS_EXCEEDED");
    },
  },
  {
    title: "the rate outlives the connection and is the user's over all connections",
    async run(server) {
      const first = await Wire.open(server.port, "/limited?access_token=ann");
      for (let uid = 0; uid < 5; uid++) await first.ask({ type: "ping", uid });
      await first.close(1000);
      const again = await Wire.open(server.port, "/limited?access_token=ann");
      assert.equal((await again.ask({ type: "ping", uid: 9 })).error.code, "REQUESTS_EXCEEDED");
      const other = await Wire.open(server.port, "/limited?access_token=bob");
      assert.equal((await other.ask({ type: "ping", uid: 9 })).type, "pong");
    },
  },
  {
    title: "a client that goes on after a hundred refusals is closed with 4529",
    async run(server) {
      const wire = await Wire.open(server.port, "/limited");
      wire.write(frames(...Array.from({ length: 200 }, (_, uid) => ({ type: "ping", uid }))));
      assert.equal((await wire.closed).code, 4529);
      const [{ cause }] = await server.control("limited", "wait", { event: "close" });
      assert.equal(cause, "rate");
      const { closedBy, limited } = await server.control("limited", "stats");
      assert.deepEqual([closedBy.rate, limited], [1, 101]);
      await Wire.open(server.port, "/public");
    },
  },
  {
    title: "a client that floods evenly is closed with 4529 though some of its messages are let through",
    async run(server) {
      const wire = await Wire.open(server.port, "/limited");
      const pings = frames(...Array.from({ length: 60 }, (_, uid) => ({ type: "ping", uid })));
      wire.write(pings);
      for (let n = 0; n < 5; n++) assert.equal((await wire.next()).type, "pong");
      assert.equal((await wire.next()).error.code, "REQUESTS_EXCEEDED");
      // One more is let through, and no row of refusals is a hundred long.
      await server.control("limited", "advance", { ms: 1_000 });
      wire.write(pings);
      const [{ code, cause }] = await server.control("limited", "wait", { event: "close" });
      assert.deepEqual({ code, cause }, { code: 4529, cause: "rate" });
    },
  },
  {
    title: "subscriptions are limited for a user over all connections, without effect on other users",
    async run(server) {
      const [first, second, other] = await Promise.all(
        ["ann", "ann", "bob"].map((user) => Wire.open(server.port, `/capped?access_token=${user}`)),
      ) as [Wire, Wire, Wire];
      for (const uid of [1, 2]) assert.equal((await first.ask({ type: "subscribe", channel: "a", uid })).event, "init");
      assert.equal((await second.ask({ type: "subscribe", channel: "a", uid: 1 })).event, "init");
      const { type, status, error, uid } = await second.ask({ type: "subscribe", channel: "b", uid: 2 });
      assert.deepEqual([type, status, error.code, uid], ["subscribe", "error", "LIMIT_EXCEEDED", 2]);
      assert.equal((await other.ask({ type: "subscribe", channel: "a", uid: 2 })).event, "init");
      first.reset();
      await server.control("capped", "wait", { event: "close" });
      assert.equal((await second.ask({ type: "subscribe", channel: "b", uid: 2 })).event, "init");
    },
  },
  {
    title: "the channels that a user names are limited, and the request beyond the limit is refused by its uid",
    async run(server) {
      const wire = await Wire.open(server.port, "/capped?access_token=ann");
      for (let uid = 0; uid < 4; uid++) {
        assert.equal((await wire.ask({ type: "publish", channel: `c${uid}`, event: "e", uid })).status, "ok");
      }
      for (const message of [{ type: "publish", event: "e" }, { type: "subscribe" }]) {
        const { type, error, uid } = await wire.ask({ ...message, channel: "c5", uid: "more" });
        assert.deepEqual([type, error.code, error.retry_after, uid], [message.type, "REQUESTS_EXCEEDED", 60_000, "more"]);
      }
      assert.equal((await wire.ask({ type: "publish", channel: "c0", event: "e", uid: 5 })).status, "ok");
      await server.control("capped", "advance", { ms: 60_000 });
      assert.equal((await wire.ask({ type: "publish", channel: "c5", event: "e", uid: 6 })).status, "ok");
    },
  },
  ...([
    ["a snapshot", { channel: "rows" }],
    ["what was missed", { channel: "a", recover: { epoch: "e", offset: 0 } }],
    ["the members", { channel: "a", presence: true }],
  ] as const).map(([what, asked]): Behaviour => ({
    title: `a subscribe that asks for ${what} costs more than a message, and is refused by its uid`,
    async run(server) {
      const wire = await Wire.open(server.port, "/capped?access_token=ann");
      // Six cost three each, and two are left of twenty.
      for (let n = 0; n < 6; n++) {
        assert.equal((await wire.ask({ type: "subscribe", uid: "sub", ...asked })).event, "init");
        if ("presence" in asked) { for (let more = 0; more < (n === 0 ? 2 : 1); more++) await wire.next(); }
      }
      const { type, error, uid } = await wire.ask({ type: "subscribe", uid: "more", ...asked });
      assert.deepEqual([type, error.code, error.retry_after, uid], ["subscribe", "REQUESTS_EXCEEDED", 1_000, "more"]);
      // Its own message was the last but one.
      assert.equal((await wire.ask({ type: "ping", uid: 1 })).type, "pong");
      const { error: { code }, ...rest } = await wire.ask({ type: "ping", uid: 2 });
      assert.deepEqual([code, rest.type, rest.uid], ["REQUESTS_EXCEEDED", "server", 2]);
      assert.equal((await server.control("capped", "stats")).limited, 2);
    },
  })),
  {
    title: "an auth costs a message for each subscription that it re-authorizes, and later messages wait for that",
    async run(server) {
      const wire = await Wire.open(server.port, "/capped?access_token=ann");
      for (const uid of [1, 2, 3]) assert.equal((await wire.ask({ type: "subscribe", channel: "a", uid })).event, "init");
      // Five cost four each, and seventeen are left of twenty.
      for (let uid = 0; uid < 5; uid++) assert.equal((await wire.ask({ type: "auth", access_token: "ann", uid })).status, "ok");
      const { type, error, uid } = await wire.ask({ type: "ping", uid: "too many" });
      assert.deepEqual([type, error.code, error.retry_after, uid], ["server", "REQUESTS_EXCEEDED", 4_000, "too many"]);
      await server.control("capped", "advance", { ms: 4_000 });
      assert.equal((await wire.ask({ type: "ping", uid: 1 })).type, "pong");
    },
  },
  {
    title: "an address from which thirty attempts failed is answered 429, and REQUESTS_EXCEEDED to a message",
    async run(server) {
      for (let i = 0; i < 30; i++) {
        assert.equal((await Wire.request(server.port, "/handshake?access_token=bad")).answer.status, 401);
      }
      const { answer } = await Wire.request(server.port, "/handshake?access_token=ann");
      assert.equal(answer.status, 429);
      assert.equal(answer.headers["retry-after"], "1");
      const wire = await Wire.open(server.port, "/handshake");
      const { error } = await wire.ask({ type: "auth", access_token: "ann" });
      assert.deepEqual({ code: error.code, retry: error.retry_after }, { code: "REQUESTS_EXCEEDED", retry: 1000 });
      assert.equal((await wire.closed).code, 4529);
      await server.control("handshake", "advance", { ms: 1_000 });
      await Wire.open(server.port, "/handshake?access_token=ann");
    },
  },
  {
    title: "attempts that succeed are not counted",
    async run({ port }) {
      for (let i = 0; i < 40; i++) (await Wire.open(port, "/handshake?access_token=ann")).reset();
    },
  },
  {
    title: "a connection that has reached maxAge is closed with 1012, and another one may be opened",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/aging");
      await wire.ask({ type: "ping" });
      await server.pause();
      await server.control("aging", "advance", { ms: 53_999 });
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      await server.control("aging", "advance", { ms: 6_001 });
      const { code, reason } = await wire.closed;
      assert.deepEqual({ code, reason }, { code: 1012, reason: "Maximum age" });
      const [{ cause }] = await server.control("aging", "wait", { event: "close" });
      assert.equal(cause, "age");
      assert.equal((await (await Wire.open(server.port, "/aging")).ask({ type: "ping" })).type, "pong");
    },
  },
  {
    title: "an unresponsive peer that is written to is closed with 4504 within two periods",
    async run(server) {
      const wire = await Wire.open(server.port, "/beating");
      wire.answersPing = false;
      await server.control("beating", "advance", { ms: 1_000 });
      await server.control("beating", "broadcast", { message: { type: "news" } });
      await server.control("beating", "advance", { ms: 1_000 });
      const [{ code, cause }] = await server.control("beating", "wait", { event: "close" });
      assert.deepEqual({ code, cause }, { code: 4504, cause: "heartbeat" });
    },
  },
  {
    title: "a plain listener that answers protocol pings is never closed",
    async run(server) {
      const wire = await Wire.open(server.port, "/beating");
      for (let period = 1; period <= 10; period++) {
        await server.control("beating", "advance", { ms: 1_000 });
        await wire.pinged(period);
      }
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  {
    title: "heartbeat.message asks the client with a ping message",
    async run(server) {
      const wire = await Wire.open(server.port, "/asking");
      for (let period = 0; period < 3; period++) {
        await server.control("asking", "advance", { ms: 1_000 });
        assert.deepEqual(await wire.next(), { type: "ping" });
        wire.send({ type: "pong" });
        assert.equal((await wire.ask({ type: "ping", uid: period })).uid, period);
      }
    },
  },
  {
    title: "a protocol ping from the client is a sign of life",
    async run(server) {
      const wire = await Wire.open(server.port, "/beating");
      wire.answersPing = false;
      for (let period = 0; period < 5; period++) {
        await server.control("beating", "advance", { ms: 1_000 });
        wire.write(frame(9, "here"));
        await wire.ponged(period + 1);
      }
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    },
  },
  {
    title: "no timer is left when no client is connected",
    async run(server) {
      const wire = await Wire.open(server.port, "/beating");
      await wire.close(1000);
      await server.control("beating", "quiet");
      const { deadlines, keys } = await server.control("beating", "stats");
      assert.deepEqual({ deadlines, keys }, { deadlines: 0, keys: 0 });
    },
  },
  ...([
    ["client", { do: (wire: Wire) => wire.close(1000) }],
    ["error", { do: (wire: Wire) => wire.reset() }],
    ["server", { do: (wire: Wire) => wire.send({ type: "close" }) }],
    ["payload", { do: (wire: Wire) => wire.send("x".repeat(70_000)) }],
  ] as const).map(([cause, step]): Behaviour => ({
    title: `a close event has its cause: ${cause}`,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await wire.ask({ type: "ping" });
      void step.do(wire);
      const [event] = await server.control("public", "wait", { event: "close" });
      assert.equal(event.cause, cause);
    },
  })),
];
