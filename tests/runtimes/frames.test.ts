import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { constants, deflateRawSync } from "node:zlib";
import { type Failure, FRAMES, type Outcome, REQUESTS, type UnusualInput, type UnusualRequest, writeInput } from "./malformed.ts";
import { NATIVE_DENO, startDurableObject, startServer, type TestServer } from "./server.ts";
import { frame, Wire } from "./wire.ts";

/** How a runtime handles invalid input. */
interface Character {
  start(): Promise<TestServer>;
  /** How it fails a connection. */
  failures: Record<Failure, Outcome>;
  /** Differences from RFC 6455, by the title of the input. */
  frames: Record<string, Outcome>;
  /** The status it answers in place of the expected one, by the title of the request. */
  requests: Record<string, number>;
  /** Whether it accepts permessage-deflate when it is offered. @default {false} */
  compresses?: boolean;
}

const PONG = { type: "pong", uid: 1 };
const READ: Outcome = { end: "open", messages: [PONG] };
const WAITS: Outcome = { end: "waits" };

/** RFC 6455 §5.2 requires the shortest form of a length; no runtime checks it. */
const ANY_LENGTH: Record<string, Outcome> = {
  "a short length in 16 bits": READ,
  "a short length in 64 bits": READ,
};

/** Runtimes without `maxPayload`: a message that is too big is closed once it has arrived completely. */
const OWN_MAXIMUM: Record<string, Outcome> = {
  "a length over maxPayload and no payload": WAITS,
  "fragments over maxPayload in a message that never ends": WAITS,
};

/** RFC 6455 §5.1 requires a client to mask its frames. */
const UNMASKED: Record<string, Outcome> = {
  "an unmasked text frame": READ,
  "an unmasked ping": { end: "open", pongs: 1 },
};

const HUGE = [
  "a 64-bit length with its highest bit set",
  "a length of 2^40 and no payload",
  "a length of 2^63 - 1 and no payload",
];

const each = (titles: string[], outcome: Outcome): Record<string, Outcome> =>
  Object.fromEntries(titles.map((title) => [title, outcome]));

/** The echo of a text in which workerd has put U+FFFD this many times. */
const mended = (count: number, rest = ""): Outcome => ({
  end: "open",
  messages: [{ type: "echo", status: "ok", data: { type: "echo", text: "\ufffd".repeat(count) + rest } }],
});

const cut: Outcome = { end: "cut", reported: 1006 };
const ours: Outcome = { end: 1009, reported: 1009 };

/** `node:http` and ws, on Node and behind `noroshi/serve` on Deno. */
const WS: Omit<Character, "start"> = {
  failures: { refused: { end: 1002, reported: 1006 }, "not text": { end: 1007, reported: 1006 }, "too big": ours },
  frames: {
    ...ANY_LENGTH,
    "a 64-bit length with its highest bit set": ours,
    // ws closes a client whose pings arrive while 60 pongs still wait to be written (maxPendingAutoPongs).
    "10,000 pings in one write": { end: "cut", reported: 1006, pongs: "any" },
    "a wrong fragment of a text that never ends": WAITS,
  },
  requests: {
    "two Host headers": 101,
    "the same Host twice": 101,
    "an upgrade over HTTP/1.0": 101,
    "a target with a fragment": 101,
    "a target of 20 KB": 431,
    "an unknown method": 400,
    "CONNECT": 0,
    "an unknown version of HTTP": 400,
  },
};

const CHARACTERS: Record<string, Character> = {
  Bun: {
    start: () => startServer("bun"),
    failures: { refused: { end: 1002, reported: 1006 }, "not text": { end: 1007, reported: 1006 }, "too big": ours },
    frames: {
      ...ANY_LENGTH,
      "a 64-bit length with its highest bit set": ours,
      "a wrong fragment of a text that never ends": WAITS,
    },
    requests: {
      "two Host headers": 101,
      "the same Host twice": 101,
      "a Host that is no host": 500, // The URL it makes of it is the fixture's route without a subject.
      "an upgrade over HTTP/1.0": 101,
      "200 headers": 431,
      "a target with spaces": 505,
      "a target with a fragment": 101,
      "a target with a NUL": 505,
      "a target with a byte over 7F": 101,
      "a target of 20 KB": 431,
      "a method in small letters": 0,
      "an unknown method": 0,
      "CONNECT": 404,
    },
  },
  Deno: { start: () => startServer("deno"), ...WS },
  "Deno.serve": {
    start: () => startServer("deno", NATIVE_DENO),
    failures: { refused: cut, "not text": cut, "too big": ours },
    frames: {
      ...ANY_LENGTH,
      ...OWN_MAXIMUM,
      ...UNMASKED,
      ...each(HUGE, cut),
      "a close frame of 126 bytes": { end: 1000, reported: 1000 },
      ...each(
        [...[0, 999, 1004, 1005, 1006, 1015, 2999, 5000].map((code) => `a close frame with the reserved code ${code}`)],
        { end: 1002, reported: 1006 },
      ),
      "a close frame with the code 1014": { end: 1002, reported: 1006 },
      ...each(["half a header, then FIN", "half a payload, then FIN", "half a message, then FIN"], cut),
    },
    requests: {
      "no Host": 101,
      "a Host that is no host": 404,
      "an upgrade over HTTP/1.0": 101,
      "a header of 20 KB": 101,
      "200 headers": 400,
      "a Sec-WebSocket-Protocol of 20 KB": 400,
      "a body with a length": 400,
      "a chunked body": 400,
      "a target with a fragment": 101,
      "a target with dots": 404,
      "a target of 20 KB": 400,
      "a method in small letters": 404,
      "an unknown method": 404,
      "CONNECT": 404,
      "an unknown version of HTTP": 400,
    },
  },
  Node: { start: () => startServer("node"), ...WS },
  "Durable Object": {
    start: () => startDurableObject(),
    failures: {
      refused: { end: 1002, reported: 1006, lingers: true },
      "not text": { end: 1007, reported: 1006, lingers: true },
      "too big": ours,
    },
    frames: {
      ...ANY_LENGTH,
      ...OWN_MAXIMUM,
      ...UNMASKED,
      ...each(HUGE, { end: 1009, reported: 1006, lingers: true }),
      "RSV1 set on a ping": { end: "open", pongs: 1 },
      "a ping of 126 bytes": { end: "open", pongs: 1 },
      "a close frame of 126 bytes": { end: 1000, reported: 1000 },
      // It answers only the last ping that it has read, as §5.5.3 allows.
      "10,000 pings in one write": { end: "open", pongs: "last" },
      "text with a byte that starts nothing (FF)": mended(1),
      "text with a lone continuation byte (80)": mended(1),
      "text with an overlong NUL (C0 80)": mended(2),
      "text with an overlong slash (E0 80 AF)": mended(3),
      "text with an overlong euro (F0 82 82 AC)": mended(4),
      "text with a surrogate (ED A0 80)": mended(3),
      "text with a surrogate pair (ED A0 BD ED B8 80)": mended(6),
      "text with a code point over U+10FFFF (F4 90 80 80)": mended(4),
      "text that is wrong across two fragments": mended(1, "("),
      "text that ends in the middle of a character": {
        end: "open",
        messages: [{ type: "server", status: "error", error: { code: "INVALID_PAYLOAD", message: "Not JSON" } }],
      },
      "a wrong fragment of a text that never ends": WAITS,
      // Where there is no code, or one that may not be sent, ours is 1000.
      "a close frame without a code": { end: 1000, reported: 1005 },
      "a close frame with a payload of one byte": { end: 1000, reported: 1005 },
      ...Object.fromEntries(
        [0, 999, 1004, 1005, 1006, 1015, 2999, 5000].map((code) => [
          `a close frame with the reserved code ${code}`,
          { end: 1000, reported: code === 1005 ? 1005 : 1006 },
        ]),
      ),
      "a close reason that is not UTF-8": { end: 4000, reported: 4000 },
      "a close reason of 123 bytes that are not UTF-8": { end: 4000, reported: 4000 },
      ...each(
        ["half a header, then FIN", "half a payload, then FIN", "half a message, then FIN"],
        { end: 1000, reported: 1006 },
      ),
    },
    requests: {
      "two Host headers": 500,
      "the same Host twice": 500,
      "a Host that is no host": 500,
      "an upgrade over HTTP/1.0": 101,
      "a header of 20 KB": 101,
      "a folded header": 101,
      "a space before the colon": 101,
      "a Sec-WebSocket-Protocol of 20 KB": 400,
      "a length and chunks": 413,
      "two lengths": 500,
      "the target *": 500,
      "a target in absolute form": 500,
      "a target in absolute form of another host": 500,
      "a target without a slash": 500,
      "a target with spaces": 500, // "/pub": the fixture's route without a subject.
      "a target with a fragment": 101,
      "a target with a byte over 7F": 101,
      "a target of 20 KB": 400,
      "a method in small letters": 501,
      "an unknown method": 501,
      "CONNECT": 500,
      "an unknown version of HTTP": 101,
      "the hello of TLS": 501,
      "a line that is no request": 501,
      "a frame instead of a request": 501,
    },
    compresses: true,
  },
};

const CREDENTIAL = "canary";

/** Writes the input to an admitted client's connection and checks the outcome on both sides. */
async function take(server: TestServer, input: UnusualInput, { failures, frames }: Character): Promise<void> {
  const expected = frames[input.title] ?? (typeof input.expected === "string" ? failures[input.expected] : input.expected);
  const { end, reported, messages = [], pongs = 0, lingers = false } = expected;
  const wire = await Wire.open(server.port, "/public", { headers: { Authorization: `Bearer ${CREDENTIAL}` } });
  // workerd ends TCP at once only after it has received a message.
  assert.deepEqual(await wire.ask({ type: "ping" }), { type: "pong" });
  if (input.closes) wire.answersClose = false;
  let over = false;
  void wire.closed.then(() => over = true);

  await writeInput(wire, input);

  if (end === "open") await livesOn(wire, messages, pongs);
  else if (end === "waits") {
    await assertAlive(server);
    await assertAlive(server);
    assert.equal(over, false, "the connection ended");
    assert.equal((await server.control("public", "clients")).length, 1);
    wire.reset();
    assert.equal(await wire.next(), null, "a message came");
    assert.equal(wire.pongs.length, 0);
  } else {
    const { code } = await wire.closed;
    assert.equal(code, end === "cut" ? 1006 : end, "of the server's close frame");
    // RFC 6455 §7.1.1: the server ends TCP.
    if (lingers) {
      await assertAlive(server);
      assert.equal(wire.socket.readableEnded, false, "the server ended TCP");
      wire.reset();
    }
    if (!wire.socket.closed) await once(wire.socket, "close");
    assert.equal(await wire.next(), null, "a message came");
    if (pongs !== "any") assert.equal(wire.pongs.length, pongs);
  }

  if (end !== "open") await server.control("public", "wait", { event: "close" });
  await assertAlive(server);
  const log: { event: string; code?: number; error?: string }[] = await server.control("public", "log");
  const of = (...events: string[]) => log.filter(({ event }) => events.includes(event));
  const codes = of("close").map(({ code }) => code);
  assert.deepEqual(codes, end === "open" ? [] : [end === "waits" ? 1006 : reported], "of the close events");
  const errors = of("error").map(({ error }) => error!);
  assert.deepEqual(errors, [], "what a peer does wrong is no error of the service");
  assert.equal(JSON.stringify(of("error", "warn", "logged")).includes(CREDENTIAL), false);
}

async function livesOn(wire: Wire, messages: unknown[], pongs: Outcome["pongs"]): Promise<void> {
  for (const message of messages) assert.deepEqual(await wire.next(), message);
  if (typeof pongs === "number") await wire.ponged(pongs);
  else {
    while (String(wire.pongs.at(-1)) !== "9999") await wire.ponged(wire.pongs.length + 1);
  }
  assert.deepEqual(await wire.ask({ type: "ping", uid: "after" }), { type: "pong", uid: "after" });
  if (typeof pongs === "number") assert.equal(wire.pongs.length, pongs);
}

/** Checks that the process is alive and serves the next client. */
async function assertAlive({ port }: TestServer): Promise<void> {
  const other = await Wire.open(port, "/plain");
  assert.deepEqual(await other.ask({ type: "ping", uid: "other" }), { type: "pong", uid: "other" });
  other.reset();
}

async function answer(server: TestServer, { title, bytes, expected }: UnusualRequest, { requests }: Character): Promise<void> {
  const wire = Wire.raw(server.port, bytes(`127.0.0.1:${server.port}`));
  await wire.answered;
  assert.equal(wire.answer.status, requests[title] ?? expected);
  if (wire.answer.status === 101) assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), PONG);
  await assertAlive(server);
}

/** A message as RFC 7692 §7.2.1 has it compressed: without the empty block at its end. */
function deflate(text: string): Buffer {
  return deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);
}

interface Scene {
  title: string;
  run(server: TestServer, character: Character): Promise<void>;
}

const SCENES: Scene[] = [
  {
    title: "permessage-deflate is not negotiated, and a compressed frame is refused, or what it inflates to is bounded",
    async run(server, { compresses = false, failures: { refused } }) {
      const open = async (offer: string) => {
        const wire = await Wire.open(server.port, "/public", { headers: { "Sec-WebSocket-Extensions": offer } });
        assert.equal(wire.answer.headers["sec-websocket-extensions"], compresses ? "permessage-deflate" : undefined);
        wire.send({ type: "ping" });
        await wire.text();
        return wire;
      };
      if (compresses) {
        // 117 bytes on the wire, over maxPayload inflated; 32 KB, over what workerd ever takes.
        for (const [size, reported] of [[70_000, 1009], [34_000_000, 1006]] as const) {
          const wire = await open("permessage-deflate");
          wire.write(frame(1, deflate("a".repeat(size)), { rsv: 4 }));
          assert.equal((await wire.closed).code, 1009);
          const closes: { code: number }[] = await server.control("public", "wait", {
            event: "close",
            count: reported === 1009 ? 1 : 2,
          });
          assert.equal(closes.at(-1)!.code, reported);
        }
      } else {
        for (const offer of ["permessage-deflate", "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"]) {
          const wire = await open(offer);
          wire.write(frame(1, deflate('{"type":"ping","uid":1}'), { rsv: 4 }));
          assert.equal((await wire.closed).code, refused.end === "cut" ? 1006 : refused.end);
          assert.equal(await wire.next(), null);
        }
      }
      await assertAlive(server);
    },
  },
  {
    title: "half a handshake, silence and a reset leave nothing behind",
    async run(server) {
      const halves = ["G", "GET /public HTTP/1.1\r\nHost: ", `GET /public HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n`];
      const wires = halves.map((half) => Wire.raw(server.port, Buffer.from(half)));
      await Promise.all(wires.map((wire) => once(wire.socket, "connect")));
      // Silent: nothing was answered while another client connected and left.
      await assertAlive(server);
      for (const wire of wires) {
        assert.equal(wire.socket.bytesRead, 0);
        wire.reset();
        await wire.closed;
      }
      await assertAlive(server);
      assert.deepEqual(await server.control("public", "clients"), []);
      assert.deepEqual(await server.control("public", "log"), []);
    },
  },
  {
    title: "a handshake that is written byte by byte is upgraded",
    async run(server) {
      const wire = Wire.raw(server.port, Buffer.from("G"));
      const rest = REQUESTS["targets"]!.find(({ title }) => title === "a target with %00")!.bytes(`127.0.0.1:${server.port}`);
      for (const byte of rest.subarray(1)) await new Promise((resolve) => wire.socket.write(Buffer.from([byte]), resolve));
      await wire.answered;
      assert.equal(wire.answer.status, 101);
      assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), PONG);
    },
  },
  {
    // new WebSocket("ws://victim//evil.example/strict") in a page of http://evil.example sends the victim's cookie along.
    title: "an Origin is compared with the Host and not with the request target",
    async run(server) {
      const headers = { Origin: "http://evil.example", Cookie: "session_token=ann" };
      for (const target of ["/strict", "//evil.example/strict", "/\\evil.example/strict", "//x@evil.example/strict"]) {
        const { answer: { status } } = await Wire.request(server.port, target, { headers });
        assert.ok([400, 403, 404].includes(status), `answered ${status} to ${target}`);
      }
      assert.deepEqual(await server.control("strict", "clients"), []);
    },
  },
];

/** Fails for a title in a table that no test uses. */
function checkTables({ frames, requests }: Character): void {
  const [inputs, asked] = [FRAMES, REQUESTS].map((areas) => Object.values(areas).flat().map(({ title }) => title)) as [
    string[],
    string[],
  ];
  const known = { frames: inputs, requests: asked };
  for (const [table, titles] of Object.entries({ frames, requests })) {
    for (const title of Object.keys(titles)) {
      if (!known[table as keyof typeof known].includes(title)) throw new Error(`No test is called "${title}"`);
    }
  }
}

for (const [runtime, character] of Object.entries(CHARACTERS)) {
  checkTables(character);
  const { frames, requests } = character;

  describe(`unusual bytes on ${runtime}`, () => {
    let server: TestServer;
    before(async () => {
      server = await character.start();
    });
    after(() => server.stop());

    const test = (title: string, suffix: string, run: () => Promise<void>) => {
      it(title + suffix, { timeout: 300_000 }, async ({ signal }) => {
        // A test that times out must not reset the connections of the next one later.
        signal.addEventListener("abort", () => Wire.resetAll());
        await server.control("all", "fresh");
        try {
          await run();
        } finally {
          Wire.resetAll();
        }
      });
    };

    for (const [area, inputs] of Object.entries(FRAMES)) {
      describe(area, () => {
        for (const input of inputs) {
          const { title, section } = input;
          test(title, ` (RFC 6455 ${section})${frames[title] ? " — differs" : ""}`, () => take(server, input, character));
        }
      });
    }
    for (const [area, inputs] of Object.entries(REQUESTS)) {
      describe(area, () => {
        for (const input of inputs) {
          const { title, section } = input;
          test(title, ` (RFC ${section})${title in requests ? " — differs" : ""}`, () => answer(server, input, character));
        }
      });
    }
    describe("scenes", () => {
      for (const { title, run } of SCENES) test(title, "", () => run(server, character));
    });
  });
}
