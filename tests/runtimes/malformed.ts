import { closePayload, frame, type Wire } from "./wire.ts";

/** How a runtime takes an input, as its peer and the application see it. */
export interface Outcome {
  /**
   * The code of the close frame the server sent; `cut`: the connection ended without one; `open`: it lives on and answers;
   * `waits`: it lives on, and what follows is taken for the rest of the frame.
   */
  end: number | "cut" | "open" | "waits";
  /** The code of the one close event. Absent where the connection lives on. */
  reported?: number;
  /** Text messages that came, in order. @default {[]} */
  messages?: unknown[];
  /** Protocol pongs that came; `last`: one for the last ping at least, `any`: it is a race. @default {0} */
  pongs?: number | "last" | "any";
  /** The server leaves it to the client to end TCP. @default {false} */
  lingers?: boolean;
}

/** What RFC 6455 asks for, whose outcome each runtime has of its own. */
export type Failure =
  /** *Fail the connection* with 1002 (§7.1.7, §7.4.1). */
  | "refused"
  /** With 1007 (§8.1). */
  | "not text"
  /** With 1009 (§7.4.1, §10.4). */
  | "too big";

/** Bytes a client must not send, or rarely sends, and what RFC 6455 says of them. */
export interface UnusualInput {
  title: string;
  /** The section of RFC 6455. */
  section: string;
  bytes: Buffer;
  /** Each byte in a write of its own. */
  slowly?: boolean;
  /** The client's own FIN follows. */
  fin?: boolean;
  /** The client closes by itself: it does not answer the server's close frame. */
  closes?: boolean;
  expected: Outcome | Failure;
}

const PING = '{"type":"ping","uid":1}';
const PONG = { type: "pong", uid: 1 };

const ANSWERED: Outcome = { end: "open", messages: [PONG] };

/** A header that says what `frame` never would. The masking key is zero. */
function header(opcode: number, form: 7 | 16 | 64, length: bigint, { fin = true } = {}): Buffer {
  const first = (fin ? 0x80 : 0) | opcode;
  const key = Buffer.alloc(4);
  if (form === 7) return Buffer.concat([Buffer.from([first, 0x80 | Number(length)]), key]);
  const size = Buffer.alloc(form / 8);
  if (form === 16) size.writeUInt16BE(Number(length));
  else size.writeBigUInt64BE(length);
  return Buffer.concat([Buffer.from([first, 0x80 | (form === 16 ? 126 : 127)]), size, key]);
}

function fragments(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat(
    parts.map((part, i) => frame(i === 0 ? 1 : 0, part, { fin: i === parts.length - 1 })),
  );
}

/** An `echo` message whose text is the bytes. */
function echo(bytes: number[]): Buffer {
  return Buffer.concat([Buffer.from('{"type":"echo","text":"'), Buffer.from(bytes), Buffer.from('"}')]);
}

const hex = (number: number) => `0x${number.toString(16).toUpperCase()}`;

const RESERVED: UnusualInput[] = [
  ...[4, 2, 1].map((rsv, i) => ({
    title: `RSV${i + 1} set`,
    section: "5.2",
    bytes: frame(1, PING, { rsv }),
    expected: "refused" as const,
  })),
  { title: "RSV1 set on a ping", section: "5.2", bytes: frame(9, "", { rsv: 4 }), expected: "refused" as const },
  ...[3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf].map((opcode) => ({
    title: `the reserved opcode ${hex(opcode)}`,
    section: "5.2",
    bytes: frame(opcode, "x"),
    expected: "refused" as const,
  })),
];

const MASKING: UnusualInput[] = [
  { title: "an unmasked text frame", section: "5.1", bytes: frame(1, PING, { mask: false }), expected: "refused" as const },
  { title: "an unmasked ping", section: "5.1", bytes: frame(9, "", { mask: false }), expected: "refused" as const },
];

const CONTROL: UnusualInput[] = [
  { title: "a ping of 126 bytes", section: "5.5", bytes: frame(9, Buffer.alloc(126)), expected: "refused" as const },
  {
    title: "a close frame of 126 bytes",
    section: "5.5",
    bytes: frame(8, closePayload(1000, "x".repeat(124))),
    closes: true,
    expected: "refused" as const,
  },
  { title: "a fragmented ping", section: "5.5", bytes: frame(9, "", { fin: false }), expected: "refused" as const },
  {
    title: "a fragmented close frame",
    section: "5.5",
    bytes: frame(8, closePayload(1000), { fin: false }),
    expected: "refused" as const,
  },
  { title: "a ping of 125 bytes", section: "5.5.2", bytes: frame(9, Buffer.alloc(125, 1)), expected: { end: "open", pongs: 1 } },
  { title: "an unsolicited pong", section: "5.5.3", bytes: frame(10, "nobody asked"), expected: { end: "open" } },
  {
    title: "10,000 pings in one write",
    section: "5.5.3",
    bytes: Buffer.concat(Array.from({ length: 10_000 }, (_, i) => frame(9, String(i)))),
    expected: { end: "open", pongs: 10_000 },
  },
];

const FRAGMENTS: UnusualInput[] = [
  { title: "a continuation that continues nothing", section: "5.4", bytes: frame(0, PING), expected: "refused" as const },
  {
    title: "a new message inside a fragmented one",
    section: "5.4",
    bytes: Buffer.concat([frame(1, '{"type":', { fin: false }), frame(1, PING)]),
    expected: "refused" as const,
  },
  {
    title: "10,000 empty fragments",
    section: "5.4",
    bytes: Buffer.concat([frame(1, PING, { fin: false }), ...Array(10_000).fill(frame(0, "", { fin: false })), frame(0, "")]),
    expected: ANSWERED,
  },
  {
    title: "one byte at a time, header and payload",
    section: "5.2",
    bytes: Buffer.concat([frame(1, PING), frame(9, "ping")]),
    slowly: true,
    expected: { end: "open", messages: [PONG], pongs: 1 },
  },
];

const LENGTHS: UnusualInput[] = [
  {
    title: "a 64-bit length with its highest bit set",
    section: "5.2",
    bytes: header(1, 64, 1n << 63n),
    expected: "refused" as const,
  },
  {
    title: "a short length in 16 bits",
    section: "5.2",
    bytes: Buffer.concat([header(1, 16, BigInt(PING.length)), Buffer.from(PING)]),
    expected: "refused" as const,
  },
  {
    title: "a short length in 64 bits",
    section: "5.2",
    bytes: Buffer.concat([header(1, 64, BigInt(PING.length)), Buffer.from(PING)]),
    expected: "refused" as const,
  },
  { title: "a length of 2^40 and no payload", section: "10.4", bytes: header(1, 64, 1n << 40n), expected: "too big" },
  { title: "a length of 2^63 - 1 and no payload", section: "10.4", bytes: header(1, 64, (1n << 63n) - 1n), expected: "too big" },
  { title: "a length over maxPayload and no payload", section: "10.4", bytes: header(1, 64, 65_537n), expected: "too big" },
  {
    title: "fragments over maxPayload in a message that never ends",
    section: "10.4",
    bytes: Buffer.concat([frame(1, "[".repeat(40_000), { fin: false }), frame(0, "[".repeat(40_000), { fin: false })]),
    expected: "too big",
  },
  {
    title: "fragments that are together over maxPayload",
    section: "10.4",
    bytes: fragments("[".repeat(40_000), "[".repeat(40_000)),
    expected: "too big",
  },
];

const WRONG_TEXT: Record<string, number[]> = {
  "a byte that starts nothing (FF)": [0xff],
  "a lone continuation byte (80)": [0x80],
  "an overlong NUL (C0 80)": [0xc0, 0x80],
  "an overlong slash (E0 80 AF)": [0xe0, 0x80, 0xaf],
  "an overlong euro (F0 82 82 AC)": [0xf0, 0x82, 0x82, 0xac],
  "a surrogate (ED A0 80)": [0xed, 0xa0, 0x80],
  "a surrogate pair (ED A0 BD ED B8 80)": [0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80],
  "a code point over U+10FFFF (F4 90 80 80)": [0xf4, 0x90, 0x80, 0x80],
};

const TEXT: UnusualInput[] = [
  ...Object.entries(WRONG_TEXT).map(([what, bytes]) => ({
    title: `text with ${what}`,
    section: "8.1",
    bytes: frame(1, echo(bytes)),
    expected: "not text" as const,
  })),
  {
    title: "text that ends in the middle of a character",
    section: "8.1",
    bytes: frame(1, Buffer.concat([Buffer.from('{"type":"echo"}'), Buffer.from([0xe2, 0x82])])),
    expected: "not text" as const,
  },
  {
    title: "text that is wrong across two fragments",
    section: "8.1",
    bytes: fragments(echo([0xe2]).subarray(0, -2), Buffer.concat([Buffer.from([0x28]), Buffer.from('"}')])),
    expected: "not text" as const,
  },
  {
    title: "a wrong fragment of a text that never ends",
    section: "8.1",
    bytes: frame(1, echo([0xff]), { fin: false }),
    expected: "not text" as const,
  },
  {
    title: "a character split over four fragments",
    section: "8.1",
    bytes: fragments('{"type":"echo","text":"', ...[0xf0, 0x9f, 0x98, 0x80].map((byte) => Buffer.from([byte])), '"}'),
    expected: { end: "open", messages: [{ type: "echo", status: "ok", data: { type: "echo", text: "\u{1f600}" } }] },
  },
];

const closes = (title: string, section: string, payload: Buffer, expected: Outcome | Failure): UnusualInput => ({
  title,
  section,
  bytes: frame(8, payload),
  closes: true,
  expected,
});

const CLOSING: UnusualInput[] = [
  closes("a close frame without a code", "5.5.1", Buffer.alloc(0), { end: 1005, reported: 1005 }),
  closes("a close frame with a payload of one byte", "5.5.1", Buffer.from([3]), "refused"),
  ...[0, 999, 1004, 1005, 1006, 1015, 2999, 5000].map((code) =>
    closes(`a close frame with the reserved code ${code}`, "7.4.1", closePayload(code), "refused")
  ),
  ...[1000, 1014, 3000, 4999].map((code) =>
    closes(`a close frame with the code ${code}`, "7.4.1", closePayload(code), { end: code, reported: code })
  ),
  closes("a close reason of 123 bytes", "5.5.1", closePayload(4000, "x".repeat(123)), { end: 4000, reported: 4000 }),
  closes(
    "a close reason that is not UTF-8",
    "5.5.1",
    Buffer.concat([closePayload(4000), Buffer.from([0xff])]),
    "not text",
  ),
  closes(
    "a close reason of 123 bytes that are not UTF-8",
    "5.5.1",
    Buffer.concat([closePayload(4000), Buffer.alloc(123, 0xff)]),
    "not text",
  ),
  {
    title: "data after a close frame",
    section: "5.5.1",
    bytes: Buffer.concat([frame(8, closePayload(4000)), frame(1, PING), frame(9, "")]),
    closes: true,
    expected: { end: 4000, reported: 4000 },
  },
  {
    title: "a close frame between the fragments of a message",
    section: "5.4",
    bytes: Buffer.concat([frame(1, PING, { fin: false }), frame(8, closePayload(4000)), frame(0, "")]),
    closes: true,
    expected: { end: 4000, reported: 4000 },
  },
  {
    title: "half a header, then FIN",
    section: "7.1.5",
    bytes: frame(1, PING).subarray(0, 1),
    fin: true,
    expected: { end: "cut", reported: 1006 },
  },
  {
    title: "half a payload, then FIN",
    section: "7.1.5",
    bytes: frame(1, PING).subarray(0, 12),
    fin: true,
    expected: { end: "cut", reported: 1006 },
  },
  {
    title: "half a message, then FIN",
    section: "7.1.5",
    bytes: frame(1, PING, { fin: false }),
    fin: true,
    expected: { end: "cut", reported: 1006 },
  },
];

/** What is written after a handshake that was in order, by the part of the protocol it is about. */
export const FRAMES: Record<string, UnusualInput[]> = {
  "reserved bits and opcodes": RESERVED,
  masking: MASKING,
  "control frames": CONTROL,
  fragmentation: FRAGMENTS,
  lengths: LENGTHS,
  text: TEXT,
  closing: CLOSING,
};

/** Writes the input, the way it says. */
export async function writeInput(wire: Wire, { bytes, slowly, fin }: UnusualInput): Promise<void> {
  if (!slowly) wire.write(bytes);
  else {
    for (const byte of bytes) await new Promise((resolve) => wire.socket.write(Buffer.from([byte]), resolve));
  }
  if (fin) wire.socket.end();
}

/** A request no client sends, and what may be answered to it. */
export interface UnusualRequest {
  title: string;
  /** The RFC and its section. */
  section: string;
  /** The request, for a server at this address. */
  bytes(host: string): Buffer;
  /** The status; 0: the connection is ended without an answer. */
  expected: number;
}

/** A request line, and the headers of a handshake with those given in place of its own: a list stands for several lines. */
function request(line: string, headers: Record<string, string | string[] | undefined> = {}): (host: string) => Buffer {
  return (host) => {
    const all: Record<string, string | string[] | undefined> = {
      Host: host,
      Upgrade: "websocket",
      Connection: "Upgrade",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", // RFC 6455 §1.3
      ...headers,
    };
    const lines = Object.entries(all).flatMap(([name, values]) => [values ?? []].flat().map((value) => `${name}: ${value}`));
    return Buffer.from([line.replaceAll("{host}", host), ...lines, "", ""].join("\r\n"), "latin1");
  };
}

const OPENING = "GET /public HTTP/1.1";
const OTHER_KEY = "AQIDBAUGBwgJCgsMDQ4PEC==";

const HEADERS: UnusualRequest[] = [
  { title: "no Host", section: "9112 3.2", bytes: request(OPENING, { Host: undefined }), expected: 400 },
  {
    title: "two Host headers",
    section: "9112 3.2",
    bytes: (host) => request(OPENING, { Host: [host, "other.example"] })(host),
    expected: 400,
  },
  {
    title: "the same Host twice",
    section: "9112 3.2",
    bytes: (host) => request(OPENING, { Host: [host, host] })(host),
    expected: 400,
  },
  { title: "a Host that is no host", section: "9112 3.2", bytes: request(OPENING, { Host: "a b/c@d" }), expected: 400 },
  { title: "an upgrade over HTTP/1.0", section: "9110 7.8", bytes: request("GET /public HTTP/1.0"), expected: 426 },
  { title: "a header of 20 KB", section: "9110 5.4", bytes: request(OPENING, { "X-Long": "x".repeat(20_000) }), expected: 431 },
  {
    title: "200 headers",
    section: "9110 5.4",
    bytes: request(OPENING, Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`X-${i}`, "x"]))),
    expected: 101,
  },
  { title: "a folded header", section: "9112 5.2", bytes: request(OPENING, { "X-Folded": "a\r\n b" }), expected: 400 },
  { title: "a space before the colon", section: "9112 5.1", bytes: request(OPENING, { "X-Space ": "a" }), expected: 400 },
  { title: "a header with a NUL", section: "9110 5.5", bytes: request(OPENING, { "X-Nul": "a\0b" }), expected: 400 },
  {
    title: "two Sec-WebSocket-Key headers",
    section: "6455 11.3.1",
    bytes: request(OPENING, { "Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ==", OTHER_KEY] }),
    expected: 400,
  },
  {
    title: "two Sec-WebSocket-Version headers",
    section: "6455 11.3.5",
    bytes: request(OPENING, { "Sec-WebSocket-Version": ["13", "13"] }),
    expected: 426,
  },
  {
    title: "two Origin headers, the first of the same host",
    section: "6454 7.3",
    bytes: (host) => request(OPENING, { Origin: [`http://${host}`, "https://evil.example"] })(host),
    expected: 403,
  },
  {
    title: "two Origin headers, the second of the same host",
    section: "6454 7.3",
    bytes: (host) => request(OPENING, { Origin: ["https://evil.example", `http://${host}`] })(host),
    expected: 403,
  },
  {
    title: "a Sec-WebSocket-Protocol of 12 KB",
    section: "6455 11.3.4",
    bytes: request(OPENING, { "Sec-WebSocket-Protocol": "x,".repeat(6_000) + "x" }),
    expected: 400,
  },
  {
    title: "a Sec-WebSocket-Protocol of 20 KB",
    section: "6455 11.3.4",
    bytes: request(OPENING, { "Sec-WebSocket-Protocol": "x".repeat(20_000) }),
    expected: 431,
  },
];

const BODIES: UnusualRequest[] = [
  {
    title: "a body with a length",
    section: "9110 8.6",
    bytes: (host) => Buffer.concat([request(OPENING, { "Content-Length": "5" })(host), Buffer.from("GET /")]),
    expected: 413,
  },
  {
    title: "a chunked body",
    section: "9112 6.1",
    bytes: (host) => Buffer.concat([request(OPENING, { "Transfer-Encoding": "chunked" })(host), Buffer.from("0\r\n\r\n")]),
    expected: 413,
  },
  {
    title: "a length and chunks",
    section: "9112 6.3",
    bytes: (host) =>
      Buffer.concat([
        request(OPENING, { "Content-Length": "5", "Transfer-Encoding": "chunked" })(host),
        Buffer.from("0\r\n\r\n"),
      ]),
    expected: 400,
  },
  {
    title: "two lengths",
    section: "9112 6.3",
    bytes: (host) => Buffer.concat([request(OPENING, { "Content-Length": ["0", "5"] })(host), Buffer.from("GET /")]),
    expected: 400,
  },
];

const TARGETS: UnusualRequest[] = [
  { title: "the target *", section: "9112 3.2.4", bytes: request("GET * HTTP/1.1"), expected: 400 },
  {
    title: "a target in absolute form",
    section: "9112 3.2.2",
    bytes: request("GET http://{host}/public HTTP/1.1"),
    expected: 101,
  },
  {
    title: "a target in absolute form of another host",
    section: "9112 3.2.2",
    bytes: request("GET http://other.example/public HTTP/1.1"),
    expected: 101,
  },
  { title: "a target without a slash", section: "9112 3.2.1", bytes: request("GET public HTTP/1.1"), expected: 400 },
  { title: "a target with two slashes", section: "9112 3.2.1", bytes: request("GET //public HTTP/1.1"), expected: 404 },
  { title: "a target with spaces", section: "9112 3.2", bytes: request("GET /pub lic HTTP/1.1"), expected: 400 },
  { title: "a target with a fragment", section: "9112 3.2", bytes: request("GET /public#part HTTP/1.1"), expected: 400 },
  { title: "a target with %00", section: "3986 2.1", bytes: request("GET /public/%00 HTTP/1.1"), expected: 101 },
  { title: "a target with a broken escape", section: "3986 2.1", bytes: request("GET /public/%zz%f HTTP/1.1"), expected: 101 },
  { title: "a target with a NUL", section: "9112 3.2", bytes: request("GET /public/\0 HTTP/1.1"), expected: 400 },
  { title: "a target with a byte over 7F", section: "9112 3.2", bytes: request("GET /public/\xff HTTP/1.1"), expected: 400 },
  { title: "a target with dots", section: "3986 5.2.4", bytes: request("GET /a/../public HTTP/1.1"), expected: 101 },
  {
    title: "a target of 10 KB",
    section: "9112 3",
    bytes: request(`GET /public?${"x".repeat(10_000)} HTTP/1.1`),
    expected: 400,
  },
  {
    title: "a target of 20 KB",
    section: "9112 3",
    bytes: request(`GET /public?${"x".repeat(20_000)} HTTP/1.1`),
    expected: 414,
  },
];

const LINES: UnusualRequest[] = [
  { title: "a method in small letters", section: "9110 9.1", bytes: request("get /public HTTP/1.1"), expected: 400 },
  { title: "an unknown method", section: "9110 9.1", bytes: request("FETCH /public HTTP/1.1"), expected: 405 },
  { title: "CONNECT", section: "9110 9.3.6", bytes: request("CONNECT {host} HTTP/1.1"), expected: 405 },
  { title: "an unknown version of HTTP", section: "9112 2.3", bytes: request("GET /public HTTP/9.9"), expected: 505 },
  {
    title: "the hello of TLS",
    section: "9112 2.2",
    bytes: () => Buffer.from("16030100c8010000c40303aabbccdd0d0a0d0a", "hex"),
    expected: 400,
  },
  { title: "a line that is no request", section: "9112 2.2", bytes: () => Buffer.from("no request\r\n\r\n"), expected: 400 },
  {
    title: "a frame instead of a request",
    section: "9112 2.2",
    bytes: () => Buffer.concat([frame(1, PING), Buffer.from("\r\n\r\n")]),
    expected: 400,
  },
];

/** What is written in place of a handshake, by the part of the request it is about. */
export const REQUESTS: Record<string, UnusualRequest[]> = {
  headers: HEADERS,
  bodies: BODIES,
  targets: TARGETS,
  "request lines": LINES,
};
