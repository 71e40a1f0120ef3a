import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { errorLogger, logRecord, LogThrottle } from "../../src/application/log.ts";
import { createClient } from "../support/fake-connection.ts";

const { client } = createClient();

describe("logRecord", () => {
  it("has the client and the message on the first line, and the stack and the cause on indented lines", () => {
    const record = logRecord(new TypeError("Cannot greet", { cause: new RangeError("no voice") }), client);
    const [first, ...rest] = record.split("\n");
    assert.equal(first, "[noroshi] client=client-1 TypeError: Cannot greet");
    const cause = rest.indexOf("    caused by RangeError: no voice");
    assert.ok(cause > 0, record);
    for (const frame of [...rest.slice(0, cause), ...rest.slice(cause + 1)]) assert.match(frame, /^ {4}at /);
    // Where each was made.
    assert.match(rest[0]!, /log\.test\.ts/);
    assert.match(rest[cause + 1]!, /log\.test\.ts/);
  });

  it("names no client when there is none, and no cause", () => {
    const record = logRecord(new Error("Cannot greet"));
    assert.match(record, /^\[noroshi\] Error: Cannot greet\n/);
    assert.equal(record.includes("caused by"), false);
  });

  it("shows what is no error", () => {
    assert.equal(logRecord("text"), "[noroshi] Thrown: text");
    assert.equal(logRecord(undefined), "[noroshi] Thrown: undefined");
    assert.equal(logRecord(null, client), "[noroshi] client=client-1 Thrown: null");
    assert.equal(logRecord(Symbol("x")), "[noroshi] Thrown: Symbol(x)");
    assert.match(logRecord(new Error("x", { cause: "text" })), /\n {4}caused by Thrown: text$/);
  });

  it("has no control characters, and no line that input has begun, whatever the error says", () => {
    const controls = Array.from({ length: 0xa0 }, (_, code) => String.fromCharCode(code)).join("") + "\u2028\u2029";
    const forged = `x\n[noroshi] forged\r\n    at forged${controls}\x1b[31m`;
    for (
      const error of [forged, new Error(forged), new Error("x", { cause: forged }), {
        message: forged,
        toString: () => forged,
      }]
    ) {
      const [first, ...rest] = logRecord(error).split("\n");
      for (const line of [first!, ...rest]) {
        // deno-lint-ignore no-control-regex -- none of them may be left
        assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
      }
      for (const line of rest) assert.match(line, /^ {4}(?:at |caused by )/);
      assert.ok(rest.every((line) => !line.startsWith("    at forged")));
      assert.match(logRecord(error), /x\\u000a\[noroshi\] forged\\u000d\\u000a {4}at forged\\u0000\\u0001/);
    }
    assert.equal(logRecord("a\u007f\u0085\u2028é語💬"), "[noroshi] Thrown: a\\u007f\\u0085\\u2028é語💬");
  });

  it("is bounded when the error is not", () => {
    const deep = new Error("deep");
    for (let error = deep, depth = 0; depth < 1_000; depth++) error = error.cause = new Error("x".repeat(1_000));
    const cyclic = new Error("cyclic");
    cyclic.cause = cyclic;
    const long = Object.assign(new Error("x"), { stack: `Error: x\n${"    at a (b)\n".repeat(100_000)}` });
    for (const error of ["x".repeat(1_000_000), new Error("\n".repeat(1_000_000)), deep, cyclic, long]) {
      for (const format of ["text", "json"] as const) {
        const { length } = logRecord(error, client, format);
        assert.ok(length < 16_384, `${length}`);
      }
    }
  });

  it("never throws, however hostile the error", () => {
    const thrower = () => {
      throw new Error("hostile");
    };
    const hostile = [
      { toString: thrower },
      Object.create(null),
      Object.defineProperty(new Error("x"), "stack", { get: thrower }),
      Object.defineProperty(new Error("x"), "stack", { value: { toString: thrower } }),
      Object.defineProperty(new Error("x"), "cause", { get: thrower }),
      new Proxy({}, { get: thrower, getPrototypeOf: thrower }),
    ];
    for (const error of hostile) {
      assert.equal(logRecord(error), "[noroshi] Thrown: a value that cannot be shown");
      const { message } = JSON.parse(logRecord(error, undefined, "json"));
      assert.equal(message, "Thrown: a value that cannot be shown");
    }
    const record = logRecord(new Error("x", { cause: { toString: thrower } }));
    assert.match(record, /^\[noroshi\] Error: x\n[^]*\n {4}caused by Thrown: a value that cannot be shown$/);
  });

  it("is one line of JSON when the logger asks for it", () => {
    const line = logRecord(new TypeError("Cannot\u2028greet", { cause: new Error("no\nvoice") }), client, "json");
    // deno-lint-ignore no-control-regex -- none of them may be left
    assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
    const { stack, cause, ...rest } = JSON.parse(line);
    assert.deepEqual(rest, { level: "error", client: "client-1", message: "TypeError: Cannot\u2028greet" });
    assert.match(stack, /^at .*log\.test\.ts/);
    assert.equal(cause.message, "Error: no\nvoice");
    assert.match(cause.stack, /^at .*log\.test\.ts/);
    assert.deepEqual(JSON.parse(logRecord("text", undefined, "json")), { level: "error", message: "Thrown: text" });
  });
});

describe("LogThrottle", () => {
  it("lets one of a kind through a second, and tells how many were left out before the next", () => {
    let now = 5;
    const throttle = new LogThrottle(() => now);
    assert.deepEqual([throttle.take("a"), throttle.take("a"), throttle.take("b"), throttle.take("a")], [
      0,
      undefined,
      0,
      undefined,
    ]);
    now += 999;
    assert.deepEqual([throttle.take("a"), throttle.take("b")], [undefined, undefined]);
    now += 1;
    assert.deepEqual([throttle.take("a"), throttle.take("b"), throttle.take("b")], [3, 1, undefined]);
    now += 60_000;
    assert.deepEqual([throttle.take("a"), throttle.take("b"), throttle.take("c")], [0, 1, 0]);
  });

  it("is bounded however many kinds there are, and loses no count", () => {
    let now = 0;
    const throttle = new LogThrottle(() => now);
    let lines = 0;
    let left = 0;
    const take = (kind: string) => {
      const before = throttle.take(kind);
      if (before === undefined) return;
      lines++;
      left += before;
    };
    for (let n = 0; n < 10_000; n++) take(`kind ${n}`);
    assert.ok(lines <= 66, `${lines} lines within a second`);
    const first = lines;
    for (let n = 0; n < 5; n++, now += 1_000) for (let m = 0; m < 200; m++) take(`later ${n} ${m}`);
    assert.ok(lines - first <= 5 * 66);
    // Those that were left out last are told of with the next line.
    for (let n = 0; n < 100; n++) take(`last ${n}`);
    now += 1_000;
    for (let n = 0; n < 100; n++) take(`end ${n}`);
    const [total, shown] = [10_000 + 5 * 200 + 200, lines + left];
    assert.ok(total - shown <= 100, `${total - shown} of ${total} are in no line`);
  });
});

describe("errorLogger", () => {
  it("writes at most one line a second for errors that are made in one place, whatever they say", () => {
    let now = 0;
    const lines: string[] = [];
    const log = errorLogger({ warn: () => {}, error: (line) => void lines.push(line) }, () => now);
    for (let n = 0; n < 10_003; n++) {
      now = n < 10_000 ? 0 : 1_000 * (n - 9_999);
      log(new Error(n === 10_000 ? "" : `of ${n}\n    at forged (x:${n}:1)`), client);
      if (n !== 9_999) continue;
      assert.equal(lines.length, 1);
      log(new TypeError("elsewhere"));
      log("no error");
      assert.equal(lines.length, 3);
    }
    assert.equal(lines.length, 6);
    assert.match(lines[3]!, / \(9999 more like it were left out\)$/);
    for (const line of lines.slice(4)) assert.doesNotMatch(line, /left out/);
  });

  it("writes JSON with the number of suppressed ones when the logger asks for it", () => {
    let now = 0;
    const lines: string[] = [];
    const log = errorLogger({ format: "json", warn: () => {}, error: (line) => void lines.push(line) }, () => now);
    const fail = () => log(new Error("x"), client);
    for (let n = 0; n < 4; n++) fail();
    now = 1_000;
    fail();
    assert.deepEqual(lines.map((line) => JSON.parse(line).suppressed), [undefined, 3]);
  });

  it("writes nothing where there is no logger, and survives one that throws and an error that cannot be shown", () => {
    errorLogger(false, () => 0)(new Error("x"));
    const lines: string[] = [];
    const log = errorLogger({
      warn: () => {},
      error: (line) => {
        lines.push(line);
        throw new Error("disk full");
      },
    }, () => 0);
    log(new Error("x"));
    log(new Proxy(new Error("x"), { get: () => assert.fail("hostile") }));
    assert.equal(lines.length, 2);
  });
});
