/** What the operator reads and counts of the upgrades and `auth` messages that are refused: `src/application/refusals.ts`, and who calls it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Authenticate, AuthenticationState } from "../../src/application/authentication.ts";
import { Log, type LoggerOption, type LogRecord } from "../../src/application/log.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { type RefusalReason, Refusals } from "../../src/application/refusals.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

function recorder() {
  const warnings: string[] = [];
  const records: LogRecord[] = [];
  const warn = (record: LogRecord, message: string) => {
    records.push(record);
    warnings.push(message);
  };
  return { warnings, records, logger: { warn, error: () => assert.fail() } };
}

/** Refusals with a log of their own. */
const refusalsOf = (logger: LoggerOption, now: () => number) => new Refusals(new Log(logger, now), () => false);

describe("Refusals", () => {
  it("logs one record a second for each reason, and how many it left out", () => {
    const { warnings, records, logger } = recorder();
    let now = 0;
    const refusals = refusalsOf(logger, () => now);
    for (let n = 0; n < 5; n++) refusals.add("origin", () => [{ ip: "192.0.2.1" }, `origin ${n}`]);
    refusals.add("token", () => [{}, "token"]);
    assert.deepEqual(warnings, ["origin 0", "token"]);
    now = 999;
    refusals.add("origin", () => [{}, "early"]);
    now = 1000;
    refusals.add("origin", () => [{}, "origin 6"]);
    now = 2000;
    refusals.add("origin", () => [{}, "origin 7"]);
    assert.deepEqual(warnings.slice(2), ["origin 6", "origin 7"]);
    const event = "noroshi.upgrade.refused";
    assert.deepEqual(records, [
      { event, reason: "origin", ip: "192.0.2.1" },
      { event, reason: "token" },
      { event, reason: "origin", suppressed: 5 },
      { event, reason: "origin" },
    ]);
    assert.deepEqual([refusals.counts.origin, refusals.counts.token, refusals.counts.ip], [8, 1, 0]);
  });

  it("counts without a record where there is nothing to say, and where the logger is off", () => {
    const { warnings, logger } = recorder();
    const refusals = refusalsOf(logger, () => 0);
    refusals.add("abandoned");
    const silent = refusalsOf(false, () => 0);
    silent.add("origin", assert.fail);
    assert.deepEqual([warnings, refusals.counts.abandoned, silent.counts.origin], [[], 1, 1]);
  });

  it("logs short text in one line, whatever a client puts into it, and survives a logger that throws", () => {
    const { warnings, records, logger } = recorder();
    const forged = `https://a\n[noroshi] forged\u2028${"x".repeat(10_000)}`;
    refusalsOf(logger, () => 0).add("origin", () => [{ origin: forged, limit: 1 }, `Refused origin ${forged}`]);
    for (const text of [warnings[0]!, records[0]!.origin!]) {
      assert.match(text, /https:\/\/a\\u000a\[noroshi\] forged\\u2028x/);
      assert.ok(text.length <= 512);
    }
    assert.equal(records[0]!.limit, 1);
    const failing = refusalsOf({ warn: () => assert.fail("full disk"), error: () => {} }, () => 0);
    failing.add("origin", () => [{}, "x"]);
    failing.add("token", () => assert.fail("cannot be described"));
    assert.equal(failing.counts.origin, 1);
  });
});

/** What one request of a route with these options writes, and counts. */
async function refused(
  options: WebSocketControllerOptions,
  headers: Record<string, string | null> = {},
  { path = "/websocket", times = 1 } = {},
): Promise<{ line: string | undefined; record: LogRecord | undefined; counted: Partial<Record<RefusalReason, number>> }> {
  const { warnings, records, logger } = recorder();
  const { controller, request } = createRoute({ logger, ...options });
  for (let n = 0; n < times; n++) await request(path, headers);
  const counted = Object.fromEntries(Object.entries(controller.stats().refused).filter(([, count]) => count > 0));
  assert.ok(warnings.length <= 1, warnings.join("\n"));
  return { line: warnings[0], record: records[0], counted };
}

const nobody: Authenticate = () => null;
const ann: Authenticate = () => ({ accountability: { user: "ann", role: null } });

describe("controller.upgrade, when it refuses", () => {
  const cases: [
    title: string,
    options: WebSocketControllerOptions,
    headers: Record<string, string | null>,
    expected: { line: string; reason: RefusalReason; record?: Partial<LogRecord> },
    how?: { path?: string; times?: number },
  ][] = [
    ["a foreign origin", {}, { origin: "http://localhost:8088", host: "chat" }, {
      line: 'Refused origin http://localhost:8088: the request\'s host is "chat". Add it to origins, or let the proxy pass Host',
      reason: "origin",
      record: { origin: "http://localhost:8088", host: "chat", ip: "192.0.2.1", code: "FORBIDDEN" },
    }],
    ["a cookie without an origin", { authenticate: ann, cookie: "session" }, { cookie: "session=a" }, {
      line:
        "Refused a cookie without an Origin header, which every page sends. Outside of a browser, send the token as Authorization: Bearer, or set allowCookieWithoutOrigin",
      reason: "origin",
    }],
    ["a request without Upgrade", {}, { upgrade: null }, {
      line: "Refused a request without the header Upgrade: websocket. If a proxy is in front, let it pass Upgrade and Connection",
      reason: "request",
    }],
    ["a bad key", {}, { "sec-websocket-key": "x" }, {
      line: "Refused a request: Sec-WebSocket-Key must be 16 bytes in base64",
      reason: "request",
      record: { ip: "192.0.2.1" },
    }],
    ["no token in strict mode", { mode: "strict", authenticate: ann, cookie: "session" }, {}, {
      line: 'Refused an upgrade without a token: mode "strict" needs one in Sec-WebSocket-Protocol: bearer.<token> or ' +
        'Authorization: Bearer or ?access_token= or the cookie "session"',
      reason: "token",
    }],
    ["a token that authenticate returns null for", { authenticate: nobody }, { authorization: "Bearer a" }, {
      line: "Refused the token of the Authorization header: The token is not valid",
      reason: "token",
    }],
    ["two cookies of one name", { authenticate: ann, cookie: "a" }, { cookie: "a=1; a=2", origin: "http://localhost" }, {
      line: "Refused the token of a cookie: There are several",
      reason: "token",
    }],
    [
      "a token that has expired",
      { authenticate: () => ({ accountability: { user: "ann", role: null }, expires_at: 1_799_999_990 }) },
      { authorization: "Bearer a" },
      { line: "Refused the token of the Authorization header: The credentials expired 10 s ago", reason: "token" },
    ],
    ["the limit of all", { maxConnections: 1 }, {}, {
      line: "Refused an upgrade: maxConnections (1) is reached",
      record: { option: "maxConnections", limit: 1, ip: "192.0.2.1", code: "SERVICE_UNAVAILABLE" },
      reason: "connections",
    }, { times: 2 }],
    ["the limit of the pending", { maxPending: 1, maxPendingPerIp: 9, authenticate: ann }, {}, {
      line: "Refused an upgrade: maxPending (1) is reached",
      record: { option: "maxPending", limit: 1, ip: "192.0.2.1", code: "SERVICE_UNAVAILABLE" },
      reason: "pending",
    }, { times: 2 }],
    ["an address's share of the pending", { maxPendingPerIp: 1, authenticate: ann }, {}, {
      line: "Refused 192.0.2.1: maxPendingPerIp (1) is reached. Behind a proxy, set clientIp",
      record: { option: "maxPendingPerIp", limit: 1, ip: "192.0.2.1", code: "LIMIT_EXCEEDED" },
      reason: "ip",
    }, { times: 2 }],
    ["the limit of an address", { maxConnectionsPerIp: 1 }, {}, {
      line: "Refused 192.0.2.1: maxConnectionsPerIp (1) is reached. Behind a proxy, set clientIp",
      record: { option: "maxConnectionsPerIp", limit: 1, ip: "192.0.2.1", code: "LIMIT_EXCEEDED" },
      reason: "ip",
    }, { times: 2 }],
    ["the limit of a user", { maxConnectionsPerUser: 1, authenticate: ann }, { authorization: "Bearer a" }, {
      line: "Refused an upgrade: a user has reached maxConnectionsPerUser (1)",
      record: { option: "maxConnectionsPerUser", limit: 1 },
      reason: "user",
    }, { times: 2 }],
  ];
  for (const [title, options, headers, { line, reason, record = {} }, how] of cases) {
    it(`names ${title} to the operator and counts it`, async () => {
      const { record: logged, ...rest } = await refused(options, headers, how);
      assert.deepEqual(rest, { line, counted: { [reason]: 1 } });
      assert.deepEqual({ ...logged, ...record }, logged);
      assert.deepEqual([logged?.event, logged?.reason], ["noroshi.upgrade.refused", reason]);
    });
  }

  it("names the failed authentications of an address after thirty, and of clients without one too", async () => {
    for (const [ip, who] of [["203.0.113.7", "203.0.113.7"], [null, "a client without an address"]] as const) {
      const { warnings, logger } = recorder();
      const { controller, request } = createRoute({ logger, authenticate: nobody, clientIp: () => ip });
      const status = async () => (await request("/websocket", { authorization: "Bearer a" })).status;
      for (let n = 0; n < 30; n++) assert.equal(await status(), 401);
      assert.equal(await status(), 429);
      assert.equal(
        warnings.at(-1),
        `Refused ${who}: too many failed authentications from there. Behind a proxy, set clientIp`,
      );
      assert.deepEqual([controller.stats().refused.token, controller.stats().refused.failures], [30, 1]);
    }
  });

  it("counts a WebSocketError of authenticate as a failed authentication", async () => {
    const { request } = createRoute({
      authenticate: () => {
        throw new WebSocketError("auth", "AUTH_FAILED", "No");
      },
    });
    const status = async () => (await request("/websocket", { authorization: "Bearer a" })).status;
    for (let n = 0; n < 30; n++) assert.equal(await status(), 401);
    assert.equal(await status(), 429);
  });

  it("hands the cause to auth.failure alone, without the credentials it quotes, and then writes no line", async () => {
    const { warnings, logger } = recorder();
    const { controller, request } = createRoute({
      logger,
      authenticate(credentials) {
        const token = "access_token" in credentials ? credentials.access_token : "";
        throw new WebSocketError("auth", "AUTH_FAILED", "No", { cause: new Error(`Wrong signature: ${token}`) });
      },
    });
    const causes: unknown[] = [];
    controller.on("auth.failure", ({ cause }) => causes.push(cause));
    const response = await request("/websocket", { authorization: "Bearer s3cr3t-token" });
    assert.deepEqual(await response.json(), { error: { code: "AUTH_FAILED", message: "No" } });
    assert.deepEqual([causes.map(String), warnings], [["Error: Wrong signature: [redacted]"], []]);
  });

  it("takes no place behind an answer that something else has given meanwhile", async () => {
    const stall = new Stall<AuthenticationState>();
    const { warnings, logger } = recorder();
    const { controller, request, accepted } = createRoute({ logger, authenticate: () => stall.promise }, (app) => {
      app.use(async (c, next) => {
        const rest = next();
        await turn();
        c.res = c.text("Too late", 504);
        await rest;
      });
    });
    const response = request("/websocket?access_token=token-1");
    await turn();
    await turn();
    stall.resolve({ accountability: { user: "ann", role: null } });
    await response;
    assert.deepEqual([accepted, controller.stats().reserved, controller.stats().refused.abandoned], [[], 0, 1]);
    assert.match(warnings[0] ?? "", /the app responded before authenticate had settled, as Hono's timeout\(\) does/);
  });
});

describe("a code that authenticate throws", () => {
  for (const code of ["FORBIDDEN", "LIMIT_EXCEEDED", "REQUESTS_EXCEEDED", "SERVICE_UNAVAILABLE", "constructor"]) {
    it(`such as ${code} is no other reason than token, at the upgrade and in an auth message`, async () => {
      const { records, logger } = recorder();
      const authenticate = () => {
        throw new WebSocketError("auth", code, "No");
      };
      const { controller, request, opened } = createRoute({ logger, clock: new TestClock(), authenticate });
      assert.equal((await request("/websocket", { authorization: "Bearer a" })).status, 401);
      await request("/websocket");
      opened[0]!.message('{"type":"auth","access_token":"token-1"}');
      await turn();
      const counted = Object.entries(controller.stats().refused).filter(([, count]) => count > 0);
      assert.deepEqual(counted, [["token", 2]]);
      assert.deepEqual(records.map(({ reason, code }) => [reason, code]), [["token", code]]); // One a second.
    });
  }
});

describe("an auth message that is refused", () => {
  it("names the limit of its user to the operator", async () => {
    const { records, logger } = recorder();
    const { controller, request, opened } = createRoute({
      logger,
      clock: new TestClock(),
      authenticate: ann,
      maxConnectionsPerUser: 1,
    });
    for (const n of [0, 1]) {
      await request("/websocket");
      opened[n]!.message('{"type":"auth","access_token":"token-1"}');
      await turn();
    }
    const record = { event: "noroshi.auth.refused", reason: "user", code: "LIMIT_EXCEEDED", ip: "192.0.2.1" };
    assert.deepEqual(records, [{ ...record, option: "maxConnectionsPerUser", limit: 1 }]);
    assert.equal(controller.stats().refused.user, 1);
  });

  it("counts why it was refused: disconnected, failures and unavailable", async () => {
    const counted = async (create: () => WebSocketControllerOptions, act: (route: ReturnType<typeof createRoute>) => void) => {
      const route = createRoute({ logger: false, clock: new TestClock(), ...create() });
      await route.request("/websocket");
      act(route);
      await turn();
      return Object.entries(route.controller.stats().refused).filter(([, count]) => count > 0);
    };
    const say = ({ opened }: ReturnType<typeof createRoute>) => opened[0]!.message('{"type":"auth","access_token":"token-1"}');
    const fail = () => {
      throw new Error("The database is away");
    };
    assert.deepEqual(await counted(() => ({ authenticate: fail }), say), [["unavailable", 1]]);
    const stall = new Stall<AuthenticationState>();
    const disconnected = await counted(() => ({ authenticate: () => stall.promise }), (route) => {
      say(route);
      void route.controller.disconnect({ user: "ann" });
      stall.resolve({ accountability: { user: "ann", role: null } });
    });
    assert.deepEqual(disconnected, [["disconnected", 1]]);
    const { controller, request, opened } = createRoute({ logger: false, clock: new TestClock(), authenticate: nobody });
    for (let n = 0; n < 30; n++) await request("/websocket", { authorization: "Bearer a" });
    await request("/websocket");
    opened[0]!.message('{"type":"auth","access_token":"token-1"}');
    await turn();
    assert.deepEqual([controller.stats().refused.token, controller.stats().refused.failures], [30, 1]);
  });

  it("passes its cause to auth.failure, or to the log without a listener, and never to the client", async () => {
    for (const isHeard of [true, false]) {
      const { warnings, records, logger } = recorder();
      const { controller, request, opened, transports } = createRoute({
        logger,
        clock: new TestClock(),
        authenticate() {
          throw new WebSocketError("auth", "AUTH_FAILED", "No", { cause: new Error("The signature is wrong") });
        },
      });
      const causes: unknown[] = [];
      if (isHeard) controller.on("auth.failure", ({ cause }) => causes.push(String(cause)));
      await request("/websocket");
      opened[0]!.message('{"type":"auth","access_token":"token-1"}');
      await turn();
      assert.deepEqual(transports[0]!.take(), [{ type: "auth", status: "error", error: { code: "AUTH_FAILED", message: "No" } }]);
      assert.deepEqual(causes, isHeard ? ["Error: The signature is wrong"] : []);
      assert.deepEqual(warnings, isHeard ? [] : ["Refused a client: The signature is wrong"]);
      const record = { event: "noroshi.auth.refused", reason: "token", code: "AUTH_FAILED", ip: "192.0.2.1" };
      assert.deepEqual(records, isHeard ? [] : [record]);
      assert.equal(controller.stats().refused.token, 1);
    }
  });

  it("names what was wrong when there is no authenticate, no auth, or none in time", async () => {
    const clock = new TestClock();
    const say = async (frame: string | null, options: WebSocketControllerOptions = { authenticate: ann }) => {
      const { controller, request, opened } = createRoute({ clock, ...options });
      const causes: string[] = [];
      controller.on("auth.failure", ({ cause }) => causes.push((cause as Error).message));
      await request("/websocket");
      if (frame === null) clock.advance(10_000);
      else for (let n = 0; n < 3; n++) opened[0]!.message(frame);
      await turn();
      return causes[0];
    };
    assert.equal(await say('{"type":"auth","access_token":"a"}', {}), 'The controller has no option "authenticate"');
    assert.equal(await say('{"type":"ping"}'), "The first message of the client was not auth");
    assert.equal(await say('{"type":"auth"}'), "The auth message has no valid credentials");
    assert.equal(await say(null), "The client did not authenticate within the option timeout");
  });
});
