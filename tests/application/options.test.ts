import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { defineContract } from "../../src/application/contract.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { answerOnce } from "../../src/once/once.ts";
import { resolveOptions, type WebSocketControllerOptions } from "../../src/application/options.ts";
import { TestClock } from "../support/test-clock.ts";

const authenticate = () => null;

/** Values that are none of a kind, by the option that must refuse them. */
const contract = defineContract({});
const NUMBERS = [-1, 1.5, NaN, Infinity, "10", null, {}, true, 2 ** 53, 10n];
const LIMITS = [...NUMBERS.filter((value) => value !== Infinity), 0];
const LIMIT = "a whole number from 1, or Infinity";
const WRONG: Record<keyof WebSocketControllerOptions, { values: unknown[]; remedy: string }> = {
  name: { values: ["", 1, null, {}], remedy: 'a non-empty string, such as "main"' },
  mode: { values: ["", "Public", "none", null, 1, ["public"]], remedy: '"public", "handshake" or "strict"' },
  authenticate: {
    values: [null, {}, "f", Promise.resolve()],
    remedy: "a function (credentials, handshake) => ({ accountability }) | null",
  },
  revalidate: { values: [null, {}, "f", true], remedy: "a function (client) => ({ accountability }) | null" },
  origins: {
    values: [
      null,
      "https://a.example",
      {},
      ["a.example"],
      ["*"],
      ["https://A.example"],
      ["https://a.example/"],
      ["ftp://a.example"],
      [
        "https://a.*.example",
      ],
      ["https://*"],
      [1],
      ["https://a.example", ""],
      ["tauri://*.localhost"],
      ["capacitor://localhost/"],
    ],
    remedy:
      'a list of origins in lower case without a path, such as ["https://app.example.com", "https://*.example.org", "tauri://localhost"], or "*"',
  },
  maxConnections: { values: LIMITS, remedy: LIMIT },
  maxPending: { values: LIMITS, remedy: LIMIT },
  maxPendingPerIp: { values: LIMITS, remedy: LIMIT },
  maxConnectionsPerIp: { values: LIMITS, remedy: LIMIT },
  maxConnectionsPerUser: { values: LIMITS, remedy: LIMIT },
  clientIp: { values: NUMBERS, remedy: "the number of proxies in front, from 0, or a function" },
  rateLimit: {
    values: [null, true, 10, { messages: 0 }, { messages: Infinity }, { burst: 1.5 }, { burst: 0 }, { bytes: -1 }, {
      burstBytes: "1",
    }, {
      key: "ip",
    }, { message: 1 }],
    remedy: "{ messages?, burst?, bytes?, burstBytes?, key? } with numbers above 0 and a function, or false",
  },
  heartbeat: {
    values: [null, true, 30_000, { period: 0 }, { period: 2 ** 31 }, { period: 1.5 }, { message: 1 }, { timeout: 0 }, {
      beat: 1,
    }],
    remedy: "{ period?, timeout?, message? } with a whole number of ms from 1 to 2147483647 each and a boolean, or false",
  },
  timeout: { values: [...NUMBERS, 0, 2 ** 31], remedy: "a whole number of ms from 1 to 2147483647, such as 10_000" },
  maxAge: { values: LIMITS, remedy: "a whole number of ms from 1, such as 86_400_000, or Infinity" },
  cookie: {
    values: ["", "a b", "a=b", "a;b", "ä", 1, null, "x".repeat(256)],
    remedy: 'the name of a cookie, such as "session_token"',
  },
  allowCookieWithoutOrigin: { values: [null, 1, "true", {}], remedy: "true or false" },
  protocols: {
    values: ["noroshi.v1", null, {}, [""], ["a b"], ["a,b"], [1], ["bearer."], ["ok", "bearer.x"]],
    remedy: 'a list of subprotocol names, such as ["noroshi.v1"]; "bearer." is kept for tokens',
  },
  maxPayload: { values: [...NUMBERS, 0], remedy: "a whole number of bytes from 1, such as 65_536" },
  maxPipelined: { values: NUMBERS, remedy: "a whole number from 0, such as 64" },
  maxBufferedBytes: { values: [...NUMBERS, 0], remedy: "a whole number of bytes from 1, such as 1_048_576" },
  slowConsumer: { values: [null, true, "", "Close", "drop "], remedy: '"close" or "drop"' },
  maxStreams: { values: LIMITS, remedy: LIMIT },
  streamTimeout: { values: [...NUMBERS, 0, 2 ** 31], remedy: "a whole number of ms from 1 to 2147483647, such as 30_000" },
  stopAndWait: { values: [null, true, "", "Collection", "none", 0], remedy: '"collection", "all" or false' },
  closeTimeout: { values: [...NUMBERS, 0, 2 ** 31], remedy: "a whole number of ms from 1 to 2147483647, such as 5_000" },
  contract: {
    values: [{}, { messages: {} }, null, 1, "contract", () => {}],
    remedy: "what defineContract of the same copy of the package returns",
  },
  validate: { values: ["inbound", true, null, 1, []], remedy: '"outbound" or false' },
  logger: {
    values: [null, true, "console", () => {}, {}, { warn() {} }, { warn: 1, error: 2 }, { ...console, format: "json" }],
    remedy: '"text", "json", false, or an object with warn and error, such as console or pino(), and without a format',
  },
  engine: { values: [null, {}, "memory", () => {}], remedy: "an Engine, such as new MemoryEngine()" },
  once: { values: [null, {}, "once", () => {}], remedy: "answerOnce() of noroshi/once" },
  node: {
    values: ["", "a.b", "a b", "a:b", "ä", 1, null, "x".repeat(28)],
    remedy: '1 to 27 letters, digits, "_" or "-", such as "berlin-1"',
  },
  clock: { values: [null, {}, 1, Date.now, { now: Date.now }], remedy: "a Clock" },
};

const RIGHT: Record<keyof WebSocketControllerOptions, unknown[]> = {
  name: ["x"],
  mode: ["public", "handshake", "strict"],
  authenticate: [authenticate],
  revalidate: [authenticate],
  origins: [[], ["https://a.example", "http://localhost:8080", "https://*.a.example", "http://[::1]:80"], [
    "tauri://localhost",
    "file://",
  ], "*"],
  maxConnections: [1, Infinity],
  maxPending: [1, Infinity],
  maxPendingPerIp: [1, Infinity],
  maxConnectionsPerIp: [1, Infinity],
  maxConnectionsPerUser: [1, Infinity],
  clientIp: [0, 3, () => null],
  rateLimit: [false],
  heartbeat: [false],
  timeout: [1, 2 ** 31 - 1],
  maxAge: [1, 2 ** 40, Infinity],
  allowCookieWithoutOrigin: [false],
  cookie: ["a", "__Host-session", "x".repeat(255), "!#$%&'*+-.^_`|~09AZaz"],
  protocols: [[], ["chat.v2", "noroshi.v1"]],
  maxPayload: [1, Number.MAX_SAFE_INTEGER],
  maxPipelined: [0, 1],
  maxBufferedBytes: [1, Number.MAX_SAFE_INTEGER],
  slowConsumer: ["close", "drop"],
  maxStreams: [1, Infinity],
  streamTimeout: [1, 2 ** 31 - 1],
  stopAndWait: ["collection", "all", false],
  closeTimeout: [1, 2 ** 31 - 1],
  contract: [contract],
  validate: ["outbound", false],
  logger: [console, false, "text", "json", { warn() {}, error() {} }],
  engine: [new MemoryEngine()],
  once: [answerOnce()],
  node: ["a", "berlin-1", "x".repeat(27)],
  clock: [new TestClock()],
};

const NAMES = Object.keys(WRONG) as (keyof WebSocketControllerOptions)[];

describe("resolveOptions", () => {
  it("fills in the defaults when nothing is given", () => {
    const defaults = {
      name: "main",
      mode: "public",
      authenticate: undefined,
      revalidate: undefined,
      origins: [],
      maxConnections: 50_000,
      maxPending: 1_000,
      maxPendingPerIp: 250,
      maxConnectionsPerIp: Infinity,
      maxConnectionsPerUser: Infinity,
      clientIp: 0,
      rateLimit: { messages: 100, burst: 2_000, bytes: 1_048_576, burstBytes: 8_388_608 },
      heartbeat: { period: 25_000, timeout: 10_000, message: false },
      timeout: 10_000,
      maxAge: Infinity,
      cookie: undefined,
      allowCookieWithoutOrigin: false,
      protocols: ["noroshi.v1"],
      maxPayload: 65_536,
      maxPipelined: 64,
      maxBufferedBytes: 1_048_576,
      slowConsumer: "close",
      maxStreams: 32,
      streamTimeout: 30_000,
      stopAndWait: "collection",
      closeTimeout: 5_000,
      contract: undefined,
      validate: false,
      logger: console,
      engine: undefined,
      once: undefined,
      node: undefined,
      clock: undefined,
    };
    assert.deepEqual(resolveOptions(), defaults);
    assert.deepEqual(resolveOptions({}), defaults);
    const absent = Object.fromEntries(NAMES.map((name) => [name, undefined]));
    assert.deepEqual(resolveOptions(absent as WebSocketControllerOptions), defaults);
  });

  it("keeps the other defaults of an option of which a part is given, or undefined", () => {
    const key = () => "all";
    const { rateLimit, heartbeat } = resolveOptions({
      rateLimit: { burst: 5, key, bytes: undefined },
      heartbeat: { message: true, period: undefined },
    } as never); // The compiler refuses what is undefined; a caller without one may pass it.
    assert.deepEqual(rateLimit, { messages: 100, burst: 5, bytes: 1_048_576, burstBytes: 8_388_608, key });
    assert.deepEqual(heartbeat, { period: 25_000, timeout: 10_000, message: true });
  });

  it("throws TypeError when any origin may connect and a cookie authenticates", () => {
    assert.throws(() => resolveOptions({ authenticate, cookie: "session", origins: "*" }), {
      name: "TypeError",
      message:
        'Cannot create the controller: origins "*" with the option "cookie" lets any site act as its visitors, list the origins instead',
    });
  });

  it("is in handshake mode by default when it can authenticate", () => {
    assert.equal(resolveOptions({ authenticate }).mode, "handshake");
    assert.equal(resolveOptions({ authenticate, mode: "public" }).mode, "public");
    assert.equal(resolveOptions({ authenticate, mode: "strict" }).mode, "strict");
  });

  for (const name of NAMES) {
    it(`keeps ${name} when it is right`, () => {
      for (const value of RIGHT[name]) assert.equal(resolveOptions({ authenticate, contract, [name]: value })[name], value);
    });

    it(`throws TypeError with the remedy when ${name} is wrong`, () => {
      for (const value of WRONG[name].values) {
        assert.throws(() => resolveOptions({ authenticate, [name]: value }), {
          name: "TypeError",
          message: `Cannot create the controller: option "${name}" must be ${WRONG[name].remedy}`,
        }, String(value));
      }
    });
  }

  it("throws TypeError naming the options there are when one is unknown", () => {
    for (const name of ["maxpayload", "constructor", "__proto__", ""]) {
      assert.throws(() => resolveOptions(JSON.parse(`{"${name}":1}`)), {
        name: "TypeError",
        message: `Cannot create the controller: unknown option "${name}", use one of ${NAMES.join(", ")}`,
      });
    }
    assert.throws(() => resolveOptions({ unknown: undefined } as never), /unknown option "unknown"/);
  });

  it("throws TypeError when the options are no object", () => {
    for (const options of [null, 1, "public", [], () => {}]) {
      assert.throws(() => resolveOptions(options as never), {
        name: "TypeError",
        message: "Cannot create the controller: its options must be an object",
      });
    }
  });

  it("throws TypeError when a mode needs authenticate and there is none", () => {
    for (const mode of ["handshake", "strict"] as const) {
      assert.throws(() => resolveOptions({ mode }), {
        name: "TypeError",
        message:
          `Cannot create the controller: mode "${mode}" needs the option "authenticate", such as jwtAuthenticator({ secret })`,
      });
    }
  });

  it("throws TypeError when a cookie may come without an Origin and none is read", () => {
    assert.throws(() => resolveOptions({ authenticate, allowCookieWithoutOrigin: true }), {
      name: "TypeError",
      message: 'Cannot create the controller: option "allowCookieWithoutOrigin" needs the option "cookie"',
    });
    assert.equal(resolveOptions({ authenticate, cookie: "a", allowCookieWithoutOrigin: true }).allowCookieWithoutOrigin, true);
  });

  it("throws TypeError when a cookie is to be read and nothing can verify it", () => {
    assert.throws(() => resolveOptions({ cookie: "session" }), {
      name: "TypeError",
      message: 'Cannot create the controller: option "cookie" needs the option "authenticate" to verify what is in it',
    });
  });
});
