/** Who is let in by `src/controller/upgrade.ts`, as whom it counts, and how much a client may send once it is in. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const ANN: AuthenticationState = { accountability: { user: "ann", role: null } };

async function codeOf(response: Response): Promise<[status: number, code: string]> {
  return [response.status, (await response.json()).error.code];
}

describe("controller.upgrade, from an origin", () => {
  it("answers 403 to a foreign origin in every mode, before authenticate is called or a slot reserved", async () => {
    for (const mode of ["public", "handshake", "strict"] as const) {
      const { controller, request, accepted } = createRoute({ mode, authenticate: () => assert.fail(), maxConnections: 1 });
      for (
        const origin of [
          "https://evil.example",
          "null",
          "",
          "http://localhost.evil.example",
          "http://localhost:80, http://localhost",
        ]
      ) {
        const response = await request("/websocket?access_token=token-1", { origin });
        assert.deepEqual(await codeOf(response), [403, "FORBIDDEN"], origin);
      }
      assert.deepEqual([accepted, controller.stats().reserved], [[], 0]);
    }
  });

  it("goes by the Host header, which a page cannot choose, in whatever case", async () => {
    for (const [host, status] of [["app.example", 200], ["APP.example", 200], ["other.example", 403]] as const) {
      const { request } = createRoute();
      assert.equal((await request("/websocket", { origin: "https://app.example", host })).status, status, host);
    }
  });

  it("lets in what has none, for it comes from no page, and everything with *", async () => {
    assert.equal((await createRoute().request("/websocket")).status, 200);
    for (const origin of ["null", "https://evil.example"]) {
      assert.equal((await createRoute({ origins: "*" }).request("/websocket", { origin })).status, 200);
    }
  });
});

describe("controller.upgrade, at its limits", () => {
  it("answers 503 or 429 with retry-after, and accepts again once a connection has closed", async () => {
    for (
      const [options, expected] of [
        [{ maxConnections: 2 }, [503, "SERVICE_UNAVAILABLE"]],
        [{ maxPending: 2 }, [503, "SERVICE_UNAVAILABLE"]],
        [{ maxPendingPerIp: 2 }, [429, "LIMIT_EXCEEDED"]],
        [{ maxConnectionsPerIp: 2 }, [429, "LIMIT_EXCEEDED"]],
      ] as const
    ) {
      const { controller, request, opened } = createRoute({ ...options, mode: "handshake", authenticate: () => ANN });
      for (let n = 0; n < 2; n++) assert.equal((await request("/websocket")).status, 200);
      const response = await request("/websocket");
      assert.equal(response.headers.get("retry-after"), "5");
      assert.deepEqual(await codeOf(response), expected);
      opened[0]!.closed(1006, "", false);
      assert.equal((await request("/websocket")).status, 200);
      assert.deepEqual([controller.stats().reserved, controller.stats().active], [2, 2]);
    }
  });

  it("counts an upgrade whose token is being verified", async () => {
    const stall = new Stall<AuthenticationState | null>();
    const { controller, request } = createRoute({ authenticate: () => stall.promise, maxPending: 1, maxConnectionsPerIp: 5 });
    const first = request("/websocket?access_token=token-1");
    await turn();
    assert.deepEqual(await codeOf(await request("/websocket")), [503, "SERVICE_UNAVAILABLE"]);
    stall.resolve(null);
    assert.equal((await first).status, 401);
    assert.deepEqual([controller.stats().reserved, controller.stats().keys], [0, 0]);
  });

  it("keeps the slot of a socket that has yet to open, up to the timeout", async () => {
    const clock = new TestClock();
    const { controller, request, host } = createRoute({ clock, timeout: 2000 });
    host.runtime.accept = () => new Response(null);
    assert.equal((await request("/websocket")).status, 200);
    clock.advance(1999);
    assert.equal(controller.stats().reserved, 1);
    clock.advance(1);
    assert.deepEqual([controller.stats().reserved, clock.timers], [0, 0]);
  });
});

describe("controller.upgrade, behind proxies", () => {
  it("takes the address that clientIp names, counted from the right, and else that of the connection", async () => {
    const cases: [clientIp: NonNullable<WebSocketControllerOptions["clientIp"]>, forwarded: string | null, ip: string | null][] =
      [
        [0, "1.1.1.1", "192.0.2.1"],
        [1, "1.1.1.1", "1.1.1.1"],
        [1, "6.6.6.6, 1.1.1.1", "1.1.1.1"],
        [2, "6.6.6.6 , 2.2.2.2,1.1.1.1", "2.2.2.2"],
        [2, "1.1.1.1", "192.0.2.1"],
        [1, null, "192.0.2.1"],
        [1, " , ", "192.0.2.1"],
        [1, "203.0.113.7:50123", "203.0.113.7"],
        [1, "[2001:DB8::1]:443", "2001:db8::1"],
        [1, "::ffff:203.0.113.7", "203.0.113.7"],
        [1, "unknown", "192.0.2.1"],
        [2, "1.1.1.1:1, 2.2.2.2:2", "1.1.1.1"],
        [() => "[2001:DB8::1]:443", null, "2001:db8::1"],
        [() => "x".repeat(1_000), null, "x".repeat(128)],
        [({ address, headers }) => `${address} ${headers.get("x-forwarded-for")}`, "1.1.1.1", "192.0.2.1 1.1.1.1"],
        [() => null, "1.1.1.1", null],
      ];
    for (const [clientIp, forwarded, ip] of cases) {
      const { request, opened } = createRoute({ clientIp });
      await request("/websocket", { "x-forwarded-for": forwarded });
      assert.equal(opened[0]?.client.handshake.ip, ip, `${String(clientIp)} of ${forwarded}`);
    }
  });

  it("reports a clientIp that throws or answers what is no address, and takes that of the connection", async () => {
    const wrong = [() => 7, () => undefined, () => Promise.resolve("1.1.1.1"), () => {
      throw new Error("hook");
    }];
    for (const clientIp of wrong) {
      const { controller, request, opened } = createRoute({ clientIp: clientIp as never }); // What the compiler would refuse.
      let errors = 0;
      controller.on("error", () => errors++);
      await request("/websocket");
      assert.deepEqual([opened[0]?.client.handshake.ip, errors], ["192.0.2.1", 1]);
    }
  });
});

describe("a client's messages, limited in rate", () => {
  const PING = '{"type":"ping"}';
  const limit = { messages: 10, burst: 3 };

  it("are answered REQUESTS_EXCEEDED with the ms to wait, unread, and taken again after it", () => {
    const { controller, clock } = observe({ rateLimit: limit });
    const { connection, transport } = open(controller);
    for (const frame of [PING, PING, PING, "not JSON"]) connection.message(frame);
    const [error] = transport.take().slice(3);
    assert.deepEqual(error, {
      type: "server",
      status: "error",
      error: { code: "REQUESTS_EXCEEDED", message: "Too many messages", retry_after: 100 },
    });
    // It has been told: what comes meanwhile is refused with it.
    clock.advance(99);
    connection.message(PING);
    assert.deepEqual(transport.take(), []);
    clock.advance(1);
    connection.message(PING);
    assert.deepEqual([transport.take(), transport.closes], [[{ type: "pong" }], []]);
    connection.message(PING);
    assert.equal(transport.take()[0].error.retry_after, 100);
  });

  it("count as many bytes as they have in UTF-8, whether they come as text or as binary", () => {
    for (const char of ["a", "é", "語", "💬", "\ud83d"]) {
      const text = `{"type":"ping","x":"${char.repeat(100)}"}`;
      const bytes = new TextEncoder().encode(text).byteLength;
      for (const frame of [text, new TextEncoder().encode(text)]) {
        for (const [burstBytes, answers] of [[2 * bytes, 2], [2 * bytes - 1, 1]] as const) {
          const { controller } = observe({ rateLimit: { burstBytes, bytes: 1 } });
          const { connection, transport } = open(controller);
          for (let n = 0; n < 3; n++) connection.message(frame);
          assert.equal(transport.take().filter(({ type }) => type === "pong").length, answers, `${char} within ${burstBytes}`);
        }
      }
    }
  });

  it("close with 4529 when a hundred more were refused than let through, and one that is pending at the first", () => {
    const { controller, clock, events } = observe({ rateLimit: limit });
    const { connection, transport } = open(controller);
    for (let n = 0; n < 103; n++) connection.message(PING);
    clock.advance(100);
    // One is let through.
    for (let n = 0; n < 2; n++) connection.message(PING);
    assert.deepEqual(transport.closes, []);
    connection.message(PING);
    assert.deepEqual(transport.closes, [{ code: 4529, reason: "Too many messages" }]);
    connection.closed(4529, "", true);
    assert.equal(Object(events.at(-1)![1]).cause, "rate");
    const stall = observe({ rateLimit: limit, authenticate: () => new Promise(() => {}) });
    const pending = open(stall.controller, { mode: "handshake" });
    for (let n = 0; n < 4; n++) pending.connection.message('{"type":"auth","access_token":"token-1"}');
    assert.deepEqual([pending.transport.sent, pending.transport.closes.map(({ code }) => code)], [[], [4529]]);
  });

  it("are counted by user, else by address, else by connection, or by the key of the application", async () => {
    const exceeded = async (options: WebSocketControllerOptions, paths: [string, string]) => {
      const { request, opened, transports } = createRoute({ rateLimit: { ...limit, burst: 1 }, clientIp: 1, ...options });
      for (const [index, path] of paths.entries()) await request(path, { "x-forwarded-for": `${index}.0.0.0` });
      for (const connection of opened) connection.message(PING);
      return transports[1]?.take()[0].type === "server";
    };
    const authenticate: WebSocketControllerOptions["authenticate"] = (credentials) => ({
      accountability: { user: "access_token" in credentials ? credentials.access_token : "", role: null },
    });
    const as = (user: string) => `/websocket?access_token=${user}`;
    assert.equal(await exceeded({ authenticate }, [as("ann"), as("ann")]), true);
    assert.equal(await exceeded({ authenticate, clientIp: 0 }, [as("ann"), as("bob")]), false);
    assert.equal(await exceeded({ clientIp: 0 }, ["/websocket", "/websocket"]), true);
    assert.equal(await exceeded({}, ["/websocket", "/websocket"]), false);
    assert.equal(await exceeded({ clientIp: () => null }, ["/websocket", "/websocket"]), false);
    let host = 0;
    assert.equal(await exceeded({ clientIp: () => `2001:db8:1:2::${++host}` }, ["/websocket", "/websocket"]), true);
    const key = () => "all";
    assert.equal(await exceeded({ authenticate, rateLimit: { burst: 1, key } }, [as("ann"), as("bob")]), true);
  });
});
