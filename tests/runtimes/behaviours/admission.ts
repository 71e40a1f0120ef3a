import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { Wire } from "../wire.ts";

/** Who gets a place at all, before anything is verified. */
export const admission: Behaviour[] = [
  {
    title: "a page of the request's own host may connect, of another may not",
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
    title: "origins lists exact origins and hosts below one, and nothing that only looks like them",
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
    title: 'origins "*" lets every page in',
    async run({ port }) {
      for (const Origin of ["https://anywhere.example", "null"]) await Wire.open(port, "/open", { headers: { Origin } });
    },
  },
  {
    title: "an origin is refused before authenticate runs",
    async run(server) {
      const headers = { Origin: "http://evil.example" };
      assert.equal((await Wire.request(server.port, "/strict?access_token=ann", { headers })).answer.status, 403);
      assert.deepEqual(await server.control("strict", "log"), []);
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
      assert.deepEqual(await server.control("strict", "log"), []);
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
    title: "a place is taken before the token is verified",
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
    title: "a place is given back however the upgrade ends",
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
    title: "a limit that is reached is told to the logger, once a minute",
    async run(server) {
      await Wire.open(server.port, "/full");
      await Wire.open(server.port, "/full");
      for (let i = 0; i < 3; i++) await Wire.request(server.port, "/full");
      const [{ record }] = await server.control("full", "wait", { event: "warn" });
      assert.equal(record, "[noroshi] Upgrades are refused: the limit of maxPending is reached");
      await server.control("full", "advance", { ms: 1 });
      const warnings = (await server.control("full", "log")).filter(({ event }: { event: string }) => event === "warn");
      assert.equal(warnings.length, 1);
    },
  },
];
