import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { resolveOptions, type WebSocketControllerOptions } from "../src/options.ts";
import { TestClock } from "./test-clock.ts";

const authenticate = () => null;

/** Values that are none of a kind, by the option that must refuse them. */
const NUMBERS = [-1, 1.5, NaN, Infinity, "10", null, {}, true, 2 ** 53, 10n];
const WRONG: Record<keyof WebSocketControllerOptions, { values: unknown[]; remedy: string }> = {
  name: { values: ["", 1, null, {}], remedy: 'a non-empty string, such as "main"' },
  mode: { values: ["", "Public", "none", null, 1, ["public"]], remedy: '"public", "handshake" or "strict"' },
  authenticate: {
    values: [null, {}, "f", Promise.resolve()],
    remedy: "a function (credentials, handshake) => ({ accountability }) | null",
  },
  timeout: { values: [...NUMBERS, 0, 2 ** 31], remedy: "a whole number of ms from 1 to 2147483647, such as 10_000" },
  cookie: {
    values: ["", "a b", "a=b", "a;b", "ä", 1, null, "x".repeat(256)],
    remedy: 'the name of a cookie, such as "session_token"',
  },
  protocols: {
    values: ["noroshi.v1", null, {}, [""], ["a b"], ["a,b"], [1], ["bearer."], ["ok", "bearer.x"]],
    remedy: 'a list of subprotocol names, such as ["noroshi.v1"]; "bearer." is kept for tokens',
  },
  maxPayload: { values: [...NUMBERS, 0], remedy: "a whole number of bytes from 1, such as 65_536" },
  maxPipelined: { values: NUMBERS, remedy: "a whole number from 0, such as 64" },
  maxBufferedBytes: { values: [...NUMBERS, 0], remedy: "a whole number of bytes from 1, such as 1_048_576" },
  closeTimeout: { values: [...NUMBERS, 0, 2 ** 31], remedy: "a whole number of ms from 1 to 2147483647, such as 5_000" },
  logger: {
    values: [null, true, "console", () => {}, {}, { warn() {} }, { error() {} }],
    remedy: "an object with warn and error, such as console, or false",
  },
  clock: { values: [null, {}, 1, Date.now, { now: Date.now }], remedy: "a Clock" },
};

const RIGHT: Record<keyof WebSocketControllerOptions, unknown[]> = {
  name: ["x"],
  mode: ["public", "handshake", "strict"],
  authenticate: [authenticate],
  timeout: [1, 2 ** 31 - 1],
  cookie: ["a", "__Host-session", "x".repeat(255), "!#$%&'*+-.^_`|~09AZaz"],
  protocols: [[], ["chat.v2", "noroshi.v1"]],
  maxPayload: [1, Number.MAX_SAFE_INTEGER],
  maxPipelined: [0, 1],
  maxBufferedBytes: [1, Number.MAX_SAFE_INTEGER],
  closeTimeout: [1, 2 ** 31 - 1],
  logger: [console, false, { warn() {}, error() {} }],
  clock: [new TestClock()],
};

const NAMES = Object.keys(WRONG) as (keyof WebSocketControllerOptions)[];

describe("resolveOptions", () => {
  it("fills in the defaults when nothing is given", () => {
    const defaults = {
      name: "main",
      mode: "public",
      authenticate: undefined,
      timeout: 10_000,
      cookie: undefined,
      protocols: ["noroshi.v1"],
      maxPayload: 65_536,
      maxPipelined: 64,
      maxBufferedBytes: 1_048_576,
      closeTimeout: 5_000,
      logger: console,
      clock: undefined,
    };
    assert.deepEqual(resolveOptions(), defaults);
    assert.deepEqual(resolveOptions({}), defaults);
    const absent = Object.fromEntries(NAMES.map((name) => [name, undefined]));
    assert.deepEqual(resolveOptions(absent as WebSocketControllerOptions), defaults);
  });

  it("is in handshake mode when it can authenticate, unless told otherwise", () => {
    assert.equal(resolveOptions({ authenticate }).mode, "handshake");
    assert.equal(resolveOptions({ authenticate, mode: "public" }).mode, "public");
    assert.equal(resolveOptions({ authenticate, mode: "strict" }).mode, "strict");
  });

  for (const name of NAMES) {
    it(`keeps ${name} when it is right`, () => {
      for (const value of RIGHT[name]) assert.equal(resolveOptions({ authenticate, [name]: value })[name], value);
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

  it("throws TypeError when a cookie is to be read and nothing can verify it", () => {
    assert.throws(() => resolveOptions({ cookie: "session" }), {
      name: "TypeError",
      message: 'Cannot create the controller: option "cookie" needs the option "authenticate" to verify what is in it',
    });
  });
});
