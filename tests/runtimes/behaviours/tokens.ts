import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { Wire } from "../wire.ts";

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

/** Tokens shown in the upgrade request. */
export const tokens: Behaviour[] = [
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
        { Authorization: "Basic YW5uOmFubg==, Bearer bad", ...good },
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
    title: "an Authorization of another scheme is no token: a browser repeats the Basic credentials of a site by itself",
    async run({ port }) {
      for (const Authorization of ["Basic YW5uOmFubg==", 'Digest username="ann", realm="x"', "Negotiate YII="]) {
        const page = { Origin: `http://127.0.0.1:${port}`, Cookie: "session_token=bob" };
        const byCookie = await Wire.open(port, "/strict", { headers: { Authorization, ...page } });
        assert.equal((await byCookie.ask({ type: "who" })).data.accountability.user, "bob");
        const byQuery = await Wire.open(port, "/strict?access_token=cid", { headers: { Authorization } });
        assert.equal((await byQuery.ask({ type: "who" })).data.accountability.user, "cid");
        assert.equal((await Wire.request(port, "/strict", { headers: { Authorization } })).answer.status, 401);
        byCookie.reset();
        byQuery.reset();
      }
    },
  },
  {
    title: "two cookies of the name are refused, in whichever order: another host of the site may have set one",
    async run(server) {
      for (
        const cookies of [
          "session_token=ann; session_token=bob",
          "session_token=ann; a=b;session_token=ann",
          "session_token=; session_token=ann",
        ]
      ) {
        const headers = { Origin: `http://127.0.0.1:${server.port}`, Cookie: cookies };
        for (const mode of ["public", "handshake", "strict"]) {
          assert.equal((await Wire.request(server.port, `/${mode}`, { headers })).answer.status, 401, cookies);
        }
      }
      const log = await server.control("strict", "log");
      assert.equal(log.some(({ event }: { event: string }) => event === "authenticate"), false);
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
