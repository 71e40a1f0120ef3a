import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { textOf } from "../../src/protocol/bytes.ts";
import { MAX_DEPTH } from "../../src/protocol/depth.ts";
import { decode, type Decoded, issuePath, jsonOf } from "../../src/protocol/protocol.ts";

/** What was wrong with a frame that could not be read. */
function refusal(decoded: Decoded) {
  assert.equal(decoded.ok, false);
  if (decoded.ok) throw new Error("It was just seen not to be");
  const { type, error, uid } = decoded.error.toJSON();
  assert.deepEqual({ type, code: error.code }, { type: "server", code: "INVALID_PAYLOAD" });
  return { message: error.message, uid };
}

function messageOf(decoded: Decoded) {
  if (!decoded.ok) throw decoded.error;
  return decoded.message;
}

const arrays = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
const objects = (levels: number) => '{"a":'.repeat(levels - 1) + "{}" + "}".repeat(levels - 1);

describe("decode", () => {
  it("reads a message with all its fields when it is an object with a type", () => {
    assert.deepEqual(messageOf(decode('{"type":"chat","uid":7,"text":"hé","n":{"a":[1,null]}}')), {
      type: "chat",
      uid: 7,
      text: "hé",
      n: { a: [1, null] },
    });
    assert.deepEqual(messageOf(decode(' \n{"type":"x"}\t')), { type: "x" });
  });

  it("is INVALID_PAYLOAD when the text is no JSON", () => {
    for (
      const text of ["", " ", "x", "{", '{"type":"x"', '{"type":"x"}}', "{'type':'x'}", "undefined", "NaN", '\ufeff{"type":"x"}']
    ) {
      assert.deepEqual(refusal(decode(text)), { message: "Not JSON", uid: undefined }, text);
    }
  });

  it("is INVALID_PAYLOAD when a binary frame was not UTF-8", () => {
    assert.deepEqual(refusal(decode(null)), { message: "Binary that is not UTF-8 text", uid: undefined });
  });

  it("is INVALID_PAYLOAD when the JSON is no object", () => {
    for (const text of ["[]", '[{"type":"x"}]', "1", "-0", "null", "true", '"x"', '""']) {
      assert.deepEqual(refusal(decode(text)), { message: "Not an object", uid: undefined }, text);
    }
  });

  it("is INVALID_PAYLOAD when the type is missing, no string, empty or longer than 64 characters", () => {
    assert.equal(refusal(decode("{}")).message, "`type` is missing");
    for (const type of [1, null, true, [], {}, "", "x".repeat(65)]) {
      assert.equal(refusal(decode(JSON.stringify({ type }))).message, "`type` must be a string of 1 to 64 characters");
    }
    assert.equal(messageOf(decode(JSON.stringify({ type: "x".repeat(64) }))).type.length, 64);
  });

  it("takes a uid that is a string of at most 64 characters or a number that JSON carries", () => {
    for (const uid of ["", "a", "x".repeat(64), 0, -1, 1.5, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]) {
      assert.equal(messageOf(decode(JSON.stringify({ type: "x", uid }))).uid, uid);
    }
    for (const uid of [null, true, [], ["a"], {}, "x".repeat(65)]) {
      const { message, uid: echoed } = refusal(decode(JSON.stringify({ type: "x", uid })));
      assert.match(message, /^`uid` must be/);
      assert.equal(echoed, undefined);
    }
    for (const uid of ["1e400", "1e300", "9007199254740993", "-9007199254740992", "-0"]) {
      assert.match(refusal(decode(`{"type":"x","uid":${uid}}`)).message, /^`uid` must be/, uid);
    }
    assert.equal("uid" in messageOf(decode('{"type":"x"}')), false);
  });

  it("echoes a valid uid when the type is wrong, so that the sender knows which message it was", () => {
    assert.deepEqual(refusal(decode('{"uid":7}')), { message: "`type` is missing", uid: 7 });
    assert.equal(refusal(decode('{"type":1,"uid":"a"}')).uid, "a");
    assert.equal(refusal(decode('{"type":1,"uid":[]}')).uid, undefined);
  });

  it("repeats nothing of the input in its errors", () => {
    const secret = "s3cr3t";
    for (
      const text of [
        secret,
        `{"type":${secret}}`,
        `{"${secret}":1}`,
        `["${secret}"]`,
        JSON.stringify({ type: [secret] }),
        JSON.stringify({ type: "x", uid: [secret] }),
        JSON.stringify({ type: secret.repeat(20) }),
        "[".repeat(40) + secret + "]".repeat(40),
      ]
    ) {
      const decoded = decode(text);
      assert.equal(decoded.ok, false);
      if (!decoded.ok) assert.equal(decoded.error.toMessage().includes(secret), false, text);
    }
  });
});

describe("decode, nested", () => {
  it(`takes ${MAX_DEPTH} levels and refuses ${MAX_DEPTH + 1}`, () => {
    assert.equal(MAX_DEPTH, 32);
    for (const inner of [arrays, objects]) {
      // The message itself is the first level.
      assert.equal(messageOf(decode(`{"type":"x","a":${inner(31)}}`)).type, "x");
      assert.equal(refusal(decode(`{"type":"x","a":${inner(32)}}`)).message, "Nested deeper than 32 levels");
    }
    assert.equal(refusal(decode(arrays(32))).message, "Not an object");
    assert.equal(refusal(decode(arrays(33))).message, "Nested deeper than 32 levels");
  });

  it("counts levels, not brackets", () => {
    const wide = JSON.stringify({ type: "x", list: Array.from({ length: 500 }, () => [{ a: [] }]) });
    assert.equal(messageOf(decode(wide)).type, "x");
    // The deepest that is accepted, beside other brackets.
    assert.equal(messageOf(decode(`{"type":"x","a":${arrays(31)},"b":[[],[]]}`)).type, "x");
  });

  it("does not count brackets inside strings, where quotes and backslashes are escaped", () => {
    for (
      const text of [
        "[".repeat(100),
        "{[".repeat(100),
        '"' + "[".repeat(100),
        '\\"' + "[".repeat(100),
        "\\".repeat(3) + '"' + "[{".repeat(100) + "\\",
      ]
    ) {
      assert.equal(messageOf(decode(JSON.stringify({ type: "x", text, [text]: 1 })))["text"], text);
    }
  });

  it("counts brackets again after a string, however its end was escaped", () => {
    for (const text of ["", "\\", '"', '\\"', '"\\']) {
      const json = `{"type":"x","text":${JSON.stringify(text)},"a":${arrays(32)}}`;
      assert.equal(refusal(decode(json)).message, "Nested deeper than 32 levels", text);
    }
  });

  it("refuses ten million brackets without parsing them", () => {
    // Parsed, or walked to its end by a recursive reader, this overflows the stack or blocks for seconds.
    assert.equal(refusal(decode("[".repeat(10_000_000))).message, "Nested deeper than 32 levels");
    assert.equal(refusal(decode('{"a":'.repeat(2_000_000))).message, "Nested deeper than 32 levels");
    assert.equal(refusal(decode("]".repeat(10_000_000))).message, "Not JSON");
  });
});

describe("decode, __proto__", () => {
  const keys = ['"__proto__"', '"\\u005f_proto__"', '"__prot\\u006f__"', '"\\u005F\\u005Fproto\\u005f\\u005f"'];

  it("drops the key, nested and escaped too, so that a copy has no other prototype", () => {
    for (const key of keys) {
      const message = messageOf(decode(`{"type":"x",${key}:{"admin":true},"a":{${key}:{"admin":true}},"b":[{${key}:1}]}`));
      assert.deepEqual(Object.keys(message), ["type", "a", "b"]);
      const { a, b } = message as unknown as { a: object; b: object[] };
      assert.deepEqual([Object.keys(a), Object.keys(b[0]!)], [[], []]);
      for (const copy of [Object.assign({}, message), Object.assign({}, a)]) {
        assert.equal((copy as { admin?: unknown }).admin, undefined);
        assert.equal(Object.getPrototypeOf(copy), Object.prototype);
      }
    }
    assert.equal(({} as { admin?: unknown }).admin, undefined);
  });

  it("cannot be given a type or uid by it", () => {
    for (const key of keys) assert.equal(refusal(decode(`{${key}:{"type":"x"}}`)).message, "`type` is missing");
  });

  it("keeps the text as a value, and other keys that objects have", () => {
    const text = '{"type":"x","constructor":{"prototype":1},"toString":"a","hasOwnProperty":0,"v":"__proto__","e":"\\u0041"}';
    assert.deepEqual(messageOf(decode(text)), JSON.parse(text));
    assert.ok(Object.hasOwn(messageOf(decode(text)), "constructor"));
  });
});

describe("textOf", () => {
  const bytes = new TextEncoder().encode('garbage{"type":"é💬"}garbage');
  const text = '{"type":"é💬"}';
  const length = new TextEncoder().encode(text).byteLength;

  it("reads only a view's own bytes when it is a part of a buffer", () => {
    assert.equal(textOf(new Uint8Array(bytes.buffer, 7, length)), text);
    assert.equal(textOf(new DataView(bytes.buffer, 7, length)), text);
    assert.equal(textOf(bytes.slice(7, 7 + length).buffer), text);
    assert.equal(textOf(new ArrayBuffer(0)), "");
  });

  it("keeps a byte order mark, so that such a frame is read alike as text and as binary", () => {
    assert.equal(textOf(Uint8Array.of(0xef, 0xbb, 0xbf, 0x31)), "\ufeff1");
  });

  it("is null when the bytes are not UTF-8, each time", () => {
    const invalid = [[0xff], [0x80], [0xc0, 0x80], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [
      0x61,
      0xf0,
      0x9f,
    ]];
    for (const sequence of invalid) {
      assert.equal(textOf(Uint8Array.from(sequence)), null, String(sequence));
      assert.equal(textOf(Uint8Array.of(0x61)), "a", "nothing is left of the frame before");
    }
  });
});

describe("issuePath", () => {
  const pathIn = (schema: v.GenericSchema, input: unknown) => issuePath(v.safeParse(schema, input).issues![0]);

  it("names where the issue is, and is empty at the top", () => {
    const schema = v.object({ items: v.array(v.object({ text: v.string() })) });
    assert.equal(pathIn(schema, { items: [{ text: "a" }, { text: 1 }] }), "items.1.text");
    assert.equal(pathIn(schema, 1), "");
  });

  it("is cut to 64 characters when keys of the input are in it", () => {
    assert.equal(pathIn(v.record(v.string(), v.number()), { ["k".repeat(1000)]: "x" }), "k".repeat(64));
  });

  it("is the path of any Standard Schema library, whose parts are keys or objects with a key", () => {
    assert.equal(issuePath({ path: ["items", 0, { key: "text" }, { key: 1 }] }), "items.0.text.1");
    assert.deepEqual([issuePath({}), issuePath({ path: [] })], ["", ""]);
    for (const part of [Symbol("secret"), { key: Symbol("secret") }, { key: {} }]) {
      assert.equal(issuePath({ path: ["items", part] }), "", "a key that JSON cannot hold is not shown");
    }
  });
});

describe("jsonOf", () => {
  it("is the JSON text of the data, null when there are none, and undefined when JSON omits it", () => {
    assert.deepEqual([undefined, null, 0, "a", { a: undefined }].map(jsonOf), ["null", "null", "0", '"a"', "{}"]);
    assert.deepEqual([() => {}, Symbol("a")].map(jsonOf), [undefined, undefined]);
    assert.throws(() => jsonOf(1n), TypeError);
  });
});
