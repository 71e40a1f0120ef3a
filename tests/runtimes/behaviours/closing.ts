import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { frame, frames, Wire } from "../wire.ts";

/** The close event, seen once: a second one would be there by the time another client has been served. */
async function closeEvent(server: TestServer, subject = "public") {
  await server.control(subject, "wait", { event: "close" });
  const barrier = await Wire.open(server.port, "/plain");
  await barrier.ask({ type: "ping" });
  barrier.reset();
  const events = (await server.control(subject, "log")).filter(({ event }: { event: string }) => event === "close");
  assert.equal(events.length, 1, JSON.stringify(events));
  const { code, reason, wasClean, readyState, listed } = events[0];
  assert.deepEqual({ readyState, listed }, { readyState: 3, listed: false });
  return { code, reason, wasClean };
}

/** How connections end. */
export const closing: Behaviour[] = [
  {
    title: "a client's close is answered with its code, and reported with code and reason",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await server.pause();
      assert.equal((await wire.close(4321, "grüße")).code, 4321);
      assert.deepEqual(await closeEvent(server), { code: 4321, reason: "grüße", wasClean: true });
    },
  },
  {
    title: "a client's normal close is reported as 1000",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      assert.equal((await wire.close(1000)).code, 1000);
      assert.deepEqual(await closeEvent(server), { code: 1000, reason: "", wasClean: true });
    },
  },
  {
    title: "a client's close without a code is reported as 1005",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      assert.ok([1000, 1005].includes((await wire.close()).code));
      assert.deepEqual(await closeEvent(server), { code: 1005, reason: "", wasClean: true });
    },
  },
  {
    title: "an abrupt reset is one close with 1006",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await wire.ask({ type: "ping" });
      await server.pause();
      wire.reset();
      assert.deepEqual(await closeEvent(server), { code: 1006, reason: "", wasClean: false });
    },
  },
  {
    title: "the end of the TCP connection without a close frame is one close with 1006",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await wire.ask({ type: "ping" });
      wire.socket.end();
      assert.deepEqual(await closeEvent(server), { code: 1006, reason: "", wasClean: false });
    },
  },
  {
    title: "the application's close reaches the client with code and reason",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.send({ type: "close", code: 4000, reason: "your turn is over" });
      assert.deepEqual(await wire.closed, { code: 4000, reason: "your turn is over" });
      assert.deepEqual(await closeEvent(server), { code: 4000, reason: "your turn is over", wasClean: true });
    },
  },
  {
    title: "the TCP connection is ended after the close handshake",
    async run(server) {
      const wire = await Wire.open(server.port, "/public?connect=close");
      assert.equal((await wire.closed).code, 4001);
      await wire.ended;
      const other = await Wire.open(server.port, "/public");
      await other.close(1000);
      await other.ended;
    },
  },
  {
    title: "the application's close without a code is 1000",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.send({ type: "close" });
      assert.deepEqual(await wire.closed, { code: 1000, reason: "" });
    },
  },
  {
    title: "a reason of more than 123 bytes is cut at a character's border",
    async run(server) {
      for (
        const [reason, kept] of [["a".repeat(200), "a".repeat(123)], ["💬".repeat(50), "💬".repeat(30)], [
          "ab語".repeat(50),
          "ab語".repeat(24) + "ab",
        ]]
      ) {
        const wire = await Wire.open(server.port, "/public");
        wire.send({ type: "close", code: 4000, reason });
        assert.deepEqual(await wire.closed, { code: 4000, reason: kept });
      }
    },
  },
  {
    title: "a code that may not be sent throws and leaves the connection open",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      for (const code of [0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 70_000, 1.5, "x"]) {
        assert.equal((await wire.ask({ type: "close", code })).error.code, "INTERNAL_ERROR", String(code));
      }
      const errors = await server.control("public", "wait", { event: "error", count: 12 });
      assert.match(errors[0].error, /^TypeError: Cannot close with code 0/);
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
  {
    title: "closing twice closes once, with the first code",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.send({ type: "close", code: 4000, reason: "first", twice: true });
      assert.deepEqual(await wire.closed, { code: 4000, reason: "first" });
      assert.deepEqual(await closeEvent(server), { code: 4000, reason: "first", wasClean: true });
    },
  },
  {
    title: "send after close does nothing",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.send({ type: "close", code: 4000, send: true });
      assert.equal(await wire.next(), null);
      assert.equal((await wire.closed).code, 4000);
      const log = await server.control("public", "log");
      assert.equal(log.some(({ event }: { event: string }) => event === "error"), false);
    },
  },
  {
    title: "connect listeners may send",
    async run(server) {
      const wire = await Wire.open(server.port, "/public?connect=send");
      assert.deepEqual(await wire.next(), { type: "welcome" });
      const handshake = await Wire.open(server.port, "/handshake?connect=send");
      handshake.send({ type: "auth", access_token: "ann" });
      assert.deepEqual(await handshake.next(), { type: "auth", status: "ok" });
      assert.deepEqual(await handshake.next(), { type: "welcome" });
      wire.reset();
      handshake.reset();
    },
  },
  {
    title: "connect listeners may close",
    async run(server) {
      const wire = await Wire.open(server.port, "/public?connect=close");
      assert.deepEqual(await wire.closed, { code: 4001, reason: "at once" });
      assert.deepEqual(await closeEvent(server), { code: 4001, reason: "at once", wasClean: true });
      assert.deepEqual(await server.control("public", "clients"), []);
    },
  },
  {
    title: "connect listeners may send and then close",
    async run(server) {
      const wire = await Wire.open(server.port, "/public?connect=send-close");
      assert.deepEqual(await wire.next(), { type: "welcome" });
      assert.equal(await wire.next(), null);
      assert.deepEqual(await wire.closed, { code: 4002, reason: "after a word" });
    },
  },
  {
    title: "a message that arrives after the application closed is not handled",
    async run(server) {
      await server.control("public", "listen", { kind: "record" });
      const wire = await Wire.open(server.port, "/public");
      wire.write(frames({ type: "close", code: 4000 }, { type: "late" }));
      await wire.closed;
      await closeEvent(server);
      const log = await server.control("public", "log");
      const heard = log.filter(({ event }: { event: string }) => event === "message");
      assert.deepEqual(heard.map(({ message }: { message: { type: string } }) => message.type), ["close"]);
    },
  },
  {
    title: "a peer that never answers the close handshake is gone after the close timeout",
    hibernates: true,
    async run(server) {
      await server.control("public", "listen", { kind: "record" });
      const wire = await Wire.open(server.port, "/public");
      wire.answersClose = false;
      wire.send({ type: "close", code: 4000, reason: "bye" });
      await server.control("public", "wait", { event: "message" });
      // Until the timeout it is closing: not listed for deliveries, not yet reported.
      await server.control("public", "broadcast", { message: { type: "news" } });
      await server.pause();
      await server.control("public", "advance", { ms: 5_000 });
      assert.deepEqual(await closeEvent(server), { code: 4000, reason: "bye", wasClean: false });
      assert.deepEqual(await server.control("public", "clients"), []);
      await server.control("public", "quiet");
      wire.reset();
    },
  },
  {
    title: "a close frame in the middle of pipelined messages ends them",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      const close = Buffer.from([0x0f, 0xa0]); // 4000
      wire.write(Buffer.concat([frames({ type: "ping", uid: 1 }), frame(8, close), frames({ type: "ping", uid: 2 })]));
      assert.deepEqual(await wire.next(), { type: "pong", uid: 1 });
      assert.equal(await wire.next(), null);
      assert.deepEqual(await closeEvent(server), { code: 4000, reason: "", wasClean: true });
    },
  },
];
