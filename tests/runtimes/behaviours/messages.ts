import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { frame, frames, Wire } from "../wire.ts";

/** Sends what is wrong, expects the error and that the connection lives. */
async function expectInvalid({ port }: TestServer, bad: Iterable<string | Buffer>): Promise<void> {
  const wire = await Wire.open(port, "/public");
  for (const input of bad) {
    if (Buffer.isBuffer(input)) wire.write(input);
    else wire.send(input);
    const { type, status, error } = await wire.next();
    assert.deepEqual({ type, status, code: error.code }, { type: "server", status: "error", code: "INVALID_PAYLOAD" });
    assert.deepEqual(Object.keys(error).sort(), ["code", "message"]);
  }
  assert.deepEqual(await wire.ask({ type: "ping", uid: "alive" }), { type: "pong", uid: "alive" });
  wire.reset();
}

/** Expects the connection to end with the code, and the service to live. */
async function expectClose({ port }: TestServer, path: string, bytes: Buffer, code: number): Promise<void> {
  const wire = await Wire.open(port, path);
  wire.write(bytes);
  assert.equal((await wire.closed).code, code);
  (await Wire.open(port, "/public")).reset();
}

/** What a frame may hold. */
export const messages: Behaviour[] = [
  {
    title: "echoes a uid with its JSON type",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      for (const uid of ["a", "0", "", 0, 1, -1.5, Number.MAX_SAFE_INTEGER, "x".repeat(64), "💬"]) {
        assert.deepEqual(await wire.ask({ type: "ping", uid }), { type: "pong", uid });
        assert.deepEqual(await wire.ask({ type: "say", text: "t", uid }), { type: "say", status: "ok", uid, data: "t" });
      }
      wire.reset();
    },
  },
  {
    title: "refuses a uid of another type or of more than 64 characters",
    async run(server) {
      const bad = [true, null, {}, [], "x".repeat(65)].map((uid) => JSON.stringify({ type: "ping", uid }));
      await expectInvalid(server, [...bad, '{"type":"ping","uid":1e999}']);
    },
  },
  {
    title: "refuses a uid that is a number which JSON does not carry unchanged",
    async run(server) {
      const bad =
        "9007199254740993 9007199254740992 -9007199254740993 -9007199254740992 9007199254740993.0 9007199254740991.7 1e16 " +
        "18446744073709551615 1e308 1e400 -1e400 -0 -0.0";
      const frames = bad.split(" ").flatMap((uid) => [
        `{"type":"ping","uid":${uid}}`,
        `{"uid":${uid},"type":"say","text":"t"}`,
        `{"type":"subscribe","channel":"room:1","uid":${uid}}`,
      ]);
      await expectInvalid(server, frames);
      const wire = await Wire.open(server.port, "/public");
      const good = {
        "9007199254740991": 2 ** 53 - 1,
        "-9007199254740991": 1 - 2 ** 53,
        "0": 0,
        "0.1": 0.1,
        "-1.50": -1.5,
        "7.0": 7,
        "7e2": 700,
      };
      for (const [text, uid] of Object.entries(good)) {
        assert.deepEqual(await wire.ask(`{"type":"ping","uid":${text}}`), { type: "pong", uid });
      }
      wire.reset();
    },
  },
  {
    title: "answers a ping with and without uid",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.deepEqual(await wire.ask({ type: "ping" }), { type: "pong" });
      assert.deepEqual(await wire.ask({ type: "ping", uid: 3, extra: 1 }), { type: "pong", uid: 3 });
      wire.reset();
    },
  },
  {
    title: "sends no reply to a pong",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.send({ type: "pong" });
      assert.deepEqual(await wire.ask({ type: "ping" }), { type: "pong" });
      wire.reset();
    },
  },
  {
    title: "answers a protocol ping with its payload",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.write(Buffer.concat([frame(9, "are you there"), frames({ type: "ping" })]));
      await wire.next();
      assert.deepEqual(wire.pongs.map(String), ["are you there"]);
      wire.reset();
    },
  },
  {
    title: "answers INVALID_PAYLOAD to what is not a JSON object and keeps serving",
    run: (server) =>
      expectInvalid(server, [
        "{",
        "",
        " ",
        "[]",
        '[{"type":"ping"}]',
        "1",
        "null",
        '"ping"',
        "true",
        "undefined",
        "{}",
        '{"type":7}',
        '{"type":""}',
        `{"type":"${"x".repeat(65)}"}`,
      ]),
  },
  {
    title: "echoes the uid of a message that is invalid otherwise",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.equal((await wire.ask({ type: 7, uid: "mine" })).uid, "mine");
      wire.reset();
    },
  },
  {
    title: "closes with 1009 on ten megabytes of brackets and keeps serving",
    run: (server) => expectClose(server, "/public", frame(1, "[".repeat(10_000_000)), 1009),
  },
  {
    title: "closes with 1009 on 200 KB of nested objects and keeps serving",
    run: (server) => expectClose(server, "/public", frame(1, '{"a":'.repeat(33_000) + "1" + "}".repeat(33_000)), 1009),
  },
  {
    title: "answers INVALID_PAYLOAD to a message nested deeper than 32 levels",
    run: (server) =>
      expectInvalid(server, [
        "[".repeat(60_000),
        '{"type":"echo","a":' + "[".repeat(32) + "]".repeat(32) + "}",
        '{"a":'.repeat(9_000) + "1" + "}".repeat(9_000),
      ]),
  },
  {
    title: "accepts a message nested 32 levels, and brackets within strings",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.send('{"type":"echo","a":' + "[".repeat(31) + "]".repeat(31) + "}");
      assert.equal((await wire.next()).status, "ok");
      const text = '[{"\\'.repeat(100);
      assert.equal((await wire.ask({ type: "echo", text })).data.text, text);
      wire.reset();
    },
  },
  {
    title: "lets no __proto__ key through and keeps a constructor key",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      for (const key of ['"__proto__"', '"\\u005f_proto__"', '"__pr\\u006fto__"']) {
        wire.send(`{"type":"proto",${key}:{"admin":true}}`);
        assert.deepEqual((await wire.next()).data, { admin: null, polluted: null });
      }
      // Read by a listener: valibot's looseObject, which the handlers here use, leaves a `constructor` out.
      await server.control("public", "listen", { kind: "record" });
      wire.send('{"type":"odd","constructor":{"prototype":{"admin":true}},"nested":{"__proto__":{"admin":true},"kept":1}}');
      const [{ message }] = await server.control("public", "wait", { event: "message" });
      assert.deepEqual(message.constructor, { prototype: { admin: true } });
      assert.deepEqual(message.nested, { kept: 1 });
      wire.reset();
    },
  },
  {
    title: "reads binary that is UTF-8 as text, and answers INVALID_PAYLOAD to other binary",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.write(frame(2, '{"type":"say","text":"grüße 💬"}'));
      assert.equal((await wire.next()).data, "grüße 💬");
      wire.reset();
      await expectInvalid(server, [
        frame(2, Buffer.from([0xff, 0xfe])),
        frame(2, Buffer.alloc(0)),
        frame(2, Buffer.from([0xed, 0xa0, 0x80])),
      ]);
    },
  },
  {
    title: "reads only the bytes of each of several binary frames in one segment",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.write(Buffer.concat([1, 2, 3].map((uid) => frame(2, `{"type":"ping","uid":${uid}}`))));
      for (const uid of [1, 2, 3]) assert.deepEqual(await wire.next(), { type: "pong", uid });
      wire.reset();
    },
  },
  {
    title: "closes with 1007 on a text frame that is not UTF-8",
    run: (server) => expectClose(server, "/public", frame(1, Buffer.from([0x22, 0xff, 0x22])), 1007),
  },
  {
    title: "sends a lone surrogate as valid UTF-8",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.deepEqual(await wire.ask({ type: "surrogate" }), { type: "raw", text: "\ufffd" });
      wire.reset();
    },
  },
  {
    title: "accepts a message of exactly maxPayload bytes and closes with 1009 at one more",
    async run(server) {
      const shell = '{"type":"echo","a":""}'.length;
      const fillers: [number, string][] = [[1, "x"], [2, "ü"], [3, "語"]];
      for (const opcode of [1, 2]) {
        for (const [bytes, character] of fillers) {
          const count = Math.floor((1000 - shell) / bytes);
          const pad = "x".repeat(1000 - shell - count * bytes);
          const exact = `{"type":"echo","a":"${character.repeat(count)}${pad}"}`;
          assert.equal(Buffer.byteLength(exact), 1000);
          const wire = await Wire.open(server.port, "/small?access_token=ann");
          wire.write(frame(opcode, exact));
          assert.equal((await wire.next()).status, "ok");
          wire.write(frame(opcode, exact.replace('"a":"', '"a":"x')));
          assert.equal(await wire.next(), null);
          assert.equal((await wire.closed).code, 1009, `${character} in a frame of opcode ${opcode}`);
        }
      }
      const closes = await server.control("small", "wait", { event: "close", count: 6 });
      assert.deepEqual(new Set(closes.map(({ code }: { code: number }) => code)), new Set([1009]));
    },
  },
  {
    title: "puts a fragmented message together, control frames in between",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      const text = Buffer.from('{"type":"say","text":"grüße"}');
      const cut = text.indexOf(0xc3) + 1; // In the middle of a character.
      wire.write(Buffer.concat([
        frame(1, text.subarray(0, cut), { fin: false }),
        frame(9, "between"),
        frame(0, text.subarray(cut, cut + 2), { fin: false }),
        frame(0, text.subarray(cut + 2)),
      ]));
      assert.equal((await wire.next()).data, "grüße");
      assert.deepEqual(wire.pongs.map(String), ["between"]);
      wire.reset();
    },
  },
  {
    title: "reads frames that arrive one byte at a time",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      for (const byte of frames({ type: "ping", uid: 1 })) {
        await new Promise<void>((written) => wire.socket.write(Buffer.from([byte]), () => written()));
      }
      assert.deepEqual(await wire.next(), { type: "pong", uid: 1 });
      wire.reset();
    },
  },
  {
    title: "handles 1,000 messages in the order sent",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.write(frames(...Array.from({ length: 1000 }, (_, uid) => ({ type: "say", text: "t", uid }))));
      for (let uid = 0; uid < 1000; uid++) assert.equal((await wire.next()).uid, uid);
      wire.reset();
    },
  },
];
