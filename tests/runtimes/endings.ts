// deno-lint-ignore-file require-yield -- most endings wait for nothing of the server
/** Every way an upgrade can end, for the test of leaks and its fixture. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ConnectOptions, frame, frames, type HandshakeOptions, Wire } from "./wire.ts";

/**
 * What an ending waits for before it goes on: the server waits for the application; the users `doomed` and `slow-doomed` were disconnected;
 * the application went on; the server's time has passed.
 */
export type Stage = "stalled" | "disconnected" | "released" | "passed";

/** One way an upgrade ends. */
export type Ending = (clients: Clients) => AsyncGenerator<Stage, void>;

/** The clients of one server. */
export class Clients {
  readonly port: number;
  #count = 0;
  readonly #wires = new Set<Wire>();

  constructor(port: number) {
    this.port = port;
  }

  /** A number that is given out once. */
  next(): number {
    return ++this.#count;
  }

  /** Begins an upgrade, from an address of its own. */
  begin(path: string, options: HandshakeOptions = {}): Wire {
    const number = this.next();
    const address = `10.${number >> 16 & 255}.${number >> 8 & 255}.${number & 255}`;
    return this.#keep(Wire.begin(this.port, path, { ...options, headers: { "X-From": address, ...options.headers } }));
  }

  raw(bytes: string, options?: ConnectOptions): Wire {
    return this.#keep(Wire.raw(this.port, Buffer.from(bytes, "latin1"), options));
  }

  async ask(path: string, options?: HandshakeOptions): Promise<Wire> {
    const wire = this.begin(path, options);
    await wire.answered;
    return wire;
  }

  async open(path: string, options?: HandshakeOptions): Promise<Wire> {
    const wire = await this.ask(path, options);
    assert.equal(wire.answer.status, 101, wire.answer.body);
    return wire;
  }

  /** Ends a connection that is no WebSocket: with a reset, or a FIN, in turns. */
  async leave(wire: Wire): Promise<void> {
    if (this.next() % 2 === 0) return this.reset(wire);
    wire.socket.end();
    if (!wire.socket.destroyed) await wire.closed;
  }

  reset(wire: Wire): void {
    if (!wire.socket.destroyed) wire.reset();
  }

  /** Ends what is open, with a reset. */
  resetAll(): void {
    for (const wire of this.#wires) this.reset(wire);
    this.#wires.clear();
  }

  #keep(wire: Wire): Wire {
    this.#wires.add(wire);
    return wire;
  }
}

/** A request that is answered otherwise than with 101: with one of these, and how it asks. */
export type Refusal = [statuses: number | number[], path: string, options?: HandshakeOptions];

/** No upgrade: what the same request without an Upgrade header is answered. */
type Plain = [body: string, path: string, options?: HandshakeOptions];

const headers = (fields: Record<string, string | undefined>): HandshakeOptions => ({ headers: fields });

/** What a WebSocket route answers at once. */
export const REFUSALS: Record<string, Refusal> = {
  "a key that is missing": [400, "/public", headers({ "Sec-WebSocket-Key": undefined })],
  "a key that is empty": [400, "/public", headers({ "Sec-WebSocket-Key": "" })],
  "a key that is too short": [400, "/public", headers({ "Sec-WebSocket-Key": "short" })],
  "a key that is too long": [400, "/public", headers({ "Sec-WebSocket-Key": "A".repeat(2_000) })],
  "version 8": [426, "/public", headers({ "Sec-WebSocket-Version": "8" })],
  "an empty name in the list of subprotocols": [400, "/public", headers({ "Sec-WebSocket-Protocol": "a," })],
  "a subprotocol that is offered twice": [400, "/public", headers({ "Sec-WebSocket-Protocol": "a, a" })],
  "a list of subprotocols that is too long": [400, "/public", headers({ "Sec-WebSocket-Protocol": "a".repeat(10_000) })],
  "another protocol beside websocket": [[400, 426], "/public", headers({ Upgrade: "websocket, foo" })],
  "a Connection header without Upgrade": [400, "/public", headers({ Connection: "close" })],
  "a target that is too long": [400, `/public?${"x".repeat(3_000)}`],
  "a plain request": [426, "/public", headers({ Upgrade: undefined, Connection: "close" })],
  // Deno.serve answers 400 by itself to a length beside an Upgrade header, workerd fails by itself after it has made a GET of a POST, and on
  // Node a POST loses its Upgrade header.
  "a POST": [[405, 400, 426, 500], "/any", { method: "POST", headers: { "Content-Length": "0" } }],
  "a body": [[413, 400], "/public", { ...headers({ "Content-Length": "5" }), follow: Buffer.from("hello") }],
  "a body in chunks": [[413, 400], "/public", {
    ...headers({ "Transfer-Encoding": "chunked" }),
    follow: Buffer.from("5\r\nhello\r\n0\r\n\r\n"),
  }],
  "a token that is wrong": [401, "/public?access_token=bad"],
  "a token that is wrong, in the subprotocol": [401, "/handshake", headers({ "Sec-WebSocket-Protocol": "bearer.bad" })],
  "a token that has expired": [401, "/strict?access_token=ann:-5"],
  "two tokens": [401, "/strict?access_token=ann&access_token=ben"],
  "no token in strict mode": [401, "/strict"],
  "too many tokens that were wrong": [[401, 429], "/failing?access_token=bad"],
  "a foreign origin": [403, "/public", headers({ Origin: "https://evil.example" })],
  "an origin that is none": [403, "/public", headers({ Origin: "null" })],
  "authenticate that throws": [503, "/strict?access_token=throw"],
  "authenticate that returns what is no state": [503, "/strict?access_token=rubbish"],
  "a controller that is closed": [503, "/closed"],
  "a server that cannot upgrade": [501, "/nowhere"],
};

/** What is not for a WebSocket route, or does not come so far. */
const ELSEWHERE: Record<string, Refusal> = {
  "a path that nobody has": [404, "/unknown"],
  "a path that nobody has, and another protocol": [404, "/unknown", headers({ Upgrade: "x" })],
  "a middleware that answers": [403, "/guarded"],
  "a middleware that throws": [500, "/thrown-before"],
};

const PLAIN: Record<string, Plain> = {
  "a page": ["plain page", "/"],
  "a page, and another protocol": ["plain page", "/", headers({ Upgrade: "h2c" })],
  "a POST with a body that asks for HTTP/2": ["hello", "/posted", {
    method: "POST",
    headers: {
      Connection: "Upgrade, HTTP2-Settings",
      Upgrade: "h2c",
      "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA",
      "Content-Length": "5",
    },
    follow: Buffer.from("hello"),
  }],
};

/** Fails for another status. */
export const statusOf = (wire: Wire, statuses: number | number[]): void => {
  const { status, body } = wire.answer;
  assert.ok([statuses].flat().includes(status), `It was answered ${status} ${body} instead of ${statuses}`);
};

const refused = ([statuses, path, options]: Refusal): Ending =>
  async function* (clients) {
    const wire = await clients.ask(path, options);
    statusOf(wire, statuses);
    await clients.leave(wire);
  };

const plain = ([body, path, options]: Plain): Ending =>
  async function* (clients) {
    const wire = await clients.ask(path, options);
    assert.deepEqual([wire.answer.status, wire.answer.body], [200, body]);
    await clients.leave(wire);
  };

/** Opens a connection, is answered, so that it is admitted, and ends it. */
const admitted = (end: (wire: Wire, clients: Clients) => unknown, path = "/public?access_token=ann"): Ending =>
  async function* (clients) {
    const wire = await clients.open(path);
    assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    await end(wire, clients);
  };

const closedWith = (code: number, path: string, message?: unknown): Ending =>
  async function* (clients) {
    const wire = await clients.open(path);
    if (message !== undefined) wire.send(message);
    assert.equal((await wire.closed).code, code);
  };

/** Leaves while the application holds the upgrade up. */
const leavesMeanwhile = (path: string, end: (wire: Wire, clients: Clients) => unknown, after?: Stage): Ending =>
  async function* (clients) {
    const wire = clients.begin(path);
    yield "stalled";
    end(wire, clients);
    if (after) yield after;
  };

/** Is answered, some way, after the application has held the upgrade up; on some runtimes the 101 has left before. */
const answeredAnyhow = (path: string, stalls = false): Ending =>
  async function* (clients) {
    const wire = clients.begin(path);
    if (stalls) yield "stalled";
    await wire.answered;
    clients.reset(wire);
  };

const reset = (wire: Wire, clients: Clients): void => clients.reset(wire);
const end = (wire: Wire): void => void wire.socket.end();

/** Is refused with this status because of a connection that is open. */
const besides = (statuses: number[], path: (number: number) => string): Ending =>
  async function* (clients) {
    const target = path(clients.next());
    const from = { headers: { "X-From": `192.168.${clients.next() >> 8 & 255}.${clients.next() & 255}` } };
    const first = await clients.ask(target, from);
    const second = await clients.ask(target, from);
    statusOf(second, statuses);
    await clients.leave(second);
    clients.reset(first);
  };

/** Bytes that are no finished request; the client waits for nothing. */
const unfinished = (bytes: string, end: (wire: Wire, clients: Clients) => unknown): Ending =>
  async function* (clients) {
    const wire = clients.raw(bytes);
    await once(wire.socket, "connect");
    end(wire, clients);
  };

/** Bytes that are no request: an answer or none, and the end. */
const malformed = (bytes: string): Ending =>
  async function* (clients) {
    const wire = clients.raw(bytes);
    await wire.answered;
    clients.reset(wire);
  };

const HEAD = "GET /public HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

/** Longer than the 69 bytes that its second byte says when it is read as a frame. */
const SECOND = Buffer.from(`GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ${"x".repeat(100)}\r\n\r\n`);

/** The first bytes of an answer have come. */
const streaming = (upgrade: string): Ending =>
  async function* (clients) {
    const wire = clients.begin("/stream", { headers: { Upgrade: upgrade } });
    await once(wire.socket, "data");
    clients.reset(wire);
  };

/** By what happened. */
export const ENDINGS: Record<string, Ending> = {
  ...Object.fromEntries(Object.entries({ ...REFUSALS, ...ELSEWHERE }).map(([name, refusal]) => [name, refused(refusal)])),
  ...Object.fromEntries(Object.entries(PLAIN).map(([name, page]) => [name, plain(page)])),

  // It became a WebSocket.
  "a clean close": admitted((wire) => wire.close(1000)),
  "a clean close of an anonymous client": admitted((wire) => wire.close(), "/public"),
  async *"a clean close before anything was sent"(clients) {
    await (await clients.open("/handshake")).close(1000);
  },
  "a reset": admitted(reset),
  async *"a reset at once"(clients) {
    clients.reset(await clients.open("/public?access_token=ann"));
  },
  async *"a reset while pending"(clients) {
    clients.reset(await clients.open("/handshake"));
  },
  "a reset with a request under way": admitted((wire, clients) => {
    wire.send({ type: "never" });
    clients.reset(wire);
  }),
  "a reset after a handler that throws": admitted(async (wire, clients) => {
    assert.equal((await wire.ask({ type: "throw" })).status, "error");
    clients.reset(wire);
  }),
  "a FIN": admitted(end),
  async *"a FIN while pending"(clients) {
    end(await clients.open("/handshake"));
  },
  async *"frames before the answer, and a clean close"(clients) {
    const wire = await clients.open("/public", { follow: frames({ type: "ping" }) });
    assert.equal((await wire.next()).type, "pong");
    await wire.close(1000);
  },
  async *"a close frame before the answer"(clients) {
    const wire = await clients.open("/public", { follow: frame(8, Buffer.from([0x03, 0xe8])) });
    assert.equal((await wire.closed).code, 1000);
  },
  async *"a second request before the answer"(clients) {
    const wire = await clients.open("/public", { follow: SECOND });
    await wire.closed; // As a frame it breaks the protocol.
  },
  async *"a second request before a refusal"(clients) {
    const wire = await clients.ask("/strict", { follow: SECOND });
    assert.equal(wire.answer.status, 401);
    clients.reset(wire);
  },
  "a wrong auth message": closedWith(4401, "/handshake", { type: "auth", access_token: "bad" }),
  "a first message that is not auth": closedWith(4401, "/handshake", { type: "ping" }),
  "a first message that is not JSON": closedWith(4401, "/handshake", "{"),
  "a message that is too big": closedWith(1009, "/public", "x".repeat(70_000)),
  "a close inside a connect listener": closedWith(4001, "/public?close=connect"),
  "a close inside a handler": closedWith(4002, "/public?access_token=ann", { type: "leave" }),
  async *"a disconnection"(clients) {
    const wire = await clients.open("/strict?access_token=doomed");
    yield "disconnected";
    assert.equal((await wire.closed).code, 4403);
  },
  async *"no authentication in time"(clients) {
    const wire = await clients.open("/handshake");
    yield "passed";
    assert.equal((await wire.closed).code, 4408);
  },
  async *"a token that expires"(clients) {
    const wire = await clients.open("/strict?access_token=ann:5");
    assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    yield "passed";
    assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
    assert.equal((await wire.closed).code, 4401);
  },
  async *"a token of a message that expires"(clients) {
    const wire = await clients.open("/handshake");
    assert.equal((await wire.ask({ type: "auth", access_token: "ann:5" })).status, "ok");
    yield "passed";
    assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
    assert.equal((await wire.closed).code, 4401);
  },
  async *"a close that is never answered"(clients) {
    const wire = clients.begin("/public?close=connect");
    wire.answersClose = false;
    await wire.answered;
    await wire.askedToClose(); // The 101 may leave before the server has seen the socket open.
    yield "passed";
  },

  // It is refused while the application holds it up, or its client leaves meanwhile.
  async *"a disconnection while authenticate runs"(clients) {
    const wire = clients.begin("/strict?access_token=slow-doomed");
    yield "stalled";
    yield "disconnected";
    yield "released";
    await wire.answered;
    assert.equal(wire.answer.status, 403);
    await clients.leave(wire);
  },
  async *"authenticate that rejects late"(clients) {
    const wire = clients.begin("/strict?access_token=slow-throw");
    yield "stalled";
    yield "released";
    await wire.answered;
    assert.equal(wire.answer.status, 503);
    await clients.leave(wire);
  },
  async *"authenticate that hangs"(clients) {
    const wire = clients.begin("/strict?access_token=hang");
    yield "stalled";
    yield "passed";
    await wire.answered;
    assert.equal(wire.answer.status, 503);
    await clients.leave(wire);
  },
  "a reset while authenticate hangs": leavesMeanwhile("/strict?access_token=hang", reset, "passed"),
  "a reset while authenticate runs": leavesMeanwhile("/strict?access_token=slow", reset),
  "a FIN while authenticate runs": leavesMeanwhile("/strict?access_token=slow", end),
  "a reset while a rejected authenticate runs": leavesMeanwhile("/strict?access_token=slow-throw", reset),
  "a reset while a middleware runs before the route": leavesMeanwhile("/stalled-before", reset),
  "a FIN while a middleware runs before the route": leavesMeanwhile("/stalled-before", end),
  "a reset while a middleware runs after the route": leavesMeanwhile("/stalled-after", reset),
  "a FIN while a middleware runs after the route": leavesMeanwhile("/stalled-after", end),
  async *"a timeout while authenticate runs"(clients) {
    const wire = clients.begin("/timed-out?access_token=slow");
    yield "stalled";
    await wire.answered;
    assert.equal(wire.answer.status, 504);
    await clients.leave(wire);
  },
  "a timeout while a middleware runs after the route": answeredAnyhow("/timed-out-after", true),
  "a throw after the route": answeredAnyhow("/thrown-after"),
  "a response that is replaced after the route": answeredAnyhow("/replaced"),

  // Limits.
  "too many connections of an address": besides([429], () => "/perip"),
  "too many connections of a user": besides([429], (number) => `/peruser?access_token=user-${number}`),
  "too many connections": besides([101, 503], () => "/full"), // Others hold the only place perhaps, and leave it.

  // It is no upgrade.
  "an endless answer to an upgrade, and a reset": streaming("websocket"),
  "an endless answer to another upgrade, and a reset": streaming("x"),
  async *"a body that comes slowly"(clients) {
    const wire = clients.begin("/posted", { method: "POST", headers: { "Content-Length": "10" }, follow: Buffer.from("01234") });
    await once(wire.socket, "connect");
    await new Promise((resolve) => setImmediate(resolve));
    wire.write(Buffer.from("56789"));
    await wire.answered;
    assert.deepEqual([wire.answer.status, wire.answer.body], [200, "0123456789"]);
    await clients.leave(wire);
  },
  async *"a body that never ends, and a reset"(clients) {
    const wire = clients.begin("/posted", { method: "POST", headers: { "Content-Length": "10" }, follow: Buffer.from("01234") });
    await once(wire.socket, "connect");
    clients.reset(wire);
  },
  "a request that is never finished, and a reset": unfinished(HEAD, reset),
  "a request that is never finished, and a FIN": unfinished(HEAD, end),
  "a connection that sends nothing, and a reset": unfinished("", reset),
  "a target that is no URL": malformed(`GET http://[::bad/public HTTP/1.1\r\n${HEAD.split("\r\n").slice(1).join("\r\n")}\r\n`),
  "a Host that is no host": malformed(HEAD.replace("127.0.0.1", "a b[") + "\r\n"),
  "a method that is none": malformed(HEAD.replace("GET", "G\x01T") + "\r\n"),
  "headers that are too large": malformed(`${HEAD}X-Large: ${"x".repeat(40_000)}\r\n\r\n`),
  // workerd waits for more of it.
  "a TLS handshake, and a reset": unfinished("\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + "\x00".repeat(160), reset),
};
