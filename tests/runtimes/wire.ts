import { createHash, randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** A frame as it came over the wire. */
export interface Frame {
  opcode: number;
  payload: Buffer;
}

/** How a connection ended: `code` 1006 when no close frame came. */
export interface Closed {
  code: number;
  reason: string;
}

/** What a server answered to a request. */
export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** How the TCP connection is made. */
export interface ConnectOptions {
  /** The address of the server. @default {"127.0.0.1"} */
  hostname?: string;
  /** Speaks TLS, with whatever certificate the server has. */
  tls?: boolean;
  /** Keeps its own side open when the server has ended the other. */
  staysOpen?: boolean;
}

/** Options of a handshake. */
export interface HandshakeOptions extends ConnectOptions {
  headers?: Record<string, string | undefined>;
  method?: string;
  /** Written in the same segment as the request. */
  follow?: Buffer;
}

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 §1.3

/**
 * A WebSocket client over a bare TCP socket, so that a test decides about every byte: it does what RFC 6455 says of a client
 * and nothing else, and everything can be left out or done wrong.
 */
export class Wire {
  readonly socket: Socket;
  /** Resolves when the closing handshake is done, or the TCP connection ended without one. */
  readonly closed: Promise<Closed>;
  /** Resolves when the server has ended the TCP connection. */
  readonly ended: Promise<void>;
  /** The answer to the handshake. */
  answer: Answer = { status: 0, headers: {}, body: "" };
  answered: Promise<void> = Promise.resolve();
  /** Whether a close frame is answered, as a client must. */
  answersClose = true;
  /** Whether a protocol ping is answered, as a client must. */
  answersPing = true;
  /** Protocol pings the server sent. */
  pings = 0;
  /** Protocol pongs the server sent. */
  readonly pongs: Buffer[] = [];

  #buffer = Buffer.alloc(0);
  /** What has come after {@link #buffer}, until it has all of the next frame. */
  #more: Buffer[] = [];
  #moreBytes = 0;
  /** The bytes of the next frame, as far as they are known. */
  #needed = 0;
  #upgraded = false;
  #messages: string[] = [];
  #waiting: ((message: string | null) => void)[] = [];
  #onAnswer: (() => void) | undefined;
  #close: Closed = { code: 1006, reason: "" };
  #watchers: { condition: () => boolean; resolve: () => void }[] = [];
  #over = false;
  #closing = false;
  #isAskedToClose = false;
  #onClose: () => void = () => {};

  static readonly #open = new Set<Wire>();
  /** The last messages, for the error of a test that hangs. */
  readonly #last: string[] = [];
  readonly #path: string;

  private constructor(socket: Socket, path = "") {
    this.socket = socket;
    this.#path = path;
    Wire.#open.add(this);
    socket.on("close", () => Wire.#open.delete(this));
    this.ended = new Promise((resolve) => socket.on("end", resolve));
    this.closed = new Promise((resolve) => {
      this.#onClose = () => {
        this.#over = true;
        for (const wake of this.#waiting.splice(0)) wake(null);
        resolve(this.#close);
      };
      socket.on("close", () => {
        this.#onAnswer?.();
        this.#onClose();
      });
    });
    socket.on("error", () => {}); // "close" follows, and that is what is waited for.
    socket.on("data", (data: Buffer) => {
      this.#more.push(data);
      this.#moreBytes += data.length;
      if (this.#buffer.length + this.#moreBytes < this.#needed) return;
      this.#buffer = Buffer.concat([this.#buffer, ...this.#more]);
      this.#more = [];
      this.#moreBytes = 0;
      this.#read();
    });
  }

  /** Sends the request and resolves with its answer, whatever it is. */
  static async request(port: number, path: string, options: HandshakeOptions = {}): Promise<Wire> {
    const wire = Wire.begin(port, path, options);
    await wire.answered;
    return wire;
  }

  /** Sends the request; {@link answered} resolves once its answer is there. */
  static begin(port: number, path: string, options: HandshakeOptions = {}): Wire {
    const socket = connectTo(port, options);
    const wire = new Wire(socket, path);
    const key = randomBytes(16).toString("base64");
    const headers: Record<string, string | undefined> = {
      Host: `127.0.0.1:${port}`,
      Upgrade: "websocket",
      Connection: "Upgrade",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": key,
      ...options.headers,
    };
    const lines = Object.entries(headers).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}: ${value}`);
    const head = [`${options.method ?? "GET"} ${path} HTTP/1.1`, ...lines, "", ""].join("\r\n");
    socket.write(Buffer.concat([Buffer.from(head), options.follow ?? Buffer.alloc(0)]));
    const accept = createHash("sha1").update(headers["Sec-WebSocket-Key"] + GUID).digest("base64");
    wire.answered = new Promise<void>((resolve) => wire.#onAnswer = resolve).then(() => {
      if (wire.answer.status === 101 && wire.answer.headers["sec-websocket-accept"] !== accept) {
        throw new Error("The server's Sec-WebSocket-Accept is wrong");
      }
    });
    return wire;
  }

  /** Writes the bytes as they are; {@link answered} resolves once an answer is there, or the connection ended without one. */
  static raw(port: number, bytes: Buffer, options: ConnectOptions = {}): Wire {
    const wire = new Wire(connectTo(port, options));
    wire.answered = new Promise((resolve) => wire.#onAnswer = resolve);
    wire.write(bytes);
    return wire;
  }

  /** Ends what a test left open, with a reset. */
  static resetAll(): void {
    for (const { socket } of Wire.#open) reset(socket);
  }

  /** What the open connections have seen, for the error of a test that hangs. */
  static seen(): object[] {
    return Array.from(Wire.#open, (wire) => ({
      path: wire.#path,
      answer: wire.answer.status,
      unread: wire.#messages.length,
      last: wire.#last,
      close: wire.#over ? wire.#close : "none",
      pings: wire.pings,
      pongs: wire.pongs.length,
    }));
  }

  /** Opens a connection, or throws with the answer. */
  static async open(port: number, path: string, options: HandshakeOptions = {}): Promise<Wire> {
    const wire = await Wire.request(port, path, options);
    if (wire.answer.status !== 101) throw new Error(`The server answered ${wire.answer.status} ${wire.answer.body}`);
    return wire;
  }

  /** A message as JSON, a string as it is. */
  send(message: unknown): void {
    this.socket.write(frame(1, typeof message === "string" ? message : JSON.stringify(message)));
  }

  write(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** The next text message, `null` once the connection ended. */
  text(): Promise<string | null> {
    const message = this.#messages.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#over) return Promise.resolve(null);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** The next message, parsed. */
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  async next(): Promise<any> {
    const text = await this.text();
    return text === null ? null : JSON.parse(text);
  }

  /** Sends a message and resolves with the next one that comes. */
  // deno-lint-ignore no-explicit-any -- as above
  ask(message: unknown): Promise<any> {
    this.send(message);
    return this.next();
  }

  /** Starts the close handshake and resolves with the server's answer. */
  close(code?: number, reason = ""): Promise<Closed> {
    this.#closing = true;
    this.write(frame(8, code === undefined ? Buffer.alloc(0) : closePayload(code, reason)));
    return this.closed;
  }

  /** Resolves when the server has sent so many protocol pings. */
  pinged(count: number): Promise<void> {
    return this.#until(() => this.pings >= count);
  }

  /** Resolves when the server has sent so many protocol pongs. */
  ponged(count: number): Promise<void> {
    return this.#until(() => this.pongs.length >= count);
  }

  /** Resolves when the server has sent a close frame, whether it is answered or not. */
  askedToClose(): Promise<void> {
    return this.#until(() => this.#isAskedToClose);
  }

  #until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#watchers.push({ condition, resolve });
      this.#tellControl();
    });
  }

  #tellControl(): void {
    this.#watchers = this.#watchers.filter(({ condition, resolve }) => condition() ? resolve() : true);
  }

  /** Ends the TCP connection with a reset. */
  reset(): void {
    reset(this.socket);
    // Whenever the socket says so.
    this.#onAnswer?.();
    this.#onClose();
  }

  #read(): void {
    if (!this.#upgraded && !this.#readAnswer()) return;
    for (;;) {
      this.#needed = lengthOf(this.#buffer);
      if (this.#buffer.length < this.#needed) return;
      const frame = parse(this.#buffer.subarray(0, this.#needed));
      this.#buffer = this.#buffer.subarray(this.#needed);
      this.#take(frame);
    }
  }

  #readAnswer(): boolean {
    const end = this.#buffer.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const [first = "", ...lines] = this.#buffer.subarray(0, end).toString("latin1").split("\r\n");
    const headers: Record<string, string> = {};
    for (const line of lines) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon).toLowerCase();
      const value = line.slice(colon + 1).trim();
      headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
    }
    const status = Number(first.split(" ")[1]);
    const rest = this.#buffer.subarray(end + 4);
    if (status !== 101) {
      const length = Number(headers["content-length"] ?? 0);
      if (headers["transfer-encoding"] ? rest.indexOf("0\r\n\r\n") < 0 : rest.length < length) return false;
      this.answer = { status, headers, body: headers["transfer-encoding"] ? unchunk(rest) : rest.subarray(0, length).toString() };
      this.#onAnswer?.();
      return false;
    }
    this.answer = { status, headers, body: "" };
    this.#buffer = rest;
    this.#upgraded = true;
    this.#onAnswer?.();
    return true;
  }

  #take({ opcode, payload }: Frame): void {
    if (opcode === 1) {
      this.#last.push(payload.toString("utf8", 0, 200));
      if (this.#last.length > 5) this.#last.shift();
      const wake = this.#waiting.shift();
      if (wake) wake(payload.toString());
      else this.#messages.push(payload.toString());
    } else if (opcode === 8) {
      this.#close = payload.length >= 2
        ? { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() }
        : { code: 1005, reason: "" };
      this.#isAskedToClose = true;
      this.#tellControl();
      if (!this.answersClose) return;
      if (!this.#closing) this.write(frame(8, payload));
      // The server is to end the TCP connection next (RFC 6455 §7.1.1); whether it does is looked at through `ended`.
      this.#onClose();
    } else if (opcode === 9) {
      this.pings++;
      if (this.answersPing) this.write(frame(10, payload));
      this.#tellControl();
    } else if (opcode === 10) {
      this.pongs.push(payload);
      this.#tellControl();
    }
  }
}

function connectTo(port: number, { hostname = "127.0.0.1", tls = false, staysOpen = false }: ConnectOptions): Socket {
  if (tls) return connectTls({ port, host: hostname, rejectUnauthorized: false }).setNoDelay();
  return connect({ port, host: hostname, noDelay: true, allowHalfOpen: staysOpen });
}

// resetAndDestroy spins for ever on Node 20 once the other side has ended; while this one is ending it fails, and the socket is never closed.
// TLS has none.
function reset(socket: Socket): void {
  if (socket.readableEnded || socket.writableEnded || "encrypted" in socket) socket.destroy();
  else socket.resetAndDestroy();
}

/** A masked client frame (RFC 6455 §5.2). */
export function frame(opcode: number, payload: string | Buffer, { fin = true, mask = true, rsv = 0 } = {}): Buffer {
  const data = Buffer.from(payload as Buffer); // Copied either way: it is masked in place.
  const key = randomBytes(4);
  const size = data.length < 126 ? 0 : data.length < 65536 ? 2 : 8;
  const head = Buffer.alloc(2 + size);
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (mask ? 0x80 : 0) | (size === 0 ? data.length : size === 2 ? 126 : 127);
  if (size === 2) head.writeUInt16BE(data.length, 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(data.length), 2);
  if (!mask) return Buffer.concat([head, data]);
  applyMask(data, key);
  return Buffer.concat([head, key, data]);
}

/** Masks the data in place, four bytes at a time as far as that goes. */
function applyMask(data: Buffer, key: Buffer): void {
  // A small buffer may begin anywhere in its pool.
  const count = data.byteOffset % 4 === 0 ? data.length >> 2 : 0;
  const words = new Int32Array(data.buffer, count === 0 ? 0 : data.byteOffset, count);
  const word = new Int32Array(Uint8Array.from(key).buffer)[0]!; // A key has four bytes.
  for (let i = 0; i < count; i++) words[i]! ^= word;
  for (let i = count * 4; i < data.length; i++) data[i]! ^= key[i % 4]!;
}

/** The payload of a close frame (RFC 6455 §5.5.1). */
export function closePayload(code: number, reason = ""): Buffer {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code, 0);
  payload.write(reason, 2);
  return payload;
}

/** Several messages as the bytes of one write. */
export function frames(...messages: unknown[]): Buffer {
  return Buffer.concat(
    messages.map((message) => frame(1, typeof message === "string" ? message : JSON.stringify(message))),
  );
}

/** The length of the frame that the bytes begin with, or of its head while that is not complete. */
function lengthOf(buffer: Buffer): number {
  if (buffer.length < 2) return 2;
  const head = headOf(buffer);
  if (buffer.length < head) return head;
  return head + (head === 4 ? buffer.readUInt16BE(2) : head === 10 ? Number(buffer.readBigUInt64BE(2)) : buffer[1]! & 0x7f);
}

function headOf(buffer: Buffer): number {
  const short = buffer[1]! & 0x7f;
  return short === 126 ? 4 : short === 127 ? 10 : 2;
}

function parse(whole: Buffer): Frame {
  return { opcode: whole[0]! & 0x0f, payload: whole.subarray(headOf(whole)) };
}

function unchunk(body: Buffer): string {
  let text = "";
  for (let at = 0;;) {
    const line = body.indexOf("\r\n", at);
    const size = Number.parseInt(body.subarray(at, line).toString(), 16);
    if (!(size > 0)) return text;
    text += body.subarray(line + 2, line + 2 + size).toString();
    at = line + 2 + size + 2;
  }
}
