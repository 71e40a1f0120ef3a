import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { hc } from "hono/client";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { createRoute, HANDSHAKE_HEADERS } from "../support/fake-runtime.ts";
import { Stall } from "../support/waiting.ts";

const authenticate = () => null;
const ANN = { accountability: { user: "ann", role: null } };

/** The status of a response, and the error in its body. */
async function read(response: Response) {
  const { error } = await response.json();
  const { headers } = response;
  const named = Object.fromEntries(
    ["upgrade", "connection", "allow", "www-authenticate", "retry-after", "sec-websocket-version"]
      .flatMap((name) => headers.has(name) ? [[name, headers.get(name)]] : []),
  );
  return { status: response.status, headers: named, error };
}

/** The response to a handshake with these headers replaced; `null` removes one. */
async function answerTo(
  headers: Record<string, string | null>,
  options: WebSocketControllerOptions = {},
  init: RequestInit = {},
) {
  const route = createRoute(options);
  const response = await route.request("/websocket", headers, init);
  assert.deepEqual([route.accepted, route.controller.clients().size], [[], 0], "nothing was upgraded");
  return read(response);
}

const invalid = (message: string) => ({ code: "INVALID_REQUEST", message });

describe("controller.upgrade, in a Hono app", () => {
  it("is known to hono/client as $ws, which opens its URL", () => {
    const urls: string[] = [];
    const { controller } = createRoute();
    const app = new Hono().get("/websocket", controller.upgrade);
    const client = hc<typeof app>("http://localhost:3000", {
      webSocket(url: string | URL) {
        urls.push(String(url));
        return {} as WebSocket; // Nothing is opened here.
      },
    });
    client.websocket.$ws();
    assert.deepEqual(urls, ["ws://localhost:3000/websocket"]);
  });
});

describe("controller.upgrade, refusing", () => {
  it("answers 426 when the request is not an upgrade to a WebSocket", async () => {
    for (const upgrade of [null, "", "h2c", "websockets", "web socket", "websocket/13"]) {
      assert.deepEqual(await answerTo({ upgrade }), {
        status: 426,
        headers: { upgrade: "websocket", connection: "Upgrade" },
        error: invalid("This is a WebSocket route"),
      });
    }
  });

  it("repeats Connection: close in a 426 when the client asked for it", async () => {
    for (const connection of ["close", "keep-alive, Close"]) {
      const { headers } = await answerTo({ upgrade: null, connection });
      assert.equal(headers["connection"], "Upgrade, close");
    }
  });

  it("answers 400 when Upgrade names another protocol too, before it reserves a slot", async () => {
    for (const upgrade of ["websocket, foo", "h2c, websocket", "websocket,websocket", "websocket,", ",websocket"]) {
      const error = invalid("The Upgrade header must name websocket alone");
      assert.deepEqual(await answerTo({ upgrade }), { status: 400, headers: {}, error }, upgrade);
    }
  });

  it("answers 400 when Sec-WebSocket-Protocol is not a list of different tokens, as ws does", async () => {
    const wrong = [
      "",
      ",",
      "a,",
      ",a",
      "a,,b",
      "a b",
      "a, b c",
      "a;b",
      "a, a",
      "bearer.a, bearer.a",
      '"a"',
      "a/b",
      "bearer.a=",
      "a\u00a0",
      "é",
    ];
    for (const names of wrong) {
      const error = invalid("Sec-WebSocket-Protocol must list different tokens");
      assert.deepEqual(await answerTo({ "sec-websocket-protocol": names }), { status: 400, headers: {}, error }, names);
    }
  });

  it("answers 400 when Origin is longer than an origin can be", async () => {
    for (const origins of [[], "*"] as const) {
      const error = invalid("Origin is too long");
      const origin = `https://${"a".repeat(600)}.example`;
      assert.deepEqual(await answerTo({ origin }, { origins }), { status: 400, headers: {}, error });
    }
  });

  it("answers 405 when the method is not GET", async () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      assert.deepEqual(await answerTo({}, {}, { method }), {
        status: 405,
        headers: { allow: "GET" },
        error: invalid("A WebSocket handshake is a GET"),
      });
    }
  });

  it("answers 400 when Connection does not name Upgrade", async () => {
    for (const connection of [null, "", "keep-alive", "upgraded", "keep-alive upgrade"]) {
      const error = invalid("The Connection header must name Upgrade");
      assert.deepEqual(await answerTo({ connection }), { status: 400, headers: {}, error });
    }
  });

  it("answers 426 with the supported version when another is requested", async () => {
    for (const version of [null, "", "8", "14", "013", "13, 8", "13,13"]) {
      assert.deepEqual(await answerTo({ "sec-websocket-version": version }), {
        status: 426,
        headers: { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13" },
        error: invalid("Only version 13 of the protocol is supported"),
      });
    }
  });

  it("answers 400 when the key is not 16 bytes in base64", async () => {
    const good = HANDSHAKE_HEADERS["sec-websocket-key"];
    for (
      const key of [null, "", "x", good.slice(1), good + "=", `${good}, ${good}`, good.replace("=", "A"), "-".repeat(22) + "=="]
    ) {
      const error = invalid("Sec-WebSocket-Key must be 16 bytes in base64");
      assert.deepEqual(await answerTo({ "sec-websocket-key": key }), { status: 400, headers: {}, error });
    }
  });

  it("answers 400 when the request target is not a URL", async () => {
    const { app, env, accepted } = createRoute();
    const request = new Request("http://localhost/websocket", { headers: HANDSHAKE_HEADERS });
    Object.defineProperty(request, "url", { value: "http://[/websocket" });
    const { status, error } = await read(await app.fetch(request, env));
    assert.deepEqual([status, error, accepted], [400, invalid("The request target is not a URL"), []]);
  });

  it("answers 503 with retry-after when the controller is closed", async () => {
    const { controller, request } = createRoute();
    await controller.close();
    assert.deepEqual(await read(await request("/websocket")), {
      status: 503,
      headers: { "retry-after": "5" },
      error: { code: "SERVICE_UNAVAILABLE", message: "The server is going away" },
    });
  });

  it("answers 501 with the remedies when no runtime can upgrade", async () => {
    for (const env of [undefined, {}, { server: {} }, { upgrade: true }]) {
      const { status, error } = await read(await createRoute().app.request("/websocket", { headers: HANDSHAKE_HEADERS }, env));
      assert.deepEqual([status, error.code], [501, "SERVICE_UNAVAILABLE"]);
      for (const way of ["noroshi/serve", "Bun", "Node", "Durable Object"]) assert.ok(error.message.includes(way), way);
    }
  });

  it("answers 400 when the client went away during authentication", async () => {
    const { request, host } = createRoute();
    host.runtime.accept = () => null;
    const { status, error } = await read(await request("/websocket"));
    assert.deepEqual([status, error], [400, invalid("The connection is gone")]);
  });

  it("answers 401 without an error attribute in strict mode when there is no token", async () => {
    assert.deepEqual(await answerTo({}, { mode: "strict", authenticate }), {
      status: 401,
      headers: { "www-authenticate": "Bearer" },
      error: { code: "AUTH_FAILED", message: "A token is required" },
    });
  });

  it("answers 401 and emits auth.failure when the token is refused, in each mode", async () => {
    for (const mode of ["public", "handshake", "strict"] as const) {
      const { controller, request } = createRoute({ mode, authenticate });
      const failures: unknown[] = [];
      controller.on("auth.failure", ({ error, cause }) => failures.push([error.code, cause && String(cause)]));
      const refused = {
        status: 401,
        headers: { "www-authenticate": 'Bearer error="invalid_token"' },
        error: { code: "AUTH_FAILED", message: "The token is not valid" },
      };
      assert.deepEqual(await read(await request("/websocket", { authorization: "Bearer a" })), refused);
      assert.deepEqual(await read(await request("/websocket", { authorization: "Bearer a b" })), refused);
      assert.deepEqual(failures, [["AUTH_FAILED", undefined], ["AUTH_FAILED", "Error: It is not Bearer and one token"]]);
    }
  });

  it("answers 401 with the code and message of a WebSocketError that authenticate throws, and reports no error", async () => {
    const answer = await answerTo({ authorization: "Bearer a" }, {
      authenticate: () => {
        throw new WebSocketError("auth", "OTP_REQUIRED", "A one-time password is required", { details: { n: 1n } });
      },
      logger: { warn: () => {}, error: () => assert.fail() },
    });
    assert.deepEqual(answer, {
      status: 401,
      headers: { "www-authenticate": 'Bearer error="invalid_token"' },
      error: { code: "OTP_REQUIRED", message: "A one-time password is required" },
    });
  });

  it("answers 503 without detail, and reports the error, when authenticate fails", async () => {
    const error = new Error("s3cr3t");
    const { controller, request, accepted } = createRoute({
      authenticate: () => {
        throw error;
      },
    });
    const errors: unknown[] = [];
    controller.on("error", (payload) => errors.push(payload));
    assert.deepEqual(await read(await request("/websocket?access_token=token-1")), {
      status: 503,
      headers: { "retry-after": "5" },
      error: { code: "SERVICE_UNAVAILABLE", message: "Authentication is unavailable" },
    });
    assert.deepEqual([errors, accepted], [[{ error }], []]);
  });
});

describe("controller.upgrade, accepting", () => {
  it("accepts Upgrade and Connection in any case and among other values", async () => {
    for (
      const headers of [
        {},
        { upgrade: "WebSocket", connection: "upgrade" },
        { upgrade: "WEBSOCKET", connection: "keep-alive, Upgrade" },
        { connection: " ,UPGRADE, " },
      ]
    ) {
      const { request, accepted } = createRoute();
      await request("/websocket", headers);
      assert.equal(accepted.length, 1, JSON.stringify(headers));
    }
  });

  it("opens one connection with the facts of the request, lists it with the server and emits connect", async () => {
    const { controller, request, host, opened } = createRoute({ origins: ["https://app.example"] });
    const connects: unknown[] = [];
    controller.on("connect", ({ client }) => connects.push(client));
    await request("/websocket?room=1", { origin: "https://app.example", "user-agent": "tests" });
    const [{ client }] = opened as [typeof opened[0]];
    assert.deepEqual(client.handshake, {
      mode: "public",
      url: "http://localhost/websocket?room=1",
      origin: "https://app.example",
      ip: "192.0.2.1",
      userAgent: "tests",
      protocol: null,
    });
    assert.deepEqual([connects, [...controller.clients()]], [[client], [client]]);
    assert.deepEqual([...host.connections], [opened[0]]);
  });

  it("has neither origin nor user agent when the headers are absent", async () => {
    const { request, opened } = createRoute();
    await request("/websocket");
    assert.deepEqual([opened[0]?.client.handshake.origin, opened[0]?.client.handshake.userAgent], [null, null]);
  });

  it("passes the runtime its options, and the headers of middleware without those of the handshake", async () => {
    const { request, accepted } = createRoute({ maxPayload: 1234 }, (route) => {
      route.use(async (c, next) => {
        c.header("x-before", "1");
        c.header("sec-websocket-accept", "forged");
        c.header("sec-websocket-protocol", "forged");
        c.header("content-length", "7");
        c.header("set-cookie", "a=1");
        c.header("set-cookie", "b=2", { append: true });
        await next();
        c.header("x-after", "1");
      });
    });
    const response = await request("/websocket");
    assert.equal(accepted[0]?.maxPayload, 1234);
    const names = [...accepted[0]!.headers!.keys()];
    assert.deepEqual(names.filter((name) => name !== "set-cookie"), ["x-before"]);
    assert.deepEqual(accepted[0]?.headers?.getSetCookie(), ["a=1", "b=2"]);
    assert.equal(response.headers.get("x-fake"), "runtime");
    assert.equal(response.headers.get("x-after"), "1");
  });

  it("follows changes of the list of origins", async () => {
    const origins = ["https://app.example.com"];
    const { request, accepted } = createRoute({ origins });
    const statuses = [];
    for (const next of ["https://other.example.com", "https://app.example.com"]) {
      for (let n = 0; n < 2; n++) statuses.push((await request("/websocket", { origin: "https://app.example.com" })).status);
      origins[0] = next;
    }
    assert.deepEqual([statuses, accepted.length], [[200, 200, 403, 403], 2]);
  });

  it("rejects, and does not throw, for a handler that calls it", async () => {
    const { controller, app, env } = createRoute({ authenticate: () => ({ accountability: { user: "ann", role: null } }) });
    controller.observe("test", () => ({
      authenticated() {
        throw new Error("An observer");
      },
    }));
    app.get(
      "/own",
      (c) => controller.upgrade(c as never, async () => {}).catch((error: Error) => c.text(error.message, 500)) as never,
    );
    const response = await app.request("/own?access_token=a", { headers: HANDSHAKE_HEADERS }, env);
    assert.deepEqual([response.status, await response.text()], [500, "An observer"]);
  });

  it("agrees on the first offered subprotocol that it supports, otherwise on none", async () => {
    const cases: [offered: string | null, agreed: string | null][] = [
      [null, null],
      ["other", null],
      ["NOROSHI.V1", null],
      ["noroshi.v1", "noroshi.v1"],
      ["other,noroshi.v1,chat.v2", "noroshi.v1"],
      ["bearer.secret , chat.v2 ,noroshi.v1", "chat.v2"],
      ["bearer.secret", null],
    ];
    for (const [offered, agreed] of cases) {
      const { request, accepted, opened } = createRoute({ protocols: ["chat.v2", "noroshi.v1"] });
      await request("/websocket", { "sec-websocket-protocol": offered });
      assert.deepEqual([accepted[0]?.protocol, opened[0]?.client.handshake.protocol], [agreed, agreed], String(offered));
    }
  });

  it("answers 503 and opens nothing when the controller closes during authentication", async () => {
    const stall = new Stall<typeof ANN>();
    const { controller, request, accepted } = createRoute({ authenticate: () => stall.promise });
    const response = request("/websocket?access_token=token-1");
    await controller.close();
    stall.resolve(ANN);
    assert.deepEqual([(await response).status, accepted, controller.stats().reserved], [503, [], 0]);
  });
});

describe("controller.upgrade, called without a context", () => {
  it("throws TypeError with the remedy where it is called", () => {
    const { controller } = createRoute();
    assert.throws(() => controller.upgrade(undefined as never, undefined as never), {
      name: "TypeError",
      message:
        'Cannot upgrade: pass the handler without calling it, app.get("/websocket", controller.upgrade), or call it with Hono\'s context',
    });
  });
});
