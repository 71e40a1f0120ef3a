import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  ABNORMAL,
  answerCloseCode,
  checkCloseCode,
  CloseCode,
  cutCloseReason,
  isFinal,
  NO_STATUS,
} from "../../src/protocol/close.ts";
import { Random } from "../support/random.ts";

// RFC 6455 §7.4 less what a runtime refuses: written out, so that the source's ranges are checked by another form.
const SENDABLE = (code: number) =>
  [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].includes(code) || (code > 2999 && code < 5000);

describe("CloseCode", () => {
  it("has the codes that clients know", () => {
    assert.deepEqual(CloseCode, {
      NORMAL: 1000,
      GOING_AWAY: 1001,
      MESSAGE_TOO_BIG: 1009,
      INTERNAL_ERROR: 1011,
      SERVICE_RESTART: 1012,
      TRY_AGAIN_LATER: 1013,
      PROTOCOL: 4400,
      AUTH_FAILED: 4401,
      FORBIDDEN: 4403,
      AUTH_TIMEOUT: 4408,
      HEARTBEAT_TIMEOUT: 4504,
      SLOW_CONSUMER: 4508,
      RATE_LIMITED: 4529,
    });
    assert.deepEqual([NO_STATUS, ABNORMAL], [1005, 1006]);
  });
});

describe("checkCloseCode", () => {
  it("returns the code when it may be sent and throws TypeError when not, for every whole number up to 6000", () => {
    for (let code = -1; code <= 6000; code++) {
      if (SENDABLE(code)) assert.equal(checkCloseCode(code), code);
      else assert.throws(() => checkCloseCode(code), TypeError, String(code));
    }
  });

  it("throws TypeError naming the code and the ranges when the code is no such number", () => {
    for (const code of [NaN, Infinity, 1000.5, 1007.5, 3000.5, 70_000, "1000", "x", null, {}] as number[]) {
      assert.throws(() => checkCloseCode(code), {
        name: "TypeError",
        message: `Cannot close with code ${String(code)}: use 1000–1003, 1007–1014 or 3000–4999 (4000–4999 for your own)`,
      });
    }
  });

  it("accepts every code that Noroshi sends itself", () => {
    for (const code of Object.values(CloseCode)) assert.equal(checkCloseCode(code), code);
  });
});

describe("answerCloseCode", () => {
  it("is the peer's code when that may be sent, else 1000", () => {
    assert.deepEqual([1000, 1001, 1014, 3000, 4999].map(answerCloseCode), [1000, 1001, 1014, 3000, 4999]);
    assert.deepEqual([0, 999, 1004, 1005, 1006, 1015, 2999, 5000, NaN].map(answerCloseCode), Array(9).fill(1000));
  });
});

describe("cutCloseReason", () => {
  const bytes = (text: string) => new TextEncoder().encode(text).byteLength;

  it("keeps a reason of 123 bytes and cuts the 124th", () => {
    assert.equal(cutCloseReason(""), "");
    assert.equal(cutCloseReason("a".repeat(123)), "a".repeat(123));
    assert.equal(cutCloseReason("a".repeat(124)), "a".repeat(123));
  });

  it("cuts before a character that does not fit whole, of two, three and four bytes", () => {
    for (const char of ["é", "語", "💬"]) {
      const size = bytes(char);
      for (let room = 0; room <= size; room++) {
        const start = "a".repeat(123 - room);
        assert.equal(cutCloseReason(start + char), room === size ? start + char : start, `${char} in ${room} bytes`);
      }
    }
  });

  it("replaces lone surrogates, at the border too", () => {
    assert.equal(cutCloseReason("a\ud83d"), "a\ufffd");
    assert.equal(cutCloseReason("\udcacb"), "\ufffdb");
    assert.equal(cutCloseReason("a".repeat(120) + "\ud83d"), "a".repeat(120) + "\ufffd");
    assert.equal(cutCloseReason("a".repeat(121) + "\ud83d\ud83d"), "a".repeat(121));
  });

  it("is the longest whole beginning of at most 123 bytes for any text", () => {
    const random = new Random();
    const alphabet = ["a", "é", "語", "💬", "\ud83d", "\udcac", "\u0000"];
    for (let round = 0; round < 500; round++) {
      const reason = Array.from({ length: random.below(140) }, () => random.pick(alphabet)).join("");
      let expected = "";
      for (const char of reason.toWellFormed()) {
        if (bytes(expected + char) > 123) break;
        expected += char;
      }
      assert.equal(cutCloseReason(reason), expected, `seed ${random.seed}`);
    }
  });
});

describe("isFinal", () => {
  it("is true of codes whose client is not expected back", () => {
    for (const code of [1000, 1005, 4400, 4401, 4403, 4499]) assert.equal(isFinal(code), true, `${code}`);
    for (const code of [1001, 1006, 1009, 1011, 1012, 1013, 3000, 4000, 4399, 4500, 4504, 4508, 4529]) {
      assert.equal(isFinal(code), false, `${code}`);
    }
  });
});
