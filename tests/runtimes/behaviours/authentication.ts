import assert from "node:assert/strict";
import type { Behaviour, Difference } from "../conformance.ts";
import { frame, frames, Wire } from "../wire.ts";

const failed = (uid?: string | number) => ({
  type: "auth",
  status: "error",
  error: { code: "AUTH_FAILED", message: "Authentication failed" },
  ...(uid === undefined ? {} : { uid }),
});

/** Who a client is, in the three modes. */
export const authentication: Behaviour[] = [
  {
    title: "public mode admits everybody as anonymous",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      const [{ user, role }] = await server.control("public", "wait", { event: "connect" });
      assert.deepEqual({ user, role }, { user: null, role: null });
      const { data } = await wire.ask({ type: "who" });
      assert.deepEqual(data.accountability, { user: null, role: null });
      assert.equal(data.listed, true);
      wire.reset();
    },
  },
  {
    title: "public mode lets a client authenticate later",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "ann:editor", uid: 5 }), {
        type: "auth",
        status: "ok",
        uid: 5,
      });
      await server.pause();
      const { data } = await wire.ask({ type: "who" });
      assert.deepEqual(data.accountability, { user: "ann", role: "editor" });
      await server.control("public", "broadcast", { message: { type: "news" }, filter: { user: "ann" } });
      assert.deepEqual(await wire.next(), { type: "news" });
      wire.reset();
    },
  },
  {
    title: "public mode answers a failed auth and goes on as anonymous",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/public?access_token=ann:editor");
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "bad", uid: "x" }), failed("x"));
      await server.pause();
      const { data } = await wire.ask({ type: "who" });
      assert.deepEqual(data.accountability, { user: null, role: null });
      await server.control("public", "broadcast", { message: { type: "secret" }, filter: { user: "ann" } });
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
  {
    title: "handshake mode keeps a connection pending until auth ok, and sends it nothing before",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      await server.control("handshake", "broadcast", { message: { type: "news" } });
      assert.deepEqual(await server.control("handshake", "clients"), []);
      assert.deepEqual(await server.control("handshake", "log"), []);
      await server.pause();
      await server.control("handshake", "broadcast", { message: { type: "news" } });
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "ann:editor" }), { type: "auth", status: "ok" });
      const [{ user, role }] = await server.control("handshake", "wait", { event: "connect" });
      assert.deepEqual({ user, role }, { user: "ann", role: "editor" });
      await server.pause();
      assert.equal((await server.control("handshake", "clients")).length, 1);
      wire.reset();
    },
  },
  {
    title: "handshake mode refuses a first message that is not auth",
    async run(server) {
      for (const first of [{ type: "echo" }, { type: "ping" }, "{", "[]", frame(2, Buffer.from([0xff]))]) {
        const wire = await Wire.open(server.port, "/handshake");
        if (Buffer.isBuffer(first)) wire.write(first);
        else wire.send(first);
        assert.deepEqual(await wire.next(), failed());
        assert.deepEqual(await wire.closed, { code: 4401, reason: "Authentication failed" });
      }
      const events = (await server.control("handshake", "log")).map(({ event }: { event: string }) => event);
      assert.deepEqual(new Set(events), new Set(["auth.failure"]));
    },
  },
  {
    title: "handshake mode refuses wrong credentials with their uid and closes with 4401",
    async run(server) {
      for (const credentials of [{ access_token: "bad" }, { access_token: "" }, { access_token: 7 }, {}, { email: "a" }]) {
        const wire = await Wire.open(server.port, "/handshake");
        assert.deepEqual(await wire.ask({ type: "auth", uid: 7, ...credentials }), failed(7));
        assert.equal((await wire.closed).code, 4401);
      }
    },
  },
  {
    title: "handshake mode closes with 4408 when no auth arrives in time",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      await server.control("handshake", "advance", { ms: 9_999 });
      await server.pause();
      // A hibernated object starts the test's clock anew: the deadline it kept is of the wall clock.
      await server.control("handshake", "advance", { ms: 10_000 });
      assert.equal((await wire.next()).error.code, "AUTH_TIMEOUT");
      assert.equal((await wire.closed).code, 4408);
      await server.control("handshake", "quiet");
    },
  },
  {
    title: "handshake mode closes in time by the runtime's own timer",
    async run(server) {
      const wire = await Wire.open(server.port, "/realtime");
      assert.equal((await wire.next()).error.code, "AUTH_TIMEOUT");
      assert.equal((await wire.closed).code, 4408);
    },
  },
  {
    title: "handshake mode admits at once when the upgrade has a token",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake?access_token=ann");
      assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "ann");
      wire.reset();
    },
  },
  {
    title: "strict mode answers 401 before the upgrade when there is no token",
    async run(server) {
      for (const path of ["/strict", "/strict?access_token="]) {
        const { answer } = await Wire.request(server.port, path);
        assert.equal(answer.status, 401);
        assert.equal(answer.headers["www-authenticate"], "Bearer");
        assert.equal(JSON.parse(answer.body).error.code, "AUTH_FAILED");
      }
      // One line for the operator, and nothing for the application.
      const log = await server.control("strict", "log");
      assert.deepEqual(log.map(({ event }: { event: string }) => event), ["warn"]);
    },
  },
  {
    title: "a throwing authenticate is answered 503 at the upgrade, without detail",
    async run(server) {
      for (const token of ["throw", "throw-undefined", "number", "nan"]) {
        const { answer } = await Wire.request(server.port, `/public?access_token=${token}`);
        assert.equal(answer.status, 503, token);
        assert.equal(answer.headers["retry-after"], "5");
        assert.deepEqual(JSON.parse(answer.body), {
          error: { code: "SERVICE_UNAVAILABLE", message: "Authentication is unavailable" },
        });
      }
      assert.equal((await server.control("public", "wait", { event: "error", count: 4 })).length, 4);
    },
  },
  {
    title: "a throwing authenticate refuses the message with SERVICE_UNAVAILABLE and 1013, without detail",
    async run(server) {
      for (const token of ["throw", "throw-undefined", "number", "nan"]) {
        const wire = await Wire.open(server.port, "/handshake");
        const reply = await wire.ask({ type: "auth", access_token: token, uid: 1 });
        assert.deepEqual(reply, {
          type: "auth",
          status: "error",
          error: { code: "SERVICE_UNAVAILABLE", message: "Authentication is unavailable" },
          uid: 1,
        });
        assert.equal((await wire.closed).code, 1013);
      }
    },
  },
  {
    title: "a hanging authenticate is answered 503 at the upgrade after the timeout",
    async run(server) {
      const wire = Wire.begin(server.port, "/public?access_token=hang");
      await server.control("public", "wait", { event: "authenticate" });
      await server.control("public", "advance", { ms: 10_000 });
      await wire.answered;
      assert.equal(wire.answer.status, 503);
      await server.control("public", "quiet");
    },
  },
  {
    title: "a hanging authenticate ends a pending connection after the timeout",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      wire.send({ type: "auth", access_token: "hang" });
      await server.control("handshake", "wait", { event: "authenticate" });
      await server.control("handshake", "advance", { ms: 10_000 });
      assert.ok(["AUTH_TIMEOUT", "SERVICE_UNAVAILABLE"].includes((await wire.next()).error.code));
      assert.ok([4408, 1013].includes((await wire.closed).code));
      await server.control("handshake", "quiet");
    },
  },
  {
    title: "a WebSocketError thrown by authenticate is answered as it is",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      const reply = await wire.ask({ type: "auth", access_token: "throw-known", uid: "u" });
      assert.deepEqual(reply.error, { code: "OTP_REQUIRED", message: "A one-time password is required" });
      assert.equal(reply.uid, "u");
      assert.equal((await wire.closed).code, 4401);
    },
  },
  {
    title: "a state that has expired already is refused",
    async run(server) {
      assert.equal((await Wire.request(server.port, "/strict?access_token=expired")).answer.status, 401);
      const wire = await Wire.open(server.port, "/handshake");
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "expired" }), failed());
    },
  },
  {
    title: "email and password, and a refresh token, are answered with a new refresh token",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      const ok = { type: "auth", status: "ok", refresh_token: "refresh-ann" };
      assert.deepEqual(await wire.ask({ type: "auth", email: "ann", password: "nna" }), ok);
      const again = await Wire.open(server.port, "/handshake");
      assert.deepEqual(await again.ask({ type: "auth", refresh_token: "refresh-ann", uid: 0 }), { ...ok, uid: 0 });
      wire.reset();
      again.reset();
    },
  },
  {
    title: "auth and messages pipelined in one write are processed in order",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake", {
        follow: frames({ type: "auth", access_token: "ann" }, { type: "who", uid: 1 }, { type: "ping", uid: 2 }, {
          type: "say",
          text: "3",
        }),
      });
      assert.deepEqual(await wire.next(), { type: "auth", status: "ok" });
      assert.equal((await wire.next()).data.accountability.user, "ann");
      assert.deepEqual(await wire.next(), { type: "pong", uid: 2 });
      assert.deepEqual(await wire.next(), { type: "say", status: "ok", data: "3" });
      wire.reset();
    },
  },
  {
    title: "messages wait while authenticate runs, and are dropped after a failure",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      wire.write(frames({ type: "auth", access_token: "stall:ann" }, { type: "say", text: "1" }, { type: "say", text: "2" }));
      await server.control("handshake", "wait", { event: "stalled" });
      await server.control("handshake", "release", { name: "stall:ann" });
      assert.deepEqual(await wire.next(), { type: "auth", status: "ok" });
      assert.equal((await wire.next()).data, "1");
      assert.equal((await wire.next()).data, "2");
      wire.reset();

      const refused = await Wire.open(server.port, "/handshake");
      refused.write(frames({ type: "auth", access_token: "bad" }, { type: "say", text: "1" }));
      assert.deepEqual(await refused.next(), failed());
      assert.equal(await refused.next(), null);
    },
  },
  {
    title: "more messages than may wait close with 4529",
    async run(server) {
      for (
        const many of [Array(5).fill({ type: "ping", uid: 1 }), [{ type: "a", text: "x".repeat(600) }, {
          type: "a",
          text: "x".repeat(600),
        }]]
      ) {
        const wire = await Wire.open(server.port, "/small");
        wire.write(frames({ type: "auth", access_token: "stall:ann" }, ...many));
        assert.equal(await wire.next(), null);
        assert.equal((await wire.closed).code, 4529);
        await server.control("small", "release", { name: "stall:ann" });
      }
      assert.deepEqual(await server.control("small", "clients"), []);
    },
  },
  {
    title: "a connection that closes while authenticate runs is never admitted",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      wire.send({ type: "auth", access_token: "stall:ann" });
      await server.control("handshake", "wait", { event: "stalled" });
      await wire.close(1000);
      await server.control("handshake", "release", { name: "stall:ann" });
      const other = await Wire.open(server.port, "/handshake?access_token=bob");
      await server.control("handshake", "wait", { event: "connect" });
      assert.deepEqual((await server.control("handshake", "clients")).map(({ user }: { user: string }) => user), ["bob"]);
      const events = (await server.control("handshake", "log")).filter(({ event }: { event: string }) => event === "connect");
      assert.equal(events.length, 1);
      await server.control("handshake", "quiet");
      other.reset();
    },
  },
  {
    title: "of two auth messages the last accepted one counts, however slow the first is",
    async run(server) {
      // The second pair looks like answers to questions, which need not wait for earlier messages.
      for (
        const [one, two] of [[{ uid: 1 }, { uid: 2 }], [{ uid: "ask:1", status: "ok" }, { uid: "ask:2", status: "ok" }]] as const
      ) {
        const wire = await Wire.open(server.port, "/public");
        wire.write(frames({ type: "auth", access_token: "stall:ann", ...one }, { type: "auth", access_token: "bob", ...two }));
        await server.control("public", "release", { name: "stall:ann" });
        assert.deepEqual(await wire.next(), { type: "auth", status: "ok", uid: one.uid });
        assert.deepEqual(await wire.next(), { type: "auth", status: "ok", uid: two.uid });
        assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "bob");
        wire.reset();
      }
    },
  },
  {
    title: "an auth message without authenticate is refused",
    async run(server) {
      const wire = await Wire.open(server.port, "/plain?access_token=anything");
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "ann", uid: 1 }), failed(1));
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
];

/** Where the socket can be left unread. */
export const heldBack: Record<string, Difference> = {
  "more messages than may wait close with 4529": {
    because: "`node:net` sockets can be paused: the rest is read once the first have been handled",
    async instead(server) {
      const wire = await Wire.open(server.port, "/small");
      const many = Array.from({ length: 500 }, (_, uid) => ({ type: "echo", uid, text: "x".repeat(600) }));
      wire.write(frames({ type: "auth", access_token: "stall:ann" }, ...many));
      await server.control("small", "wait", { event: "stalled" });
      await server.control("small", "release", { name: "stall:ann" });
      assert.deepEqual(await wire.next(), { type: "auth", status: "ok" });
      for (const { uid } of many) assert.equal((await wire.next()).uid, uid);
      wire.reset();
    },
  },
};
