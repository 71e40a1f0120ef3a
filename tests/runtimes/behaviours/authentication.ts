import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { frame, frames, Wire } from "../wire.ts";

const failed = (uid?: string | number) => ({
  type: "auth",
  status: "error",
  error: { code: "AUTH_FAILED", message: "Authentication failed" },
  ...(uid === undefined ? {} : { uid }),
});

const SOURCES: Record<string, (token: string, port: number) => { query?: string; headers?: Record<string, string> }> = {
  query: (token) => ({ query: `?access_token=${token}` }),
  header: (token) => ({ headers: { Authorization: `Bearer ${token}` } }),
  "lower-case header": (token) => ({ headers: { Authorization: `bearer ${token}` } }),
  // A cookie comes from a page, and a page says its origin.
  cookie: (token, port) => ({
    headers: { Origin: `http://127.0.0.1:${port}`, Cookie: `theme=dark; session_token=${token}; other=1` },
  }),
  protocol: (token) => ({ headers: { "Sec-WebSocket-Protocol": `noroshi.v1, bearer.${token}` } }),
};

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
    title: "handshake mode closes with 4408 when no auth came in time",
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
    title: "handshake mode admits at once when the upgrade shows a token",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake?access_token=ann");
      assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "ann");
      wire.reset();
    },
  },
  {
    title: "strict mode answers 401 before the upgrade when no token is shown",
    async run(server) {
      for (const path of ["/strict", "/strict?access_token="]) {
        const { answer } = await Wire.request(server.port, path);
        assert.equal(answer.status, 401);
        assert.equal(answer.headers["www-authenticate"], "Bearer");
        assert.equal(JSON.parse(answer.body).error.code, "AUTH_FAILED");
      }
      assert.deepEqual(await server.control("strict", "log"), []);
    },
  },
  ...Object.entries(SOURCES).map(([source, show]): Behaviour => ({
    title: `every mode verifies a token shown in the ${source}`,
    async run(server) {
      for (const mode of ["public", "handshake", "strict"]) {
        const good = show("ann:editor", server.port);
        // "ann:editor" is no subprotocol name: a colon is not allowed there (RFC 6455 §4.1).
        const { query = "", headers = {} } = source === "protocol" ? show("ann", server.port) : good;
        const wire = await Wire.open(server.port, `/${mode}${query}`, { headers });
        assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "ann");
        wire.reset();
        const bad = show("bad", server.port);
        const { answer } = await Wire.request(server.port, `/${mode}${bad.query ?? ""}`, { headers: bad.headers ?? {} });
        assert.equal(answer.status, 401);
        assert.match(answer.headers["www-authenticate"] ?? "", /^Bearer/);
        assert.equal(JSON.parse(answer.body).error.code, "AUTH_FAILED");
      }
    },
  })),
  {
    title: "an empty token in the query counts as absent, and two are 401",
    async run(server) {
      (await Wire.open(server.port, "/public?access_token=")).reset();
      for (
        const query of [
          "?access_token=ann&access_token=ann",
          "?access_token=ann&access_token=",
          "?access_token=&access_token=ann",
        ]
      ) {
        assert.equal((await Wire.request(server.port, `/public${query}`)).answer.status, 401, query);
      }
    },
  },
  {
    title: "an invalid credential never falls back to the next one",
    async run(server) {
      const good = { Cookie: "session_token=ann" };
      const tries: Record<string, string>[] = [
        { "Sec-WebSocket-Protocol": "bearer.bad", Authorization: "Bearer ann", ...good },
        { "Sec-WebSocket-Protocol": "bearer.", ...good },
        { "Sec-WebSocket-Protocol": "bearer.ann, bearer.bob", ...good },
        { Authorization: "Bearer bad", ...good },
        { Authorization: "Basic YW5uOmFubg==", ...good },
        { Authorization: "Bearer", ...good },
        { Authorization: "Bearer ann ann", ...good },
      ];
      for (const headers of tries) {
        const { answer } = await Wire.request(server.port, "/public?access_token=ann", { headers });
        assert.equal(answer.status, 401, JSON.stringify(headers));
      }
      const { answer } = await Wire.request(server.port, "/public?access_token=bad", { headers: good });
      assert.equal(answer.status, 401);
    },
  },
  {
    title: "the precedence is subprotocol, Authorization, query, cookie",
    async run(server) {
      const headers = { "Sec-WebSocket-Protocol": "bearer.a", Authorization: "Bearer b", Cookie: "session_token=d" };
      const order: [string, Record<string, string>, string][] = [
        ["?access_token=c", headers, "a"],
        ["?access_token=c", { Authorization: "Bearer b", Cookie: "session_token=d" }, "b"],
        ["?access_token=c", { Cookie: "session_token=d" }, "c"],
        ["", { Origin: `http://127.0.0.1:${server.port}`, Cookie: "session_token=d" }, "d"],
      ];
      for (const [query, headers, user] of order) {
        const wire = await Wire.open(server.port, `/strict${query}`, { headers });
        assert.equal((await wire.ask({ type: "who" })).data.accountability.user, user);
        wire.reset();
      }
    },
  },
  {
    title: "a token of more than 8 KiB is refused unread",
    async run(server) {
      const { answer } = await Wire.request(server.port, `/strict?access_token=${"a".repeat(8193)}`);
      assert.equal(answer.status, 401);
      const log = await server.control("strict", "log");
      assert.equal(log.some(({ event }: { event: string }) => event === "authenticate"), false);
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
      const wire = await Wire.open(server.port, "/public");
      wire.write(frames({ type: "auth", access_token: "stall:ann", uid: 1 }, { type: "auth", access_token: "bob", uid: 2 }));
      await server.control("public", "wait", { event: "stalled" });
      await server.control("public", "release", { name: "stall:ann" });
      assert.deepEqual(await wire.next(), { type: "auth", status: "ok", uid: 1 });
      assert.deepEqual(await wire.next(), { type: "auth", status: "ok", uid: 2 });
      assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "bob");
      wire.reset();
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
  {
    title: "no event, error or fact of the handshake holds a token",
    async run(server) {
      const canary = "canary-7f3a";
      await Wire.request(server.port, `/strict?access_token=bad${canary}`);
      await Wire.request(server.port, "/strict", { headers: { Authorization: `Bearer bad${canary}` } });
      await Wire.request(server.port, "/strict", {
        headers: { Origin: `http://127.0.0.1:${server.port}`, Cookie: `session_token=bad${canary}` },
      });
      await Wire.request(server.port, "/strict", { headers: { "Sec-WebSocket-Protocol": `bearer.bad${canary}` } });
      // An error that quotes the token, as hono's own do.
      await Wire.request(server.port, `/strict?access_token=quoted-${canary}`);
      const quoting = await Wire.open(server.port, "/handshake");
      await quoting.ask({ type: "auth", access_token: `quoted-${canary}` });
      const [{ error }] = await server.control("handshake", "wait", { event: "error" });
      assert.match(error, /Cannot read \[redacted\]/);
      const wire = await Wire.open(server.port, `/strict?access_token=${canary}x::60&keep=1`);
      wire.send({ type: "auth", access_token: `bad${canary}` });
      await wire.closed;
      await server.control("strict", "wait", { event: "close" });
      const log = JSON.stringify(await server.control("strict", "log"));
      // The user's name is the token in this fixture, so that one place may name it.
      assert.equal(log.replaceAll(`"user":"${canary}x"`, "").includes(canary), false, log);
    },
  },
];
