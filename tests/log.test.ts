import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { logRecord } from "../src/log.ts";
import { createClient } from "./fake-connection.ts";

const { client } = createClient();

describe("logRecord", () => {
  it("says what the error says, its cause and the client it happened to", () => {
    const record = logRecord(new TypeError("Cannot greet", { cause: new Error("no voice") }), client);
    assert.match(record, /^\[noroshi\] client=client-1 /);
    assert.match(record, /Cannot greet/);
    assert.match(record, / caused by Error: no voice$/);
  });

  it("names no client when there is none, and no cause", () => {
    const record = logRecord(new Error("Cannot greet"));
    assert.match(record, /^\[noroshi\] (?!client)/);
    assert.equal(record.includes("caused by"), false);
  });

  it("says where the error was made", () => {
    assert.match(logRecord(new Error("x")), /log\.test\.ts/);
  });

  it("shows what is no error", () => {
    assert.equal(logRecord("text"), "[noroshi] Thrown: text");
    assert.equal(logRecord(undefined), "[noroshi] Thrown: undefined");
    assert.equal(logRecord(null, client), "[noroshi] client=client-1 Thrown: null");
    assert.equal(logRecord(Symbol("x")), "[noroshi] Thrown: Symbol(x)");
  });

  it("is one line without control characters, whatever the error says", () => {
    const controls = Array.from({ length: 0xa0 }, (_, code) => String.fromCharCode(code)).join("") + "\u2028\u2029";
    const forged = `x\n[noroshi] forged\r\n${controls}\x1b[31m`;
    for (const error of [forged, new Error(forged), new Error("x", { cause: forged })]) {
      const record = logRecord(error);
      // deno-lint-ignore no-control-regex -- none of them may be left
      assert.doesNotMatch(record, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
      assert.match(record, /x\\u000a\[noroshi\] forged\\u000d\\u000a\\u0000\\u0001/);
    }
    assert.equal(logRecord("a\u007f\u0085\u2028é語💬"), "[noroshi] Thrown: a\\u007f\\u0085\\u2028é語💬");
  });

  it("is bounded when the error is not", () => {
    for (const error of ["x".repeat(1_000_000), new Error("\n".repeat(1_000_000))]) assert.ok(logRecord(error).length < 2200);
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
      new Error("x", { cause: { toString: thrower } }),
      new Proxy({}, { get: thrower, getPrototypeOf: thrower }),
    ];
    for (const error of hostile) assert.equal(logRecord(error), "[noroshi] Thrown: a value that cannot be shown");
  });
});
