/** What is written to a WebSocket on Node, and on Deno behind `node:http`. */
import { Socket as NetSocket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocket } from "ws";
import type { ClientBatch } from "../batch.ts";
import { ABNORMAL, CloseCode } from "../close.ts";
import { EndedFrame, type Frame } from "../frame.ts";
import { Outbox } from "../outbox.ts";
import { DRAINED_BYTES, OPEN } from "../transport.ts";
import type { Acceptance } from "./runtime.ts";
import { StandardTransport } from "./standard.ts";

const outbox = new Outbox();

/** A socket of ws that tells before it answers a close frame: what waits for the end of the turn must go out first. */
export class FlushingWebSocket extends WebSocket {
  beforeClose: (() => void) | undefined;

  override close(code?: number, reason?: string | Buffer): void {
    this.beforeClose?.();
    super.close(code, reason);
  }
}

/** What a stream of Node's says of the write that is under way. */
interface WritingStream {
  readonly _handle?: { readonly writeQueueSize?: number } | null;
  readonly _writableState?: { readonly writelen?: number };
}

/** Beyond this many bytes frames are not copied into one buffer but written one by one, which the kernel gathers (writev). */
const MAX_JOINED_BYTES = 65_536;

/** A ping without a payload (RFC 6455 §5.5.2). */
const PING = Buffer.from([0x89, 0]);

/** How long a socket stays after the last that is written to it, when the peer keeps its side open, in ms. */
export const LINGER = 1_000;

/** The longest header of a frame. */
const MAX_HEADER_BYTES = 10;

/** Where what one client alone is sent is put together. Absent while the last one belongs to a socket that has not written all of it. */
let scratch: Buffer | undefined;

/** Small, for it is held by a socket that cannot write. */
const SCRATCH_BYTES = 16_384;

/**
 * ws reads; data frames are written past it, each made once for all its recipients. They keep their order with what ws writes by itself:
 * it has no compression that would make it wait, and before its close frame all is written.
 */
class NodeTransport extends StandardTransport<FlushingWebSocket> {
  readonly #stream: Duplex;
  /** What ws and the stream hold beside the turn's frames; negative until somebody asks. */
  #buffered = -1;
  /** The last write left less than the stream's high-water mark, and no close has begun since. */
  #isDrained = false;
  /** We have begun the close: the connection's own `closeTimeout` ends it. */
  #isClosing = false;
  ponged?: (number: number | undefined) => void;

  constructor(socket: FlushingWebSocket, stream: Duplex) {
    super(socket, null); // Merged below the frames, arrays would gain nothing.
    this.#stream = stream;
    socket.beforeClose = () => {
      this.write();
      this.#isDrained = false;
      // ws answers the peer's close frame, or a frame that it cannot read, and would then wait 30 s for the peer to end its side.
      if (!this.#isClosing) this.#linger();
    };
  }

  #linger(): void {
    const { socket } = this;
    const timer = setTimeout(() => socket.terminate(), LINGER);
    socket.once("close", () => clearTimeout(timer));
  }

  override get readyState(): number {
    // Looked at again when the turn's frames are written. Of a socket that breaks without a close frame its `close` event tells.
    return this.batch || this.#isDrained ? OPEN : this.socket.readyState;
  }

  override get bufferedAmount(): number {
    if (!this.batch) return this.#waiting;
    if (this.#buffered < 0) this.#buffered = this.#waiting;
    return this.#buffered + this.batch.bytes;
  }

  /** What ws and the stream hold. A write counts whole until its last byte has left: the handle knows how much of it has not. */
  get #waiting(): number {
    const { bufferedAmount } = this.socket;
    if (bufferedAmount <= DRAINED_BYTES) return bufferedAmount;
    const { _handle: handle, _writableState: state } = this.#stream as Duplex & WritingStream; // Node's own; Deno tells nothing of it.
    const writing = state?.writelen ?? 0;
    const left = handle?.writeQueueSize ?? 0;
    return left > 0 && left < writing ? bufferedAmount - writing + left : bufferedAmount;
  }

  get isDrained(): boolean {
    return this.#isDrained && !this.batch;
  }

  override send(frame: Frame): boolean {
    if (!this.batch) this.#buffered = -1;
    outbox.push(this, frame);
    return true;
  }

  override write(): void {
    const { batch } = this;
    if (!batch) return;
    this.batch = undefined;
    this.#isDrained = false;
    if (this.socket.readyState !== OPEN) return;
    const stream = this.#stream;
    const size = batch.bytes + batch.count * MAX_HEADER_BYTES;
    if (!batch.isShared && size <= SCRATCH_BYTES) return this.#writeOnce(batch, size);
    if (batch.count === 1) this.#put(bytesOf(batch.last!));
    else if (batch.bytes <= MAX_JOINED_BYTES) {
      const encode = () => Buffer.concat(batch.frames().map(bytesOf));
      this.#put(batch.isShared ? batch.encoded ??= encode() : encode());
    } else {
      stream.cork();
      for (const frame of batch.frames()) this.#put(bytesOf(frame));
      stream.uncork();
    }
  }

  /** Writes what only this client is sent: nothing of it is kept. */
  #writeOnce(batch: ClientBatch, size: number): void {
    const stream = this.#stream;
    // The platform's own sockets have left the bytes to the kernel by the time they have none waiting.
    const isPlain = stream.writableLength === 0 && stream.constructor === NetSocket as unknown; // Or TypeScript takes it for no Duplex.
    const target = isPlain ? scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES) : Buffer.allocUnsafe(size);
    let end = 0;
    for (const frame of batch.frames()) end = put(frame, target, end);
    this.#put(target.subarray(0, end));
    if (isPlain && stream.writableLength > 0) scratch = undefined;
  }

  #put(bytes: Uint8Array): void {
    const stream = this.#stream;
    // A server may have been made with a higher mark.
    this.#isDrained = stream.write(bytes) && stream.writableHighWaterMark <= DRAINED_BYTES;
  }

  ping(number?: number): void {
    if (this.socket.readyState === OPEN) this.#put(number === undefined ? PING : Buffer.from([0x89, 1, number]));
  }

  // ws hands over what it had read already, at most 64 KiB of it.
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    if (this.socket.isPaused) this.socket.resume();
  }

  get isPaused(): boolean {
    return this.socket.isPaused;
  }

  override close(code: number, reason: string): void {
    this.#isClosing = true;
    super.close(code, reason);
  }

  override terminate(): void {
    this.#isDrained = false;
    this.socket.terminate();
  }
}

/** The frame on the wire. */
function bytesOf(frame: Frame): Uint8Array {
  if (frame.encoded) return frame.encoded;
  const bytes = Buffer.allocUnsafe(headerBytes(frame.bytes) + frame.bytes);
  put(frame, bytes, 0);
  return frame.encoded = bytes;
}

const headerBytes = (length: number): number => length < 126 ? 2 : length < 65_536 ? 4 : 10;

/** Puts the frame there, whole, unmasked text with the shortest length (RFC 6455 §5.2); returns where it ends. */
function put(frame: Frame, target: Buffer, start: number): number {
  const length = frame.bytes;
  const at = start + headerBytes(length);
  target[start] = 0x81;
  if (length < 126) target[start + 1] = length;
  else if (length < 65_536) {
    target[start + 1] = 126;
    target.writeUInt16BE(length, start + 2);
  } else {
    target[start + 1] = 127;
    target.writeBigUInt64BE(BigInt(length), start + 2);
  }
  if (!(frame instanceof EndedFrame)) return at + target.write(frame.text, at);
  const { base, end } = frame;
  const bytes = bytesOf(base);
  const beginning = bytes.subarray(headerBytes(base.bytes), -1);
  target.set(beginning, at);
  return at + beginning.length + target.write(end, at + beginning.length);
}

/** How ws names a message over `maxPayload`, and one whose length is past 2⁵³. */
const TOO_BIG: ReadonlySet<string> = new Set([
  "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH",
  "WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH",
]);

/** Starts the connection over a socket that was upgraded. */
export function attach(ws: FlushingWebSocket, stream: Duplex, { open }: Acceptance): void {
  const transport = new NodeTransport(ws, stream);
  const connection = open(transport);
  ws.on("message", (data: Buffer, isBinary: boolean) => connection.message(isBinary ? data : data.toString()));
  ws.on("ping", () => connection.heard());
  ws.on("pong", (data: Buffer) => {
    connection.heard();
    transport.ponged?.(data[0]);
  });
  ws.on("error", ({ code }: Error & { code?: string }) => {
    // ws has closed with 1009 by itself; this tells the connection why. Whatever else fails is the network's or the peer's doing,
    // and ends in a close like an abrupt end.
    if (code && TOO_BIG.has(code)) connection.close(CloseCode.MESSAGE_TOO_BIG, "Message too big", "payload");
  });
  ws.on("close", (code: number, reason: Buffer) => {
    connection.closed(code, reason.toString(), code !== ABNORMAL);
  });
}
