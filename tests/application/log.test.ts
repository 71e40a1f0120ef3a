import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { asJson, asText, consoleLogger, errorRecord, Log, type LogRecord, LogThrottle } from "../../src/application/log.ts";
import process from "node:process";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { createClient } from "../support/fake-connection.ts";

const { client } = createClient();

const logRecord = (...about: Parameters<typeof errorRecord>) => asText(...errorRecord(...about));
const jsonOf = (...about: Parameters<typeof errorRecord>) => asJson("error", ...errorRecord(...about));

describe("The record of an error", () => {
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
      for (const { length } of [logRecord(error, client), jsonOf(error, client)]) assert.ok(length < 16_384, `${length}`);
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
      const { message } = JSON.parse(jsonOf(error));
      assert.equal(message, "Thrown: a value that cannot be shown");
    }
    const record = logRecord(new Error("x", { cause: { toString: thrower } }));
    assert.match(record, /^\[noroshi\] Error: x\n[^]*\n {4}caused by Thrown: a value that cannot be shown$/);
  });

  it("is one line of JSON", () => {
    const line = jsonOf(new TypeError("Cannot\u2028greet", { cause: new Error("no\nvoice") }), client);
    // deno-lint-ignore no-control-regex -- none of them may be left
    assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
    const { time, error: { stack, cause, message }, ...rest } = JSON.parse(line);
    assert.match(time, /^\d{4}-\d\d-\d\dT.*Z$/);
    assert.deepEqual(rest, {
      level: "error",
      event: "noroshi.error",
      client: "client-1",
      message: "TypeError: Cannot\\u2028greet",
    });
    assert.equal(message, rest.message);
    assert.match(stack, /^at .*log\.test\.ts/);
    assert.equal(cause.message, "Error: no\\u000avoice");
    assert.match(cause.stack, /^at .*log\.test\.ts/);
  });

  it("has the code of a WebSocketError", () => {
    assert.equal(errorRecord(new WebSocketError("engine", "ENGINE_UNAVAILABLE", "Away"))[0].code, "ENGINE_UNAVAILABLE");
    assert.equal("code" in errorRecord(new Error("x"))[0], false);
  });
});

/** What the console receives while `run` runs; with `isTTY` as that of stderr. */
function printed(isTTY: boolean, run: () => void): unknown[][] {
  const lines: unknown[][] = [];
  const { Deno } = globalThis as typeof globalThis & { Deno?: { stderr: { isTerminal: () => boolean } } };
  const [terminal, property] = Deno ? [Deno.stderr, "isTerminal"] : [process.stderr, "isTTY"];
  const before = Object.getOwnPropertyDescriptor(terminal, property);
  Object.defineProperty(terminal, property, { configurable: true, writable: true, value: Deno ? () => isTTY : isTTY });
  const { warn, error } = console;
  console.warn = (...line) => void lines.push(["warn", ...line]);
  console.error = (...line) => void lines.push(["error", ...line]);
  try {
    run();
  } finally {
    Object.assign(console, { warn, error });
    if (before) Object.defineProperty(terminal, property, before);
    else Reflect.deleteProperty(terminal, property);
  }
  return lines;
}

describe("The logger of the console", () => {
  const record: LogRecord = { event: "noroshi.upgrade.refused", reason: "origin", origin: "https://a.example", suppressed: 2 };
  const warn = (format?: "text" | "json") => consoleLogger(format).warn(record, "Refused origin https://a.example");

  it("writes a line for people on a terminal, and JSON otherwise", () => {
    const text = "[noroshi] Refused origin https://a.example (2 more like it were left out)";
    assert.deepEqual(printed(true, () => warn()), [["warn", text]]);
    const [[method, line]] = printed(false, () => warn()) as [[string, string]];
    const { time: _time, ...rest } = JSON.parse(line);
    assert.equal(method, "warn");
    assert.deepEqual(rest, { level: "warn", ...record, message: "Refused origin https://a.example" });
  });

  it("writes the format that was chosen", () => {
    assert.match(String(printed(false, () => warn("text"))[0]![1]), /^\[noroshi\] Refused/);
    assert.match(String(printed(true, () => warn("json"))[0]![1]), /^\{/);
  });

  it("is the default, and what console and the name of a format stand for", () => {
    for (const option of [console, "text"] as const) {
      const lines = printed(true, () => new Log(option, () => 0).warn("x", () => [record, "Refused"]));
      assert.deepEqual(lines, [["warn", "[noroshi] Refused (2 more like it were left out)"]]);
    }
    const [[method, line]] = printed(true, () => new Log("json", () => 0).error(new Error("x"), client)) as [[string, string]];
    assert.deepEqual([method, JSON.parse(line).client], ["error", "client-1"]);
  });
});

describe("LogThrottle", () => {
  it("lets one of a kind through a second, and counts those left out for the next", () => {
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

/** A logger that keeps the records. */
function recorder() {
  const records: LogRecord[] = [];
  return { records, logger: { warn: () => assert.fail(), error: (record: LogRecord) => void records.push(record) } };
}

describe("Log", () => {
  it("writes at most one record a second for errors that are made in one place, whatever they say", () => {
    let now = 0;
    const { records, logger } = recorder();
    const log = new Log(logger, () => now);
    for (let n = 0; n < 10_003; n++) {
      now = n < 10_000 ? 0 : 1_000 * (n - 9_999);
      log.error(new Error(n === 10_000 ? "" : `of ${n}\n    at forged (x:${n}:1)`), client);
      if (n !== 9_999) continue;
      assert.equal(records.length, 1);
      log.error(new TypeError("elsewhere"));
      log.error("no error");
      assert.equal(records.length, 3);
    }
    assert.deepEqual(records.map(({ suppressed }) => suppressed), [undefined, undefined, undefined, 9_999, undefined, undefined]);
  });

  it("writes nothing where there is no logger, and survives one that throws and an error that cannot be shown", () => {
    new Log(false, () => 0).error(new Error("x"));
    const lines: string[] = [];
    const fail = (_record: LogRecord, message: string) => {
      lines.push(message);
      throw new Error("disk full");
    };
    const log = new Log({ warn: fail, error: fail }, () => 0);
    log.error(new Error("x"));
    log.error(new Proxy(new Error("x"), { get: () => assert.fail("hostile") }));
    log.warn("x", () => [{ event: "noroshi.upgrade.refused" }, "Refused"]);
    assert.equal(lines.length, 3);
  });

  it("calls the logger as its own method, as those of pino and winston need it", () => {
    class Own {
      readonly #lines: string[] = [];
      warn = (): void => {};
      error(_record: LogRecord, message: string) {
        this.#lines.push(message);
      }
      get lines() {
        return this.#lines;
      }
    }
    const logger = new Own();
    new Log(logger, () => 0).error("x");
    assert.deepEqual(logger.lines, ["Thrown: x"]);
  });

  it("hands each record to the observer too, even without a logger", () => {
    const seen: unknown[] = [];
    const observer = { logged: (...record: unknown[]) => void seen.push(record) };
    const log = new Log(false, () => 0, { observer });
    for (let n = 0; n < 3; n++) log.warn("origin", () => [{ event: "noroshi.upgrade.refused", reason: "origin" }, "Refused"]);
    assert.deepEqual(seen, [["warn", { event: "noroshi.upgrade.refused", reason: "origin" }, "Refused"]]);
    const failing = new Log(recorder().logger, () => 0, {
      observer: {
        logged: () => {
          throw new Error("x");
        },
      },
    });
    failing.error(new Error("x"));
  });
});
