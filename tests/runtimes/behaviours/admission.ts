import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { Wire } from "../wire.ts";

/** Whether `authenticate` was asked in strict mode. */
async function isAsked(server: TestServer): Promise<boolean> {
  const log: { event: string }[] = await server.control("strict", "log");
  return log.some(({ event }) => event === "authenticate");
}

/** Who gets a place at all, before anything is verified. */
export const admission: Behaviour[] = [
  {
    title: "a page of the request's own host may connect, and a page of another host may not",
    async run({ port }) {
      const own = await Wire.open(port, "/public", { headers: { Origin: `http://127.0.0.1:${port}` } });
      assert.equal((await own.ask({ type: "ping" })).type, "pong");
      const foreign = [
        "http://evil.example",
        `http://127.0.0.1:${port}.evil.example`,
        `http://127.0.0.1:${port + 1}`,
        "http://127.0.0.1",
        "null",
        "",
        "*",
        `http://127.0.0.1:${port}/path`,
        `http://127.0.0.1:${port}, http://evil.example`,
        "not an origin",
      ];
      for (const Origin of foreign) {
        const { answer } = await Wire.request(port, "/public", { headers: { Origin } });
        // An empty header is no header to some servers: then the request comes from no page.
        if (Origin === "" && answer.status === 101) continue;
        assert.equal(answer.status, 403, Origin);
        assert.equal(JSON.parse(answer.body).error.code, "FORBIDDEN");
      }
    },
  },
  {
    title: "origins matches exact origins and subdomain patterns, and no lookalikes",
    async run({ port }) {
      for (
        const Origin of ["https://app.example.com", "https://a.example.org", "https://a.b.example.org", "http://localhost:8080"]
      ) {
        (await Wire.open(port, "/origins", { headers: { Origin } })).reset();
      }
      const foreign = [
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://example.org",
        "https://evilexample.org",
        "http://a.example.org",
        "http://localhost",
        "http://localhost:80801",
      ];
      for (const Origin of foreign) {
        assert.equal((await Wire.request(port, "/origins", { headers: { Origin } })).answer.status, 403, Origin);
      }
    },
  },
  {
    title: "a Host with the port of the origin's scheme is the origin's host, as some proxies write it",
    async run({ port }) {
      const cases: [Origin: string, Host: string, status: number][] = [
        ["https://chat.example", "chat.example:443", 101],
        ["http://chat.example", "chat.example:80", 101],
        ["https://chat.example", "Chat.Example", 101],
        ["https://chat.example", "chat.example:80", 403],
        ["https://chat.example", "chat.example:8443", 403],
        ["https://chat.example:8443", "chat.example:443", 403],
      ];
      for (const [Origin, Host, status] of cases) {
        const wire = await Wire.request(port, "/public", { headers: { Origin, Host } });
        assert.equal(wire.answer.status, status, `${Origin} at ${Host}`);
        wire.reset();
      }
    },
  },
  {
    title: "an app with its own scheme connects only if its origin is listed",
    async run({ port }) {
      const Origin = "tauri://localhost";
      (await Wire.open(port, "/origins", { headers: { Origin } })).reset();
      assert.equal((await Wire.request(port, "/public", { headers: { Origin } })).answer.status, 403);
      for (const other of ["capacitor://localhost", "tauri://localhost:1", "tauri://localhost.evil.example"]) {
        assert.equal((await Wire.request(port, "/origins", { headers: { Origin: other } })).answer.status, 403, other);
      }
    },
  },
  {
    title: 'origins "*" allows every page',
    async run({ port }) {
      for (const Origin of ["https://anywhere.example", "null"]) await Wire.open(port, "/open", { headers: { Origin } });
    },
  },
  {
    title: "an origin is refused before authenticate runs",
    async run(server) {
      const headers = { Origin: "http://evil.example" };
      assert.equal((await Wire.request(server.port, "/strict?access_token=ann", { headers })).answer.status, 403);
      assert.equal(await isAsked(server), false);
    },
  },
  {
    title: "a cookie without an Origin is refused, and one with a foreign Origin",
    async run(server) {
      const Cookie = "session_token=ann";
      assert.equal((await Wire.request(server.port, "/strict", { headers: { Cookie } })).answer.status, 403);
      assert.equal(
        (await Wire.request(server.port, "/strict", { headers: { Cookie, Origin: "http://evil.example" } })).answer.status,
        403,
      );
      assert.equal(await isAsked(server), false);
    },
  },
  {
    title: "a handshake with a body is refused",
    async run(server) {
      for (const headers of [{ "Content-Length": "5" }, { "Transfer-Encoding": "chunked" }] as Record<string, string>[]) {
        const wire = Wire.begin(server.port, "/public", {
          headers,
          follow: Buffer.from("Content-Length" in headers ? "hello" : "0\r\n\r\n"),
        });
        await wire.answered;
        assert.ok(
          wire.answer.status >= 400 && wire.answer.status < 500,
          `answered ${wire.answer.status} to ${JSON.stringify(headers)}`,
        );
      }
      await Wire.open(server.port, "/public");
    },
  },
  {
    title: "a request target of more than 2,048 characters is refused, and a long User-Agent is cut",
    async run(server) {
      assert.equal((await Wire.request(server.port, `/public?q=${"x".repeat(2_048)}`)).answer.status, 400);
      const wire = await Wire.open(server.port, `/public?q=${"x".repeat(1_900)}`, {
        headers: { "User-Agent": "u".repeat(2_000) },
      });
      const { data } = await wire.ask({ type: "who" });
      assert.equal(data.handshake.userAgent, "u".repeat(512));
    },
  },
  {
    title: "maxConnections and maxPending are answered 503 with Retry-After",
    async run(server) {
      const pending = [await Wire.open(server.port, "/full"), await Wire.open(server.port, "/full")];
      const { answer } = await Wire.request(server.port, "/full");
      assert.equal(answer.status, 503);
      assert.equal(answer.headers["retry-after"], "5");
      assert.equal(JSON.parse(answer.body).error.code, "SERVICE_UNAVAILABLE");
      await pending[0]!.ask({ type: "auth", access_token: "ann" });
      const third = await Wire.open(server.port, "/full");
      await third.ask({ type: "auth", access_token: "bob" });
      // Three in all, one of them pending: now it is the total that is full.
      assert.equal((await Wire.request(server.port, "/full")).answer.status, 503);
      await third.close(1000);
      await server.control("full", "wait", { event: "close" });
      await Wire.open(server.port, "/full");
    },
  },
  {
    title: "a slot is reserved before the token is verified",
    async run(server) {
      const waiting = [0, 1].map((i) => Wire.begin(server.port, `/full?access_token=stall:${i}`));
      await server.control("full", "wait", { event: "stalled", count: 2 });
      assert.equal((await Wire.request(server.port, "/full?access_token=ann")).answer.status, 503);
      for (const i of [0, 1]) await server.control("full", "release", { name: `stall:${i}` });
      await Promise.all(waiting.map((wire) => wire.answered));
      assert.deepEqual(waiting.map(({ answer }) => answer.status), [101, 101]);
    },
  },
  {
    title: "a slot is released however the upgrade ends",
    async run(server) {
      for (const token of ["bad", "throw", "expired", "number"]) await Wire.request(server.port, `/full?access_token=${token}`);
      for (const token of ["bad", "throw", "ann"]) {
        const wire = await Wire.open(server.port, "/full");
        await wire.ask({ type: "auth", access_token: token });
        if (token === "ann") wire.reset();
        await wire.closed;
      }
      await server.control("full", "wait", { event: "close" });
      await server.control("full", "quiet");
      const { opened, closed, active, pending, reserved, deadlines, keys } = await server.control("full", "stats");
      assert.deepEqual({ opened, closed, active, pending, reserved, deadlines, keys }, {
        opened: 3,
        closed: 3,
        active: 0,
        pending: 0,
        reserved: 0,
        deadlines: 0,
        keys: 0,
      });
    },
  },
  {
    title: "maxConnectionsPerIp is answered 429, the address counted from the right of X-Forwarded-For",
    async run(server) {
      const from = (forwarded: string) => Wire.request(server.port, "/perip", { headers: { "X-Forwarded-For": forwarded } });
      const first = await from("10.0.0.1");
      assert.equal((await first.ask({ type: "who" })).data.handshake.ip, "10.0.0.1");
      // What is further left is what the client says of itself.
      assert.equal((await from("1.2.3.4, 10.0.0.1")).answer.status, 101);
      const { answer } = await from("9.9.9.9, 10.0.0.1");
      assert.equal(answer.status, 429);
      assert.equal(JSON.parse(answer.body).error.code, "LIMIT_EXCEEDED");
      assert.equal((await from("10.0.0.2")).answer.status, 101);
      await first.close(1000);
      await server.control("perip", "wait", { event: "close" });
      assert.equal((await from("10.0.0.1")).answer.status, 101);
    },
  },
  {
    title: "an address counts once in any notation of a proxy, with or without a port, and IPv6 by its /64 network",
    async run(server) {
      const from = (forwarded: string) => Wire.request(server.port, "/perip", { headers: { "X-Forwarded-For": forwarded } });
      const callers = [
        ["203.0.113.7:1001", "203.0.113.7:1002", "203.0.113.7", "::ffff:203.0.113.7", "[::ffff:203.0.113.7]:1003"],
        ["[2001:db8::1]:443", "2001:DB8:0:0::2", "2001:db8:0:0:ffff::", "[2001:0db8::9]:80", "2001:db8::3"],
      ];
      for (const spellings of callers) {
        const statuses: number[] = [];
        for (const each of spellings) statuses.push((await from(each)).answer.status);
        assert.deepEqual(statuses, [101, 101, 429, 429, 429], spellings.join(" "));
      }
      const other = await from("[2001:db8:0:1::1]:443");
      assert.equal((await other.ask({ type: "who" })).data.handshake.ip, "2001:db8:0:1::1");
    },
  },
  {
    title: "maxPendingPerIp keeps one address from using all of maxPending",
    async run(server) {
      const from = (forwarded: string) => Wire.request(server.port, "/shared", { headers: { "X-Forwarded-For": forwarded } });
      const [first, second] = [await from("203.0.113.7"), await from("203.0.113.7")];
      assert.equal((await from("203.0.113.7")).answer.status, 429);
      assert.equal((await from("203.0.113.8")).answer.status, 101);
      await first!.ask({ type: "auth", access_token: "ann" });
      assert.equal((await from("203.0.113.7")).answer.status, 101);
      assert.equal((await from("203.0.113.7")).answer.status, 429);
      second!.reset();
      assert.equal((await server.control("shared", "stats")).refused.ip, 2);
    },
  },
  {
    title: "stale tokens refuse an address for 30 seconds at most, however many there were at once",
    async run(server) {
      const from = (token: string) => Wire.request(server.port, `/handshake?access_token=${token}`);
      const stale = await Promise.all(Array.from({ length: 100 }, () => from("bad")));
      assert.ok(stale.some(({ answer }) => answer.status === 401));
      const { answer } = await from("ann");
      assert.equal(answer.status, 429);
      const retryAfter = Number(answer.headers["retry-after"]);
      assert.ok(retryAfter > 0 && retryAfter <= 30, `it is refused for ${retryAfter} s`);
      await server.control("handshake", "advance", { ms: 30_000 });
      assert.equal((await from("ann")).answer.status, 101);
    },
  },
  {
    title: "maxConnectionsPerUser is answered 429 at the upgrade and LIMIT_EXCEEDED to a message",
    async run(server) {
      const ann = [await Wire.open(server.port, "/peruser?access_token=ann"), await Wire.open(server.port, "/peruser")];
      await ann[1]!.ask({ type: "auth", access_token: "ann" });
      assert.equal((await Wire.request(server.port, "/peruser?access_token=ann")).answer.status, 429);
      const third = await Wire.open(server.port, "/peruser?access_token=bob");
      assert.equal((await third.ask({ type: "auth", access_token: "ann" })).error.code, "LIMIT_EXCEEDED");
      assert.equal((await third.closed).code, 4529);
      // Becoming somebody else gives the place back.
      await ann[1]!.ask({ type: "auth", access_token: "bob" });
      await Wire.open(server.port, "/peruser?access_token=ann");
    },
  },
  {
    title: "a refusal is one line for the operator, with its cause and remedy, at most once a second of each kind",
    async run(server) {
      const { port } = server;
      const lines: [subject: string, ask: () => Promise<unknown>, line: RegExp][] = [
        [
          "public",
          () => Wire.request(port, "/public", { headers: { Origin: "http://localhost:8088", Host: "chat" } }),
          /Refused origin http:\/\/localhost:8088: the request's host is "chat"\. Add it to origins, or let the proxy pass Host$/,
        ],
        ["plain", () => fetch(`http://127.0.0.1:${port}/plain`), /without the header Upgrade: websocket.*proxy/],
        [
          "strict",
          () => Wire.request(port, "/strict"),
          /without a token: mode "strict" needs one in .*the cookie "session_token"$/,
        ],
        [
          "unheard",
          () => Wire.request(port, "/unheard?access_token=expired"),
          /of \?access_token: The credentials expired 1 s ago$/,
        ],
        ["unheard", () => Wire.request(port, "/unheard?access_token=bad"), /of \?access_token: The token is not valid/],
        [
          "full",
          async () => {
            while ((await Wire.request(port, "/full")).answer.status === 101);
          },
          /Refused an upgrade: maxPending \(2\) is reached$/,
        ],
      ];
      for (const [subject, ask, line] of lines) {
        await server.control(subject, "advance", { ms: 1_000 });
        const warnings = async () =>
          (await server.control(subject, "log")).filter(({ event }: { event: string }) => event === "warn");
        const before = (await warnings()).length;
        for (let n = 0; n < 3; n++) await ask();
        const written = (await warnings()).slice(before);
        assert.equal(written.length, 1, `${subject}: ${JSON.stringify(written)}`);
        assert.match(written[0].record, line);
      }
    },
  },
];
