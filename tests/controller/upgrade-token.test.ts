/** How `src/controller/upgrade-request.ts` reads the token of a request. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState, Credentials } from "../../src/application/authentication.ts";
import type { Handshake } from "../../src/application/websocket-client.ts";
import { createRoute } from "../support/fake-runtime.ts";

const MAX = 8192;

/** The token that `authenticate` receives from a request, and the status. Tokens that start with `bad` are refused. */
async function show(
  headers: Record<string, string> = {},
  {
    path = "/websocket",
    mode = "public" as Handshake["mode"],
    cookie = "session" as string | null,
    allowCookieWithoutOrigin = false,
  } = {},
) {
  const shown: string[] = [];
  const handshakes: Handshake[] = [];
  const { request, opened } = createRoute({
    mode,
    ...(cookie === null ? {} : { cookie, allowCookieWithoutOrigin }),
    authenticate(credentials: Credentials, handshake): AuthenticationState | null {
      const { source, access_token: token } = credentials as { source: string; access_token: string };
      shown.push(`${source} ${token}`);
      handshakes.push(handshake);
      // The id of a user has its own limit.
      return token.startsWith("bad") ? null : { accountability: { user: token.slice(0, 256), role: null } };
    },
  });
  const { status } = await request(path, headers);
  return { shown, status, handshakes, client: opened[0]?.client };
}

/** All four places, each with its own token. */
const EVERYWHERE = {
  headers: {
    "sec-websocket-protocol": "noroshi.v1, bearer.p",
    authorization: "Bearer h",
    cookie: "session=c",
    origin: "http://localhost",
  },
  path: "/websocket?access_token=q",
};

describe("controller.upgrade, reading the token", () => {
  it("prefers the subprotocol, then Authorization, then the query, then the cookie", async () => {
    const { path } = EVERYWHERE;
    const headers: Record<string, string> = { ...EVERYWHERE.headers };
    assert.deepEqual((await show(headers, { path })).shown, ["protocol p"]);
    headers["sec-websocket-protocol"] = "noroshi.v1";
    assert.deepEqual((await show(headers, { path })).shown, ["header h"]);
    delete headers["authorization"];
    assert.deepEqual((await show(headers, { path })).shown, ["query q"]);
    assert.deepEqual((await show(headers)).shown, ["cookie c"]);
    assert.deepEqual((await show({})).shown, []);
    // The page behind a cookie without an origin is unknown.
    const { shown, status } = await show({ cookie: "session=c" });
    assert.deepEqual([shown, status], [[], 403]);
  });

  it("accepts a cookie without an Origin with allowCookieWithoutOrigin, and none from a foreign page", async () => {
    for (const mode of ["public", "handshake", "strict"] as const) {
      const options = { mode, allowCookieWithoutOrigin: true };
      assert.deepEqual((await show({ cookie: "session=c" }, options)).shown, ["cookie c"]);
      assert.deepEqual((await show({ cookie: "session=c", origin: "http://localhost" }, options)).shown, ["cookie c"]);
      for (const origin of ["https://evil.example", "null", ""]) {
        const { shown, status } = await show({ cookie: "session=c", origin }, options);
        assert.deepEqual([shown, status], [[], 403], origin);
      }
      assert.equal((await show({ cookie: "session=bad" }, options)).status, 401);
    }
  });

  it("never falls back to the next place, or to anonymous, when a token is refused or malformed", async () => {
    const wrong: [headers: Record<string, string>, query?: string][] = [
      [{ "sec-websocket-protocol": "bearer.bad" }],
      [{ "sec-websocket-protocol": "bearer." }],
      [{ "sec-websocket-protocol": "bearer.a, bearer.b" }],
      [{ "sec-websocket-protocol": `bearer.${"a".repeat(MAX + 1)}` }],
      [{ authorization: "Bearer bad" }],
      [{ authorization: "Bearer" }],
      [{ authorization: "Bearer a b" }],
      [{ authorization: "Bearer a, Bearer b" }],
      [{ authorization: "Bearer, Basic YTpi" }],
      [{ authorization: "Basic YTpi, Bearer a" }],
      [{ authorization: "Basic YTpi, bearer" }],
      [{ authorization: "bearer\ta" }],
      [{ authorization: `Bearer ${"a".repeat(MAX + 1)}` }],
      [{}, "access_token=bad"],
      [{}, "access_token=a&access_token=b"],
      [{}, "access_token=&access_token=a"],
      [{}, `access_token=${"a".repeat(MAX + 1)}`],
      [{ cookie: "session=bad" }],
      [{ cookie: "session=a; session=b" }],
      [{ cookie: "session=a; other=b;session=a" }],
      [{ cookie: "session=; session =a" }],
      [{ cookie: "session=a; session=" }],
      [{ cookie: `session=${"a".repeat(MAX + 1)}` }],
    ];
    for (const [headers, query] of wrong) {
      for (const mode of ["public", "handshake", "strict"] as const) {
        // Every later place has a valid one.
        const later: Record<string, string> = {};
        if (!headers["cookie"]) later["cookie"] = "session=c";
        if (!headers["cookie"] && query === undefined && !("authorization" in headers)) later["authorization"] = "Bearer h";
        const { status, client } = await show({ origin: "http://localhost", ...later, ...headers }, {
          mode,
          path: `/websocket?${query ?? ""}`,
        });
        assert.deepEqual([status, client], [401, undefined], JSON.stringify([headers, query]).slice(0, 80));
      }
    }
  });

  it("accepts a token of 8192 characters, in each place", async () => {
    const token = "a".repeat(MAX);
    for (
      const [headers, path] of [
        [{ "sec-websocket-protocol": `bearer.${token}` }, "/websocket"],
        [{ authorization: `Bearer ${token}` }, "/websocket"],
        [{}, `/websocket?access_token=${token}`],
        [{ cookie: `session=${token}`, origin: "http://localhost" }, "/websocket"],
      ] as [Record<string, string>, string][]
    ) {
      const { shown, client } = await show(headers, { path });
      assert.deepEqual([shown[0]?.split(" ")[1], client?.accountability.user], [token, token.slice(0, 256)]);
    }
  });

  it("accepts Bearer in any case, with spaces around", async () => {
    for (const authorization of ["Bearer a", "bearer a", "BEARER   a", "  Bearer a  "]) {
      assert.deepEqual((await show({ authorization })).shown, ["header a"]);
    }
  });

  it("finds no token in other subprotocols, an empty query or other cookies", async () => {
    for (
      const [headers, path] of [
        [{ "sec-websocket-protocol": "Bearer.a, bearer, xbearer.a" }, "/websocket"],
        [{}, "/websocket?access_token="],
        [{}, "/websocket?access_token"],
        [{}, "/websocket?ACCESS_TOKEN=a&token=b"],
        [{ cookie: "other=a; Session=b; session=" }, "/websocket"],
      ] as [Record<string, string>, string][]
    ) {
      const { shown, client } = await show(headers, { path });
      assert.deepEqual([shown, client?.accountability], [[], { user: null, role: null }]);
      assert.equal((await show(headers, { path, mode: "strict" })).status, 401);
    }
  });

  it("skips an Authorization of another scheme, which a browser repeats by itself", async () => {
    for (
      const authorization of ["Basic YTpi", 'Digest username="ann", realm="a bearer b"', "Negotiate a", "Bearers a", "a", ""]
    ) {
      const headers = { authorization, cookie: "session=c", origin: "http://localhost" };
      assert.deepEqual((await show(headers)).shown, ["cookie c"], authorization);
      assert.deepEqual((await show({ authorization }, { path: "/websocket?access_token=q" })).shown, ["query q"]);
      assert.equal((await show({ authorization }, { mode: "strict" })).status, 401);
      assert.equal((await show({ authorization })).status, 200);
    }
  });

  it("reads the cookie named by the option, decoded, and none without it", async () => {
    assert.deepEqual((await show({ cookie: "a=1; session=x%20y; b=2", origin: "http://localhost" })).shown, ["cookie x y"]);
    assert.deepEqual((await show({ cookie: "session=c" }, { cookie: null })).shown, []);
  });

  it("ignores any token, even a malformed one, without authenticate", async () => {
    const { request, opened } = createRoute();
    await request(EVERYWHERE.path, { ...EVERYWHERE.headers, authorization: "Basic \u00ff" });
    assert.deepEqual(opened[0]?.client.accountability, { user: null, role: null });
    assert.equal(opened[0]?.client.handshake.url, "http://localhost/websocket");
  });

  it("admits with the identity at once, in each mode", async () => {
    for (const mode of ["public", "handshake", "strict"] as const) {
      const { client } = await show({ authorization: "Bearer ann" }, { mode });
      assert.deepEqual([client?.accountability.user, client?.handshake.mode, client?.readyState], ["ann", mode, 1]);
    }
  });
});

describe("controller.upgrade, hiding the token", () => {
  it("removes only the token from the URL that authenticate and the client see", async () => {
    const cases: [query: string, rest: string][] = [
      ["access_token=a", ""],
      ["access_token=", ""],
      ["x=1&access_token=a&y=2", "?x=1&y=2"],
      ["%61ccess_token=a&x=1", "?x=1"],
      ["access_token&x", "?x="],
      ["x=access_token%3Da", "?x=access_token%3Da"],
      ["x&y=%20a", "?x&y=%20a"],
    ];
    for (const [query, rest] of cases) {
      const { client, handshakes } = await show({}, { path: `/websocket?${query}` });
      assert.equal(client?.handshake.url, `http://localhost/websocket${rest}`);
      for (const handshake of handshakes) assert.equal(handshake.url, client?.handshake.url);
    }
  });

  it("keeps the token out of the handshake, wherever it was sent", async () => {
    const secret = "s3cr3t";
    for (
      const [headers, path] of [
        [{ "sec-websocket-protocol": `noroshi.v1, bearer.${secret}` }, "/websocket"],
        [{ authorization: `Bearer ${secret}` }, "/websocket"],
        [{}, `/websocket?access_token=${secret}`],
        [{ cookie: `session=${secret}`, origin: "http://localhost" }, "/websocket"],
      ] as [Record<string, string>, string][]
    ) {
      const { client, handshakes } = await show(headers, { path });
      assert.equal(client?.accountability.user, secret);
      assert.equal(JSON.stringify([client?.handshake, handshakes]).includes(secret), false);
    }
  });
});
