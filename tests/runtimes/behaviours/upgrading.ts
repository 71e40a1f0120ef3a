import assert from "node:assert/strict";
import { until } from "../../support/waiting.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { frames, Wire } from "../wire.ts";

/** From the HTTP request to the open socket. */
export const upgrading: Behaviour[] = [
  {
    title: "upgrades when the Upgrade header is in any letter case",
    async run({ port }) {
      for (const upgrade of ["websocket", "WebSocket", "WEBSOCKET"]) {
        const wire = await Wire.open(port, "/public", { headers: { Upgrade: upgrade } });
        assert.equal((await wire.ask({ type: "ping" })).type, "pong");
        wire.reset();
      }
    },
  },
  {
    title: "upgrades when Connection lists Upgrade among others",
    async run({ port }) {
      const wire = await Wire.open(port, "/public", { headers: { Connection: "keep-alive, upgrade" } });
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
  {
    title: "answers 426 with a JSON body to a plain GET",
    async run({ port }) {
      const response = await fetch(`http://127.0.0.1:${port}/public`);
      assert.equal(response.status, 426);
      assert.match(response.headers.get("content-type") ?? "", /^application\/json/);
      assert.equal((await response.json()).error.code, "INVALID_REQUEST");
    },
  },
  {
    title: "leaves other routes untouched",
    async run({ port }) {
      assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "plain page");
      const posted = await fetch(`http://127.0.0.1:${port}/posted`, { method: "POST", body: "a body" });
      assert.equal(await posted.text(), "a body");
      assert.equal((await fetch(`http://127.0.0.1:${port}/no/such/route/here`)).status, 404);
    },
  },
  {
    title: "passes a POST that offers HTTP/2 to its route, with its body",
    async run({ port }) {
      const { answer } = await Wire.request(port, "/posted", {
        method: "POST",
        headers: {
          Connection: "Upgrade, HTTP2-Settings",
          Upgrade: "h2c",
          "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
          "Content-Length": "6",
          "Sec-WebSocket-Version": undefined,
          "Sec-WebSocket-Key": undefined,
        },
        follow: Buffer.from("a body"),
      });
      assert.deepEqual([answer.status, answer.body], [200, "a body"]);
    },
  },
  {
    title: "answers 404 to an upgrade on a path that has no route",
    async run({ port }) {
      const { answer } = await Wire.request(port, "/no/such/route/here");
      assert.equal(answer.status, 404);
    },
  },
  {
    title: "answers 4xx when the method is not GET",
    async run({ port }) {
      const { answer } = await Wire.request(port, "/public", { method: "POST", headers: { "Content-Length": "0" } });
      assert.ok(answer.status >= 400 && answer.status < 500, `answered ${answer.status}`);
    },
  },
  {
    title: "answers 400 when the key is missing or is not 16 bytes",
    async run({ port }) {
      for (const key of [undefined, "", "short", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZSB0b28gbG9uZw=="]) {
        const { answer } = await Wire.request(port, "/public", { headers: { "Sec-WebSocket-Key": key } });
        assert.equal(answer.status, 400, `for the key ${key}`);
      }
    },
  },
  {
    title: "answers 426 with the version it speaks when the version is another",
    async run({ port }) {
      const { answer } = await Wire.request(port, "/public", { headers: { "Sec-WebSocket-Version": "12" } });
      assert.equal(answer.status, 426);
      assert.equal(answer.headers["sec-websocket-version"], "13");
    },
  },
  {
    title: "answers 400 to what the runtime would refuse later, before a slot is reserved",
    async run(server) {
      const wrong: Record<string, string>[] = [
        { "Sec-WebSocket-Protocol": "a," },
        { "Sec-WebSocket-Protocol": ",a" },
        { "Sec-WebSocket-Protocol": "a, a" },
        { "Sec-WebSocket-Protocol": "a b" },
        { "Sec-WebSocket-Protocol": "a/b" },
        { Upgrade: "websocket, foo" },
        { Upgrade: "foo, websocket" },
        { "Sec-WebSocket-Key": "short" },
        { Origin: `https://${"a".repeat(600)}` },
      ];
      for (const headers of wrong) {
        const { answer } = await Wire.request(server.port, "/handshake", { headers });
        assert.equal(answer.status, 400, JSON.stringify(headers).slice(0, 80));
      }
      const { reserved, refused } = await server.control("handshake", "stats");
      assert.deepEqual([reserved, refused.request], [0, wrong.length]);
    },
  },
  {
    title: "answers an upgrade to something else and does not leave the socket open",
    async run({ port }) {
      const wire = await Wire.request(port, "/public", { headers: { Upgrade: "foo", Connection: "Upgrade, close" } });
      assert.equal(wire.answer.status, 426);
      wire.socket.end();
      await wire.closed;
    },
  },
  {
    title: "answers 4xx to an odd request target and keeps serving",
    async run({ port }) {
      for (const target of ["http://[/public", "//[/public", "http://a:b:c/public"]) {
        const { answer } = await Wire.request(port, target);
        assert.ok(answer.status >= 400 && answer.status < 500, `answered ${answer.status} to ${target}`);
      }
      (await Wire.open(port, "/public")).reset();
    },
  },
  {
    title: "does not upgrade when middleware answers instead",
    async run({ port }) {
      const { answer } = await Wire.request(port, "/guarded/public");
      assert.equal(answer.status, 403);
      assert.equal(answer.body, '{"error":"No entry"}');
    },
  },
  {
    title: "puts headers of middleware on the 101",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.equal(wire.answer.headers["x-before"], "1");
      assert.equal(wire.answer.headers["set-cookie"], "seen=1");
      wire.reset();
    },
  },
  {
    title: "puts headers that middleware sets after next() on the 101",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.equal(wire.answer.headers["x-after"], "1");
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
  {
    title: "answers the first subprotocol offered that is configured",
    async run({ port }) {
      const offers: [string, string, string | undefined][] = [
        ["/protocols", "other, noroshi.v1, chat.v2", "noroshi.v1"],
        ["/protocols", "chat.v2,noroshi.v1", "chat.v2"],
        ["/protocols", "other", undefined],
        ["/public", "noroshi.v1", "noroshi.v1"],
        ["/public", "chat.v2", undefined],
      ];
      for (const [path, offered, answered] of offers) {
        const wire = await Wire.open(port, path, { headers: { "Sec-WebSocket-Protocol": offered } });
        assert.equal(wire.answer.headers["sec-websocket-protocol"], answered, `for ${offered}`);
        const { data } = await wire.ask({ type: "who" });
        assert.equal(data.handshake.protocol, answered ?? null);
        wire.reset();
      }
    },
  },
  {
    title: "never echoes a token offered as a subprotocol",
    async run({ port }) {
      for (const offered of ["bearer.ann", "bearer.ann, noroshi.v1", "noroshi.v1, bearer.ann"]) {
        const wire = await Wire.open(port, "/strict", { headers: { "Sec-WebSocket-Protocol": offered } });
        assert.equal(wire.answer.headers["sec-websocket-protocol"], offered.includes("noroshi") ? "noroshi.v1" : undefined);
        const { data } = await wire.ask({ type: "who" });
        assert.equal(data.accountability.user, "ann");
        assert.equal(JSON.stringify(data.handshake).includes("bearer"), false);
        wire.reset();
      }
    },
  },
  {
    title: "handles a frame sent in the same TCP segment as the upgrade",
    async run({ port }) {
      const wire = await Wire.open(port, "/public", { follow: frames({ type: "ping", uid: 1 }, { type: "ping", uid: 2 }) });
      assert.deepEqual(await wire.next(), { type: "pong", uid: 1 });
      assert.deepEqual(await wire.next(), { type: "pong", uid: 2 });
      wire.reset();
    },
  },
  {
    title: "copies the facts of the handshake, and only those without a credential",
    async run({ port }) {
      const wire = await Wire.open(port, "/strict/room-7?access_token=ann:editor:60&lang=de", {
        headers: { "User-Agent": "a test", Origin: `http://127.0.0.1:${port}`, Cookie: "session_token=canary" },
      });
      const { data } = await wire.ask({ type: "who" });
      assert.deepEqual(data.handshake, {
        mode: "strict",
        url: `http://127.0.0.1:${port}/strict/room-7?lang=de`,
        origin: `http://127.0.0.1:${port}`,
        ip: "127.0.0.1",
        userAgent: "a test",
        protocol: null,
      });
      wire.reset();
    },
  },
  {
    title: "keeps two controllers of one process apart",
    async run(server) {
      const one = await Wire.open(server.port, "/public");
      const other = await Wire.open(server.port, "/plain");
      await server.control("plain", "broadcast", { message: { type: "news" } });
      assert.deepEqual(await other.next(), { type: "news" });
      assert.equal((await one.ask({ type: "ping" })).type, "pong");
      assert.equal((await server.control("public", "clients")).length, 1);
      assert.equal((await server.control("plain", "clients")).length, 1);
      one.reset();
      other.reset();
    },
  },
  {
    title: "upgrades many at once",
    async run({ port }) {
      const wires = await Promise.all(Array.from({ length: 50 }, () => Wire.open(port, "/public")));
      const replies = await Promise.all(wires.map((wire, uid) => wire.ask({ type: "ping", uid })));
      assert.deepEqual(replies, wires.map((_, uid) => ({ type: "pong", uid })));
      for (const wire of wires) wire.reset();
    },
  },
  {
    title: "keeps serving when clients reset the connection during the handshake",
    async run(server) {
      // No answer comes: the token is stalled, and the client is gone before it is released.
      const wires = Array.from({ length: 5 }, (_, i) => Wire.begin(server.port, `/strict?access_token=stall:${i}`));
      await server.control("strict", "wait", { event: "stalled", count: 5 });
      for (const wire of wires) wire.reset();
      await Promise.all(wires.map((wire) => wire.closed));
      for (let i = 0; i < 5; i++) await server.control("strict", "release", { name: `stall:${i}` });
      const wire = await Wire.open(server.port, "/strict?access_token=ann");
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
  {
    title: "abandons the upgrade when a timeout answers while the token is verified",
    async run(server) {
      const wire = await Wire.request(server.port, "/timed/strict?access_token=stall:ann");
      assert.equal(wire.answer.status, 504);
      await server.control("strict", "release", { name: "stall:ann" });
      await leavesNothing(server, "strict");
      await Wire.open(server.port, "/timed/strict?access_token=ann");
    },
  },
  {
    title: "abandons the upgrade when middleware throws after next()",
    async run(server) {
      assert.equal((await Wire.request(server.port, "/after/throw/public")).answer.status, 500);
      await leavesNothing(server, "public");
      await Wire.open(server.port, "/public");
    },
  },
  {
    title: "abandons the upgrade when middleware replaces the response after next()",
    async run(server) {
      for (const [how, status] of [["replace", 503], ["merge", 200], ["empty", 204]] as const) {
        assert.equal((await Wire.request(server.port, `/after/${how}/public`)).answer.status, status);
        await leavesNothing(server, "public");
      }
      await Wire.open(server.port, "/public");
    },
  },
  {
    title: "answers 4xx to an upgrade with a thousand headers",
    async run({ port }) {
      const headers = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`X${i}`, "1"]));
      const { answer } = await Wire.request(port, "/public", { headers });
      assert.ok(answer.status >= 400 && answer.status < 500, `answered ${answer.status}`);
      await Wire.open(port, "/public");
    },
  },
  {
    title: "releases the slots of clients that reset while their tokens are verified",
    async run(server) {
      const wires = Array.from({ length: 20 }, (_, i) => Wire.begin(server.port, `/strict?access_token=stall:${i}`));
      await server.control("strict", "wait", { event: "stalled", count: 20 });
      assert.equal((await server.control("strict", "stats")).reserved, 20);
      for (const wire of wires) wire.reset();
      await Promise.all(wires.map((wire) => wire.closed));
      // No runtime tells its application about the reset here: it is seen while these requests come in.
      for (let i = 0; i < 20; i++) await server.control("strict", "release", { name: `stall:${i}` });
      await leavesNoPlace(server, "strict");
    },
  },
  {
    title: "connects a client once its 101 leaves, not while middleware waits after next()",
    async run(server) {
      const wire = Wire.begin(server.port, "/after/stall/public");
      await server.control("public", "wait", { event: "stalled" });
      assert.deepEqual(await server.control("public", "clients"), []);
      await server.control("public", "release", { name: "after" });
      await wire.answered;
      assert.equal(wire.answer.status, 101);
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      assert.equal((await server.control("public", "clients")).length, 1);
    },
  },
];

/** Resolves when every place is given back: the server notices while it answers other requests. */
export async function leavesNoPlace(server: TestServer, subject: string): Promise<void> {
  let held: Record<string, number> = {};
  await until(async () => {
    const { active, reserved, pending, deadlines } = await server.control(subject, "stats");
    held = { active, reserved, pending, deadlines };
    return Object.values(held).every((count) => count === 0);
  }, () => held);
}

/** No client was connected, and no place is held. */
export async function leavesNothing(server: TestServer, subject: string): Promise<void> {
  const { opened, reserved, pending, deadlines } = await server.control(subject, "stats");
  assert.deepEqual({ opened, reserved, pending, deadlines }, { opened: 0, reserved: 0, pending: 0, deadlines: 0 });
  const log: { event: string }[] = await server.control(subject, "log");
  assert.deepEqual(log.filter(({ event }) => event === "connect"), []);
}

/** The 101 has left, or has to: the client stays connected as any other. */
export async function staysConnected(server: TestServer, path: string): Promise<void> {
  const wire = await Wire.open(server.port, path);
  assert.equal((await wire.ask({ type: "ping" })).type, "pong");
  assert.equal((await server.control("public", "clients")).length, 1);
  wire.reset();
  await server.control("public", "wait", { event: "close" });
  const { active, reserved } = await server.control("public", "stats");
  assert.deepEqual({ active, reserved }, { active: 0, reserved: 0 });
}
