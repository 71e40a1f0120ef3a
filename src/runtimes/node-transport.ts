/** Writes to WebSockets on Node, and on Deno over `node:http`. */
import type { Duplex } from "node:stream";
// @ts-types="npm:@types/ws@^8.18.2"
import type { WebSocket } from "ws";
import { type ClientBatch, WriteQueue } from "../delivery/write-queue.ts";
import type { Connection } from "../connection/connection.ts";
import { ABNORMAL, CloseCode } from "../protocol/close.ts";
import { type Frame, SuffixedFrame } from "../protocol/frame.ts";
import { DRAINED_BYTES, OPEN } from "../delivery/transport.ts";
import type { Acceptance } from "./runtime.ts";
import { StandardTransport } from "./standard.ts";

// Not imported, so that a bundle for a Worker starts without the module.
// deno-lint-ignore no-process-global -- as above
const { Socket: NetSocket } = process.getBuiltinModule("node:net");

const queue = new WriteQueue();

/** A socket of ws with its transport and its connection. */
export interface LinkedWebSocket extends WebSocket {
  transport: NodeTransport | undefined;
  connection: Connection | undefined;
}

/** Shared by all sockets, which have no extensions. ws makes an object of 56 bytes for each. */
const NO_EXTENSIONS = Object.freeze({});

/** Creates the class of {@link LinkedWebSocket}. It overrides `emit`, because five listeners take 340 bytes for each socket. */
export function linked(Base: typeof WebSocket): typeof WebSocket {
  return class extends Base implements LinkedWebSocket {
    transport: NodeTransport | undefined;
    connection: Connection | undefined;
    /** Node creates the listeners' object with the first listener. An empty one takes 184 bytes. */
    _events = undefined;
    _extensions: object = NO_EXTENSIONS;

    override close(code?: number, reason?: string | Buffer): void {
      this.transport?.beforeClose();
      super.close(code, reason);
    }

    /** Passes an event of ws to the connection, and then to the listeners of the application. */
    override emit(event: string | symbol, first?: unknown, second?: unknown): boolean {
      notify(this, event, first, second);
      // Without a listener, an `error` would be thrown.
      return (event !== "error" || super.listenerCount("error") > 0) && super.emit(event, first, second);
    }
  };
}

/** Fields of a Node stream that say how much of a write is not sent yet. */
interface WritingStream {
  readonly _handle?: { readonly writeQueueSize?: number } | null;
  readonly _writableState?: { readonly writelen?: number };
}

/** Maximum size of frames that are joined in one buffer, in bytes. Larger batches are corked and sent with one writev. */
const MAX_JOINED_BYTES = 65_536;

/** A ping without a payload (RFC 6455 §5.5.2). */
const PING = Buffer.from([0x89, 0]);

/** Time until an ended socket is destroyed if the peer keeps its side open, in ms. */
export const LINGER = 1_000;

/** Maximum size of a frame header, in bytes. */
const MAX_HEADER_BYTES = 10;

/** Reused buffer for the frames of a single client. Absent after a socket has kept it to write later. */
let scratch: Buffer | undefined;

/** Small, because a socket that cannot write retains the buffer. */
const SCRATCH_BYTES = 16_384;

/**
 * Reads through ws, but writes data frames directly to the stream, each encoded once for all recipients. The order is kept:
 * without compression ws delays none of its own frames, and everything is written before its close frame.
 */
class NodeTransport extends StandardTransport<LinkedWebSocket> {
  readonly #stream: Duplex;
  /** Bytes buffered by ws and the stream, without the turn's frames; negative: not read in this turn. */
  #buffered = -1;
  /** Whether the stream buffered less than its high-water mark after the last write, with no close since. */
  #isDrained = false;
  /** Whether this side began the close. Then the connection's `closeTimeout` limits it. */
  #isClosing = false;
  ponged?: (number: number | undefined) => void;

  constructor(socket: LinkedWebSocket, stream: Duplex) {
    super(socket, null); // No arrays of messages: frames are joined in `write`.
    this.#stream = stream;
  }

  /** Called before ws writes its close frame. Writes the frames of this turn first. */
  beforeClose(): void {
    this.write();
    this.#isDrained = false;
    // After the peer's close frame, or an unreadable frame, ws waits 30 s for the peer to end its side.
    if (!this.#isClosing) this.#linger();
  }

  #linger(): void {
    const { socket } = this;
    const timer = setTimeout(() => socket.terminate(), LINGER);
    socket.once("close", () => clearTimeout(timer));
  }

  override get readyState(): number {
    // Checked again when the batch is written. A socket that breaks without a close frame emits `close`.
    return this.batch || this.#isDrained ? OPEN : this.socket.readyState;
  }

  override get bufferedAmount(): number {
    if (!this.batch) return this.#waiting;
    if (this.#buffered < 0) this.#buffered = this.#waiting;
    return this.#buffered + this.batch.bytes;
  }

  /**
   * Bytes buffered by ws and the stream. The stream counts a write as a whole until its last byte is sent; the handle knows how
   * much of it is left.
   */
  get #waiting(): number {
    const { bufferedAmount } = this.socket;
    if (bufferedAmount <= DRAINED_BYTES) return bufferedAmount;
    const { _handle: handle, _writableState: state } = this.#stream as Duplex & WritingStream; // Fields of Node's streams; Deno's lack them.
    const writing = state?.writelen ?? 0;
    const left = handle?.writeQueueSize ?? 0;
    return left > 0 && left < writing ? bufferedAmount - writing + left : bufferedAmount;
  }

  get isDrained(): boolean {
    return this.#isDrained && !this.batch;
  }

  override send(frame: Frame): boolean {
    if (!this.batch) this.#buffered = -1;
    queue.push(this, frame);
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

  /** Writes frames that only this client receives, and caches none of them. */
  #writeOnce(batch: ClientBatch, size: number): void {
    const stream = this.#stream;
    // A plain socket with an empty queue has passed its bytes to the kernel, so the scratch buffer is free again.
    const isPlain = stream.writableLength === 0 && stream.constructor === NetSocket as unknown; // The cast avoids narrowing.
    const target = isPlain ? scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES) : Buffer.allocUnsafe(size);
    let end = 0;
    for (const frame of batch.frames()) end = put(frame, target, end);
    this.#put(target.subarray(0, end));
    if (isPlain && stream.writableLength > 0) scratch = undefined;
  }

  #put(bytes: Uint8Array): void {
    const stream = this.#stream;
    // An application may create its server with a higher mark.
    this.#isDrained = stream.write(bytes) && stream.writableHighWaterMark <= DRAINED_BYTES;
  }

  ping(number?: number): void {
    if (this.socket.readyState === OPEN) this.#put(number === undefined ? PING : Buffer.from([0x89, 1, number]));
  }

  // ws still emits the messages that it has read already, at most 64 KiB.
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

/** Encodes a frame, and caches the result. */
function bytesOf(frame: Frame): Uint8Array {
  if (frame.encoded) return frame.encoded;
  const bytes = Buffer.allocUnsafe(headerBytes(frame.bytes) + frame.bytes);
  put(frame, bytes, 0);
  return frame.encoded = bytes;
}

const headerBytes = (length: number): number => length < 126 ? 2 : length < 65_536 ? 4 : 10;

/** Writes a final, unmasked text frame with the shortest length field (RFC 6455 §5.2). Returns the offset of its end. */
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
  if (!(frame instanceof SuffixedFrame)) return at + target.write(frame.text, at);
  const { base, suffix } = frame;
  const bytes = bytesOf(base);
  const beginning = bytes.subarray(headerBytes(base.bytes), -1);
  target.set(beginning, at);
  return at + beginning.length + target.write(suffix, at + beginning.length);
}

/** Error codes of ws for a message over `maxPayload`, and for one beyond 2⁵³ bytes. */
const TOO_BIG: ReadonlySet<string> = new Set([
  "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH",
  "WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH",
]);

/** Starts the connection of an upgraded socket. */
export function attach(ws: LinkedWebSocket, stream: Duplex, { open }: Acceptance): void {
  ws.transport = new NodeTransport(ws, stream);
  ws.connection = open(ws.transport);
}

/** Passes an event of ws to the connection. The arguments have the types that ws documents. */
function notify({ connection, transport }: LinkedWebSocket, event: string | symbol, first: unknown, second: unknown): void {
  if (!connection) return;
  if (event === "message") connection.message(second ? first as Buffer : (first as Buffer).toString());
  else if (event === "ping") connection.heard();
  else if (event === "pong") {
    connection.heard();
    transport?.ponged?.((first as Buffer)[0]);
  } else if (event === "error") {
    // ws has already closed with 1009. This sets the cause. Any other error is of the network or the peer, and a close event
    // follows.
    const { code } = first as Error & { code?: string };
    if (code && TOO_BIG.has(code)) connection.close(CloseCode.MESSAGE_TOO_BIG, "Message too big", "payload");
  } else if (event === "close") connection.closed(first as number, (second as Buffer).toString(), first !== ABNORMAL);
}
